"""Shapes: the primitives and profiles that parts and details are made of.

Boxes, cylinders, cones, lathes and extrusions stand on z = 0 with their middle on the z axis;
spheres and tori have their middle at the origin. ``mesh()`` gives a shape in its own space,
before its place is applied.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hiersplat.scene.meshes import (
    Mesh,
    grid_mesh,
    join,
    merge_vertices,
    revolve,
    spline,
    sweep_circle,
    triangulate,
)
from hiersplat.scene.spatial import Placed, Vector

Point = tuple[float, float]


@dataclass(frozen=True)
class Shape(Placed):
    """A shape with a place and, if it differs from its owner's, a material."""

    KINDS: ClassVar[dict[str, type["Shape"]]] = {}

    material: str | None = None
    """Name of a material; by default the owner's."""

    def __init_subclass__(cls) -> None:
        Shape.KINDS[cls.__name__.lower()] = cls

    def mesh(self) -> Mesh:
        """Return the triangles."""
        raise NotImplementedError


def _positive(shape: Shape, *names: str) -> None:
    for name in names:
        if getattr(shape, name) <= 0:
            raise ValueError(f"{name} must be positive, got {getattr(shape, name)}")


@dataclass(frozen=True)
class Box(Shape):
    """A box; with ``bevel`` its edges are round."""

    size: Vector = (1.0, 1.0, 1.0)
    """Lengths along x, y, z."""
    bevel: float = 0.0
    """Radius of the edges."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.size) <= 0:
            raise ValueError(f"size must be positive, got {self.size}")
        if not 0 <= self.bevel <= min(self.size) / 2:
            raise ValueError(f"bevel must be in [0, {min(self.size) / 2}], got {self.bevel}")

    def mesh(self) -> Mesh:
        """Return the triangles: six grids whose points are drawn to the round edges."""
        half = np.array(self.size) / 2
        inner = half - self.bevel
        sides = []
        for axis in range(3):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            for sign in (-1.0, 1.0):
                lines = [self._ticks(half[k], inner[k]) for k in (u, v)]
                points = np.empty((len(lines[0]), len(lines[1]), 3))
                points[..., u] = lines[0][:, None]
                # Wind both sides of an axis outwards.
                points[..., v] = lines[1][None, :] * sign
                points[..., axis] = half[axis] * sign
                sides.append(grid_mesh(points, False, False))
        mesh = merge_vertices(join(sides))
        vertices = mesh.vertices
        if self.bevel > 0:
            core = np.clip(vertices, -inner, inner)
            away = vertices - core
            away = away / np.linalg.norm(away, axis=1, keepdims=True).clip(1e-12)
            vertices = core + self.bevel * away
        return Mesh(vertices + [0.0, 0.0, half[2]], mesh.faces)

    def _ticks(self, half: float, inner: float) -> np.ndarray:
        if self.bevel <= 0:
            return np.array([-half, half])
        # Points whose directions from the inner box are even over the quarter circle.
        rim = inner + self.bevel * np.tan(np.linspace(0, np.pi / 4, 4))
        return np.unique(np.concatenate([-rim[::-1], rim]).round(9))


@dataclass(frozen=True)
class Lathe(Shape):
    """A profile turned about z."""

    profile: tuple[Point, ...] = ()
    """Points (radius, height), from bottom to top on the outside, then perhaps back inside."""
    smooth: bool = False
    """Pass a smooth curve through the points."""
    closed: bool = False
    """Join the last point to the first."""
    sweep: float = 360.0
    """Angle it is turned through, in degrees."""
    segments: int = 40
    """Facets of a full turn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.profile) < 2:
            raise ValueError("profile needs at least 2 points (radius, height)")
        if min(radius for radius, _ in self.profile) < 0:
            raise ValueError("radii of the profile must not be negative")
        _check_turn(self.sweep, self.segments)

    def mesh(self) -> Mesh:
        """Return the triangles."""
        profile = np.array(self.profile)
        if self.smooth:
            profile = spline(profile, 6, self.closed)
            profile[:, 0] = profile[:, 0].clip(0)
        segments = max(int(round(self.segments * self.sweep / 360)), 3)
        return revolve(profile, segments, self.sweep, self.closed)


def _check_turn(sweep: float, segments: int) -> None:
    if not 0 < sweep <= 360:
        raise ValueError(f"sweep must be in (0, 360], got {sweep}")
    if not 3 <= segments <= 512:
        raise ValueError(f"segments must be in [3, 512], got {segments}")


@dataclass(frozen=True)
class Cylinder(Shape):
    """A cylinder along z, or a prism with few segments."""

    radius: float = 0.5
    """Radius."""
    height: float = 1.0
    """Height."""
    bevel: float = 0.0
    """Radius of the edges."""
    hole: float = 0.0
    """Radius of a hole along the axis: a ring or a pipe."""
    segments: int = 40
    """Facets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "radius", "height")
        _check_turn(360, self.segments)
        limit = min(self.radius - self.hole, self.height) / 2
        if not 0 <= self.hole < self.radius:
            raise ValueError(f"hole must be in [0, {self.radius}), got {self.hole}")
        if not 0 <= self.bevel <= limit:
            raise ValueError(f"bevel must be in [0, {limit}], got {self.bevel}")

    def mesh(self) -> Mesh:
        """Return the triangles."""
        r, h, b = self.radius, self.height, self.bevel
        arc = np.linspace(0, np.pi / 2, 5)
        if b > 0:
            lower = np.stack([r - b + b * np.sin(arc), b - b * np.cos(arc)], 1)
            upper = np.stack([r - b + b * np.cos(arc), h - b + b * np.sin(arc)], 1)
        else:
            lower, upper = np.array([[r, 0.0]]), np.array([[r, h]])
        profile = np.concatenate([[[self.hole, 0.0]], lower, upper, [[self.hole, h]]])
        return revolve(profile, self.segments, 360, closed=self.hole > 0)


@dataclass(frozen=True)
class Cone(Shape):
    """A cone along z, cut off where ``top`` is not 0."""

    radius: float = 0.5
    """Radius at the bottom."""
    top: float = 0.0
    """Radius at the top."""
    height: float = 1.0
    """Height."""
    segments: int = 40
    """Facets; 4 make a pyramid."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "radius", "height")
        if self.top < 0:
            raise ValueError(f"top must not be negative, got {self.top}")
        _check_turn(360, self.segments)

    def mesh(self) -> Mesh:
        """Return the triangles."""
        profile = [[0.0, 0.0], [self.radius, 0.0], [self.top, self.height], [0.0, self.height]]
        return revolve(np.array(profile), self.segments, 360, closed=False)


@dataclass(frozen=True)
class Sphere(Shape):
    """A sphere; ``scale`` makes it an ellipsoid, ``cut`` a dome."""

    radius: float = 0.5
    """Radius."""
    cut: float = -90.0
    """Latitude below which it is left out, in degrees: 0 leaves the upper half, open below."""
    segments: int = 36
    """Facets around."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "radius")
        if not -90 <= self.cut < 90:
            raise ValueError(f"cut must be in [-90, 90), got {self.cut}")
        _check_turn(360, self.segments)

    def mesh(self) -> Mesh:
        """Return the triangles."""
        latitudes = np.deg2rad(np.linspace(self.cut, 90, max(self.segments // 2, 4) + 1))
        profile = self.radius * np.stack([np.cos(latitudes), np.sin(latitudes)], 1)
        return revolve(profile, self.segments, 360, closed=False)


@dataclass(frozen=True)
class Torus(Shape):
    """A ring in the xy plane, or an arc of one."""

    radius: float = 0.5
    """Radius of the ring."""
    tube: float = 0.1
    """Radius of what is bent into the ring."""
    sweep: float = 360.0
    """Angle of the arc in degrees; its ends are open."""
    segments: int = 40
    """Facets around the full ring."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "radius", "tube")
        if self.tube > self.radius:
            raise ValueError(f"tube must be at most the radius {self.radius}, got {self.tube}")
        _check_turn(self.sweep, self.segments)

    def mesh(self) -> Mesh:
        """Return the triangles."""
        angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        profile = np.stack(
            [self.radius + self.tube * np.cos(angles), self.tube * np.sin(angles)], 1
        )
        segments = max(int(round(self.segments * self.sweep / 360)), 3)
        return revolve(profile, segments, self.sweep, closed=True)


@dataclass(frozen=True)
class Tube(Shape):
    """A round rod along a path: handles, arms, stems, cables."""

    path: tuple[Vector, ...] = ()
    """Points it passes through."""
    radius: float = 0.05
    """Radius."""
    taper: float = 1.0
    """Radius at the end as a share of the radius at the start."""
    smooth: bool = True
    """Bend it smoothly through the points."""
    closed: bool = False
    """Join the end to the start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.path) < 2:
            raise ValueError("path needs at least 2 points")
        if any(a == b for a, b in zip(self.path, self.path[1:], strict=False)):
            raise ValueError("two neighbouring points of the path are the same")
        _positive(self, "radius", "taper")

    def mesh(self) -> Mesh:
        """Return the triangles."""
        path = np.array(self.path)
        if self.smooth:
            path = spline(path, 8, self.closed)
        taper = 1.0 if self.closed else self.taper
        radii = self.radius * np.linspace(1.0, taper, len(path))
        return sweep_circle(path, radii, 14, self.closed)


@dataclass(frozen=True)
class Extrude(Shape):
    """An outline in the xy plane, pulled up along z."""

    outline: tuple[Point, ...] = ()
    """Corners of a polygon that does not cross itself."""
    height: float = 0.1
    """Height."""
    smooth: bool = False
    """Pass a smooth curve through the corners."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.outline) < 3:
            raise ValueError("outline needs at least 3 corners")
        _positive(self, "height")
        triangulate(self._corners())

    def _corners(self) -> np.ndarray:
        corners = np.array(self.outline)
        corners = spline(corners, 6, closed=True) if self.smooth else corners
        x, y = corners.T
        is_clockwise = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) < 0
        return corners[::-1] if is_clockwise else corners

    def mesh(self) -> Mesh:
        """Return the triangles."""
        corners = self._corners()
        top = np.pad(corners, ((0, 0), (0, 1)), constant_values=self.height)
        bottom = np.pad(corners, ((0, 0), (0, 1)))
        faces = triangulate(corners)
        # Corners run counter-clockwise: seen from outside, the wall is wound from top to bottom.
        wall = grid_mesh(np.stack([top, bottom]), close_rows=False, close_columns=True)
        return merge_vertices(join([wall, Mesh(top, faces), Mesh(bottom, faces[:, ::-1])]))


@dataclass(frozen=True)
class Leaf(Shape):
    """A pointed, bent leaf along x, from the origin."""

    length: float = 0.5
    """Length."""
    width: float = 0.2
    """Width at the widest."""
    bend: float = 0.3
    """How far the tip hangs below the line it starts on, as a share of the length."""
    fold: float = 0.15
    """How far its middle lies below its edges, as a share of the width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "length", "width")

    def mesh(self) -> Mesh:
        """Return the triangles."""
        t = np.linspace(0, 1, 11)[:, None]
        across = np.linspace(-1, 1, 5)[None, :]
        half = 0.5 * self.width * np.sin(np.pi * t**0.75) ** 0.8
        points = np.empty((11, 5, 3))
        points[..., 0] = self.length * t * np.sqrt(1 - 0.5 * min(abs(self.bend), 1.0) * t)
        points[..., 1] = half * across
        points[..., 2] = -self.length * self.bend * t**2 + self.fold * half * across**2
        return grid_mesh(points, False, False)
