"""How good a hierarchy is: the figures of metrics.md, class agnostic, on held-out views.

A view's labels are ``(3, height, width)``, indexed by :class:`Level`; ``UNLABELLED`` truth is void
and ignored in predictions. Truth segments below 0.1 % of the image are not asked for. A missing
prediction counts 0. Figures are means over a view's segments, then over views; a view without
any segment to ask for is left out of that mean.

:class:`HierarchyMetrics` gathers everything; the functions it calls judge one view each.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from hiersplat.hierarchy.boundary import boundary_iou
from hiersplat.hierarchy.overlap import (
    Overlap,
    Parents,
    compact,
    overlap,
    overlap_of_compact,
    parent_of,
    parents_of_labels,
    require_same_shape,
)
from hiersplat.hierarchy.panoptic import PanopticCounter
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import UNLABELLED, Level

MIN_AREA_SHARE = 0.001
"""Segments below this share of the image are not judged in a view."""
COVERING_SHARE = 0.05
"""Share of a segment from which on another counts as covering it (over- and under-segmentation)."""

ViewOverlaps = dict[tuple[Level, Level], Overlap]
"""Overlap of the truth at the first level with the prediction at the second, of one view."""


def overlaps_of_view(
    predicted: Int[np.ndarray, "3 height width"], truth: Int[np.ndarray, "3 height width"]
) -> ViewOverlaps:
    """Count shared pixels for every truth level and every predicted level.

    Raises:
        ValueError: If the maps differ in shape or do not have three levels.
    """
    require_same_shape(truth, predicted)
    if truth.ndim != 3 or len(truth) != len(Level):
        raise ValueError(f"labels must have the shape (3, height, width), not {truth.shape}")
    truths = {level: compact(truth[level]) for level in Level}
    predictions = {level: compact(predicted[level]) for level in Level}
    return {
        (asked, given): overlap_of_compact(truths[asked], predictions[given])
        for asked in Level
        for given in Level
    }


def best_iou(shared: Overlap) -> np.ndarray:
    """IoU of the best predicted segment for every truth segment; 0 where there is none."""
    return shared.iou.max(axis=1, initial=0.0)


def miou(shared: Overlap) -> float:
    """Mean over truth segments of the best IoU (metrics.md, 1); NaN without segments."""
    return _mean(best_iou(shared)[shared.large_truth(MIN_AREA_SHARE)])


def miou_any(shared: Sequence[Overlap]) -> float:
    """As :func:`miou`, over the predictions of all levels (metrics.md, 2).

    Args:
        shared: Overlaps of one truth level with each predicted level.
    """
    best = np.max([best_iou(one) for one in shared], axis=0)
    return _mean(best[shared[0].large_truth(MIN_AREA_SHARE)])


def recall(shared: Overlap, threshold: float) -> float:
    """Share of truth segments whose best IoU exceeds the threshold (metrics.md, 3)."""
    best = best_iou(shared)[shared.large_truth(MIN_AREA_SHARE)]
    return _mean(np.asarray(best > threshold))


def hierarchical_recall(
    overlaps: ViewOverlaps, predicted_parents: Parents, truth_parents: Parents, threshold: float
) -> float:
    """Share of truth parent-child pairs found as a path of the predicted tree (metrics.md, 4).

    A pair is found if some predicted child and one of its ancestors, at whatever levels,
    match the truth's child and parent with an IoU above the threshold.
    """
    found: list[np.ndarray] = []
    for child_level in (Level.SMALL, Level.PART):
        parent_level = Level(child_level + 1)
        children = overlaps[child_level, child_level]
        parents = overlaps[parent_level, parent_level]
        pairs = _is_parent(children.truth_ids, parents.truth_ids, [truth_parents[child_level]])
        pairs &= children.large_truth(MIN_AREA_SHARE)[:, None]
        pairs &= parents.large_truth(MIN_AREA_SHARE)[None, :]
        recovered = np.zeros(pairs.shape, bool)
        for lower in (Level.SMALL, Level.PART):
            for upper in range(lower + 1, len(Level)):
                below = overlaps[child_level, lower]
                above = overlaps[parent_level, Level(upper)]
                chain = predicted_parents[lower:upper]
                paths = _is_parent(below.predicted_ids, above.predicted_ids, chain)
                matched = (below.iou > threshold).astype(np.float32)
                recovered |= (matched @ paths @ (above.iou > threshold).T) > 0
        found.append(recovered[pairs])
    return _mean(np.concatenate(found))


def _is_parent(
    children: np.ndarray, ancestors: np.ndarray, chain: Sequence[np.ndarray]
) -> Bool[np.ndarray, "num_children num_ancestors"]:
    """Tell for every pair whether walking up the chain of tables leads from one to the other."""
    for parents in chain:
        children = parent_of(children, parents)
    return (children[:, None] == ancestors[None, :]) & (children >= 0)[:, None]


def nesting_violation(
    labels: Int[np.ndarray, "3 *places"], parents: Parents | None = None
) -> tuple[float, float]:
    """Mean share of a child that lies outside its parent, for smalls and parts (metrics.md, 5).

    Works on rendered masks (places are pixels) and on Gaussians (places are Gaussians): with a
    tree the latter is 0 by construction, the former is not, because of blending.

    Args:
        labels: Ids of every place at every level.
        parents: The tree; without it the parent is the id that covers most of the child.
    """
    tables = parents_of_labels(labels) if parents is None else parents
    violations: list[float] = []
    for level in (Level.SMALL, Level.PART):
        shared = overlap(labels[level], labels[level + 1])
        expected = parent_of(shared.truth_ids, tables[level])
        inside = (shared.counts * (shared.predicted_ids[None] == expected[:, None])).sum(axis=1)
        violations.append(_mean(1 - inside / np.maximum(shared.truth_areas, 1)))
    return violations[0], violations[1]


def parents_of_tree(tree: SceneTree) -> Parents:
    """Return the parents of a tree's nodes as tables indexed by node id."""
    table = np.full(max((node.id for node in tree.nodes), default=-1) + 1, UNLABELLED, np.int64)
    for node in tree.nodes:
        table[node.id] = node.parent
    return table, table


def over_segmentation(shared: Overlap) -> float:
    """Mean number of predicted segments that cover at least 5 % of a truth segment."""
    covering = shared.counts >= COVERING_SHARE * shared.truth_areas[:, None]
    return _mean(covering.sum(axis=1)[shared.large_truth(MIN_AREA_SHARE)])


def under_segmentation(shared: Overlap) -> float:
    """Mean number of truth segments that cover at least 5 % of a predicted segment.

    Predicted segments below 0.1 % of the image are left out: slivers lie on one truth segment
    by their size and would flatter the mean.
    """
    covering = shared.counts >= COVERING_SHARE * shared.predicted_areas[None, :]
    is_large = shared.predicted_areas >= max(MIN_AREA_SHARE * shared.num_pixels, 1)
    return _mean(covering.sum(axis=0)[is_large])


def part_mask_fraction(masks: Bool[np.ndarray, "num_masks height width"]) -> tuple[float, float]:
    """Share of masks that are parts of another, and share of small masks (metrics.md, 10).

    Returns:
        Share of masks that lie by more than 90 % in another mask of at least twice their area,
        and share of masks below 1 % of the image. State both with the segmenter's settings.
    """
    from scipy.sparse import csr_matrix

    if not len(masks):
        return float("nan"), float("nan")
    flat = csr_matrix(masks.reshape(len(masks), -1), dtype=np.int32)
    shared = np.asarray((flat @ flat.T).todense())
    areas = np.diagonal(shared)
    is_inside = (shared > 0.9 * areas[:, None]) & (areas[None, :] >= 2 * areas[:, None])
    is_inside = np.logical_and(is_inside, areas[:, None] > 0)
    is_small = np.less(areas, 0.01 * masks[0].size)
    return _mean(np.any(is_inside, axis=1)), _mean(np.asarray(is_small))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


class HierarchyMetrics:
    """Gather the figures of a scene view by view.

    Example:
        >>> truth = np.zeros((3, 8, 8), np.int32)
        >>> metrics = HierarchyMetrics()
        >>> _ = metrics.update("view", predicted=truth + 4, truth=truth)
        >>> figures = metrics.compute()
        >>> figures["miou_part"], figures["pq_whole"]
        (1.0, 1.0)
    """

    def __init__(
        self, predicted_parents: Parents | None = None, truth_parents: Parents | None = None
    ) -> None:
        """Start without views.

        Args:
            predicted_parents: The predicted tree. Without it every view's parents are derived
                from its own labels, which is right for masks that have no tree.
            truth_parents: The true tree; derived from every view's labels without it.
        """
        self.predicted_parents = predicted_parents
        self.truth_parents = truth_parents
        self.views: dict[str, dict[str, float]] = {}
        """Figures of every view added so far."""
        self._panoptic = {level: PanopticCounter() for level in Level}
        self._fixed: dict[str, float] = {}

    @classmethod
    def of_tree(cls, tree: SceneTree, truth_parents: Parents | None = None) -> "HierarchyMetrics":
        """Start for predictions rendered from a tree: its edges count, and its own nesting."""
        metrics = cls(parents_of_tree(tree), truth_parents)
        small, part = nesting_violation(tree.node_ids, metrics.predicted_parents)
        metrics._fixed = {
            "nesting_violation_gaussians_small": small,
            "nesting_violation_gaussians_part": part,
        }
        return metrics

    def update(
        self,
        view_name: str,
        predicted: Int[np.ndarray, "3 height width"],
        truth: Int[np.ndarray, "3 height width"],
    ) -> dict[str, float]:
        """Add one held-out view and return its own figures.

        Raises:
            ValueError: If the view was added before or the maps do not fit.
        """
        if view_name in self.views:
            raise ValueError(f"view {view_name!r} was added before; every view counts once")
        overlaps = overlaps_of_view(predicted, truth)
        predicted_parents = self.predicted_parents or parents_of_labels(predicted)
        truth_parents = self.truth_parents or parents_of_labels(truth)
        figures: dict[str, float] = {}
        for level in Level:
            shared = overlaps[level, level]
            figures[f"miou_{level.title}"] = miou(shared)
            figures[f"miou_any_{level.title}"] = miou_any([overlaps[level, x] for x in Level])
            figures[f"recall50_{level.title}"] = recall(shared, 0.5)
            figures[f"recall75_{level.title}"] = recall(shared, 0.75)
            figures[f"over_seg_{level.title}"] = over_segmentation(shared)
            figures[f"under_seg_{level.title}"] = under_segmentation(shared)
            edges = boundary_iou(predicted[level], truth[level])
            figures[f"boundary_iou_{level.title}"] = _mean(
                edges[shared.large_truth(MIN_AREA_SHARE)]
            )
            self._panoptic[level].update(predicted[level], truth[level])
        for percent in (50, 75):
            figures[f"hier_recall{percent}"] = hierarchical_recall(
                overlaps, predicted_parents, truth_parents, percent / 100
            )
        small, part = nesting_violation(predicted, predicted_parents)
        figures["nesting_violation_rendered_small"] = small
        figures["nesting_violation_rendered_part"] = part
        self.views[view_name] = figures
        return figures

    def compute(self) -> dict[str, float]:
        """Return the scene's figures: means over views, and scene-wide panoptic quality.

        Raises:
            ValueError: If no view was added.
        """
        if not self.views:
            raise ValueError("no held-out view carries truth labels, so there is nothing to judge")
        result: dict[str, float] = {}
        for name in next(iter(self.views.values())):
            values = np.array([view[name] for view in self.views.values()])
            result[name] = _mean(values[~np.isnan(values)])
        for level in Level:
            panoptic = self._panoptic[level].compute()
            result[f"pq_{level.title}"] = panoptic.quality
            result[f"sq_{level.title}"] = panoptic.segmentation_quality
            result[f"rq_{level.title}"] = panoptic.recognition_quality
            result[f"num_truth_{level.title}"] = panoptic.num_truth
            result[f"num_predicted_{level.title}"] = panoptic.num_predicted
        result["num_views"] = len(self.views)
        result.update(self._fixed)
        return result
