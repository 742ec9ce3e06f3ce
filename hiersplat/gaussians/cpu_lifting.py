"""The CPU's engine for lifting: numpy round the kernels of ``weighing`` and ``voting``."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hiersplat.gaussians import voting, weighing
from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.cpu_projection import View, project
from hiersplat.gaussians.splats import Splats
from hiersplat.gaussians.tile_lists import TileLists, flat, list_tiles
from hiersplat.gaussians.workers import in_shares, side_by_side


@torch.no_grad()
def list_view(splats: Splats, camera: Camera) -> TileLists:
    """Sort the Gaussians that a camera sees into tiles."""
    radii, means2d, depths, conics, _ = project(
        splats.means,
        splats.quats,
        splats.scales,
        None,
        camera.viewmat[None],
        camera.K[None],
        View(camera.width, camera.height),
    )
    return list_tiles(
        flat(means2d),
        flat(conics),
        flat(splats.opacities),
        flat(radii),
        flat(depths),
        camera.width,
        camera.height,
    )


def weigh_labels(
    lists: TileLists, labels: np.ndarray, num_labels: int, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Gaussian, label and summed weight, one triple per tile where both meet."""
    num_tiles = len(lists.starts) - 1
    spans = np.zeros(num_tiles * 3, np.int64)
    parts = side_by_side(
        weighing.weigh_labels,
        np.zeros(1, np.int64),
        lists.starts,
        lists.entries,
        lists.words,
        lists.records,
        lists.order,
        labels,
        num_labels,
        width,
        height,
        np.zeros(1, np.int64),
        spans,
    )
    # In the order of tiles, so that sums do not depend on which worker took which tile.
    by_worker = {part[3]: part for part in parts}
    pieces = [(by_worker[worker], a, b) for worker, a, b in spans.reshape(-1, 3)]
    gaussians, columns, weights = (
        np.concatenate([part[i][a:b] for part, a, b in pieces]) for i in range(3)
    )
    return gaussians, columns, weights


def weigh_map(
    lists: TileLists,
    values: Float[Tensor, "height width num_channels"],
    sums: Float[Tensor, "num_gaussians num_channels"],
    weights: Float[Tensor, " num_gaussians"],
    channels_at_once: int = 63,
) -> None:
    """Add a map's weighted sums, and the weights, to ``sums`` and ``weights`` in place."""
    height, width, num_channels = values.shape
    pixels = flat(values)
    for first in range(0, max(num_channels, 1), channels_at_once):
        end = min(first + channels_at_once, num_channels)
        row = end - first + 1
        slots = np.empty(len(lists.entries) * row, np.float32)
        side_by_side(
            weighing.weigh_maps,
            np.zeros(1, np.int64),
            lists.starts,
            lists.entries,
            lists.words,
            lists.slot_of,
            lists.records,
            pixels,
            num_channels,
            first,
            end,
            width,
            height,
            row,
            slots,
        )
        in_shares(
            weighing.gather_sums,
            lists.slots,
            slots,
            row,
            lists.order,
            first,
            end - first,
            sums.numpy(),
            weights.numpy(),
        )


def vote_ids(
    lists: TileLists, ids: Int[np.ndarray, "num_levels num_gaussians"], width: int, height: int
) -> Int[np.ndarray, "num_levels height width"]:
    """Return the id with the largest blended weight per level and pixel."""
    out = np.empty((len(ids), height * width), np.int32)
    side_by_side(
        voting.vote_ids,
        np.zeros(1, np.int64),
        lists.starts,
        lists.entries,
        lists.words,
        lists.records,
        lists.order,
        ids,
        int(ids.max()) + 1,
        width,
        height,
        out,
    )
    return out.reshape(len(ids), height, width)
