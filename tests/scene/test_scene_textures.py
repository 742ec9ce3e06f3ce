"""Textures: patterns in [0, 1], regular ones where they should be, irregular ones smooth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersplat.scene.colours import (
    COLOURS,
    linear_from_srgb,
    parse_colour,
    srgb_from_linear,
)
from hiersplat.scene.spec import Material
from hiersplat.scene.textures import make_surface, pattern, surface_colour

TEXTURES = ["solid", "checker", "stripes", "rings", "noise", "wood", "planks", "dots"]


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_pattern_is_a_share_and_the_same_twice(texture, axis):
    points = np.random.default_rng(0).uniform(-3, 3, (500, 3))
    material = Material(texture=texture, axis=axis, size=0.2)
    share = pattern(material, points, np.array([1.0, 2, 3]))
    assert share.shape == (500,)
    assert share.min() >= 0
    assert share.max() <= 1
    assert np.array_equal(share, pattern(material, points, np.array([1.0, 2, 3])))
    assert (np.ptp(share) > 0.3) == (texture != "solid")


def test_stripes_run_across_their_axis():
    points = np.array([[0.0, 0, 0], [5, 7, 0.04], [0, 0, 0.1], [0, 0, 0.2]])
    share = pattern(Material(texture="stripes", size=0.1), points, np.zeros(3))
    assert share.tolist() == [0, 0, 1, 0]


def test_noise_changes_slowly():
    points = np.linspace(0, 1, 1001)[:, None] * np.ones(3)
    share = pattern(Material(texture="noise", size=1), points, np.full(3, 0.3))
    assert np.abs(np.diff(share)).max() < 0.02


def test_surface_is_drawn_between_its_two_colours():
    material = Material(colour="white", second="black", texture="stripes", size=1)
    surface = make_surface("m", material, np.random.default_rng(0), 0)
    colours = surface_colour(surface, np.array([[0.0, 0, 0], [0, 0, 1]]))
    assert colours[0] == pytest.approx(linear_from_srgb(np.array(parse_colour("white"))))
    assert colours[1] == pytest.approx(linear_from_srgb(np.array(parse_colour("black"))))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_display_curve_is_undone(values):
    srgb = np.array(values)
    assert srgb_from_linear(linear_from_srgb(srgb)) == pytest.approx(srgb, abs=1e-6)


def test_colours_have_names_and_bad_ones_are_refused():
    assert parse_colour("red") == tuple(value / 255 for value in COLOURS["red"])
    for bad in ("#12345", "scarlet", ""):
        with pytest.raises(ValueError, match="unknown colour"):
            parse_colour(bad)
