"""Procedural textures: colours as functions of a place in the space of their thing."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hiersplat.scene.colours import linear_from_srgb, parse_colour
from hiersplat.scene.spec import Material


@dataclass(frozen=True)
class Surface:
    """A material ready to be evaluated."""

    material: Material
    """Where it came from."""
    name: str
    """Name of the material in the scene."""
    colour: Float[np.ndarray, "3"]
    """Main colour as linear light."""
    second: Float[np.ndarray, "3"]
    """Second colour as linear light."""
    phase: Float[np.ndarray, "3"]
    """Shift of the pattern, so that no two things wear it alike."""


def make_surface(
    name: str, material: Material, rng: np.random.Generator, variation: float
) -> Surface:
    """Draw the colours of one thing that wears ``material``.

    Args:
        name: Name of the material in the scene.
        material: The material.
        rng: Source of the pattern's shift and of the variation.
        variation: Largest change of brightness (and half of it, of each channel), as a share.
    """
    phase = rng.uniform(-50, 50, 3)
    tint = (1 + variation * rng.uniform(-1, 1)) * (1 + 0.5 * variation * rng.uniform(-1, 1, 3))
    main = np.array(parse_colour(material.colour))
    second = np.array(parse_colour(material.second)) if material.second else main * 0.62
    return Surface(
        material,
        name,
        linear_from_srgb((main * tint).clip(0.01, 0.99)),
        linear_from_srgb((second * tint).clip(0.01, 0.99)),
        phase,
    )


def surface_colour(
    surface: Surface, points: Float[np.ndarray, "num_points 3"]
) -> Float[np.ndarray, "num_points 3"]:
    """Return the colour, as linear light, of a surface at points of its own space."""
    share = pattern(surface.material, points, surface.phase)[:, None]
    return surface.colour + share * (surface.second - surface.colour)


def pattern(
    material: Material, points: Float[np.ndarray, "num_points 3"], phase: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "num_points"]:
    """Return how much of the second colour there is, in [0, 1].

    Stripes and checkers are even about the origin, so that they sit straight on their thing;
    irregular patterns are shifted by ``phase``.
    """
    axis = "xyz".index(material.axis)
    scaled = points / material.size
    if material.texture == "solid":
        return np.zeros(len(points))
    if material.texture == "checker":
        # Off the lattice by a hair, so that flat faces do not flicker between two cells.
        return (np.floor(scaled + 0.013).sum(1) % 2).astype(float)
    if material.texture == "stripes":
        return (np.floor(scaled[:, axis] + 0.5) % 2).astype(float)
    if material.texture == "rings":
        others = np.delete(scaled, axis, 1)
        return (np.floor(np.linalg.norm(others, axis=1)) % 2).astype(float)
    if material.texture == "dots":
        cell = scaled - np.floor(scaled) - 0.5
        return (np.linalg.norm(cell, axis=1) < 0.36).astype(float)
    if material.texture == "noise":
        return _fractal(scaled + phase)
    stretched = scaled + phase
    stretched[:, axis] = points[:, axis] / (8 * material.size) + phase[axis]
    if material.texture == "wood":
        grain = _noise(stretched) * 2.2 + stretched[:, (axis + 1) % 3] * 0.8
        rings = 0.5 + 0.5 * np.sin(2 * np.pi * grain)
        return 0.75 * rings * (0.7 + 0.3 * _noise(stretched * 4))
    return _planks(material, points, axis, phase)


def _planks(
    material: Material, points: np.ndarray, axis: int, phase: np.ndarray
) -> Float[np.ndarray, "num_points"]:
    """Return boards of width ``size`` along ``axis``, each a little different, with dark joints."""
    across = points[:, (axis + 1) % 3 if axis != 2 else 0] / material.size
    board = np.floor(across)
    along = points[:, axis] / (7 * material.size) + _hash(board, 0 * board, 0 * board + 11)
    tone = _hash(board, np.floor(along), 0 * board + 5)
    grain = np.stack([across * 3 + phase[0], along * 1.5 + phase[1] + tone * 9, tone * 7], 1)
    edge = np.minimum(across - board, 1 - (across - board))
    end = np.minimum(along - np.floor(along), 1 - (along - np.floor(along))) * 7
    is_joint = (edge < 0.025) | (end < 0.025)
    return np.where(is_joint, 1.0, 0.1 + 0.35 * tone + 0.3 * _noise(grain))


def _hash(i: np.ndarray, j: np.ndarray, k: np.ndarray) -> Float[np.ndarray, "*shape"]:
    """Return a value in [0, 1) for every cell of a lattice."""
    mixed = (
        i.astype(np.int64).astype(np.uint32) * np.uint32(0x8DA6B343)
        + j.astype(np.int64).astype(np.uint32) * np.uint32(0xD8163841)
        + k.astype(np.int64).astype(np.uint32) * np.uint32(0xCB1AB31F)
    )
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    mixed ^= mixed >> np.uint32(12)
    mixed *= np.uint32(0x297A2D39)
    mixed ^= mixed >> np.uint32(15)
    return mixed.astype(np.float64) / 2.0**32


def _noise(points: Float[np.ndarray, "num_points 3"]) -> Float[np.ndarray, "num_points"]:
    """Return smooth value noise in [0, 1] with one feature a unit."""
    base = np.floor(points)
    t = points - base
    t = t * t * (3 - 2 * t)
    x, y, z = base.T
    total = np.zeros(len(points))
    for corner in range(8):
        bits = [(corner >> k) & 1 for k in range(3)]
        weights = [t[:, k] if bits[k] else 1 - t[:, k] for k in range(3)]
        value = _hash(x + bits[0], y + bits[1], z + bits[2])
        total += value * weights[0] * weights[1] * weights[2]
    return total


def _fractal(points: Float[np.ndarray, "num_points 3"]) -> Float[np.ndarray, "num_points"]:
    """Return three octaves of noise, stretched to use most of [0, 1]."""
    total = (_noise(points) * 4 + _noise(points * 2.03) * 2 + _noise(points * 4.01)) / 7
    return ((total - 0.5) * 1.6 + 0.5).clip(0, 1)
