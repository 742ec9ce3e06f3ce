"""Masks as runs: pure functions that treat many masks of one image without dense copies.

A mask is handled as its *edges*: the flat positions, column by column as in COCO's run-length
code, where it begins and ends in turn. The masks of an image cut it into *atoms*, the sets
of pixels that belong to exactly the same masks; whatever concerns sets of masks (overlaps,
containment, painting) is exact on atoms and there are far fewer atoms than pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

Edges = Int[np.ndarray, " num_edges"]
"""Flat column-major positions where a mask begins, ends, begins again ..."""


def edges_of_dense(mask: Bool[np.ndarray, "height width"]) -> Edges:
    """Return the edges of a dense mask.

    Example:
        >>> edges_of_dense(np.array([[False, True], [False, True]])).tolist()
        [2, 4]
    """
    height = mask.shape[0]
    columns = np.flatnonzero(mask.any(axis=0))
    if columns.size == 0:
        return np.empty(0, np.int64)
    first, last = int(columns[0]), int(columns[-1])
    flat = mask[:, first : last + 1].T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = [[0]] if flat[0] else []
    tails = [[flat.size]] if flat[-1] else []
    return np.concatenate([*ends, changes, *tails]).astype(np.int64) + first * height


def edges_of(segmentation: Any, shape: tuple[int, int]) -> Edges:
    """Return the edges of a record's ``segmentation``, dense or run-length coded.

    Args:
        segmentation: A bool array, or a dict with ``size`` and ``counts``, where ``counts``
            is a list (SAM's ``uncompressed_rle``) or COCO's compressed text.
        shape: Height and width that the mask must have.

    Raises:
        ValueError: If the mask has another shape or its code does not fill the image.
    """
    if not isinstance(segmentation, dict):
        mask = np.asarray(segmentation)
        if mask.shape != shape:
            raise ValueError(f"a mask of shape {mask.shape} does not fit an image of shape {shape}")
        return edges_of_dense(mask.astype(bool, copy=False))
    if tuple(segmentation["size"]) != tuple(shape):
        raise ValueError(
            f"a mask of shape {tuple(segmentation['size'])} does not fit an image of shape {shape}"
        )
    counts = segmentation["counts"]
    if isinstance(counts, str | bytes):
        counts = _uncompress(counts)
    ends = np.cumsum(np.asarray(counts, np.int64))
    total = int(ends[-1]) if ends.size else 0
    if total != shape[0] * shape[1] or (np.asarray(counts) < 0).any():
        raise ValueError(f"a run-length code of {total} pixels does not fill a shape of {shape}")
    edges = ends if ends.size % 2 == 0 else ends[:-1]
    # Two equal neighbours enclose nothing: an empty run of the mask, or of what is between.
    while edges.size and (same := np.flatnonzero(edges[1:] == edges[:-1])).size:
        edges = np.delete(edges, [same[0], same[0] + 1])
    return edges


def _uncompress(text: str | bytes) -> list[int]:
    """Decode COCO's compressed counts: five bits a character, differences from the third on."""
    codes = text.encode() if isinstance(text, str) else text
    counts: list[int] = []
    value = shift = 0
    for code in codes:
        chunk = code - 48
        value |= (chunk & 0x1F) << shift
        shift += 5
        if not chunk & 0x20:
            if chunk & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def rle_of(edges: Edges, shape: tuple[int, int], compress: bool = False) -> dict[str, Any]:
    """Return edges as a run-length code: SAM's ``uncompressed_rle``, or COCO's compressed text."""
    stops = np.concatenate([[0], edges, [shape[0] * shape[1]]])
    runs = np.diff(stops)
    # A trailing run of no zeros is not written.
    counts = (runs[:-1] if runs.size > 1 and runs[-1] == 0 else runs).tolist()
    size = [int(shape[0]), int(shape[1])]
    return {"size": size, "counts": _compress(counts) if compress else counts}


def _compress(counts: list[int]) -> str:
    """Encode counts as COCO does; the inverse of :func:`_uncompress`."""
    text: list[str] = []
    for index, count in enumerate(counts):
        value = count - (counts[index - 2] if index > 2 else 0)
        more = True
        while more:
            chunk = value & 0x1F
            value >>= 5
            more = value != (-1 if chunk & 0x10 else 0)
            text.append(chr((chunk | 0x20 if more else chunk) + 48))
    return "".join(text)


def dense_of(edges: Edges, shape: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """Return the dense mask of edges."""
    steps = np.zeros(shape[0] * shape[1] + 1, np.int8)
    steps[edges[0::2]] += 1
    steps[edges[1::2]] -= 1
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool).reshape(shape[1], shape[0]).T


def area_of(edges: Edges) -> int:
    """Number of pixels of a mask."""
    return int((edges[1::2] - edges[0::2]).sum())


def bounding_box(edges: Edges, shape: tuple[int, int]) -> list[int]:
    """Smallest box around a mask as SAM writes it: left, top, width, height.

    Like SAM's, the width and height are differences of pixel indices, so one pixel has 0.
    """
    if edges.size == 0:
        return [0, 0, 0, 0]
    height = shape[0]
    starts, lasts = edges[0::2], edges[1::2] - 1
    left, right = int(starts[0] // height), int(lasts[-1] // height)
    wraps = (starts // height) != (lasts // height)
    top = 0 if wraps.any() else int((starts % height).min())
    bottom = height - 1 if wraps.any() else int((lasts % height).max())
    return [left, top, right - left, bottom - top]


@dataclass(frozen=True)
class Atoms:
    """The partition of an image into sets of pixels that lie in the same masks."""

    of_pixel: Int[np.ndarray, "height width"]
    """Atom of every pixel; -1 where there is no mask."""
    areas: Int[np.ndarray, " num_atoms"]
    """Pixels of every atom."""
    member: Bool[np.ndarray, "num_atoms num_masks"]
    """Whether an atom lies in a mask."""

    def intersections(self) -> Float[np.ndarray, "num_masks num_masks"]:
        """Pixels shared by every two masks; the diagonal holds the areas."""
        num_masks = self.member.shape[1]
        shared = np.zeros((num_masks, num_masks))
        for start in range(0, len(self.areas), 8192):
            rows = slice(start, start + 8192)
            member = self.member[rows].astype(np.float64)
            shared += member.T @ (member * self.areas[rows, None])
        return shared


def cut_into_atoms(masks: list[Edges], shape: tuple[int, int]) -> Atoms:
    """Partition an image by its masks.

    Every mask gets a random 64-bit key and every pixel the sum of the keys of its masks, so
    equal sums mean equal masks (two different sets collide with a chance below 1e-9).
    The cost grows with the length of the masks' outlines, not with their area.
    """
    keys = np.random.default_rng(0).integers(1, 2**64 - 1, size=len(masks), dtype=np.uint64)
    steps = np.zeros(shape[0] * shape[1] + 1, np.uint64)
    for key, edges in zip(keys, masks, strict=True):
        steps[edges[0::2]] += key
        steps[edges[1::2]] -= key
    sums = np.cumsum(steps[:-1], dtype=np.uint64)
    starts = np.concatenate([[0], np.flatnonzero(sums[1:] != sums[:-1]) + 1])
    lengths = np.diff(np.concatenate([starts, [sums.size]]))
    distinct, first, atom_of_run = np.unique(sums[starts], return_index=True, return_inverse=True)
    is_void = distinct == 0
    number = np.where(is_void, -1, np.cumsum(~is_void) - 1)
    atom_of_run = number[atom_of_run]
    of_pixel = np.repeat(atom_of_run, lengths).reshape(shape[1], shape[0]).T
    covered = atom_of_run >= 0
    num_atoms = int((~is_void).sum())
    areas = np.bincount(atom_of_run[covered], lengths[covered], num_atoms).astype(np.int64)
    positions = starts[first[~is_void]]
    member = np.zeros((num_atoms, len(masks)), bool)
    for column, edges in enumerate(masks):
        member[:, column] = np.searchsorted(edges, positions, side="right") % 2 == 1
    return Atoms(np.ascontiguousarray(of_pixel, np.int32), areas, member)


def edges_per_label(labels: Int[np.ndarray, "height width"]) -> dict[int, Edges]:
    """Return the edges of every label of a map; negative labels are skipped."""
    flat = labels.T.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.concatenate([starts[1:], [flat.size]])
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(values[order])) + 1)
    return {
        int(values[group[0]]): merge_runs(starts[group], ends[group])
        for group in groups
        if values[group[0]] >= 0
    }


def merge_runs(starts: Int[np.ndarray, " num_runs"], ends: Int[np.ndarray, " num_runs"]) -> Edges:
    """Return the edges of the union of runs that are sorted and do not overlap."""
    edges = np.stack([starts, ends], axis=1).reshape(-1).astype(np.int64)
    touching = np.flatnonzero(edges[2::2] == edges[1:-1:2])
    return np.delete(edges, np.concatenate([2 * touching + 1, 2 * touching + 2]))


def make_record(
    edges: Edges,
    shape: tuple[int, int],
    predicted_iou: float,
    stability_score: float,
) -> dict[str, Any]:
    """Return a mask as a record with SAM's keys; the prompt point is a pixel of the mask."""
    middle = (edges[0::2] + edges[1::2]) // 2
    point = int(middle[np.argmax(edges[1::2] - edges[0::2])])
    return {
        "segmentation": rle_of(edges, shape),
        "area": area_of(edges),
        "bbox": bounding_box(edges, shape),
        "predicted_iou": float(predicted_iou),
        "point_coords": [[float(point // shape[0]), float(point % shape[0])]],
        "stability_score": float(stability_score),
        "crop_box": [0, 0, int(shape[1]), int(shape[0])],
    }
