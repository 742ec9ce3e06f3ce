"""Lists of the Gaussians that reach each tile of an image; numpy round the kernels of ``tiles``."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiersplat.gaussians import tiles
from hiersplat.gaussians.workers import in_given_shares, in_shares, num_workers


def flat(tensor: Tensor) -> np.ndarray:
    """Return a tensor's memory as a flat array, without a copy where it is contiguous."""
    return tensor.detach().contiguous().numpy().reshape(-1)


def zeros(*shape: int) -> Tensor:
    """Return float32 zeros that the system hands out lazily.

    torch would fill them with its own threads, which on a busy machine wait for one another.
    """
    return torch.from_numpy(np.zeros(shape, np.float32))


@dataclass(frozen=True)
class TileLists:
    """Which Gaussians reach which tile, near to far; see :mod:`hiersplat.gaussians.tiles`."""

    order: np.ndarray
    """Gaussian of every rank; ranks count visible Gaussians front to back."""

    records: np.ndarray
    """Eight numbers per rank."""

    starts: np.ndarray
    """Start of every tile's list, and one more."""

    entries: np.ndarray
    """Ranks, tile by tile."""

    words: np.ndarray
    """Blocks of the tile that every entry reaches, one bit each."""

    slot_of: np.ndarray
    """Place of every entry when entries are listed by Gaussian."""

    slots: np.ndarray
    """Start of every rank's slots, and one more."""


def list_tiles(
    means2d: np.ndarray,
    conics: np.ndarray,
    opacities: np.ndarray,
    radii: np.ndarray,
    depths: np.ndarray,
    width: int,
    height: int,
    tile_size: int = 16,
) -> TileLists:
    """Sort the Gaussians that one camera sees into tiles; all arrays are flat."""
    order = tiles.sort_by_depth(depths, radii, opacities)
    count, num_tiles = len(order), -(-width // tiles.TILE) * -(-height // tiles.TILE)
    records = np.empty(count * tiles.RECORD, np.float32)
    slots = np.zeros(count + 1, np.int64)
    histogram = np.zeros((num_workers(), num_tiles), np.int64)
    lists = in_shares(
        tiles.list_blocks,
        order,
        means2d,
        conics,
        opacities,
        np.log2(np.maximum(255.0 * opacities, 1.0, dtype=np.float32)),
        radii,
        tile_size,
        width,
        height,
        records,
        slots,
        histogram,
    )
    starts = tiles.start_tiles(histogram)
    num_entries = int(starts[-1])
    slots[count] = num_entries
    entries, words = np.empty(num_entries, np.int32), np.empty(num_entries, np.uint64)
    slot_of = np.empty(num_entries, np.int64)
    firsts = np.cumsum([0, *(len(found[0]) for found in lists)])
    in_given_shares(
        tiles.fill_tiles,
        [(*found, int(first)) for found, first in zip(lists, firsts, strict=False)],
        histogram,
        slots,
        entries,
        words,
        slot_of,
    )
    return TileLists(order, records, starts, entries, words, slot_of, slots)
