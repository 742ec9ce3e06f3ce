import numpy as np
import pytest
import torch

from hiersplat.hierarchy.field import HierarchyFieldConfig, initial_features, level_codes
from hiersplat.hierarchy.losses import (
    HierarchyLossConfig,
    address_loss,
    edge_targets,
    edges_of,
    hierarchy_losses,
)
from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.levels import UNLABELLED, Level

FIELD = HierarchyFieldConfig()


def quilt_tree() -> SceneTree:
    """Two wholes, each of one part of two smalls; four Gaussians, one a small."""
    nodes = [Node(i, Level.WHOLE, UNLABELLED) for i in range(2)]
    nodes += [Node(2 + i, Level.PART, i) for i in range(2)]
    nodes += [Node(4 + i, Level.SMALL, 2 + i // 2) for i in range(4)]
    small = np.arange(4)
    return SceneTree(tuple(nodes), np.stack([4 + small, 2 + small // 2, small // 2]))


TREE = quilt_tree()
CODES = level_codes(TREE, FIELD)


def quilt() -> tuple[torch.Tensor, torch.Tensor]:
    """Place of the node of 8 x 8 pixels at every level, four smalls in all, and their addresses."""
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    small = (rows // 4) * 2 + columns // 4
    return torch.stack([small, small // 2, small // 2]), initial_features(TREE, FIELD)[small]


def quilt_nodes() -> np.ndarray:
    """Node ids of the quilt's pixels, as rendered."""
    places = quilt()[0].numpy()
    ids = [TREE.level_ids(level)[places[level]] for level in Level]
    return np.stack(ids).astype(np.int32)


def losses_of(rendered, targets, alpha=1.0, **settings):
    accumulation = torch.full((*rendered.shape[:2], 1), alpha)
    generator = torch.Generator().manual_seed(0)
    config = HierarchyLossConfig(**settings)
    return hierarchy_losses(rendered * alpha, accumulation, targets, CODES, config, generator)


def test_right_addresses_cost_nothing_and_wrong_ones_much():
    labels, right = quilt()
    assert all(value < 1e-3 for value in losses_of(right, labels).values())
    wrong = torch.zeros_like(right)
    assert losses_of(wrong, labels)["hierarchy_small"] > 1.0
    assert losses_of(wrong, labels)["hierarchy_part"] > 0.5
    assert losses_of(-right, labels)["hierarchy_whole"] > 2.0


def test_one_node_has_nothing_to_tell_apart():
    noise = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    assert address_loss(noise, torch.zeros(8, dtype=torch.long), torch.ones(1, 4), 0.15) == 0


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
    sum(hierarchy_losses(rendered, accumulation, labels, CODES, config).values()).backward()
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
    noise = torch.randn(8, 8, FIELD.small_dims, generator=torch.Generator().manual_seed(1))
    once = losses_of(noise, labels)
    twice = losses_of(noise, labels, contrast=2.0, level_weights=(1.0, 0.5, 1.0))
    assert torch.allclose(twice["hierarchy_small"], 2 * once["hierarchy_small"])
    assert torch.allclose(twice["hierarchy_part"], once["hierarchy_part"])


def test_same_seed_draws_the_same_pixels():
    labels, _ = quilt()
    noise = torch.randn(8, 8, FIELD.small_dims, generator=torch.Generator().manual_seed(1))
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


def test_address_loss_has_the_gradient_of_its_value():
    own = torch.tensor([0, 0, 1, 1, 2, UNLABELLED])
    codes = torch.randn(3, 2, dtype=torch.float64)
    features = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: address_loss(x, own, codes, 0.5), features)


def test_address_loss_is_the_cross_entropy_of_squared_distances():
    own = torch.tensor([0, 2, 1])
    codes, features = torch.randn(3, 4), torch.randn(3, 4)
    scores = -torch.cdist(features, codes).square() / 0.3
    expected = -scores.log_softmax(dim=1)[torch.arange(3), own].mean()
    assert torch.allclose(address_loss(features, own, codes, 0.3), expected, atol=1e-4)


def test_half_of_the_pixels_are_drawn_on_edges():
    targets = torch.zeros(3, 40, 40, dtype=torch.long)
    targets[:, :, 20:] = 1
    edges = edges_of(targets)
    assert edges.sum() == 80
    assert edges[:, 19:21].all()
    rendered = torch.zeros(40, 40, FIELD.small_dims, requires_grad=True)
    config = HierarchyLossConfig(pixels=60)
    generator = torch.Generator().manual_seed(0)
    accumulation = torch.ones(40, 40, 1)
    sum(
        hierarchy_losses(rendered, accumulation, targets, CODES, config, generator).values()
    ).backward()
    assert rendered.grad is not None
    asked = (rendered.grad != 0).any(dim=-1)
    assert 20 <= (asked & edges).sum() <= 40  # 30 draws with replacement, and a few by chance
    assert 20 <= (asked & ~edges).sum() <= 30


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", 0.0),
        ("pixels", 0),
        ("contrast", -1.0),
        ("level_weights", (1.0, -1.0, 1.0)),
        ("passes", -1),
    ],
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


def test_masks_as_rendered_change_nothing():
    nodes = quilt_nodes()
    places = quilt()[0].numpy()
    assert np.array_equal(edge_targets(nodes + 30, nodes, TREE), places)
    assert np.array_equal(edge_targets(np.full_like(nodes, UNLABELLED), nodes, TREE), places)


def test_mask_moves_an_edge_by_its_reach_and_no_farther():
    nodes = quilt_nodes()
    masks = nodes.copy()
    masks[0, :4, 4:7] = 4  # this view lets the upper left small reach three columns too far
    moved = edge_targets(masks, nodes, TREE, min_iou=0.5, reach=2)
    assert (moved[0, :4, :6] == 0).all()
    assert (moved[0, :4, 6:] == 1).all()
    assert np.array_equal(moved[1:], edge_targets(nodes, nodes, TREE)[1:])


def test_masks_that_no_node_matches_are_not_heard():
    nodes = quilt_nodes()
    merged = nodes.copy()
    merged[0, :4] = 4  # this view joined the two upper smalls
    assert np.array_equal(edge_targets(merged, nodes, TREE), edge_targets(nodes, nodes, TREE))


def test_pixels_without_a_node_are_targets_only_where_a_mask_reaches_over():
    nodes = quilt_nodes()
    masks = nodes.copy()
    nodes[:, :, 7:] = UNLABELLED
    nodes[:, 7, :] = UNLABELLED
    masks[:, 7, :] = UNLABELLED
    targets = edge_targets(masks, nodes, TREE)
    assert (targets[:, :7, 7] != UNLABELLED).all()
    assert (targets[:, 7] == UNLABELLED).all()


def test_pixels_unlabelled_at_one_level_still_train_the_others():
    labels, right = quilt()
    labels[0] = UNLABELLED
    losses = losses_of(torch.zeros_like(right), labels)
    assert losses["hierarchy_small"] == 0
    assert losses["hierarchy_part"] > 0.5


def test_nodes_of_another_size_are_refused():
    with pytest.raises(ValueError, match="for nodes of shape"):
        edge_targets(np.zeros((3, 2, 2), np.int32), np.zeros((3, 2, 3), np.int32), TREE)
