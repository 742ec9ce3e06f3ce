"""Triangle meshes: sweeping profiles and outlines, finer triangles, normals with creases.

A mesh is a pair of vertices (V, 3) and faces (F, 3). Neighbours of one surface are wound alike;
``orient_outwards`` then makes closed surfaces face outwards. Open ones (leaves) are seen from
both sides, and shading turns their normals towards the eye.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from hiersplat.scene.spatial import transform_points


@dataclass(frozen=True)
class Mesh:
    """Triangles."""

    vertices: Float[np.ndarray, "num_vertices 3"]
    """Corners."""
    faces: Int[np.ndarray, "num_faces 3"]
    """Three rows of ``vertices`` for each triangle."""

    def transformed(self, matrix: Float[np.ndarray, "4 4"]) -> "Mesh":
        """Return the mesh under a transform."""
        return Mesh(transform_points(matrix, self.vertices), self.faces)


def orient_outwards(mesh: Mesh) -> Mesh:
    """Wind a mesh so that the volume it encloses is positive."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] - mesh.vertices.mean(0) for i in range(3))
    volume = float(np.einsum("ij,ij->", a, np.cross(b, c)))
    return mesh if volume >= 0 else Mesh(mesh.vertices, mesh.faces[:, ::-1])


def is_closed(mesh: Mesh) -> bool:
    """Whether every edge of a mesh belongs to two triangles."""
    edges = np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]], -1).reshape(-1, 2)
    _, counts = np.unique(edges[:, 0] * len(mesh.vertices) + edges[:, 1], return_counts=True)
    return bool((counts == 2).all())


def join(meshes: list[Mesh]) -> Mesh:
    """Put meshes side by side into one."""
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    faces = [mesh.faces + offset for mesh, offset in zip(meshes, offsets[:-1], strict=True)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def grid_mesh(
    points: Float[np.ndarray, "rows columns 3"], close_rows: bool, close_columns: bool
) -> Mesh:
    """Turn a grid of points into triangles; a closed direction joins its end to its start.

    Triangles without area (at the poles of a sphere) are left out.
    """
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    if close_rows:
        index = np.concatenate([index, index[:1]], 0)
    if close_columns:
        index = np.concatenate([index, index[:, :1]], 1)
    a, b = index[:-1, :-1].ravel(), index[1:, :-1].ravel()
    c, d = index[1:, 1:].ravel(), index[:-1, 1:].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return merge_vertices(Mesh(points.reshape(-1, 3), faces))


def merge_vertices(mesh: Mesh, decimals: int = 6) -> Mesh:
    """Merge vertices at the same place and leave out triangles without area."""
    _, first, inverse = np.unique(
        mesh.vertices.round(decimals) + 0.0, axis=0, return_index=True, return_inverse=True
    )
    faces = inverse.reshape(-1)[mesh.faces]
    sides = [faces[:, i] != faces[:, (i + 1) % 3] for i in range(3)]
    return Mesh(mesh.vertices[first], faces[np.logical_and.reduce(sides)])


def revolve(
    profile: Float[np.ndarray, "num_points 2"], segments: int, sweep: float, closed: bool
) -> Mesh:
    """Turn a profile of (radius, height) about z through ``sweep`` degrees."""
    is_full = sweep >= 360
    angles = np.deg2rad(np.linspace(0, min(sweep, 360), segments + 1))
    if is_full:
        angles = angles[:-1]
    radius, height = profile[:, None, 0], profile[:, None, 1]
    points = np.stack(
        [
            radius * np.cos(angles),
            radius * np.sin(angles),
            np.broadcast_to(height, (len(profile), len(angles))),
        ],
        -1,
    )
    return grid_mesh(points, close_rows=closed, close_columns=is_full)


def sweep_circle(
    path: Float[np.ndarray, "num_points 3"],
    radii: Float[np.ndarray, "num_points"],
    segments: int,
    closed: bool,
) -> Mesh:
    """Move a circle along a path: a tube, capped at its ends unless closed.

    The frame is carried along the path without twist (rotation minimising).
    """
    ahead, behind = np.roll(path, -1, 0), np.roll(path, 1, 0)
    tangents = ahead - behind if closed else np.gradient(path, axis=0)
    tangents = tangents / np.linalg.norm(tangents, axis=1, keepdims=True).clip(1e-12)
    helper = np.eye(3)[np.abs(tangents[0]).argmin()]
    normal = np.cross(tangents[0], helper)
    frames = []
    for tangent in tangents:
        normal = normal - tangent * (normal @ tangent)
        normal = normal / max(float(np.linalg.norm(normal)), 1e-12)
        frames.append((normal, np.cross(tangent, normal)))
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rings = np.stack(
        [
            centre + radius * (np.cos(angles)[:, None] * u + np.sin(angles)[:, None] * v)
            for centre, radius, (u, v) in zip(path, radii, frames, strict=True)
        ]
    )
    if not closed:
        ends = [np.broadcast_to(path[i], rings.shape[1:]) for i in (0, -1)]
        rings = np.concatenate([ends[0][None], rings, ends[1][None]])
    return grid_mesh(rings, close_rows=closed, close_columns=True)


def spline(points: Float[np.ndarray, "num_points dim"], steps: int, closed: bool) -> np.ndarray:
    """Pass a smooth curve (Catmull-Rom) through points, ``steps`` samples between two of them."""
    count = len(points)
    if count < 3 or steps < 2:
        return points
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
        spans = count
    else:
        padded = np.concatenate(
            [2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]]
        )
        spans = count - 1
    t = (np.arange(steps) / steps)[None, :, None]
    p0, p1, p2, p3 = (padded[i : i + spans, None] for i in range(4))
    curve = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    ).reshape(-1, points.shape[1])
    return curve if closed else np.concatenate([curve, points[-1:]])


def triangulate(outline: Float[np.ndarray, "num_points 2"]) -> Int[np.ndarray, "num_faces 3"]:
    """Cut a simple polygon, wound either way, into triangles by clipping ears.

    Raises:
        ValueError: If the outline crosses itself.
    """
    if _crosses_itself(outline):
        raise ValueError("the outline crosses itself")
    x, y = outline[:, 0], outline[:, 1]
    area = float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    remaining = list(range(len(outline)))
    if area < 0:
        remaining.reverse()
    faces = []
    while len(remaining) > 3:
        for i in range(len(remaining)):
            a, b, c = (remaining[(i + k - 1) % len(remaining)] for k in range(3))
            if _cross(outline[a], outline[b], outline[c]) <= 1e-12:
                continue
            others = [k for k in remaining if k not in (a, b, c)]
            corners = outline[[a, b, c]]
            if not any(_is_inside(outline[k], corners) for k in others):
                faces.append((a, b, c))
                del remaining[i]
                break
        else:
            straight = [i for i in range(len(remaining)) if _is_straight(outline, remaining, i)]
            if not straight:
                raise ValueError("the outline touches itself")
            del remaining[straight[0]]
    faces.append(tuple(remaining))
    return np.array(faces)


def _crosses_itself(outline: np.ndarray) -> bool:
    """Whether two sides of a polygon cross at a point inside both."""
    ends = np.roll(outline, -1, 0)

    def side(origin: np.ndarray, end: np.ndarray, points: np.ndarray) -> np.ndarray:
        along, towards = (end - origin)[:, None], points[None] - origin[:, None]
        return along[..., 0] * towards[..., 1] - along[..., 1] * towards[..., 0]

    # Row i, column j: side j has its ends on both sides of the line through side i.
    is_parted = side(outline, ends, outline) * side(outline, ends, ends) < -1e-18
    return bool((is_parted & is_parted.T).any())


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _is_straight(outline: np.ndarray, remaining: list[int], i: int) -> bool:
    a, b, c = (remaining[(i + k - 1) % len(remaining)] for k in range(3))
    return abs(_cross(outline[a], outline[b], outline[c])) <= 1e-12


def _is_inside(point: np.ndarray, corners: np.ndarray) -> bool:
    return all(_cross(corners[i], corners[(i + 1) % 3], point) >= -1e-12 for i in range(3))


def subdivide(mesh: Mesh, longest: float, max_rounds: int = 6) -> Mesh:
    """Halve every edge longer than ``longest``, in rounds, without opening seams."""
    vertices, faces = mesh.vertices, mesh.faces
    for _ in range(max_rounds):
        edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]], -1).reshape(-1, 2)
        keys, inverse = np.unique(edges[:, 0] * len(vertices) + edges[:, 1], return_inverse=True)
        ends = np.stack([keys // len(vertices), keys % len(vertices)], 1)
        lengths = np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1)
        is_split = lengths > longest
        if not is_split.any():
            break
        middle = np.full(len(keys), -1)
        middle[is_split] = len(vertices) + np.arange(is_split.sum())
        vertices = np.concatenate([vertices, vertices[ends[is_split]].mean(1)])
        faces = _split_faces(faces, middle[inverse].reshape(-1, 3))
    return Mesh(vertices, faces)


def _split_faces(faces: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Cut triangles at the middles (-1: none) of their edges 01, 12 and 20."""
    count = (middles >= 0).sum(1)
    result = [faces[count == 0]]
    for k in range(3):
        corners = np.roll(faces, -k, 1)
        mids = np.roll(middles, -k, 1)
        # One middle, on the first edge.
        one = (count == 1) & (mids[:, 0] >= 0)
        a, b, c = corners[one].T
        m = mids[one, 0]
        result += [np.stack([a, m, c], 1), np.stack([m, b, c], 1)]
        # Two middles, on the first and second edge.
        two = (count == 2) & (mids[:, 2] < 0)
        a, b, c = corners[two].T
        m, n = mids[two, 0], mids[two, 1]
        result += [np.stack(t, 1) for t in ((m, b, n), (a, m, n), (a, n, c))]
    a, b, c = faces[count == 3].T
    m, n, o = middles[count == 3].T
    result += [np.stack(t, 1) for t in ((a, m, o), (m, b, n), (o, n, c), (m, n, o))]
    return np.concatenate(result)


def corner_normals(mesh: Mesh, crease: float = 40.0) -> Float[np.ndarray, "num_faces 3 3"]:
    """Return the unit normal of every corner of every triangle.

    A corner's normal is the mean, by area, over those triangles at its vertex whose own normals
    lie within ``crease`` degrees; so curved surfaces look smooth and edges stay sharp.
    """
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    weighted = np.cross(b - a, c - a)
    unit = weighted / np.linalg.norm(weighted, axis=1, keepdims=True).clip(1e-20)
    vertex = mesh.faces.ravel()
    order = np.argsort(vertex, kind="stable")
    counts = np.bincount(vertex, minlength=len(mesh.vertices))
    starts = np.cumsum(counts) - counts
    # Every pair of corners that meet at a vertex.
    per_corner = counts[vertex]
    left = np.repeat(np.arange(len(vertex)), per_corner)
    within = np.arange(len(left)) - np.repeat(np.cumsum(per_corner) - per_corner, per_corner)
    right = order[np.repeat(starts[vertex], per_corner) + within]
    is_smooth = np.einsum("ij,ij->i", unit[left // 3], unit[right // 3]) > np.cos(
        np.deg2rad(crease)
    )
    left, right = left[is_smooth], right[is_smooth]
    sums = np.stack(
        [np.bincount(left, weighted[right // 3, k], minlength=len(vertex)) for k in range(3)], 1
    )
    normals = sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(1e-20)
    return normals.reshape(-1, 3, 3)
