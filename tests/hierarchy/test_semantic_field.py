"""Distilling dense features: lifting, patches and the loss, on cases with a known answer."""

import pytest
import torch

from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.lifting import render_channels
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.semantic_field import (
    SemanticFieldConfig,
    distillation_loss,
    lift_semantics,
    patch_means,
)


def wall(count: int = 16) -> Splats:
    """A wall of small opaque Gaussians at depth 2 that fills a view of 32 x 32 pixels."""
    line = (torch.arange(count) + 0.5) / count * 2 - 1
    x, y = torch.meshgrid(line, line, indexing="xy")
    means = torch.stack([x, y, torch.full_like(x, 2.0)], -1).reshape(-1, 3)
    return Splats(
        means=means,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(len(means), 1),
        log_scales=torch.full((len(means), 3), 0.06).log(),
        logit_opacities=torch.full((len(means),), 3.0),
        sh=torch.zeros(len(means), 1, 3),
    )


def front() -> Camera:
    K = torch.tensor([[32.0, 0, 16], [0, 32.0, 16], [0, 0, 1]])
    return Camera("front", torch.eye(4), K, 32, 32)


def halves(rows: int = 4) -> torch.Tensor:
    """Patches of (1, 0) on the left, (0, 1) on the right."""
    target = torch.zeros(rows, rows, 2)
    target[:, : rows // 2, 0] = 1
    target[:, rows // 2 :, 1] = 1
    return target


def test_gaussians_get_the_values_of_the_patches_they_are_seen_through():
    splats = wall()
    values = lift_semantics(splats, [front()], [halves()])
    left = splats.means[:, 0] < -0.5
    right = splats.means[:, 0] > 0.5
    assert (values[left, 0] > 0.95).all()
    assert (values[right, 1] > 0.95).all()


def test_patches_are_averaged_by_what_covers_them():
    rendered = torch.zeros(4, 4, 1)
    alpha = torch.zeros(4, 4, 1)
    rendered[0, 0], alpha[0, 0] = 3.0, 1.0  # the only covered pixel of its patch
    means, covered = patch_means(rendered, alpha, 2, 2)
    assert means[0, 0, 0] == pytest.approx(3.0)
    torch.testing.assert_close(covered, torch.tensor([[0.25, 0.0], [0.0, 0.0]]))


def test_the_loss_is_that_of_the_target_and_of_nothing():
    alpha = torch.ones(8, 8, 1)
    target = halves()
    fine = target.repeat_interleave(2, 0).repeat_interleave(2, 1)
    config = SemanticFieldConfig(dims=2)
    assert distillation_loss(fine, alpha, target, config) == pytest.approx(0.0)
    nothing = torch.zeros(8, 8, 2)
    assert distillation_loss(nothing, alpha, target, config) == pytest.approx(0.5)
    twice = SemanticFieldConfig(dims=2, weight=2.0)
    assert distillation_loss(nothing, alpha, target, twice) == pytest.approx(1.0)


def test_patches_that_are_hardly_covered_are_not_compared():
    rendered = torch.zeros(8, 8, 2, requires_grad=True)
    alpha = torch.zeros(8, 8, 1)
    loss = distillation_loss(rendered, alpha, halves(), SemanticFieldConfig(dims=2))
    assert loss == 0
    loss.backward()
    assert rendered.grad is not None


def test_training_explains_more_of_a_view_than_lifting():
    splats, camera, config = wall(), front(), SemanticFieldConfig(dims=2)
    target = halves(8)
    values = torch.nn.Parameter(lift_semantics(splats, [camera], [target]))
    optimizer = torch.optim.Adam([values], lr=0.05)
    losses = []
    for _ in range(30):
        loss = distillation_loss(*render_channels(splats, camera, values), target, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("wrong", [{"dims": 0}, {"weight": -1.0}])
def test_settings_out_of_range_are_named(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SemanticFieldConfig(**wrong)
