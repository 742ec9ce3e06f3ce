"""From low-resolution logits to measured, compact masks.

SAM upsamples logits bilinearly to the image before it thresholds them; areas, stability and
boxes are those of the upsampled masks. A mask is kept as its *edges*: flat positions in the
whole image, column by column, where it begins and ends in turn (as in COCO's code).
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

logger = logging.getLogger(__name__)
_said: set[str] = set()


@dataclass(frozen=True)
class MeasuredMasks:
    """The stable ones of some masks, at full resolution, compact."""

    rows: Int[np.ndarray, " masks"]
    """Which of the masks given."""
    stability: Float[np.ndarray, " masks"]
    boxes: Int[np.ndarray, "masks 4"]
    """XYXY in the whole image, the last pixel included."""
    edges: list[Int[np.ndarray, " edges"]]


def measure_masks(
    logits: Float[Tensor, "masks height width"],
    crop_box: Int[np.ndarray, "4"],
    image_height: int,
    threshold: float,
    offset: float,
    min_stability: float,
) -> MeasuredMasks:
    """Measure masks as if upsampled to their crop, and keep those that are stable.

    Args:
        logits: As the decoder gives them.
        crop_box: XYXY of the crop in the image.
        image_height: Height of the whole image.
        threshold: Logit above which a pixel belongs to the mask.
        offset: Stability is the share of pixels above ``threshold - offset`` that are also
            above ``threshold + offset``.
        min_stability: Masks less stable are dropped; at 0 none is.
    """
    from hiersplat.segmentation import sam2_upsampling as upsampling

    left, top, right, bottom = (int(edge) for edge in crop_box)
    height, width = logits.shape[1:]
    across = upsampling.source_positions(right - left, width)
    first, _, weights = upsampling.source_positions(bottom - top, height)
    starts = upsampling.segment_starts(first, height)
    low, high = np.float32(threshold - offset), np.float32(threshold + offset)
    rows: list[int] = []
    stability, boxes, edges = [], [], []
    masks = logits.float().contiguous().cpu().numpy()
    for row in range(len(masks)):
        outer, inner = upsampling.count_above(masks[row], across, starts, weights, low, high)
        score = np.float32(inner) / np.float32(outer) if outer else np.float32(np.nan)
        # Written so that a mask without pixels, which has no score, is dropped.
        if min_stability > 0 and not score >= np.float32(min_stability):
            continue
        mask_edges, box = upsampling.trace_edges(
            np.ascontiguousarray(masks[row].T),
            across,
            starts,
            weights,
            np.float32(threshold),
            left,
            top,
            image_height,
        )
        rows.append(row)
        stability.append(score)
        boxes.append(box + (left, top, left, top))
        edges.append(mask_edges)
    return MeasuredMasks(
        np.asarray(rows, np.int64),
        np.asarray(stability, np.float32),
        np.asarray(boxes, np.int64).reshape(-1, 4),
        edges,
    )


def without_small_regions(
    logits: Float[Tensor, "masks height width"], threshold: float, max_area: int, finder: str
) -> Float[Tensor, "masks height width"]:
    """Fill holes and drop specks of at most ``max_area`` pixels, as sam2's predictor does.

    Args:
        logits: As the decoder gives them.
        threshold: Logit above which a pixel belongs to the mask.
        max_area: In pixels of ``logits``.
        finder: ``official`` for sam2's compiled extension, ``opencv``.
    """
    if not max_area or not len(logits):
        return logits
    try:
        holes = _small_components(logits <= threshold, max_area, finder)
        specks = _small_components(logits > threshold, max_area, finder)
    except Exception as error:  # The extension fails in its own ways; sam2 catches all too.
        if finder != "official":
            raise
        _say_once(
            f"small regions stay in the masks, as in sam2's own generator without its compiled "
            f"extension ({error}); small_regions='opencv' removes them"
        )
        return logits
    filled = torch.where(holes, threshold + 10.0, logits)
    return torch.where(specks, threshold - 10.0, filled)


def _small_components(
    masks: Bool[Tensor, "masks height width"], max_area: int, finder: str
) -> Bool[Tensor, "masks height width"]:
    if finder == "official":
        from sam2.utils.misc import get_connected_components

        labels, areas = get_connected_components(masks[:, None])
        return ((labels > 0) & (areas <= max_area))[:, 0]
    import cv2

    found = np.zeros(masks.shape, bool)
    for row, mask in enumerate(masks.cpu().numpy()):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            mask.astype(np.uint8), connectivity=8
        )
        is_small = stats[:, cv2.CC_STAT_AREA] <= max_area
        is_small[0] = False  # Label 0 is what lies outside the mask.
        found[row] = is_small[labels]
    return torch.from_numpy(found).to(masks.device)


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        logger.warning(message)


def dense_of_edges(edges: Int[np.ndarray, " edges"], shape: tuple[int, int]) -> np.ndarray:
    """Return the bool mask, laid out in memory as SAM's ``rle_to_mask`` lays it out."""
    from hiersplat.segmentation.sam2_upsampling import fill_runs

    flat = np.zeros(shape[0] * shape[1], bool)
    fill_runs(edges, flat)
    return flat.reshape(shape[1], shape[0]).T


def rle_of_edges(edges: Int[np.ndarray, " edges"], shape: tuple[int, int]) -> dict[str, Any]:
    """Return SAM's uncompressed run-length code."""
    total = shape[0] * shape[1]
    counts = np.diff(np.concatenate([[0], edges, [total]]))
    # Like SAM, write no run of zeros at the end if there is none.
    ends_inside = edges.size > 0 and edges[-1] == total
    counts = counts[:-1] if ends_inside else counts
    return {"size": [int(shape[0]), int(shape[1])], "counts": counts.tolist()}
