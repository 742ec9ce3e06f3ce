import numpy as np
import pytest
import torch

from hiersplat.hierarchy.field import HierarchyFieldConfig
from hiersplat.hierarchy.losses import (
    HierarchyLossConfig,
    agreeing_labels,
    contrast_loss,
    hierarchy_losses,
)
from hiersplat.levels import UNLABELLED, Level

FIELD = HierarchyFieldConfig()


def quilt() -> tuple[torch.Tensor, torch.Tensor]:
    """Four smalls in two parts in one whole, as 8 x 8 pixels, and an address for each small."""
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    small = (rows // 4) * 2 + columns // 4
    labels = torch.stack([small, small // 2, torch.zeros_like(small)])
    addresses = torch.zeros(4, FIELD.small_dims)
    addresses[:, 4] = torch.tensor([1.0, 1.0, -1.0, -1.0])
    addresses[:, 8] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    return labels, addresses[small]


def losses_of(rendered, labels, alpha=1.0, **settings):
    accumulation = torch.full((*rendered.shape[:2], 1), alpha)
    generator = torch.Generator().manual_seed(0)
    config = HierarchyLossConfig(**settings)
    return hierarchy_losses(rendered * alpha, accumulation, labels, FIELD, config, generator)


def test_right_addresses_cost_nothing_and_wrong_ones_much():
    labels, right = quilt()
    assert all(value < 1e-3 for value in losses_of(right, labels).values())
    wrong = torch.zeros_like(right)
    assert losses_of(wrong, labels)["hierarchy_small"] > 1.0
    assert losses_of(wrong, labels)["hierarchy_part"] > 0.5


def test_one_mask_has_nothing_to_tell_apart():
    labels, _ = quilt()
    noise = torch.randn(8, 8, 16, generator=torch.Generator().manual_seed(1))
    assert losses_of(noise, labels)["hierarchy_whole"] == 0


def test_coarser_levels_look_at_their_prefix_only():
    labels, right = quilt()
    changed = right.clone()
    changed[..., FIELD.part_dims :] = 5.0
    before, after = losses_of(right, labels), losses_of(changed, labels)
    assert torch.equal(before["hierarchy_part"], after["hierarchy_part"])
    assert after["hierarchy_small"] > before["hierarchy_small"]


def test_partly_covered_pixels_are_compared_by_what_covers_them():
    labels, right = quilt()
    full, thin = losses_of(right, labels), losses_of(right, labels, alpha=0.6)
    for name in full:
        assert torch.allclose(full[name], thin[name], atol=1e-5)


def test_unlabelled_and_uncovered_pixels_get_no_gradient():
    labels, right = quilt()
    labels[:, 0] = UNLABELLED
    accumulation = torch.ones(8, 8, 1)
    accumulation[1] = 0.1
    rendered = (0.3 * right).requires_grad_()
    config = HierarchyLossConfig()
    sum(hierarchy_losses(rendered, accumulation, labels, FIELD, config).values()).backward()
    assert rendered.grad is not None
    assert (rendered.grad[:2] == 0).all()
    assert (rendered.grad[2:] != 0).any()


def test_view_without_labels_and_weight_zero_give_no_losses():
    labels, right = quilt()
    assert losses_of(right, torch.full_like(labels, UNLABELLED)) == {}
    assert losses_of(right, labels, contrast=0.0) == {}
    assert list(losses_of(right, labels, level_weights=(0.0, 1.0, 0.0))) == ["hierarchy_part"]


def test_weights_scale_their_level():
    labels, _ = quilt()
    noise = torch.randn(8, 8, 16, generator=torch.Generator().manual_seed(1))
    once = losses_of(noise, labels)
    twice = losses_of(noise, labels, contrast=2.0, level_weights=(1.0, 0.5, 1.0))
    assert torch.allclose(twice["hierarchy_small"], 2 * once["hierarchy_small"])
    assert torch.allclose(twice["hierarchy_part"], once["hierarchy_part"])


def test_same_seed_draws_the_same_pixels():
    labels, _ = quilt()
    noise = torch.randn(8, 8, 16, generator=torch.Generator().manual_seed(1))
    first, second = (losses_of(noise, labels, pixels=20) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_descending_the_loss_sorts_pixels_into_their_masks():
    labels, right = quilt()
    features = torch.nn.Parameter(0.4 * right + 0.3 * torch.randn(right.shape))
    optimizer = torch.optim.Adam([features], lr=0.05)
    before = losses_of(features, labels)["hierarchy_small"].item()
    for _ in range(30):
        optimizer.zero_grad()
        sum(losses_of(features, labels).values()).backward()
        optimizer.step()
    assert losses_of(features, labels)["hierarchy_small"].item() < 0.2 * before


def test_contrast_weighs_masks_alike_whatever_their_size():
    values = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    labels = torch.tensor([0, 0, 0, 1])
    repeated = contrast_loss(
        values.repeat_interleave(torch.tensor([5, 5, 5, 1]), 0),
        labels.repeat_interleave(torch.tensor([5, 5, 5, 1]), 0),
        0.5,
    )
    assert torch.allclose(contrast_loss(values, labels, 0.5), repeated)


def test_contrast_has_the_gradient_of_its_value():
    labels = torch.tensor([0, 0, 1, 1, 2])
    features = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: contrast_loss(x, labels, 0.5), features)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("temperature", 0.0), ("pixels", 0), ("contrast", -1.0), ("level_weights", (1.0, -1.0, 1.0))],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        HierarchyLossConfig(**{setting: value})


def test_labels_of_another_size_are_refused():
    _, right = quilt()
    with pytest.raises(ValueError, match=r"\(3, 4, 4\).*8 x 8"):
        losses_of(right, torch.zeros(3, 4, 4, dtype=torch.long))


def test_levels_are_named_as_the_levels_are():
    labels, right = quilt()
    names = {f"hierarchy_{level.title}" for level in Level}
    assert set(losses_of(right, labels)) == names


def test_masks_that_no_node_matches_are_left_out_at_their_level_only():
    labels = quilt()[0].numpy().astype(np.int32)
    nodes = labels + 10
    merged = labels.copy()
    merged[0, :4] = 0  # this view joined the two upper smalls
    kept = agreeing_labels(merged, nodes)
    assert (kept[0, :4] == UNLABELLED).all()
    assert np.array_equal(kept[0, 4:], merged[0, 4:])
    assert np.array_equal(kept[1:], merged[1:])
    assert np.array_equal(agreeing_labels(labels, nodes), labels)


def test_pixels_unlabelled_at_one_level_still_train_the_others():
    labels, right = quilt()
    labels[0] = UNLABELLED
    losses = losses_of(torch.zeros_like(right), labels)
    assert losses["hierarchy_small"] == 0
    assert losses["hierarchy_part"] > 0.5


def test_nodes_of_another_size_are_refused():
    with pytest.raises(ValueError, match="for nodes of shape"):
        agreeing_labels(np.zeros((3, 2, 2), np.int32), np.zeros((3, 2, 3), np.int32))
