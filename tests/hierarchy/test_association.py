import importlib.util
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from hiersplat.hierarchy.association import AssociationConfig, associate
from hiersplat.hierarchy.linkage import contract_graph, flat_clusters, link, vote_ratio
from hiersplat.hierarchy.nodes import node_agreement
from hiersplat.hierarchy.view_masks import ViewMasks, dominant_masks
from hiersplat.hierarchy.votes import edge_votes, gather_reports, group_votes
from hiersplat.levels import UNLABELLED, Level


def load_bench(name):
    path = Path(__file__).parents[2] / "bench" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


spoiling, toys = load_bench("spoil"), load_bench("toy_scene")


@cache
def toy():
    return toys.toy_scene(num_objects=3, num_points=6000, num_views=16, size=64, seed=1)


@cache
def toy_views(share: float):
    views = []
    for index, labels in enumerate(toy().labels):
        masks = spoiling.spoil(labels, share, seed=index)
        scores = tuple(np.ones(len(flags), np.float32) for flags in masks.inherited)
        weights = toy().weights(index, masks.labels[Level.SMALL])
        views.append(ViewMasks(f"view {index}", weights, masks.parents, masks.inherited, scores))
    return views


def view_of(labels, name="view", inherited=None, parents=None) -> ViewMasks:
    """A view in which Gaussian i lies in small mask labels[i], or in none."""
    labels = np.asarray(labels)
    rows = np.flatnonzero(labels >= 0)
    count = int(labels.max(initial=-1)) + 1
    weights = csr_matrix((np.ones(len(rows)), (rows, labels[rows])), (len(labels), count))
    parents = parents or (np.zeros(count, int), np.zeros(min(count, 1), int))
    counts = (count, len(parents[1]), int(parents[1].max(initial=-1)) + 1)
    flags = tuple(np.zeros(n, bool) for n in counts) if inherited is None else inherited
    return ViewMasks(name, weights, parents, flags, tuple(np.ones(n) for n in counts))


def best_iou(truth, found) -> np.ndarray:
    """IoU of the best node for every true segment that has five points or more."""
    kept = (truth >= 0) & (found >= 0)
    table = np.zeros((truth.max() + 1, found.max() + 1))
    np.add.at(table, (truth[kept], found[kept]), 1)
    iou = table / (table.sum(1, keepdims=True) + table.sum(0) - table + 1e-9)
    return iou.max(axis=1)[table.sum(axis=1) >= 5]


# What association finds.


def test_clean_masks_give_exactly_the_true_nodes():
    tree = associate(toy_views(0.0), toy().means)
    for level in Level:
        visible = toy().truth[level][tree.node_ids[level] >= 0]
        assert len(tree.level_ids(level)) == len(np.unique(visible))
        assert best_iou(toy().truth[level], tree.labels(level)).mean() > 0.8


def test_a_third_of_spoiled_masks_is_outvoted():
    clean = associate(toy_views(0.0), toy().means)
    spoilt = associate(toy_views(1 / 3), toy().means)
    for level in Level:
        counts = len(spoilt.level_ids(level)), len(clean.level_ids(level))
        assert abs(counts[0] - counts[1]) <= max(2, counts[1] // 6)
        assert best_iou(clean.labels(level), spoilt.labels(level)).mean() > 0.8


def test_same_masks_give_the_same_tree():
    first, second = (associate(toy_views(1 / 3), toy().means) for _ in range(2))
    assert first.nodes == second.nodes
    assert np.array_equal(first.node_ids, second.node_ids)


def test_order_of_the_views_does_not_matter_for_how_many_nodes_are_found():
    forth = associate(toy_views(0.0), toy().means)
    back = associate(toy_views(0.0)[::-1], toy().means)
    for level in Level:
        assert best_iou(forth.labels(level), back.labels(level)).min() > 0.8


def test_nodes_carry_what_they_cover():
    tree = associate(toy_views(0.0), toy().means)
    for node in tree.nodes:
        members = toy().means[tree.gaussians_of(node.id)]
        assert node.num_gaussians == len(members)
        assert np.allclose(node.bbox_min, members.min(axis=0))
        assert np.allclose(node.bbox_max, members.max(axis=0))
        assert 0 < node.views_seen <= 16
        assert 0.3 < node.agreement <= 1.0 + 1e-6


def test_wholes_are_numbered_first_and_large_ones_before_small_ones():
    tree = associate(toy_views(0.0), toy().means)
    levels = [node.level for node in tree.nodes]
    assert levels == sorted(levels, reverse=True)
    for level in Level:
        counts = [tree.node(i).num_gaussians for i in tree.level_ids(level).tolist()]
        assert counts == sorted(counts, reverse=True)


def test_progress_is_told_in_order_and_within_zero_and_one():
    told = []
    associate(toy_views(0.0), toy().means, progress=lambda step, done: told.append((step, done)))
    shares = [done for _, done in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1


def test_one_view_is_enough_for_its_own_masks():
    means = np.array([[0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [5, 0, 0], [5.1, 0, 0], [5.2, 0, 0]])
    view = view_of([0, 0, 0, 1, 1, 1], parents=(np.array([0, 1]), np.array([0, 0])))
    tree = associate([view], means)
    assert [len(tree.level_ids(level)) for level in Level] == [2, 2, 1]
    assert tree.node_ids[0, 0] == tree.node_ids[0, 2] != tree.node_ids[0, 3]


def test_unseen_gaussian_takes_the_nodes_of_its_neighbour_and_a_far_one_takes_none():
    means = np.array([[0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.25, 0, 0], [90.0, 0, 0]])
    tree = associate([view_of([0, 0, 0, -1, -1])], means)
    assert np.array_equal(tree.node_ids[:, 3], tree.node_ids[:, 2])
    assert (tree.node_ids[:, 4] == UNLABELLED).all()


def test_a_level_without_masks_of_its_own_inherits_and_still_gets_nodes():
    inherited = (np.ones(1, bool), np.ones(1, bool), np.zeros(1, bool))
    views = [view_of([0, 0, 0, 0], inherited=inherited) for _ in range(3)]
    tree = associate(views, np.arange(12.0).reshape(4, 3))
    assert [len(tree.level_ids(level)) for level in Level] == [1, 1, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 30))
def test_any_masks_give_a_valid_nested_tree(seed, num_views, num_gaussians):
    rng = np.random.default_rng(seed)
    views = []
    for index in range(num_views):
        count = int(rng.integers(1, 6))
        parts, wholes = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        weights = rng.random((num_gaussians, count)) * (rng.random((num_gaussians, count)) < 0.4)
        weights[0, 0] = 1.0
        parents = (rng.integers(0, parts, count), rng.integers(0, wholes, parts))
        counts = (count, parts, wholes)
        flags = tuple(rng.random(n) < 0.3 for n in counts)
        scores = tuple(rng.random(n) for n in counts)
        views.append(ViewMasks(str(index), csr_matrix(weights), parents, flags, scores))
    tree = associate(views, rng.random((num_gaussians, 3)))  # SceneTree checks nesting itself
    assert tree.num_gaussians == num_gaussians
    assert (tree.node_ids[0] >= 0).any()
    for node in tree.nodes:
        assert node.num_gaussians == tree.gaussians_of(node.id).sum() > 0


# Bad input.


def test_no_views_no_masks_and_wrong_sizes_are_refused_in_one_line():
    means = np.zeros((3, 3))
    with pytest.raises(ValueError, match="at least one view"):
        associate([], means)
    with pytest.raises(ValueError, match="no mask of the 1 views covers any of 3 Gaussians"):
        associate([view_of([-1, -1, -1])], means)
    with pytest.raises(
        ValueError, match="view left was lifted to 3 Gaussians, but the scene has 4"
    ):
        associate([view_of([0, 0, 0], "left")], np.zeros((4, 3)))
    with pytest.raises(ValueError, match="means must have shape"):
        associate([view_of([0, 0, 0])], np.zeros((3, 2)))


def test_view_whose_masks_do_not_fit_together_is_named():
    good = view_of([0, 1], "left")
    with pytest.raises(ValueError, match="view left: weights of 2 small masks, parents of 1"):
        replace(good, parents=(np.zeros(1, int), good.parents[1]))
    with pytest.raises(ValueError, match="view left: a small mask has a parent outside the 1 part"):
        replace(good, parents=(np.array([0, 4]), good.parents[1]))
    with pytest.raises(ValueError, match="view left: 2 small masks, but 'inherited' has 2"):
        replace(good, scores=(np.ones(3), *good.scores[1:]))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("small_votes", 0.0), ("patches", 0), ("neighbours", 0), ("inherited_trust", 2.0)],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        AssociationConfig(**{setting: value})


# The steps.


def test_dominant_mask_is_the_first_of_the_largest():
    weights = csr_matrix(np.array([[0.2, 0.5, 0.5], [0.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))
    labels, largest = dominant_masks(weights)
    assert labels.tolist() == [1, UNLABELLED, 2]
    assert largest.tolist() == [0.5, 0.0, 3.0]


def test_level_weights_sum_over_what_a_mask_contains():
    parents = (np.array([0, 0, 1]), np.array([0, 0]))
    view = view_of([0, 1, 2], parents=parents)
    assert view.level_weights(Level.PART).toarray().tolist() == [[1, 0], [1, 0], [0, 1]]
    assert view.level_weights(Level.WHOLE).toarray().tolist() == [[1], [1], [1]]


def test_what_only_shines_through_hardly_reports():
    strong, faint = np.array([[4.0]]), np.array([[0.1]])
    counts = (np.zeros(1, bool),) * 3
    views = [
        ViewMasks(name, csr_matrix(w), (np.zeros(1, int),) * 2, counts, (np.ones(1),) * 3)
        for name, w in (("front", strong), ("behind", faint))
    ]
    front, behind = gather_reports(views, Level.SMALL, 1.0).shares
    assert front.toarray()[0, 0] > 0.8
    assert behind.toarray()[0, 0] < 0.01


def test_votes_count_views_for_and_against():
    views = [view_of([0, 0, 1]), view_of([0, 0, 0]), view_of([0, 1, -1])]
    reports = gather_reports(views, Level.SMALL, 1.0)
    same, total = edge_votes(reports, np.array([[0, 1], [0, 2]]))
    unit = total[1] / 2  # a vote of two Gaussians that are both seen in full
    assert np.allclose(same / unit, [2, 1])
    assert np.allclose(total / unit, [3, 2])


def test_sharing_an_inherited_mask_counts_less():
    inherited = (np.ones(1, bool), np.zeros(1, bool), np.zeros(1, bool))
    found, stand_in = view_of([0, 0]), view_of([0, 0], inherited=inherited)
    edges = np.array([[0, 1]])
    full = edge_votes(gather_reports([found], Level.SMALL, 0.3), edges)
    less = edge_votes(gather_reports([stand_in], Level.SMALL, 0.3), edges)
    assert np.allclose(less[0], 0.3 * full[0])
    assert np.allclose(less[1], 0.3 * full[1])


def test_groups_of_one_vote_like_single_gaussians():
    views = [view_of([0, 0, 1]), view_of([0, 1, 1])]
    reports = gather_reports(views, Level.SMALL, 0.5)
    same, total = group_votes(reports, np.arange(3), 3, half=0.01)
    assert np.allclose(same[0, 1] / total[0, 1], 0.5)
    assert np.allclose(same[0, 2], 0)
    assert np.allclose(same, same.T)


def test_pair_that_no_view_saw_together_is_not_joined():
    assert vote_ratio(np.zeros(1), np.zeros(1)).item() == 0.0
    nothing = np.zeros((3, 3))
    assert flat_clusters(link(nothing, nothing, 0.3), 3).tolist() == [0, 1, 2]


def test_things_in_two_rooms_are_two_wholes():
    means = np.concatenate([np.arange(15.0).reshape(5, 3), 50 + np.arange(15.0).reshape(5, 3)])
    here, there = [0] * 5 + [-1] * 5, [-1] * 5 + [0] * 5
    tree = associate([view_of(here), view_of(there), view_of(here), view_of(there)], means)
    assert [len(tree.level_ids(level)) for level in Level] == [2, 2, 2]


def slow_link(same, total, threshold):
    """Merge the best pair of clusters until none reaches the threshold, by brute force."""
    clusters = [[i] for i in range(len(same))]
    while True:
        best = (-1.0, 0, 0)
        for i in range(len(clusters)):
            for j in range(i):
                votes = [m[np.ix_(clusters[i], clusters[j])].sum() for m in (same, total)]
                best = max(best, (float(vote_ratio(*votes)), i, j))
        if best[0] < threshold:
            return {frozenset(cluster) for cluster in clusters}
        clusters[best[2]] += clusters.pop(best[1])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(0.05, 0.95))
def test_linking_equals_brute_force(seed, count, threshold):
    rng = np.random.default_rng(seed)
    total = rng.random((count, count)) * 5
    total += total.T
    share = rng.random((count, count))
    same = total * (share + share.T) / 2
    clusters = flat_clusters(link(same, total, threshold), count)
    found = {frozenset(np.flatnonzero(clusters == c).tolist()) for c in np.unique(clusters)}
    assert found == slow_link(same, total, threshold)


def test_elements_kept_apart_never_merge():
    same = total = np.full((4, 4), 10.0)
    classes = np.array([0, 0, 1, 1])
    assert flat_clusters(link(same, total, 0.5, classes), 4).tolist() == [0, 0, 1, 1]


def test_graph_is_contracted_where_neighbours_agree():
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    same = np.array([9.0, 9.0, 0.0, 9.0])
    groups = contract_graph(edges, same, np.full(4, 9.0), 6, 0.7, target=1, max_size=10)
    assert groups[0] == groups[1] == groups[2] != groups[3] == groups[4]
    assert groups[5] not in groups[:5]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 9))
def test_no_group_outgrows_its_largest_size(seed, max_size):
    edges = np.stack([np.arange(59), np.arange(1, 60)], axis=1)
    ones = np.ones(59)
    groups = contract_graph(edges, 5 * ones, 5 * ones, 60, 0.7, 1, max_size, seed)
    assert np.bincount(groups).max() <= max_size


def test_agreement_is_the_overlap_with_the_best_mask():
    views = [view_of([0, 0, 1, 1]), view_of([0, 0, 0, 0])]
    seen, agreement = node_agreement(views, np.array([0, 0, 1, 1]), 2, Level.SMALL)
    assert seen.tolist() == [2, 2]
    assert np.allclose(agreement, [0.75, 0.75])
