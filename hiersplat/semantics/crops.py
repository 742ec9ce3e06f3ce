"""Masked crops: what CLIPSeg's image encoder sees of one mask.

A crop is a square around the mask's box with some context. What lies outside the mask is
dimmed, what lies outside the image is filled with the image's mean colour, dimmed too.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int, UInt8


def mask_crops(
    image: UInt8[np.ndarray, "height width 3"],
    labels: Int[np.ndarray, "height width"],
    context: float,
    background: float,
) -> Iterator[tuple[int, UInt8[np.ndarray, "side side 3"]]]:
    """Yield every label with its crop, in label order; labels without pixels are passed over.

    Args:
        image: The view.
        labels: Mask label of every pixel; negative pixels belong to no mask.
        context: Surroundings on every side, as a share of the box's longer side.
        background: Brightness of what lies outside the mask, in [0, 1].

    Raises:
        ValueError: If image and labels differ in size.
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(f"labels are {labels.shape}, but the image is {image.shape[:2]}")
    from scipy.ndimage import find_objects

    mean = image.reshape(-1, 3).mean(axis=0)
    for label, box in enumerate(find_objects(labels + 1)):
        if box is not None:
            yield label, crop_mask(image, labels == label, box, context, background, mean)


def crop_mask(
    image: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    box: tuple[slice, slice],
    context: float,
    background: float,
    mean: np.ndarray,
) -> UInt8[np.ndarray, "side side 3"]:
    """Cut a square around ``box`` (rows, columns) and dim what is not in the mask."""
    rows, columns = box
    longer = max(rows.stop - rows.start, columns.stop - columns.start)
    side = max(round(longer * (1 + 2 * context)), 1)
    top = (rows.start + rows.stop - side) // 2
    left = (columns.start + columns.stop - side) // 2
    crop = np.empty((side, side, 3), np.uint8)
    crop[:] = np.round(mean * background)
    inside = (
        slice(max(top, 0), min(top + side, image.shape[0])),
        slice(max(left, 0), min(left + side, image.shape[1])),
    )
    pixels = image[inside]
    seen = np.where(mask[inside][..., None], pixels, np.round(pixels * background))
    crop[
        inside[0].start - top : inside[0].stop - top,
        inside[1].start - left : inside[1].stop - left,
    ] = seen
    return crop
