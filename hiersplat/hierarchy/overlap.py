"""Joint histograms of two label maps: all that IoU, recall, PQ and nesting need.

Label maps hold ids >= 0 and ``UNLABELLED``; ids need not be contiguous. Truth pixels that are
``UNLABELLED`` are void: they count neither for nor against a prediction.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from hiersplat.levels import UNLABELLED, Level

Parents = tuple[Int[np.ndarray, " num_small"], Int[np.ndarray, " num_part"]]
"""Part id of every small id, whole id of every part id; ``UNLABELLED`` where there is none."""

_LARGEST_TABLE = 1 << 22
"""Ids up to here are looked up in a table; beyond, they are sorted."""


def compact(
    labels: Int[np.ndarray, "*pixels"],
) -> tuple[Int[np.ndarray, " num_ids"], Int[np.ndarray, "*pixels"]]:
    """Return the ids that occur, ascending, and every pixel's place among them.

    Example:
        >>> ids, places = compact(np.array([7, UNLABELLED, 3, 7]))
        >>> ids.tolist(), places.tolist()
        ([3, 7], [1, -1, 0, 1])
    """
    largest = int(labels.max(initial=UNLABELLED))
    if largest >= _LARGEST_TABLE:
        ids, places = np.unique(labels, return_inverse=True)
        skipped = int((ids < 0).sum())
        places = places.reshape(labels.shape).astype(np.int64) - skipped
        return ids[skipped:], np.maximum(places, UNLABELLED)
    # A table is several times faster than sorting the pixels.
    shifted = np.maximum(labels, UNLABELLED).astype(np.int64) + 1
    occurs = np.bincount(shifted.reshape(-1), minlength=largest + 2) > 0
    occurs[0] = False
    table = np.cumsum(occurs) - 1
    table[~occurs] = UNLABELLED
    return np.flatnonzero(occurs) - 1, table[shifted]


@dataclass(frozen=True)
class Overlap:
    """How many pixels every truth segment shares with every predicted one, in one view."""

    truth_ids: Int[np.ndarray, " num_truth"]
    """Truth ids that occur, ascending."""
    predicted_ids: Int[np.ndarray, " num_predicted"]
    """Predicted ids that occur, ascending, those on void included."""
    counts: Int[np.ndarray, "num_truth num_predicted"]
    """Shared pixels."""
    truth_areas: Int[np.ndarray, " num_truth"]
    """Pixels of every truth segment."""
    predicted_areas: Int[np.ndarray, " num_predicted"]
    """Pixels of every predicted segment that are not void in the truth."""
    num_pixels: int
    """Pixels of the image, void included."""

    @property
    def iou(self) -> Float[np.ndarray, "num_truth num_predicted"]:
        """Intersection over union of every pair."""
        union = self.truth_areas[:, None] + self.predicted_areas[None, :] - self.counts
        return self.counts / np.maximum(union, 1)

    def large_truth(self, min_area_share: float) -> Bool[np.ndarray, " num_truth"]:
        """Truth segments that cover at least this share of the image."""
        return self.truth_areas >= min_area_share * self.num_pixels


def overlap(
    truth: Int[np.ndarray, "height width"], predicted: Int[np.ndarray, "height width"]
) -> Overlap:
    """Count the pixels shared by every pair of truth and predicted segment.

    Raises:
        ValueError: If the maps differ in shape.

    Example:
        >>> shared = overlap(np.array([[0, 0, 1]]), np.array([[5, 5, 5]]))
        >>> shared.counts.tolist(), shared.predicted_areas.tolist()
        ([[2], [1]], [3])
    """
    require_same_shape(truth, predicted)
    return overlap_of_compact(compact(truth), compact(predicted))


def overlap_of_compact(
    truth: tuple[np.ndarray, np.ndarray], predicted: tuple[np.ndarray, np.ndarray]
) -> Overlap:
    """Count as :func:`overlap` does, from maps that :func:`compact` has prepared."""
    truth_ids, truth_places = truth
    predicted_ids, predicted_places = predicted
    counted = truth_places >= 0
    # Column 0 takes the truth pixels without a prediction.
    columns = len(predicted_ids) + 1
    cells = truth_places[counted].astype(np.int64) * columns + predicted_places[counted] + 1
    histogram = np.bincount(cells, minlength=len(truth_ids) * columns)
    histogram = histogram.reshape(len(truth_ids), columns)
    counts = histogram[:, 1:]
    return Overlap(
        truth_ids=truth_ids,
        predicted_ids=predicted_ids,
        counts=counts,
        truth_areas=histogram.sum(axis=1),
        predicted_areas=counts.sum(axis=0),
        num_pixels=truth_places.size,
    )


def parents_of_labels(labels: Int[np.ndarray, "3 *pixels"]) -> Parents:
    """Derive the parent of every small and part id: the id that covers most of its pixels.

    For nested maps this is *the* parent. Ids that do not occur, or lie on nothing labelled,
    have the parent ``UNLABELLED``.

    Example:
        >>> small, part = parents_of_labels(np.array([[0, 1, 1], [0, 0, 0], [4, 4, 4]]))
        >>> small.tolist(), part.tolist()
        ([0, 0], [4])
    """
    small = _majority_parent(labels[Level.SMALL], labels[Level.PART])
    part = _majority_parent(labels[Level.PART], labels[Level.WHOLE])
    return small, part


def _majority_parent(children: np.ndarray, parents: np.ndarray) -> np.ndarray:
    shared = overlap_of_compact(compact(children), compact(parents))
    table = np.full(int(children.max(initial=UNLABELLED)) + 1, UNLABELLED, np.int64)
    if shared.counts.size:
        best = shared.counts.argmax(axis=1)
        is_covered = shared.counts.max(axis=1) > 0
        table[shared.truth_ids] = np.where(is_covered, shared.predicted_ids[best], UNLABELLED)
    return table


def parent_of(
    ids: Int[np.ndarray, " num_ids"], parents: Int[np.ndarray, " num_children"]
) -> Int[np.ndarray, " num_ids"]:
    """Look up parents; ids that are ``UNLABELLED`` or beyond the table have none."""
    known = (ids >= 0) & (ids < len(parents))
    found = np.full(ids.shape, UNLABELLED, np.int64)
    found[known] = parents[ids[known]]
    return found


def require_same_shape(truth: np.ndarray, predicted: np.ndarray) -> None:
    """Raise a ``ValueError`` with both shapes where they differ."""
    if truth.shape != predicted.shape:
        raise ValueError(
            f"predicted labels have the shape {predicted.shape}, the truth {truth.shape}"
        )
