"""Duplicates among masks, by the overlap of their boxes.

torchvision has the same function, but its import takes 130 MB, more than all the boxes of a
scene; it is the twin that this one is tested against.
"""

import numpy as np
from jaxtyping import Float, Int
from numba import njit

_FLOAT = np.float32


def without_duplicates(
    boxes: Int[np.ndarray, "masks 4"], scores: Float[np.ndarray, " masks"], max_iou: float
) -> Int[np.ndarray, " kept"]:
    """Return the masks whose box no better mask's box overlaps by more, best first.

    Args:
        boxes: XYXY.
        scores: Of two masks the one with the higher score is better, of equals the first.
        max_iou: Overlap of boxes up to which both are kept.
    """
    order = np.argsort(-scores, kind="stable")
    kept = _greedy(boxes[order].astype(_FLOAT), float(max_iou))
    return order[kept]


@njit(nogil=True, error_model="numpy", cache=True)
def _greedy(boxes, max_iou):
    count = boxes.shape[0]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = np.ones(count, np.bool_)
    for best in range(count):
        if not kept[best]:
            continue
        left, top, right, bottom = boxes[best]
        for other in range(best + 1, count):
            width = min(right, boxes[other, 2]) - max(left, boxes[other, 0])
            height = min(bottom, boxes[other, 3]) - max(top, boxes[other, 1])
            if width <= 0 or height <= 0:
                continue
            common = width * height
            iou = common / (areas[best] + areas[other] - common)
            if np.float64(iou) > max_iou:
                kept[other] = False
    return kept
