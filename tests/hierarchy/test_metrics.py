import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hiersplat.hierarchy.boundary import boundary_iou, boundary_map
from hiersplat.hierarchy.metrics import (
    HierarchyMetrics,
    best_iou,
    hierarchical_recall,
    miou,
    miou_any,
    nesting_violation,
    over_segmentation,
    overlaps_of_view,
    part_mask_fraction,
    recall,
    under_segmentation,
)
from hiersplat.hierarchy.overlap import compact, overlap, parents_of_labels
from hiersplat.hierarchy.panoptic import PanopticCounter
from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.levels import UNLABELLED, Level


def stripes(*widths_and_ids: tuple[int, int], height: int = 4) -> np.ndarray:
    """A map of vertical stripes: (width, id) from left to right."""
    row = np.concatenate([np.full(width, label) for width, label in widths_and_ids])
    return np.tile(row, (height, 1)).astype(np.int32)


def nested_truth() -> np.ndarray:
    """16 columns: smalls 0..3 of 4 columns, parts 0..1 of 8, one whole."""
    small = stripes((4, 0), (4, 1), (4, 2), (4, 3))
    return np.stack([small, small // 2, small * 0])


nested_labels = st.builds(
    lambda small, to_part, to_whole: np.stack(
        [
            small,
            np.where(small < 0, small, to_part[small]),
            np.where(small < 0, small, to_whole[to_part[small]]),
        ]
    ).astype(np.int32),
    arrays(np.int32, (12, 10), elements=st.integers(-1, 5)),
    arrays(np.int32, 6, elements=st.integers(0, 3)),
    arrays(np.int32, 4, elements=st.integers(0, 2)),
)


def test_compact_agrees_for_table_and_for_sorted_ids():
    labels = np.array([[3, -1], [9, 3]], np.int32)
    ids, places = compact(labels)
    far_ids, far_places = compact(np.where(labels < 0, -1, labels.astype(np.int64) + (1 << 23)))
    assert (far_ids - (1 << 23)).tolist() == ids.tolist() == [3, 9]
    assert far_places.tolist() == places.tolist() == [[0, -1], [1, 0]]


def test_compact_of_map_without_labels_has_no_ids():
    ids, places = compact(np.full((2, 2), UNLABELLED))
    assert ids.size == 0
    assert (places == UNLABELLED).all()


def test_iou_of_half_covered_segment():
    shared = overlap(stripes((8, 0), (8, 1)), stripes((4, 7), (12, 9)))
    assert shared.predicted_ids.tolist() == [7, 9]
    np.testing.assert_allclose(shared.iou, [[4 / 8, 4 / 16], [0, 8 / 12]])


def test_void_truth_is_ignored_in_predictions():
    # The prediction spills 4 columns into void: that costs nothing.
    shared = overlap(stripes((8, 0), (8, UNLABELLED)), stripes((12, 3), (4, 5)))
    assert shared.iou.tolist() == [[1.0, 0.0]]
    assert shared.num_pixels == 64


def test_miou_counts_missing_prediction_as_zero():
    truth = stripes((8, 0), (8, 1))
    assert miou(overlap(truth, stripes((8, 2), (8, UNLABELLED)))) == 0.5
    assert miou(overlap(truth, np.full_like(truth, UNLABELLED))) == 0.0


def test_miou_of_view_without_truth_is_not_a_number():
    empty = np.full((4, 4), UNLABELLED)
    assert np.isnan(miou(overlap(empty, empty)))


def test_truth_below_a_thousandth_of_the_image_is_not_asked_for():
    truth = np.zeros((50, 40), np.int32)
    truth[0, 0] = 1  # 1 of 2000 pixels
    assert miou(overlap(truth, np.zeros_like(truth))) == pytest.approx(1999 / 2000)
    truth[0, 1] = 1  # 2 of 2000 pixels: exactly a thousandth, so it is asked for
    expected = (1998 / 2000 + 2 / 2000) / 2
    assert miou(overlap(truth, np.zeros_like(truth))) == pytest.approx(expected)


def test_miou_any_takes_the_best_of_all_levels():
    truth = nested_truth()
    shifted = np.stack([truth[Level.PART], truth[Level.WHOLE], truth[Level.WHOLE]])
    overlaps = overlaps_of_view(shifted, truth)
    assert miou(overlaps[Level.PART, Level.PART]) == 0.5
    assert miou_any([overlaps[Level.PART, level] for level in Level]) == 1.0


def test_recall_needs_more_than_the_threshold():
    # IoU of the two truth segments: exactly 0.5, and 1.
    shared = overlap(stripes((8, 0), (8, 1)), stripes((4, 0), (4, UNLABELLED), (8, 1)))
    assert best_iou(shared).tolist() == [0.5, 1.0]
    assert recall(shared, 0.5) == 0.5
    assert recall(shared, 0.49) == 1.0


def test_hierarchical_recall_of_perfect_prediction_is_one():
    truth = nested_truth()
    parents = parents_of_labels(truth)
    overlaps = overlaps_of_view(truth + 3, truth)
    shifted = parents_of_labels(truth + 3)
    assert hierarchical_recall(overlaps, shifted, parents, 0.75) == 1.0


def test_hierarchical_recall_counts_only_edges_of_the_predicted_tree():
    truth = nested_truth()
    parents = parents_of_labels(truth)
    overlaps = overlaps_of_view(truth, truth)
    # Small 0 hangs below the wrong part: of 4 + 2 pairs one is not found.
    wrong = (np.array([1, 0, 1, 1]), parents[1])
    assert hierarchical_recall(overlaps, wrong, parents, 0.5) == pytest.approx(5 / 6)


def test_hierarchical_recall_accepts_an_ancestor_at_another_level():
    # Truth: smalls, parts, one whole. The prediction holds parts as smalls, and the whole as
    # whole, with a useless part between: part below whole is found by the path over it.
    truth = nested_truth()
    predicted = np.stack([truth[Level.PART], truth[Level.PART] * 0, truth[Level.WHOLE]])
    predicted[Level.PART, :, :2] = 1
    parents = (np.array([0, 0]), np.array([0, 0]))
    overlaps = overlaps_of_view(predicted, truth)
    assert hierarchical_recall(overlaps, parents, parents_of_labels(truth), 0.5) == pytest.approx(
        2 / 6
    )


def test_nesting_violation_is_the_share_outside_the_parent():
    labels = nested_truth()
    labels[Level.PART, :, 3] = 1  # a quarter of small 0 lies in part 1
    small, part = nesting_violation(labels)
    assert small == pytest.approx(0.25 / 4)
    assert part == 0.0


def test_nesting_violation_follows_the_tree_that_is_given():
    labels = nested_truth()
    swapped = (np.array([1, 1, 0, 0]), np.array([0, 0]))
    assert nesting_violation(labels, swapped)[0] == 1.0


def test_metrics_of_a_tree_follow_its_edges_and_its_gaussians():
    nodes = [Node(0, Level.WHOLE, -1), *(Node(i, Level.PART, 0) for i in (1, 2))]
    nodes += [Node(3 + i, Level.SMALL, 1 + i // 2) for i in range(4)]
    tree = SceneTree(tuple(nodes), np.array([[3, 4, 5, 6], [1, 1, 2, 2], [0, 0, 0, 0]]))
    truth = nested_truth()
    rendered = tree.node_ids[:, truth[Level.SMALL]]
    metrics = HierarchyMetrics.of_tree(tree)
    metrics.update("view", rendered, truth)
    figures = metrics.compute()
    assert figures["hier_recall75"] == 1.0
    assert figures["nesting_violation_gaussians_small"] == 0.0
    assert figures["nesting_violation_gaussians_part"] == 0.0


def test_over_and_under_segmentation_count_covering_segments():
    truth, predicted = stripes((20, 0), (20, 1)), stripes((5, 0), (5, 1), (30, 2))
    shared = overlap(truth, predicted)
    assert over_segmentation(shared) == (3 + 1) / 2
    assert under_segmentation(shared) == (1 + 1 + 2) / 3


def test_segment_covering_less_than_a_twentieth_is_not_counted():
    shared = overlap(np.zeros((1, 100), int), stripes((4, 0), (96, 1), height=1))
    assert over_segmentation(shared) == 1


def test_boundary_equals_repeated_erosion():
    from scipy.ndimage import binary_erosion

    labels = np.zeros((60, 80), np.int32)
    labels[10:40, 20:70] = 1
    labels[15:30, 30:50] = 2
    for segment in range(3):
        mask = labels == segment
        # 0.02 x diagonal of 100 = 2 iterations; outside the image counts as background.
        eroded = np.asarray(binary_erosion(mask, np.ones((3, 3)), iterations=2))
        assert ((boundary_map(labels) == segment) == (mask & np.logical_not(eroded))).all()


def test_boundary_iou_of_shifted_square():
    truth = np.zeros((60, 80), np.int32)
    truth[10:30, 10:30] = 1
    predicted = np.zeros_like(truth)
    predicted[10:30, 12:32] = 1

    def ring(left: int) -> np.ndarray:
        mask = np.zeros((60, 80), bool)
        mask[10:30, left : left + 20] = True
        mask[12:28, left + 2 : left + 18] = False
        return mask

    expected = (ring(10) & ring(12)).sum() / (ring(10) | ring(12)).sum()
    assert boundary_iou(predicted, truth)[1] == pytest.approx(expected)
    assert boundary_iou(truth + 4, truth).tolist() == [1.0, 1.0]
    assert boundary_iou(np.full_like(truth, UNLABELLED), truth).tolist() == [0.0, 0.0]


def test_void_draws_no_boundary_into_predictions():
    truth = np.full((60, 80), UNLABELLED, np.int32)
    truth[10:50, 10:50] = 0
    assert boundary_iou(np.zeros_like(truth), truth).tolist() == [1.0]


def test_part_mask_fraction_needs_containment_and_twice_the_area():
    masks = np.zeros((4, 20, 20), bool)
    masks[0, :10] = True
    masks[1, :4, :10] = True  # inside mask 0, which is five times as large
    masks[2, :8] = True  # inside mask 0, which is less than twice as large
    masks[3, 15, :3] = True  # alone, below 1 % of the image
    assert part_mask_fraction(masks) == (0.25, 0.25)


def test_part_mask_fraction_of_no_masks_is_not_a_number():
    assert np.isnan(part_mask_fraction(np.zeros((0, 4, 4), bool))).all()


def test_panoptic_quality_of_known_case():
    # Truth 0 matched with IoU 0.75; truth 1 unmatched; predictions: one match, two false.
    counter = PanopticCounter()
    counter.update(stripes((6, 0), (2, UNLABELLED), (4, 1), (4, 2)), stripes((8, 0), (8, 1)))
    found = counter.compute()
    assert (found.num_matches, found.num_truth, found.num_predicted) == (1, 2, 3)
    assert found.quality == pytest.approx(0.75 / (1 + 2 / 2 + 1 / 2))
    assert found.quality == pytest.approx(found.segmentation_quality * found.recognition_quality)


def test_panoptic_quality_needs_ids_that_hold_across_views():
    truth = stripes((8, 0), (8, 1))
    counter = PanopticCounter()
    counter.update(truth, truth)
    counter.update(1 - truth, truth)
    assert counter.compute().quality == 0.0


def test_tiny_truth_is_ignored_and_so_is_what_lies_on_it():
    truth = np.zeros((100, 100), np.int32)
    truth[0, :4] = 1  # 0.04 % of all pixels
    counter = PanopticCounter()
    counter.update(truth, truth)
    found = counter.compute()
    assert (found.quality, found.num_truth, found.num_predicted) == (1.0, 1, 1)


def test_panoptic_quality_without_views_is_not_a_number():
    assert np.isnan(PanopticCounter().compute().quality)


@settings(max_examples=40, deadline=None)
@given(nested_labels)
def test_perfect_prediction_scores_one_everywhere(labels: np.ndarray):
    metrics = HierarchyMetrics()
    metrics.update("view", labels, labels)
    figures = metrics.compute()
    for name, value in figures.items():
        if name.startswith(("miou", "recall", "hier", "pq", "boundary", "over", "under")):
            assert np.isnan(value) or value == pytest.approx(1.0), name
        if name.startswith("nesting"):
            assert np.isnan(value) or value == 0.0, name


@settings(max_examples=40, deadline=None)
@given(nested_labels, nested_labels, st.permutations(range(6)))
def test_renaming_predicted_ids_changes_nothing(
    predicted: np.ndarray, truth: np.ndarray, order: list[int]
):
    names = np.array([*order, UNLABELLED]) * 7 + 3
    names[-1] = UNLABELLED
    first, second = HierarchyMetrics(), HierarchyMetrics()
    first.update("view", predicted, truth)
    second.update("view", names[predicted], truth)
    left, right = first.compute(), second.compute()
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value == pytest.approx(right[name], nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(nested_labels, nested_labels)
def test_figures_stay_in_their_range(predicted: np.ndarray, truth: np.ndarray):
    metrics = HierarchyMetrics()
    metrics.update("view", predicted, truth)
    figures = metrics.compute()
    for name, value in figures.items():
        if not name.startswith(("over", "under", "num")):
            assert np.isnan(value) or 0 <= value <= 1, name
    for level in ("small", "part", "whole"):
        best, own = figures[f"miou_any_{level}"], figures[f"miou_{level}"]
        assert np.isnan(best) or best >= own


def test_views_are_averaged_and_views_without_truth_left_out():
    truth = nested_truth()
    nothing = np.full_like(truth, UNLABELLED)
    metrics = HierarchyMetrics()
    metrics.update("right", truth, truth)
    metrics.update("missing", nothing, truth)
    metrics.update("void", truth, nothing)
    figures = metrics.compute()
    assert figures["miou_small"] == 0.5
    assert figures["num_views"] == 3


def test_maps_of_other_shapes_are_refused():
    metrics = HierarchyMetrics()
    with pytest.raises(ValueError, match=r"\(3, 4, 5\).*\(3, 4, 4\)"):
        metrics.update("view", np.zeros((3, 4, 5), int), np.zeros((3, 4, 4), int))
    with pytest.raises(ValueError, match="3, height, width"):
        metrics.update("view", np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int))


def test_a_view_counts_once():
    metrics = HierarchyMetrics()
    metrics.update("view", nested_truth(), nested_truth())
    with pytest.raises(ValueError, match="once"):
        metrics.update("view", nested_truth(), nested_truth())


def test_figures_without_views_are_refused():
    with pytest.raises(ValueError, match="no held-out view"):
        HierarchyMetrics().compute()
