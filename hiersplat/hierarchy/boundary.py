"""Boundary IoU of label maps (metrics.md, 9): how well outlines agree, not areas."""

import math

import numpy as np
from jaxtyping import Float, Int

from hiersplat.hierarchy.overlap import compact, overlap
from hiersplat.levels import UNLABELLED


def boundary_map(labels: Int[np.ndarray, "height width"]) -> Int[np.ndarray, "height width"]:
    """Keep labels only on the boundary of their segment, ``UNLABELLED`` elsewhere.

    The boundary is the mask less its erosion by 3 x 3, repeated 0.02 times the image's diagonal;
    the edge of the image is a boundary too, as in LERF-Mask's evaluation.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    iterations = max(round(0.02 * math.hypot(*labels.shape)), 1)
    # Erosions by 3 x 3 add up to one by a square, and a square holds one label only
    # where its minimum and maximum agree: all masks of a map are eroded at once.
    size = 2 * iterations + 1
    outside = UNLABELLED - 1
    lowest = minimum_filter(labels, size, mode="constant", cval=outside)
    highest = maximum_filter(labels, size, mode="constant", cval=outside)
    return np.where(lowest == highest, UNLABELLED, labels)


def boundary_iou(
    predicted: Int[np.ndarray, "height width"], truth: Int[np.ndarray, "height width"]
) -> Float[np.ndarray, " num_truth"]:
    """IoU of boundaries of every truth segment and the predicted segment of best IoU.

    Among several of the same best IoU the one of the best boundary counts.

    Returns:
        One value per truth id that occurs, ascending; 0 where nothing was predicted.

    Raises:
        ValueError: If the maps differ in shape.
    """
    judged = np.where(truth < 0, UNLABELLED, predicted)
    shared = overlap(truth, judged)
    if not shared.counts.size:
        return np.zeros(len(shared.truth_ids))
    truth_edges, predicted_edges = boundary_map(truth), boundary_map(judged)
    # Every segment has a boundary, so ids and their order are those of ``shared``.
    edges = overlap(truth_edges, predicted_edges)
    places = compact(predicted_edges)[1]
    areas = np.bincount(places[places >= 0], minlength=len(shared.predicted_ids))
    union = edges.truth_areas[:, None] + areas[None, :] - edges.counts
    # Several predictions can share the best IoU; which has the lowest id must not matter.
    is_best = shared.iou == shared.iou.max(axis=1, keepdims=True)
    return np.where(is_best, edges.counts / union, 0.0).max(axis=1)
