"""Random scenes: always valid, varied, named, and without the combinations kept back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.levels import Level
from hiersplat.scene.build import build_scene
from hiersplat.scene.cameras import scene_cameras
from hiersplat.scene.drawing import MAIN_COLOURS, Drawing
from hiersplat.scene.families import FAMILIES
from hiersplat.scene.random_scene import random_scene
from hiersplat.scene.spec import Ground, SceneSpec


@pytest.mark.parametrize("family", FAMILIES)
def test_family_makes_a_thing_of_several_parts_that_stands_on_the_ground(family):
    for seed, colour in enumerate(("red", "black", "white")):
        drawing = Drawing(np.random.default_rng(seed), colour)
        thing = FAMILIES[family](drawing)
        assert len(thing.parts) >= 2
        assert any(part.details for part in thing.parts)
        spec = SceneSpec(
            name="one", objects=(thing,), materials=drawing.materials, ground=Ground(radius=0.1)
        )
        built = build_scene(spec)
        corners = built.vertices[built.faces[built.face_small != 0]].reshape(-1, 3)
        assert corners[:, 2].min() == pytest.approx(0, abs=0.03)
        # Large enough to be seen and small enough for its neighbours.
        assert 0.3 < np.ptp(corners[:, :2], axis=0).max() < 1.7
        assert 0.2 < corners[:, 2].max() < 1.7


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_any_seed_gives_a_valid_scene_the_same_twice(seed):
    spec = random_scene(seed)
    assert spec == random_scene(seed)
    assert 5 <= len(spec.objects) <= 7
    assert len({thing.name for thing in spec.objects}) == len(spec.objects)
    cameras = scene_cameras(spec)
    assert sum(camera.is_held_out for camera in cameras) == 8
    places = np.array([thing.at for thing in spec.objects])
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
    assert gaps[~np.eye(len(places), dtype=bool)].min() > 1


def test_seeds_differ():
    assert random_scene(1).objects != random_scene(2).objects


def test_combinations_kept_back_do_not_come_and_can_be_asked_for():
    def is_kept_back(family: str, colour: str) -> bool:
        return (list(FAMILIES).index(family) + MAIN_COLOURS.index(colour)) % 4 == 0

    for seed in range(10):
        names = {thing.name for thing in random_scene(seed, is_allowed=is_kept_back).objects}
        others = random_scene(seed, is_allowed=lambda f, c: not is_kept_back(f, c)).objects
        assert not (names - {"stack of books"}) & {thing.name for thing in others}


def test_names_tell_colour_owner_and_material():
    built = build_scene(random_scene(1, num_objects=2))
    assert built.names[Level.WHOLE][1:] == ("black ring stacker", "purple lamp")
    assert "stacker base" in built.names[Level.PART]
    assert "navy switch" in built.names[Level.SMALL]


def test_impossible_wishes_are_refused():
    with pytest.raises(ValueError, match="num_objects"):
        random_scene(0, num_objects=8)
    with pytest.raises(ValueError, match="is_allowed leaves 0"):
        random_scene(0, is_allowed=lambda family, colour: False)
