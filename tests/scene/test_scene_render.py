"""Rendering: exact ids and depth, conventions of the camera, light and shadow."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.levels import UNLABELLED, Level
from hiersplat.scene import render
from hiersplat.scene.build import GROUND, BuiltScene, build_scene
from hiersplat.scene.cameras import SceneCamera, look_at, scene_cameras
from hiersplat.scene.dataset import sample_surface
from hiersplat.scene.render import RenderedView, SceneRenderer, render_view
from hiersplat.scene.shapes import Box, Leaf, Sphere
from hiersplat.scene.spec import (
    CameraPath,
    Detail,
    Ground,
    ImageSpec,
    Light,
    Material,
    Part,
    SceneSpec,
    Sky,
    Thing,
)

BALL = Thing(
    name="ball",
    at=(0.4, 0, 0.5),
    parts=(
        Part(
            name="ball",
            shapes=(Sphere(radius=0.5, segments=64),),
            material="red",
            details=(Detail(name="dot", at=(0, 0, 0.45), shapes=(Sphere(radius=0.2),)),),
        ),
    ),
)
CUBE = Thing(
    name="cube", at=(-0.7, 0.3, 0), parts=(Part(name="cube", shapes=(Box(size=(0.6, 0.6, 0.6)),)),)
)
SPEC = SceneSpec(
    name="test",
    objects=(BALL, CUBE),
    ground=Ground(radius=3),
    materials={"red": Material(colour="#c83232"), "check": Material(texture="checker")},
    image=ImageSpec(width=48, height=40, field_of_view=50),
    cameras=(CameraPath(views=6, held_out=2, radius=3, elevation=(15, 50)),),
)


@pytest.fixture(scope="module")
def built() -> BuiltScene:
    return build_scene(SPEC)


@pytest.fixture(scope="module")
def views(built: BuiltScene) -> list[tuple[SceneCamera, RenderedView]]:
    renderer = SceneRenderer(built)
    return [(camera, renderer.render(camera)) for camera in scene_cameras(SPEC)]


def trace_slowly(built: BuiltScene, camera: SceneCamera, x: int, y: int) -> tuple[int, float]:
    """Return small id and depth of one pixel by testing its ray with every triangle."""
    direction = np.linalg.inv(camera.K) @ [x + 0.5, y + 0.5, 1.0]
    matrix = camera.world_to_camera()
    corners = built.vertices.astype(float) @ matrix[:3, :3].T + matrix[:3, 3]
    a, b, c = (corners[built.faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (normal * a).sum(1) / (normal @ direction)
    point = depth[:, None] * direction
    inside = depth > 0
    for p, q in ((a, b), (b, c), (c, a)):
        inside &= (np.cross(q - p, point - p) * normal).sum(1) >= 0
    if not inside.any():
        return UNLABELLED, 0.0
    nearest = np.where(inside, depth, np.inf).argmin()
    return int(built.face_small[nearest]), float(depth[nearest])


def test_ids_and_depth_are_those_of_the_slow_twin(built, views):
    camera, view = views[1]
    rng = np.random.default_rng(0)
    for x, y in zip(rng.integers(0, 48, 60), rng.integers(0, 40, 60), strict=True):
        small, depth = trace_slowly(built, camera, x, y)
        assert view.labels[Level.SMALL, y, x] == small
        assert view.depth[y, x] == pytest.approx(depth, rel=1e-4)


def test_view_is_the_same_however_many_rays_go_at_once(built, views, monkeypatch):
    monkeypatch.setattr(render, "_RAYS_AT_ONCE", 100)
    camera, view = views[0]
    pieced = SceneRenderer(built).render(camera)
    assert np.array_equal(pieced.image, view.image)
    assert np.array_equal(pieced.labels, view.labels)
    assert np.array_equal(pieced.depth, view.depth)


def test_shapes_and_types_of_a_view(views):
    _, view = views[0]
    assert view.image.shape == (40, 48, 3)
    assert view.image.dtype == np.uint8
    assert view.labels.shape == (3, 40, 48)
    assert view.labels.dtype == np.int32
    assert view.depth.dtype == np.float32


def test_sky_has_no_label_and_no_depth_and_all_else_has_all_three(views):
    for _, view in views:
        sky = view.labels[0] == UNLABELLED
        assert ((view.labels == UNLABELLED) == sky).all()
        assert ((view.depth == 0) == sky).all()
    assert any((view.labels[0] == UNLABELLED).any() for _, view in views)


def test_labels_of_a_view_are_nested(built, views):
    for _, view in views:
        seen = view.labels[:, view.labels[0] != UNLABELLED]
        assert np.array_equal(built.parents[0][seen[0]], seen[1])
        assert np.array_equal(built.parents[1][seen[1]], seen[2])


def test_ground_depth_is_the_distance_to_the_plane_along_the_axis(views):
    camera, view = views[2]
    y, x = np.nonzero(view.labels[Level.WHOLE] == GROUND)
    pixels = np.stack([x + 0.5, y + 0.5, np.ones(len(x))]) * view.depth[y, x]
    local = np.linalg.inv(camera.K) @ pixels
    world = np.linalg.inv(camera.world_to_camera()) @ np.vstack([local, np.ones(len(x))])
    assert np.abs(world[2]).max() < 1e-3


def test_surface_points_project_back_to_their_pixel_in_every_view(built, views):
    rng = np.random.default_rng(0)
    camera, view = views[0]
    points, colours = sample_surface(view, camera, 300, rng)
    pixels, depth = camera.project(points)
    x, y = np.floor(pixels.T).astype(int)
    assert view.depth[y, x] == pytest.approx(depth, rel=1e-4)
    assert np.array_equal(view.image[y, x], colours)
    for other_camera, other in views[1:]:
        pixels, depth = other_camera.project(points)
        x, y = np.floor(pixels.T).astype(int)
        shown = (x >= 0) & (y >= 0) & (x < 48) & (y < 40) & (depth > 0)
        is_near = np.zeros(len(points), bool)
        is_near[shown] = np.abs(other.depth[y[shown], x[shown]] - depth[shown]) < 0.03
        assert is_near.sum() > 60
        gap = np.abs(other.image[y[is_near], x[is_near]].astype(int) - colours[is_near])
        assert np.median(gap.max(1)) <= 6


def test_camera_looks_at_its_target_with_its_head_up():
    pose = look_at(np.array([3.0, 1.0, 2.0]), np.array([0.0, 0.0, 0.5]))
    camera = SceneCamera("v", pose, 50.0, 64, 48)
    (pixel, above), depth = camera.project(np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.8]]))
    assert pixel == pytest.approx([32, 24])
    assert above[1] < 24
    assert depth[0] == pytest.approx(np.linalg.norm([3, 1, 1.5]))
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)


def test_camera_straight_above_its_target_is_refused():
    with pytest.raises(ValueError, match="straight above"):
        look_at(np.array([0.0, 0, 3]), np.zeros(3))


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["orbit", "hemisphere"]),
    st.integers(1, 40),
    st.data(),
)
def test_path_keeps_its_counts_distances_and_elevations(kind, count, data):
    held_out = data.draw(st.integers(0, count - 1))
    path = CameraPath(
        kind=kind, views=count, held_out=held_out, radius=2, elevation=(-10, 60), target=(1, 0, 0)
    )
    cameras = scene_cameras(replace(SPEC, cameras=(path,)))
    assert len(cameras) == count
    assert sum(camera.is_held_out for camera in cameras) == held_out
    assert len({camera.name for camera in cameras}) == count
    away = np.array([camera.camera_to_world[:3, 3] for camera in cameras]) - [1, 0, 0]
    assert np.linalg.norm(away, axis=1) == pytest.approx(2)
    elevation = np.rad2deg(np.arcsin(away[:, 2] / 2))
    assert elevation.min() >= -10 - 1e-6
    assert elevation.max() <= 60 + 1e-6


def ground_light(spec: SceneSpec, place: tuple[float, float]) -> int:
    pose = look_at(np.array([place[0], place[1] - 0.01, 5.0]), np.array([*place, 0.0]))
    camera = SceneCamera("v", pose, 400.0, 9, 9)
    return int(render_view(build_scene(spec), camera).image[4, 4].sum())


def test_thing_shades_the_ground_on_the_far_side_of_the_sun():
    plate = Thing(name="p", at=(0, 0, 1), parts=(Part(name="p", shapes=(Box(size=(1, 1, 0.1)),)),))
    low = Light(azimuth=0, elevation=45, strength=0.8)
    spec = replace(SPEC, objects=(plate,), lights=(low,), ground=Ground(radius=9))
    shaded, lit = ground_light(spec, (-1.0, 0.0)), ground_light(spec, (1.6, 0.0))
    assert shaded < 0.8 * lit
    unshaded = replace(spec, lights=(replace(low, shadow=False),))
    assert ground_light(unshaded, (-1.0, 0.0)) > 0.9 * lit


def test_light_from_everywhere_is_less_beside_a_thing():
    spec = replace(SPEC, objects=(CUBE,), lights=(), ground=Ground(radius=9), sky=Sky(ambient=0.8))
    assert ground_light(spec, (-0.36, 0.3)) < 0.9 * ground_light(spec, (2.0, 0.3))


def test_glowing_thing_shows_its_colour_without_light():
    glow = Thing(name="g", parts=(Part(name="g", material="glow", shapes=(Box(),)),))
    spec = replace(
        SPEC,
        objects=(glow,),
        lights=(),
        sky=Sky(ambient=0),
        materials={"glow": Material(colour="#8040c0", glow=1)},
    )
    camera = SceneCamera("v", look_at(np.array([3.0, 0, 1]), np.array([0, 0, 0.5])), 30.0, 9, 9)
    view = render_view(build_scene(spec), camera)
    assert view.image[4, 4].tolist() == [0x80, 0x40, 0xC0]


def test_leaf_is_lit_on_both_sides():
    leaf = Leaf(length=1, width=1, bend=0, fold=0, at=(-0.5, 0, 0))
    thing = Thing(name="l", at=(0, 0, 2), parts=(Part(name="l", shapes=(leaf,)),))
    spec = replace(SPEC, objects=(thing,), lights=(), sky=Sky(ambient=1), ground=Ground(radius=0.1))
    shades = []
    for z in (4.0, 0.5):
        pose = look_at(np.array([0.0, 0.02, z]), np.array([0.0, 0, 2]))
        view = render_view(build_scene(spec), SceneCamera("v", pose, 60.0, 9, 9))
        assert view.labels[Level.WHOLE, 4, 4] == 1
        shades.append(int(view.image[4, 4, 0]))
    assert min(shades) > 60


def test_edges_are_blended_and_flat_places_are_not(built):
    view = render_view(built, scene_cameras(SPEC)[0])
    red = view.labels[Level.SMALL] == 1
    inner = red.copy()
    for axis in (0, 1):
        inner &= np.roll(red, 1, axis) & np.roll(red, -1, axis)
    rim = red & ~inner
    # A pixel at the rim shows some of what lies behind, so its green rises over red's own.
    share = view.image[..., 1] / view.image[..., 0].clip(1)
    assert share[rim].mean() > share[inner].mean() + 0.05
