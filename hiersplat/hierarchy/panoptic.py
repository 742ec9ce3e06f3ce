"""Scene-wide panoptic quality: ids must hold across all held-out views (metrics.md)."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from hiersplat.hierarchy.overlap import compact, require_same_shape
from hiersplat.levels import UNLABELLED

MIN_TRUTH_SHARE = 0.0005
"""Truth segments below this share of all pixels of all views are ignored."""
MATCH_IOU = 0.5
"""A pair is a match above this IoU; at most one pair a segment can be."""


@dataclass(frozen=True)
class PanopticQuality:
    """Panoptic quality of one level over all views of a scene; ``quality`` = SQ x RQ."""

    quality: float
    segmentation_quality: float
    """Mean IoU of the matches; 0 without a match."""
    recognition_quality: float
    """F1 score of the matches."""
    num_matches: int
    num_truth: int
    num_predicted: int


@dataclass
class PanopticCounter:
    """Pixels of every (truth segment, predicted node) pair of one level, summed over views."""

    _pairs: list[np.ndarray] = field(default_factory=list)
    _counts: list[np.ndarray] = field(default_factory=list)
    _num_pixels: int = 0

    def update(
        self, predicted: Int[np.ndarray, "height width"], truth: Int[np.ndarray, "height width"]
    ) -> None:
        """Add one view.

        Raises:
            ValueError: If the maps differ in shape.
        """
        require_same_shape(truth, predicted)
        truth_ids, truth_places = compact(truth)
        predicted_ids, predicted_places = compact(predicted)
        columns = len(predicted_ids) + 1
        cells = (truth_places.astype(np.int64) + 1) * columns + predicted_places + 1
        histogram = np.bincount(cells.reshape(-1), minlength=(len(truth_ids) + 1) * columns)
        occupied = np.flatnonzero(histogram)
        rows = np.concatenate([[UNLABELLED], truth_ids])[occupied // columns]
        cols = np.concatenate([[UNLABELLED], predicted_ids])[occupied % columns]
        self._pairs.append(np.stack([rows, cols], axis=1))
        self._counts.append(histogram[occupied])
        self._num_pixels += truth.size

    def compute(self) -> PanopticQuality:
        """Match truth and predicted segments over all views added so far.

        Truth below ``MIN_TRUTH_SHARE`` counts as void. As is usual for void, a prediction that
        lies on it with more than half of its pixels is neither right nor wrong.
        """
        if not self._pairs:
            return PanopticQuality(float("nan"), float("nan"), float("nan"), 0, 0, 0)
        pairs, inverse = np.unique(np.concatenate(self._pairs), axis=0, return_inverse=True)
        counts = np.bincount(inverse.reshape(-1), weights=np.concatenate(self._counts))
        truth_ids, rows = compact(pairs[:, 0])
        predicted_ids, cols = compact(pairs[:, 1])
        # A last row and column hold void and the pixels without a prediction.
        table = np.zeros((len(truth_ids) + 1, len(predicted_ids) + 1))
        table[rows, cols] = counts
        is_kept = table[:-1].sum(axis=1) >= MIN_TRUTH_SHARE * self._num_pixels
        predicted_totals = table[:, :-1].sum(axis=0)
        table = table[:-1][is_kept]
        shared = table[:, :-1]
        predicted_areas = shared.sum(axis=0)
        union = table.sum(axis=1)[:, None] + predicted_areas[None] - shared
        iou = shared / np.maximum(union, 1)
        matched = iou > MATCH_IOU
        is_judged = matched.any(axis=0) | (2 * predicted_areas >= predicted_totals)
        num_matches = int(matched.sum())
        num_truth, num_predicted = len(table), int(is_judged.sum())
        if num_truth + num_predicted == 0:
            return PanopticQuality(float("nan"), float("nan"), float("nan"), 0, 0, 0)
        # matches + (unmatched predicted + unmatched truth) / 2
        denominator = (num_truth + num_predicted) / 2
        total = float(iou[matched].sum())
        return PanopticQuality(
            quality=total / denominator,
            segmentation_quality=total / num_matches if num_matches else 0.0,
            recognition_quality=num_matches / denominator,
            num_matches=num_matches,
            num_truth=num_truth,
            num_predicted=num_predicted,
        )
