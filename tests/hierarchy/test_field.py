import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.gaussians.cameras import Camera, viewmat_from_camera_to_world
from hiersplat.gaussians.lifting import render_ids
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.field import (
    HierarchyFieldConfig,
    affinity,
    assign,
    initial_features,
    level_codes,
    node_codes,
    pixel_nodes,
    render_nodes,
    spread_directions,
)
from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.levels import UNLABELLED, Level

CONFIG = HierarchyFieldConfig()


def grove(num_gaussians: int = 60) -> tuple[SceneTree, np.ndarray]:
    """Three wholes of two parts of two smalls each, in a row; the last Gaussian has no node."""
    nodes = [Node(i, Level.WHOLE, UNLABELLED) for i in range(3)]
    nodes += [Node(3 + i, Level.PART, i // 2) for i in range(6)]
    nodes += [Node(9 + i, Level.SMALL, 3 + i // 2) for i in range(12)]
    small = np.arange(num_gaussians) * 12 // num_gaussians
    node_ids = np.stack([9 + small, 3 + small // 2, small // 4]).astype(np.int32)
    node_ids[:, -1] = UNLABELLED
    means = np.zeros((num_gaussians, 3), np.float32)
    means[:, 0] = np.arange(num_gaussians)
    return SceneTree(tuple(nodes), node_ids), means


def test_closed_form_features_lead_back_to_the_tree():
    tree, means = grove()
    features = initial_features(tree, CONFIG)
    assert features.shape == (60, CONFIG.small_dims)
    assert np.array_equal(assign(features, tree, means, CONFIG), tree.node_ids)


def test_a_level_is_a_prefix_shared_by_everything_below_a_node():
    tree, _ = grove()
    features = initial_features(tree, CONFIG)
    for node in tree.nodes:
        members = torch.from_numpy(tree.gaussians_of(node.id))
        prefix = features[members, : CONFIG.dims(node.level)]
        assert torch.allclose(prefix, prefix[:1].expand_as(prefix))


def test_nodes_of_a_level_start_about_one_apart_or_more():
    tree, _ = grove()
    codes = node_codes(tree, CONFIG)
    for level in Level:
        rows = [row for row, node in enumerate(tree.nodes) if node.level == level]
        distances = torch.pdist(codes[rows, : CONFIG.dims(level)])
        assert distances.min() > 0.9


def test_gaussian_without_a_node_has_no_feature_and_gets_no_node():
    tree, means = grove()
    features = initial_features(tree, CONFIG)
    assert (features[-1] == 0).all()
    assert (assign(features, tree, means, CONFIG)[:, -1] == UNLABELLED).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_affinity_is_within_zero_and_one_and_never_grows_towards_finer_levels(seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(7, CONFIG.small_dims, generator=generator)
    query = torch.randn(CONFIG.small_dims, generator=generator)
    small, part, whole = (affinity(features, query, level, CONFIG) for level in Level)
    assert (small >= 0).all()
    assert (whole <= 1).all()
    assert (small <= part).all()
    assert (part <= whole).all()


def test_affinity_is_one_on_the_query_and_half_at_the_radius():
    query = torch.zeros(CONFIG.small_dims)
    away = query.clone()
    away[0] = CONFIG.radius
    values = affinity(torch.stack([query, away]), query, Level.WHOLE, CONFIG)
    assert torch.allclose(values, torch.tensor([1.0, 0.5]))


def test_click_lights_up_its_own_node_and_no_other():
    tree, _ = grove()
    features = initial_features(tree, CONFIG)
    for level in Level:
        values = affinity(features, features[0], level, CONFIG)
        inside = torch.from_numpy(tree.gaussians_of(int(tree.node_ids[level, 0])))
        assert values[inside].min() > 0.99
        assert values[~inside].max() < 0.1


def test_gaussian_whose_feature_moved_over_takes_the_neighbours_node_with_its_parents():
    tree, means = grove()
    features = initial_features(tree, CONFIG)
    edge = int(np.flatnonzero(tree.node_ids[2] == 1)[0])  # first of the second whole
    features[edge] = features[edge - 1]
    ids = assign(features, tree, means, CONFIG)
    assert np.array_equal(ids[:, edge], tree.node_ids[:, edge - 1])
    others = np.arange(60) != edge
    assert np.array_equal(ids[:, others], tree.node_ids[:, others])


def test_drifted_feature_cannot_send_a_gaussian_across_the_scene():
    tree, means = grove()
    features = initial_features(tree, CONFIG)
    features[2] = features[50]  # in the middle of the first small, like one far away
    assert assign(features, tree, means, CONFIG)[0, 2] == tree.node_ids[0, 2]


def test_addresses_of_a_level_are_in_the_order_of_its_labels():
    tree, _ = grove()
    codes, all_codes = level_codes(tree, CONFIG), node_codes(tree, CONFIG)
    for level in Level:
        assert codes[level].shape[1] == CONFIG.dims(level)
        for place, node_id in enumerate(tree.level_ids(level).tolist()):
            row = [node.id for node in tree.nodes].index(node_id)
            assert torch.equal(codes[level][place], all_codes[row, : CONFIG.dims(level)])


def test_pixels_take_the_nearest_node_and_uncovered_ones_none():
    tree, _ = grove()
    features = initial_features(tree, CONFIG)
    rendered = features[[0, 20, 40, 58]].reshape(2, 2, -1) * 0.8
    rendered[0, 0] = 0.8 * (0.7 * features[0] + 0.3 * features[20])  # a blend on an edge
    alpha = torch.tensor([[0.8, 0.8], [0.8, 0.2]])[..., None]
    ids = pixel_nodes(rendered, alpha, tree, CONFIG)
    assert ids.shape == (3, 2, 2)
    assert ids.reshape(3, 4).T[:3].tolist() == tree.node_ids[:, [0, 20, 40]].T.tolist()
    assert (ids[:, 1, 1] == UNLABELLED).all()


def test_closed_form_features_render_to_the_ids_of_the_gaussians():
    tree, means = grove()
    splats = Splats(
        means=torch.from_numpy(means),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(60, 1),
        log_scales=torch.full((60, 3), 0.4).log(),
        logit_opacities=torch.full((60,), 4.0),
        sh=torch.zeros(60, 1, 3),
    )
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([29.5, 0, 40])
    K = torch.tensor([[40.0, 0, 32], [0, 40.0, 8], [0, 0, 1]])
    camera = Camera("front", viewmat_from_camera_to_world(pose[:3]), K, 64, 16)
    drawn = render_nodes(splats, camera, initial_features(tree, CONFIG), tree, CONFIG)
    ids = render_ids(splats, camera, tree.node_ids)
    seen = (drawn[0] != UNLABELLED) & (ids[0] != UNLABELLED)
    assert seen.sum() > 50
    assert (drawn[:, seen] == ids[:, seen]).mean() > 0.97  # three nodes may meet in a pixel


def test_empty_tree_has_empty_answers():
    tree = SceneTree((), np.full((3, 4), UNLABELLED, np.int32))
    features = initial_features(tree, CONFIG)
    assert (features == 0).all()
    assert (assign(features, tree, np.zeros((4, 3)), CONFIG) == UNLABELLED).all()
    ids = pixel_nodes(torch.zeros(1, 1, CONFIG.small_dims), torch.ones(1, 1, 1), tree, CONFIG)
    assert (ids == UNLABELLED).all()


@pytest.mark.parametrize(("count", "dims"), [(1, 4), (2, 4), (30, 4), (100, 8)])
def test_directions_are_units_repeatable_and_well_apart(count, dims):
    directions = spread_directions(count, dims)
    assert torch.allclose(directions.norm(dim=1), torch.ones(count), atol=1e-5)
    assert torch.equal(directions, spread_directions(count, dims))
    if count > 1:
        assert torch.pdist(directions).min() > 0.75


def test_two_directions_are_opposite():
    assert torch.allclose(torch.pdist(spread_directions(2, 4)), torch.tensor([2.0]), atol=1e-3)


@pytest.mark.parametrize("sizes", [(4, 4, 16), (8, 4, 16), (1, 8, 16)])
def test_dimensions_that_do_not_grow_are_refused(sizes):
    with pytest.raises(ValueError, match="dimensions must grow"):
        HierarchyFieldConfig(*sizes)


def test_radius_must_be_above_zero():
    with pytest.raises(ValueError, match="radius"):
        HierarchyFieldConfig(radius=0.0)


def test_features_of_another_scene_are_refused():
    tree, means = grove()
    with pytest.raises(ValueError, match="4 features and 60 means do not fit a tree of 60"):
        assign(torch.zeros(4, CONFIG.small_dims), tree, means, CONFIG)
