"""A scene of points with exact labels and exact visibility: to try the hierarchy without splats.

Boxes (parts) stacked to objects (wholes), with patches on them (smalls), on a ground that is a
whole of its own. Every visible point covers the pixels nearest to it, so lifting is exact up to
points on the edges between labels, which see both sides as Gaussians do.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_matrix

from hiersplat.levels import UNLABELLED


@dataclass(frozen=True)
class ToyScene:
    """Points, their true ids, and what every view sees of them."""

    means: Float[np.ndarray, "num_points 3"]
    truth: Int[np.ndarray, "3 num_points"]
    labels: list[Int[np.ndarray, "3 size size"]]
    pixels: list[csr_matrix]
    """Per view: the share of every pixel (column) that each point (row) covers."""

    def weights(self, view: int, labels: Int[np.ndarray, "size size"]) -> csr_matrix:
        """Lift a label map of one view to the points."""
        flat = labels.ravel()
        kept = np.flatnonzero(flat != UNLABELLED)
        shape = (flat.size, int(flat.max()) + 1)
        onehot = csr_matrix((np.ones(len(kept), np.float32), (kept, flat[kept])), shape=shape)
        return csr_matrix(self.pixels[view] @ onehot)


def toy_scene(
    num_objects: int = 4,
    num_points: int = 8000,
    num_views: int = 12,
    size: int = 64,
    seed: int = 0,
) -> ToyScene:
    """Build a seeded scene and look at it from a ring of cameras."""
    rng = np.random.default_rng(seed)
    means, truth = _surface(rng, num_objects, num_points)
    labels, pixels = [], []
    for index in range(num_views):
        angle = 2 * np.pi * index / num_views
        height = (1.5, 2.5, 3.5)[index % 3]
        eye = np.array([5.0 * np.cos(angle), 5.0 * np.sin(angle), height])
        view_labels, view_pixels = _look(means, truth, eye, size)
        labels.append(view_labels)
        pixels.append(view_pixels)
    return ToyScene(means, truth, labels, pixels)


def _surface(rng, num_objects, num_points):
    points, ids = [], []
    side = int(np.ceil(np.sqrt(num_objects)))
    small = part = 0
    for whole in range(num_objects):
        centre = 1.6 * (np.array([whole % side, whole // side]) - (side - 1) / 2)
        bottom = 0.0
        for _ in range(rng.integers(2, 4)):
            half = rng.uniform(0.25, 0.5, 3)
            box = _box(rng, half, num_points // (3 * num_objects))
            # A patch on every side, as a detail of its own.
            faces = np.abs(box / half).argmax(axis=1) * 2 + (
                np.take_along_axis(box, np.abs(box / half).argmax(axis=1)[:, None], 1)[:, 0] > 0
            )
            detail = (np.sort(np.abs(box / half), axis=1)[:, 1] < 0.55) & (faces < 4)
            smalls = np.where(detail, small + 1 + faces, small)
            _, smalls = np.unique(smalls, return_inverse=True)
            box = box + np.array([*centre, bottom + half[2]])
            points.append(box)
            levels = [small + smalls, np.full(len(box), part), np.full(len(box), whole)]
            ids.append(np.stack(levels))
            small += smalls.max() + 1
            part += 1
            bottom += 2 * half[2]
    ground = np.concatenate(
        [rng.uniform(-3, 3, (num_points // 2, 2)), np.zeros((num_points // 2, 1))], axis=1
    )
    points.append(ground)
    ids.append(np.repeat([[small], [part], [num_objects]], len(ground), axis=1))
    return np.concatenate(points).astype(np.float32), np.concatenate(ids, axis=1)


def _box(rng, half, count):
    points = rng.uniform(-1, 1, (count, 3))
    areas = np.array([half[1] * half[2], half[0] * half[2], half[0] * half[1]])
    axis = rng.choice(3, count, p=areas / areas.sum())
    points[np.arange(count), axis] = rng.choice([-1.0, 1.0], count)
    return points * half


def _look(means, truth, eye, size):
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    local = (means - eye) @ np.stack([right, np.cross(forward, right), forward]).T
    column = np.floor(size * (0.5 + 0.85 * local[:, 0] / local[:, 2])).astype(int)
    row = np.floor(size * (0.5 + 0.85 * local[:, 1] / local[:, 2])).astype(int)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size) & (local[:, 2] > 0.1)
    candidates = np.flatnonzero(inside)
    order = candidates[np.argsort(-local[candidates, 2])]
    # The nearest point of every pixel is written last and stays.
    nearest = np.full((size, size), UNLABELLED)
    nearest[row[order], column[order]] = order
    empty = nearest < 0
    distance, (rows, columns) = distance_transform_edt(empty, return_indices=True)
    owner = nearest[rows, columns]
    owner[distance > 2.5] = UNLABELLED
    labels = np.where(owner >= 0, truth[:, owner], UNLABELLED).astype(np.int32)
    # A point covers its pixel if nothing lies clearly before it, beside other such points.
    depth = np.where(owner >= 0, local[owner, 2], np.inf)
    visible = candidates[local[candidates, 2] <= depth[row[candidates], column[candidates]] + 0.08]
    rows_of = np.concatenate([visible, owner[owner >= 0]])
    columns_of = np.concatenate(
        [row[visible] * size + column[visible], np.flatnonzero(owner.ravel() >= 0)]
    )
    cover = csr_matrix(
        (np.ones(len(rows_of), np.float32), (rows_of, columns_of)),
        shape=(len(means), size * size),
    )
    return labels, csr_matrix(cover.multiply(1.0 / np.maximum(cover.sum(axis=0), 1.0)))
