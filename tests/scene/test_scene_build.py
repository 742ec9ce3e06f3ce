"""Building: ids, names and parents of nested things, transforms, repetition, variation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.levels import Level
from hiersplat.scene.build import GROUND, build_scene
from hiersplat.scene.shapes import Box, Leaf, Sphere
from hiersplat.scene.spatial import Placed, Repeat, rotation, transform_points, translation
from hiersplat.scene.spec import Detail, Ground, Material, Part, SceneSpec, Thing, Vary

KNOB = Detail(name="brass knob", at=(0.5, 0, 0.5), shapes=(Sphere(radius=0.1),), material="brass")
DRAWER = Part(
    name="drawer",
    shapes=(Box(size=(1, 1, 0.5)),),
    details=(KNOB,),
    repeat=Repeat(count=3, step=(0, 0, 0.6)),
)
CABINET = Thing(
    name="cabinet", parts=(DRAWER, Part(name="top", shapes=(Box(at=(0, 0, 2)),))), at=(2, 0, 0)
)
BALL = Thing(name="ball", parts=(Part(name="ball", shapes=(Sphere(at=(0, 0, 0.5)),)),))
SPEC = SceneSpec(
    name="test",
    objects=(CABINET, BALL),
    materials={"brass": Material(colour="gold")},
    ground=Ground(name="floor"),
)


def test_ids_are_contiguous_and_the_ground_comes_first():
    built = build_scene(SPEC)
    assert built.names[Level.WHOLE] == ("floor", "cabinet", "ball")
    assert built.names[Level.PART] == ("floor", "drawer", "drawer", "drawer", "top", "ball")
    assert built.names[Level.SMALL] == (
        "floor",
        *("drawer", "brass knob") * 3,
        "top",
        "ball",
    )
    assert set(built.face_small) == set(range(built.num_ids(Level.SMALL)))
    assert built.face_small[-1] == GROUND


def test_parents_follow_the_nesting():
    built = build_scene(SPEC)
    assert built.parents[0].tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 5]
    assert built.parents[1].tolist() == [0, 1, 1, 1, 1, 2]
    assert built.ids(np.array([2, 8])).tolist() == [[2, 8], [1, 5], [1, 2]]


def test_copies_lie_where_the_repetition_puts_them():
    built = build_scene(SPEC)
    for i, small in enumerate((2, 4, 6)):
        corners = built.vertices[built.faces[built.face_small == small]].reshape(-1, 3)
        middle = (corners.min(0) + corners.max(0)) / 2
        assert middle == pytest.approx([2.5, 0, 0.5 + 0.6 * i], abs=1e-5)


def test_material_comes_from_the_shape_then_detail_then_part_then_thing():
    part = Part(
        name="p",
        material="b",
        shapes=(Box(), Box(material="d")),
        details=(
            Detail(name="x", shapes=(Box(),)),
            Detail(name="y", material="c", shapes=(Box(),)),
        ),
    )
    thing = Thing(name="t", material="a", parts=(part, Part(name="q", shapes=(Box(),))))
    materials = {name: Material() for name in "abcd"}
    built = build_scene(SceneSpec(name="s", objects=(thing,), materials=materials))
    worn = {
        built.names[0][small]: {
            built.surfaces[i].name for i in set(built.face_surface[built.face_small == small])
        }
        for small in range(1, 5)
    }
    assert worn == {"p": {"b", "d"}, "x": {"b"}, "y": {"c"}, "q": {"a"}}


def test_same_seed_builds_the_same_and_another_seed_varies_only_what_may():
    vary = Vary(shift=(0.2, 0.2, 0), turn=20, scale=0.1, colour=0.2)
    spec = replace(SPEC, objects=(replace(CABINET, vary=vary), BALL))
    one, same, other = build_scene(spec, 1), build_scene(spec, 1), build_scene(spec, 2)
    assert np.array_equal(one.vertices, same.vertices)
    assert not np.array_equal(one.vertices[:100], other.vertices[:100])
    balls = [scene.vertices[scene.faces[scene.face_small == 8]] for scene in (one, other)]
    assert balls[0].min((0, 1)) == pytest.approx(balls[1].min((0, 1)))
    assert balls[0].max((0, 1)) == pytest.approx(balls[1].max((0, 1)))
    assert one.surfaces[1].colour.tolist() != other.surfaces[1].colour.tolist()
    assert one.names == other.names


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_variation_stays_within_its_bounds(seed):
    vary = Vary(shift=(0.3, 0.1, 0), scale=0.2)
    spec = replace(SPEC, objects=(replace(BALL, vary=vary),))
    built = build_scene(spec, seed)
    corners = built.vertices[built.faces[built.face_small == 1]].reshape(-1, 3)
    middle = (corners.min(0) + corners.max(0)) / 2
    assert abs(middle[0]) <= 0.3 + 1e-3
    assert abs(middle[1]) <= 0.1 + 1e-3
    assert 0.8 - 1e-3 <= np.ptp(corners[:, 2]) <= 1.2 + 1e-3


def test_leaves_are_open_and_closed_shapes_face_outwards():
    leaf = Thing(name="l", parts=(Part(name="l", shapes=(Leaf(at=(3, 0, 1)),)),))
    built = build_scene(SceneSpec(name="s", objects=(leaf, BALL)))
    assert built.is_open[built.face_small == 1].all()
    is_ball = built.face_small == 2
    assert not built.is_open[is_ball].any()
    out = built.vertices[built.faces[is_ball]] - np.array([0, 0, 0.5], np.float32)
    assert (out * built.normals[is_ball]).sum(-1).min() > 0
    up = built.normals[built.face_small == GROUND]
    assert up[..., 2].min() == pytest.approx(1) or up[..., 2].max() < 1


def test_ring_turns_its_copies_about_z():
    ring = Placed(repeat=Repeat(count=4, ring=2.0)).transforms()
    places = np.array([matrix[:3, 3] for matrix in ring])
    assert places == pytest.approx(
        np.array([[2, 0, 0], [0, 2, 0], [-2, 0, 0], [0, -2, 0]]), abs=1e-9
    )
    assert ring[1][:3, 0] == pytest.approx([0, 1, 0], abs=1e-9)


def test_two_repetitions_make_a_grid():
    grid = Placed(repeat=(Repeat(2, (1, 0, 0)), Repeat(3, (0, 1, 0))))
    assert grid.num_copies() == 6
    places = {tuple(matrix[:2, 3]) for matrix in grid.transforms()}
    assert places == {(x, y) for x in (0, 1) for y in (0, 1, 2)}


def test_too_many_copies_are_refused():
    with pytest.raises(ValueError, match="copies"):
        Placed(repeat=(Repeat(100), Repeat(100)))


def test_thing_is_scaled_then_turned_then_moved():
    matrix = Placed(at=(1, 0, 0), turn=90.0, scale=2.0).transforms()[0]
    assert transform_points(matrix, np.array([[1.0, 0, 0]]))[0] == pytest.approx([1, 2, 0])
    both = rotation((90, 0, 90))
    assert transform_points(both, np.array([[0.0, 1, 0]]))[0] == pytest.approx([0, 0, 1])
    assert translation(1, 2, 3)[:3, 3].tolist() == [1, 2, 3]
