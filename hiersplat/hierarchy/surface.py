"""Surface points seen by several views, and how far views agree on them (metrics.md, 7 and 8).

Points are pixels unprojected by depth. A point is visible in a view if it projects into the
image and the depth there differs by less than 1 % of the scene's radius. What a view says about
a point is an id; ``(num_points, num_views)`` arrays hold ``UNLABELLED`` where it says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from hiersplat.gaussians.cameras import Camera
from hiersplat.hierarchy.overlap import compact
from hiersplat.levels import UNLABELLED

MIN_VIEWS = 3
"""Views a point must be seen in to count for :func:`view_consistency`."""
_DEPTH_TOLERANCE = 0.01
_NOT_SEEN = -1


@dataclass(frozen=True)
class SurfacePoints:
    """Points on the surface and the pixels they are seen at."""

    positions: Float[np.ndarray, "num_points 3"]
    """In the frame of the cameras."""
    pixels: Int[np.ndarray, "num_points num_views"]
    """Row times width plus column of the pixel in every view; -1 where the point is not seen."""

    def labels(
        self, maps: Sequence[Int[np.ndarray, "height width"]]
    ) -> Int[np.ndarray, "num_points num_views"]:
        """Look up what every view's label map says about every point."""
        if len(maps) != self.pixels.shape[1]:
            raise ValueError(f"{len(maps)} label maps for {self.pixels.shape[1]} views")
        found = np.full(self.pixels.shape, UNLABELLED, np.int64)
        for view, labels in enumerate(maps):
            seen = self.pixels[:, view] != _NOT_SEEN
            found[seen, view] = labels.reshape(-1)[self.pixels[seen, view]]
        return found


def sample_surface(
    cameras: Sequence[Camera],
    depths: Sequence[Float[np.ndarray, "height width"]],
    points_per_view: int = 500,
    seed: int = 0,
) -> SurfacePoints:
    """Unproject random pixels of every view and find the views that see them.

    Args:
        cameras: One a view.
        depths: Distance along the camera's axis of every pixel; not finite where there is nothing.
        points_per_view: Pixels drawn in every view.
        seed: Of the draw.

    Raises:
        ValueError: If no view sees anything.
    """
    random = np.random.default_rng(seed)
    samples: list[np.ndarray] = []
    for camera, depth in zip(cameras, depths, strict=True):
        filled = np.flatnonzero(np.isfinite(depth))
        chosen = random.choice(filled, min(points_per_view, len(filled)), replace=False)
        samples.append(_unproject(camera, chosen, depth.reshape(-1)[chosen]))
    positions = np.concatenate(samples) if samples else np.empty((0, 3))
    if not len(positions):
        raise ValueError("no view shows anything: every depth map is empty")
    radius = np.quantile(np.linalg.norm(positions - np.median(positions, axis=0), axis=1), 0.95)
    tolerance = _DEPTH_TOLERANCE * max(float(radius), 1e-12)
    pixels = [
        _visible_pixels(camera, depth, positions, tolerance)
        for camera, depth in zip(cameras, depths, strict=True)
    ]
    return SurfacePoints(positions, np.stack(pixels, axis=1))


def _unproject(camera: Camera, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
    K, viewmat = camera.K.double().numpy(), camera.viewmat.double().numpy()
    rows, columns = np.divmod(pixels, camera.width)
    x = (columns + 0.5 - K[0, 2]) / K[0, 0] * depth
    y = (rows + 0.5 - K[1, 2]) / K[1, 1] * depth
    local = np.stack([x, y, depth], axis=1)
    return (local - viewmat[:3, 3]) @ viewmat[:3, :3]


def _visible_pixels(
    camera: Camera, depth: np.ndarray, positions: np.ndarray, tolerance: float
) -> np.ndarray:
    K, viewmat = camera.K.double().numpy(), camera.viewmat.double().numpy()
    local = positions @ viewmat[:3, :3].T + viewmat[:3, 3]
    distance = local[:, 2]
    ahead = np.maximum(distance, 1e-9)
    columns = np.floor(local[:, 0] / ahead * K[0, 0] + K[0, 2])
    rows = np.floor(local[:, 1] / ahead * K[1, 1] + K[1, 2])
    inside = (distance > 0) & (columns >= 0) & (columns < camera.width)
    inside &= (rows >= 0) & (rows < camera.height)
    pixels = np.full(len(positions), _NOT_SEEN, np.int64)
    pixels[inside] = (rows[inside] * camera.width + columns[inside]).astype(np.int64)
    surface = depth.reshape(-1)[np.maximum(pixels, 0)]
    # Not finite minus finite is never below the tolerance: empty pixels show nothing.
    is_seen = inside & (np.abs(distance - surface) < tolerance)
    return np.where(is_seen, pixels, _NOT_SEEN)


@dataclass(frozen=True)
class ViewConsistency:
    """How far views give the same point the same id; never to be read without the chance."""

    agreement: float
    """Share of (point, view) observations equal to the point's most frequent id."""
    chance: float
    """Sum of squared id shares: the probability that two observations agree by accident."""
    num_ids: int
    num_points: int


def view_consistency(ids: Int[np.ndarray, "num_points num_views"]) -> ViewConsistency:
    """Compare what views say about points that at least three of them label.

    Example:
        >>> view_consistency(np.array([[4, 4, 4, 7], [7, 7, 7, UNLABELLED]])).agreement
        0.8571428571428571
    """
    ids = ids[(ids != UNLABELLED).sum(axis=1) >= MIN_VIEWS]
    points, views = np.nonzero(ids != UNLABELLED)
    if not len(points):
        return ViewConsistency(float("nan"), float("nan"), 0, 0)
    names, places = compact(ids[points, views])
    keys, counts = np.unique(points * len(names) + places, return_counts=True)
    starts = np.flatnonzero(np.diff(keys // len(names), prepend=-1))
    modal = np.maximum.reduceat(counts, starts)
    shares = np.bincount(places) / len(places)
    return ViewConsistency(
        agreement=float(modal.sum() / len(points)),
        chance=float((shares**2).sum()),
        num_ids=len(names),
        num_points=len(ids),
    )


@dataclass(frozen=True)
class PairConsistency:
    """How far pairs of views agree on which points belong together; needs no association."""

    f1: float
    """F1 score of "the same mask" in one view against another."""
    chance: float
    """The same for views that say "same" as often, but independently."""
    num_pairs: int
    """Pairs of points compared, over all pairs of views."""


def pair_consistency(
    ids: Int[np.ndarray, "num_points num_views"],
    pairs_per_view_pair: int = 2000,
    max_view_pairs: int = 300,
    seed: int = 0,
) -> PairConsistency:
    """Draw pairs of points seen by two views, and compare "same mask?" between the views.

    Args:
        ids: Labels of every point in every view; those of different views need not correspond.
        pairs_per_view_pair: Pairs of points drawn for each pair of views.
        max_view_pairs: Pairs of views, drawn at random where there are more.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    first, second = np.triu_indices(ids.shape[1], 1)
    if len(first) > max_view_pairs:
        chosen = random.choice(len(first), max_view_pairs, replace=False)
        first, second = first[chosen], second[chosen]
    num_pairs = same_first = same_second = same_both = 0
    for a, b in zip(first, second, strict=True):
        shared = ids[(ids[:, a] != UNLABELLED) & (ids[:, b] != UNLABELLED)][:, [a, b]]
        if len(shared) < 2:
            continue
        left = random.integers(len(shared), size=pairs_per_view_pair)
        # A step of 1 to n - 1 leads to any other point with the same probability.
        step = random.integers(1, len(shared), size=pairs_per_view_pair)
        same = shared[left] == shared[(left + step) % len(shared)]
        num_pairs += len(same)
        same_first += int(same[:, 0].sum())
        same_second += int(same[:, 1].sum())
        same_both += int(same.all(axis=1).sum())
    if same_first + same_second == 0:
        return PairConsistency(float("nan"), float("nan"), num_pairs)
    return PairConsistency(
        f1=2 * same_both / (same_first + same_second),
        chance=2 * same_first * same_second / num_pairs / (same_first + same_second),
        num_pairs=num_pairs,
    )
