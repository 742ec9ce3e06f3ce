"""A start for Gaussians where views are cut out: the surface of the hull that silhouettes leave.

A grid over the scene is carved: a cell that any view sees through cannot hold anything. What is
left is close to the surface, where points drawn at random lie mostly in empty space.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from hiersplat.gaussians.cameras import Camera

View = tuple[Camera, UInt8[np.ndarray, "height width 4"]]
"""A camera and its image, RGB and opacity."""

RESOLUTION = 128
"""Cells along each side of the grid."""
MIN_TRANSPARENT = 0.05
"""Share of all pixels that must be transparent for silhouettes to say anything."""
MIN_CELLS = 500
"""Fewer cells on the surface are no object, but silhouettes that contradict one another."""
_OPAQUE = 128


def silhouette_hull(
    views: Sequence[View],
    low: Float[np.ndarray, "3"],
    high: Float[np.ndarray, "3"],
    count: int,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "num_points 3"], UInt8[np.ndarray, "num_points 3"]] | None:
    """Return coloured points on the surface of the hull of all silhouettes.

    Args:
        views: Views of one object, around it; ``None`` is returned where they are not cut out.
        low: Least corner of the box that holds the object.
        high: Greatest corner.
        count: Most points to return.
        seed: Of where in its cell a point lies, and of which points are left out.

    Returns:
        Positions and colours; ``None`` without silhouettes or where they leave nothing.
    """
    solid = [image[..., 3] >= _OPAQUE for _, image in views]
    if not views or np.mean([1 - one.mean() for one in solid]) < MIN_TRANSPARENT:
        return None
    cameras = [camera for camera, _ in views]
    cells = _carve(cameras, solid, low, high)
    if not len(cells):
        return None
    # Once more in the box of what is left, where cells are smaller.
    edge = (high - low) / RESOLUTION
    low, high = low + (cells.min(0) - 1) * edge, low + (cells.max(0) + 2) * edge
    cells = _carve(cameras, solid, low, high)
    surface = cells[_is_surface(cells)]
    if len(surface) < MIN_CELLS:
        return None
    rng = np.random.default_rng(seed)
    surface = surface[np.sort(rng.permutation(len(surface))[:count])]
    centres = _centres(surface, low, high)
    colors = _colors(views, centres, float((high - low).max() / RESOLUTION))
    inside = (rng.random(centres.shape) - 0.5) * (high - low) / RESOLUTION
    return (centres + inside).astype(np.float32), colors


def _centres(cells: Int[np.ndarray, "n 3"], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return low + (cells + 0.5) * (high - low) / RESOLUTION


def _project(
    camera: Camera, points: Float[np.ndarray, "n 3"]
) -> tuple[
    Int[np.ndarray, "n"], Int[np.ndarray, "n"], Float[np.ndarray, "n"], Bool[np.ndarray, "n"]
]:
    """Return column, row and depth of points, and which of them lie in the image."""
    viewmat, K = camera.viewmat.double().numpy(), camera.K.double().numpy()
    local = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    depth = local[:, 2]
    ahead = np.where(depth > 1e-6, depth, 1.0)
    column = np.floor(local[:, 0] / ahead * K[0, 0] + K[0, 2])
    row = np.floor(local[:, 1] / ahead * K[1, 1] + K[1, 2])
    seen = (depth > 1e-6) & (column >= 0) & (row >= 0)
    seen &= (column < camera.width) & (row < camera.height)
    return np.where(seen, column, 0).astype(int), np.where(seen, row, 0).astype(int), depth, seen


def _carve(
    cameras: Sequence[Camera],
    solid: Sequence[Bool[np.ndarray, "height width"]],
    low: np.ndarray,
    high: np.ndarray,
) -> Int[np.ndarray, "n 3"]:
    """Return the cells that no view sees through and that half of the views see."""
    cells = np.stack(np.meshgrid(*[np.arange(RESOLUTION)] * 3, indexing="ij"), -1).reshape(-1, 3)
    times_seen = np.zeros(len(cells), np.int32)
    cell = float((high - low).max() / RESOLUTION)
    for camera, mask in zip(cameras, solid, strict=True):
        column, row, depth, seen = _project(camera, _centres(cells, low, high))
        if not seen.any():
            continue
        # A cell covers several pixels: it is empty only if all of them are, or legs would go.
        reach = int(np.ceil(float(camera.K[0, 0]) * cell / np.median(depth[seen])))
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((reach | 1, reach | 1), np.uint8)) > 0
        kept = ~seen | wide[row, column]
        cells, times_seen = cells[kept], times_seen[kept] + seen[kept]
    return cells[times_seen * 2 >= len(cameras)]


def _is_surface(cells: Int[np.ndarray, "n 3"]) -> Bool[np.ndarray, "n"]:
    """Whether one of the six neighbours of a cell is empty."""
    full = np.zeros((RESOLUTION + 2,) * 3, bool)
    x, y, z = (cells + 1).T
    full[x, y, z] = True
    inner = np.ones(len(cells), bool)
    for axis in range(3):
        for step in (-1, 1):
            place = [x, y, z]
            place[axis] = place[axis] + step
            inner &= full[tuple(place)]
    return ~inner


def _colors(
    views: Sequence[View], points: Float[np.ndarray, "n 3"], cell: float
) -> UInt8[np.ndarray, "n 3"]:
    """Mean colour of every point over the views in which nothing of the hull is before it."""
    sums, weights = np.zeros((len(points), 3)), np.zeros(len(points))
    for camera, image in views:
        column, row, depth, seen = _project(camera, points)
        if not seen.any():
            continue
        # Depth is compared in blocks as large as a cell, which the points of a surface fill.
        block = max(round(2 * float(camera.K[0, 0]) * cell / np.median(depth[seen])), 1)
        across = camera.width // block + 1
        place = row // block * across + column // block
        nearest = np.full((camera.height // block + 1) * across, np.inf)
        np.minimum.at(nearest, place[seen], depth[seen])
        # A point that no view shows gets the mean of all.
        weight = np.where(depth <= nearest[place] + 2 * cell, 1.0, 1e-6) * seen
        weight *= image[row, column, 3] / 255
        sums += weight[:, None] * image[row, column, :3]
        weights += weight
    mean = sums / np.maximum(weights, 1e-12)[:, None]
    return np.where(weights[:, None] > 0, mean, 128).round().astype(np.uint8)
