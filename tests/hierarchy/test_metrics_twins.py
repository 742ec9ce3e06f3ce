"""Every figure once more, mask by mask, as its definition says it: slow, and obviously right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hiersplat.hierarchy.metrics import (
    HierarchyMetrics,
    hierarchical_recall,
    nesting_violation,
    over_segmentation,
    overlaps_of_view,
    part_mask_fraction,
    under_segmentation,
)
from hiersplat.hierarchy.overlap import overlap, parents_of_labels
from hiersplat.hierarchy.surface import view_consistency
from hiersplat.levels import Level

SHAPE = (9, 8)
label_maps = arrays(np.int64, SHAPE, elements=st.integers(-1, 4))
pyramids = st.tuples(label_maps, label_maps, label_maps).map(np.stack)


def masks_(labels: np.ndarray) -> dict[int, np.ndarray]:
    return {int(i): labels == i for i in np.unique(labels) if i >= 0}


def iou_(truth: np.ndarray, predicted: np.ndarray, judged: np.ndarray) -> float:
    predicted = predicted & judged
    return (truth & predicted).sum() / (truth | predicted).sum()


def best_ious_(truth: np.ndarray, predicted: list[np.ndarray]) -> list[float]:
    judged = truth >= 0
    found = []
    for mask in masks_(truth).values():
        ious = [iou_(mask, other, judged) for one in predicted for other in masks_(one).values()]
        found.append(max(ious, default=0.0))
    return found


def panoptic_quality_(truths: list[np.ndarray], predictions: list[np.ndarray]) -> float:
    # One long view: ids hold across views. Nothing here is below the least size.
    truth, predicted = np.concatenate(truths), np.concatenate(predictions)
    judged = truth >= 0
    total, matched_truth, matched_predicted = 0.0, set(), set()
    for i, mask in masks_(truth).items():
        for j, other in masks_(predicted).items():
            iou = iou_(mask, other, judged)
            if iou > 0.5:
                total += iou
                matched_truth.add(i)
                matched_predicted.add(j)
    wrong = 0
    for j, other in masks_(predicted).items():
        is_mostly_void = 2 * (other & ~judged).sum() > other.sum()
        wrong += j not in matched_predicted and not is_mostly_void
    missed = len(masks_(truth)) - len(matched_truth)
    count = len(matched_truth) + wrong / 2 + missed / 2
    return total / count if count else float("nan")


@settings(max_examples=60, deadline=None)
@given(pyramids, pyramids, pyramids, pyramids)
def test_figures_equal_their_slow_twins(
    truth: np.ndarray, predicted: np.ndarray, truth_2: np.ndarray, predicted_2: np.ndarray
):
    metrics = HierarchyMetrics()
    figures = metrics.update("a", predicted, truth)
    metrics.update("b", predicted_2, truth_2)
    scene = metrics.compute()
    for level in Level:
        best = best_ious_(truth[level], [predicted[level]])
        anywhere = best_ious_(truth[level], list(predicted))
        expected = {
            "miou": np.mean(best) if best else np.nan,
            "miou_any": np.mean(anywhere) if best else np.nan,
            "recall50": np.mean(np.array(best) > 0.5) if best else np.nan,
            "recall75": np.mean(np.array(best) > 0.75) if best else np.nan,
        }
        for name, value in expected.items():
            assert figures[f"{name}_{level.title}"] == pytest.approx(value, nan_ok=True)
        quality = panoptic_quality_(
            [truth[level], truth_2[level]], [predicted[level], predicted_2[level]]
        )
        assert scene[f"pq_{level.title}"] == pytest.approx(quality, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(label_maps, label_maps)
def test_over_and_under_segmentation_equal_their_slow_twins(
    truth: np.ndarray, predicted: np.ndarray
):
    judged = truth >= 0
    shared = overlap(truth, predicted)
    over = [
        sum((mask & other).sum() >= 0.05 * mask.sum() for other in masks_(predicted).values())
        for mask in masks_(truth).values()
    ]
    under = [
        sum(
            (mask & other).sum() >= 0.05 * (other & judged).sum() for mask in masks_(truth).values()
        )
        for other in masks_(predicted).values()
        if (other & judged).any()
    ]
    assert over_segmentation(shared) == pytest.approx(
        np.mean(over) if over else np.nan, nan_ok=True
    )
    assert under_segmentation(shared) == pytest.approx(
        np.mean(under) if under else np.nan, nan_ok=True
    )


@settings(max_examples=60, deadline=None)
@given(pyramids, pyramids)
def test_hierarchical_recall_equals_its_slow_twin(truth: np.ndarray, predicted: np.ndarray):
    truth_parents, parents = parents_of_labels(truth), parents_of_labels(predicted)

    def matches(level: Level, segment: int, other: Level, node: int) -> bool:
        judged = truth[level] >= 0
        return iou_(truth[level] == segment, predicted[other] == node, judged) > 0.5

    paths = []  # (level, node, level of ancestor, ancestor)
    for small, part in enumerate(parents[0].tolist()):
        if part >= 0:
            paths.append((Level.SMALL, small, Level.PART, part))
            if parents[1][part] >= 0:
                paths.append((Level.SMALL, small, Level.WHOLE, int(parents[1][part])))
    for part, whole in enumerate(parents[1].tolist()):
        if whole >= 0:
            paths.append((Level.PART, part, Level.WHOLE, whole))
    found = []
    for level in (Level.SMALL, Level.PART):
        for child, parent in enumerate(truth_parents[level].tolist()):
            if parent < 0:
                continue
            found.append(
                any(
                    matches(level, child, low, node)
                    and matches(Level(level + 1), parent, high, ancestor)
                    for low, node, high, ancestor in paths
                )
            )
    recalled = hierarchical_recall(overlaps_of_view(predicted, truth), parents, truth_parents, 0.5)
    assert recalled == pytest.approx(np.mean(found) if found else np.nan, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(pyramids)
def test_nesting_violation_equals_its_slow_twin(labels: np.ndarray):
    parents = parents_of_labels(labels)
    for level in (Level.SMALL, Level.PART):
        expected = []
        for child, mask in masks_(labels[level]).items():
            parent = parents[level][child]
            inside = (mask & (labels[level + 1] == parent)).sum() if parent >= 0 else 0
            expected.append(1 - inside / mask.sum())
        value = np.mean(expected) if expected else np.nan
        assert nesting_violation(labels)[level] == pytest.approx(value, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(arrays(np.bool_, (5, *SHAPE)))
def test_part_mask_fraction_equals_its_slow_twin(masks: np.ndarray):
    inside = [
        any(
            i != j and (mask & other).sum() > 0.9 * mask.sum() and other.sum() >= 2 * mask.sum()
            for j, other in enumerate(masks)
        )
        and mask.any()
        for i, mask in enumerate(masks)
    ]
    small = [mask.sum() < 0.01 * mask.size for mask in masks]
    assert part_mask_fraction(masks) == pytest.approx((np.mean(inside), np.mean(small)))


@settings(max_examples=60, deadline=None)
@given(arrays(np.int64, (10, 5), elements=st.integers(-1, 3)))
def test_view_consistency_equals_its_slow_twin(ids: np.ndarray):
    agreeing, seen, all_ids = 0, 0, []
    for row in ids:
        own = row[row >= 0].tolist()
        if len(own) >= 3:
            agreeing += max(own.count(i) for i in own)
            seen += len(own)
            all_ids += own
    found = view_consistency(ids)
    if not seen:
        assert np.isnan(found.agreement)
        return
    assert found.agreement == pytest.approx(agreeing / seen)
    shares = [all_ids.count(i) / seen for i in set(all_ids)]
    assert found.chance == pytest.approx(sum(share**2 for share in shares))
