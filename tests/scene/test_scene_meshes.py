"""Meshes and shapes: closed, wound outwards, of the right size, finer without change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.scene.meshes import (
    Mesh,
    corner_normals,
    is_closed,
    join,
    merge_vertices,
    orient_outwards,
    spline,
    subdivide,
    triangulate,
)
from hiersplat.scene.shapes import (
    Box,
    Cone,
    Cylinder,
    Extrude,
    Lathe,
    Leaf,
    Shape,
    Sphere,
    Torus,
    Tube,
)

L_SHAPE = ((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2))
# Shapes with the volume they would have with infinitely many facets.
SOLIDS = {
    "box": (Box(size=(1, 2, 3)), 6.0),
    "rounded box": (Box(size=(1, 1, 1), bevel=0.5), np.pi / 6),
    "cylinder": (Cylinder(radius=1, height=2), 2 * np.pi),
    "pipe": (Cylinder(radius=1, height=2, hole=0.5), 1.5 * np.pi),
    "cone": (Cone(radius=1, height=3), np.pi),
    "sphere": (Sphere(radius=1), 4 / 3 * np.pi),
    "torus": (Torus(radius=1, tube=0.25), 2 * np.pi * np.pi * 0.25**2),
    "lathe": (Lathe(profile=((0, 0), (1, 0), (1, 1), (0, 1))), np.pi),
    "tube": (Tube(path=((0, 0, 0), (0, 0, 2)), radius=0.5, smooth=False), 0.5 * np.pi),
    "bent tube": (Tube(path=((0, 0, 0), (0, 0.3, 1), (0, 0, 2)), radius=0.1), None),
    "closed tube": (Tube(path=((1, 0, 0), (0, 1, 0), (-1, 0, 0)), radius=0.1, closed=True), None),
    "extrusion": (Extrude(outline=L_SHAPE, height=2), 6.0),
    "clockwise extrusion": (Extrude(outline=L_SHAPE[::-1], height=2), 6.0),
    "smooth extrusion": (Extrude(outline=L_SHAPE, height=2, smooth=True), None),
}


def volume(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6


def area(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2


@pytest.mark.parametrize("name", SOLIDS)
def test_solid_is_closed_and_wound_alike(name):
    mesh = SOLIDS[name][0].mesh()
    assert is_closed(mesh)
    edges = mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    assert len(np.unique(edges, axis=0)) == len(edges)


@pytest.mark.parametrize("name", SOLIDS)
def test_solid_has_its_volume(name):
    shape, expected = SOLIDS[name]
    found = volume(orient_outwards(shape.mesh()))
    assert found > 0
    if expected is not None:
        assert found == pytest.approx(expected, rel=0.04)


def test_every_kind_of_shape_can_be_named():
    kinds = ["box", "lathe", "cylinder", "cone", "sphere", "torus", "tube", "extrude", "leaf"]
    assert list(Shape.KINDS) == kinds


def test_standing_shapes_rise_from_the_ground_and_round_ones_surround_the_origin():
    for shape in (Box(), Cylinder(), Cone(), Extrude(outline=L_SHAPE)):
        assert shape.mesh().vertices[:, 2].min() == pytest.approx(0)
    for shape in (Sphere(), Torus()):
        assert shape.mesh().vertices.mean(0) == pytest.approx([0, 0, 0], abs=1e-6)


def test_leaf_and_dome_are_open():
    assert not is_closed(Leaf().mesh())
    assert not is_closed(Sphere(cut=0).mesh())


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Box, {"size": (1, 1, 1), "bevel": 0.6}, "bevel"),
        (Box, {"size": (1, 0, 1)}, "size"),
        (Cylinder, {"radius": 0}, "radius"),
        (Cylinder, {"radius": 1, "hole": 1}, "hole"),
        (Cylinder, {"segments": 2}, "segments"),
        (Cone, {"top": -1}, "top"),
        (Sphere, {"cut": 90}, "cut"),
        (Torus, {"radius": 0.1, "tube": 0.2}, "tube"),
        (Torus, {"sweep": 400}, "sweep"),
        (Lathe, {"profile": ((0, 0),)}, "profile"),
        (Lathe, {"profile": ((-1, 0), (1, 1))}, "radii"),
        (Tube, {"path": ((0, 0, 0),)}, "path"),
        (Tube, {"path": ((0, 0, 0), (0, 0, 0))}, "same"),
        (Extrude, {"outline": ((0, 0), (1, 0))}, "outline"),
        (Leaf, {"width": 0}, "width"),
        (Box, {"scale": 0.0}, "scale"),
    ],
)
def test_shape_that_cannot_be_says_why(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 1.0), st.tuples(st.floats(0.2, 2), st.floats(0.2, 2), st.floats(0.2, 2)))
def test_subdivision_keeps_the_surface_and_bounds_the_edges(longest, size):
    mesh = merge_vertices(Box(size=size).mesh())
    fine = subdivide(mesh, longest)
    assert area(fine) == pytest.approx(area(mesh))
    assert volume(fine) == pytest.approx(volume(mesh))
    assert is_closed(fine)
    ends = fine.vertices[fine.faces]
    assert np.linalg.norm(ends - np.roll(ends, 1, 1), axis=-1).max() <= longest + 1e-9


def test_normals_are_flat_on_a_box_and_radial_on_a_sphere():
    box = orient_outwards(Box(size=(1, 1, 1)).mesh())
    assert np.abs(corner_normals(box)).max(-1) == pytest.approx(1.0)
    ball = orient_outwards(Sphere(radius=1, segments=48).mesh())
    radial = ball.vertices[ball.faces]
    assert (corner_normals(ball) * radial).sum(-1).min() > 0.99


def slow_corner_normals(mesh: Mesh, crease: float) -> np.ndarray:
    corners = mesh.vertices[mesh.faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    unit = weighted / np.linalg.norm(weighted, axis=1, keepdims=True)
    result = np.zeros((len(mesh.faces), 3, 3))
    for i, face in enumerate(mesh.faces):
        for k, vertex in enumerate(face):
            for j, other in enumerate(mesh.faces):
                if vertex in other and unit[i] @ unit[j] > np.cos(np.deg2rad(crease)):
                    result[i, k] += weighted[j]
    return result / np.linalg.norm(result, axis=-1, keepdims=True)


@pytest.mark.parametrize("shape", [Cone(segments=7), Sphere(segments=8), Box()])
def test_normals_agree_with_the_slow_twin(shape):
    mesh = shape.mesh()
    assert corner_normals(mesh, 40) == pytest.approx(slow_corner_normals(mesh, 40), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.3, 1.0), min_size=3, max_size=14), st.booleans())
def test_triangulation_covers_a_star_exactly_once(radii, backwards):
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    outline = np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    x, y = outline.T
    expected = abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2
    outline = outline[::-1] if backwards else outline
    flat = np.pad(outline, ((0, 0), (0, 1)))
    faces = triangulate(outline)
    assert len(faces) == len(radii) - 2
    assert area(Mesh(flat, faces)) == pytest.approx(expected)


def test_spline_passes_through_its_points():
    points = np.array([[0.0, 0], [1, 2], [3, 1], [4, 4]])
    curve = spline(points, 5, closed=False)
    assert curve[::5] == pytest.approx(points)
    assert len(spline(points, 5, closed=True)) == 20


def test_join_keeps_meshes_apart():
    mesh = join([Box().mesh(), Box().mesh()])
    assert len(mesh.vertices) == 16
    assert mesh.faces.max() == 15
