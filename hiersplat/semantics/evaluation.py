"""Figures of text queries (metrics.md, "Text, oracle split"): finding and naming kept apart.

``oracle`` is the best answer there was to choose, ``text`` the answer the text chose. Their
difference, the naming gap, is the error of words; what the oracle lacks is the error of
segmentation. What is missing counts 0, and no threshold is fitted to what is measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class QueryScore:
    """How one text was answered in one view."""

    text: str
    """What was asked."""
    oracle: float
    """IoU of the best answer that could have been given."""
    answered: float
    """IoU of the answer that was given."""
    is_located: bool
    """Whether the answer's middle lies in what was meant."""

    @property
    def naming_gap(self) -> float:
        """What the choice by words lost."""
        return self.oracle - self.answered


def intersection_over_union(
    first: Bool[np.ndarray, "height width"], second: Bool[np.ndarray, "height width"]
) -> float:
    """Overlap of two masks; 0 if either is empty: what is missing counts 0."""
    if not first.any() or not second.any():
        return 0.0
    return float((first & second).sum() / (first | second).sum())


def best_overlap(
    answer: Bool[np.ndarray, "height width"], truths: Sequence[Bool[np.ndarray, "height width"]]
) -> float:
    """IoU of an answer with the thing it fits best, or with all of them together.

    Asked for a drawer knob where there are three, one knob is a right answer, and so are all.
    """
    if not truths:
        return 0.0
    together = np.logical_or.reduce(truths)
    return max(intersection_over_union(answer, truth) for truth in (*truths, together))


def best_node_overlap(
    nodes: Int[np.ndarray, "num_levels height width"],
    truths: Sequence[Bool[np.ndarray, "height width"]],
) -> float:
    """IoU of the best single node, over all given levels, with any of the true segments."""
    best = 0.0
    for level_nodes in nodes:
        for truth in truths:
            inside = level_nodes[truth]
            ids, shared = np.unique(inside[inside >= 0], return_counts=True)
            for node, count in zip(ids.tolist(), shared.tolist(), strict=True):
                union = int((level_nodes == node).sum()) + int(truth.sum()) - count
                best = max(best, count / union)
    return best


def innermost(mask: Bool[np.ndarray, "height width"]) -> tuple[int, int] | None:
    """Row and column of the pixel farthest from a mask's outline; ``None`` if it is empty."""
    import cv2

    if not mask.any():
        return None
    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), mask.shape)
    return int(row), int(column)


def is_inside(
    place: tuple[int, int] | None, truths: Sequence[Bool[np.ndarray, "height width"]]
) -> bool:
    """Whether a pixel lies in one of the true segments."""
    return place is not None and any(bool(truth[place]) for truth in truths)


def summarise_scores(scores: Iterable[QueryScore]) -> dict[str, float]:
    """Return the means over queries, and their number; NaN where there were none."""
    listed = list(scores)

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    return {
        "oracle_miou": mean([score.oracle for score in listed]),
        "text_miou": mean([score.answered for score in listed]),
        "naming_gap": mean([score.naming_gap for score in listed]),
        "localization": mean([float(score.is_located) for score in listed]),
        "queries": len(listed),
    }
