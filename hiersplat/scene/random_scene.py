"""Scenes drawn at random, with names for everything: to train on, and to measure on."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hiersplat.scene.drawing import MAIN_COLOURS, Drawing
from hiersplat.scene.families import FAMILIES
from hiersplat.scene.spec import (
    CameraPath,
    Ground,
    ImageSpec,
    Light,
    Material,
    SceneSpec,
    Sky,
)

_GROUNDS = {
    "wooden table": Material(
        texture="planks", colour="#c9a273", second="#9c7448", size=0.6, axis="x", substance="wood"
    ),
    "grey counter": Material(
        texture="noise", colour="#c8ccc9", second="#a9b3b1", size=0.5, substance="stone"
    ),
    "carpet": Material(
        texture="checker", colour="#8a93a3", second="#7f8798", size=0.8, substance="cloth"
    ),
    "lawn": Material(
        texture="noise", colour="#7fae58", second="#699a49", size=0.6, substance="grass"
    ),
    "sand": Material(
        texture="noise", colour="#d9c59a", second="#c7b184", size=0.5, substance="sand"
    ),
}
_MIN_DISTANCE = 1.02


def random_scene(
    seed: int,
    num_objects: int | None = None,
    views: int = 32,
    held_out: int = 8,
    image: ImageSpec | None = None,
    is_allowed: Callable[[str, str], bool] | None = None,
) -> SceneSpec:
    """Draw a scene: different things, colours, materials, places, ground, light and cameras.

    No family comes twice in a scene, and no two things share their main colour.

    Args:
        seed: Seed of everything.
        num_objects: Number of things, from 1 to 7; by default 5 to 7.
        views: Number of views.
        held_out: How many of them are kept from training.
        image: The pictures; 256 x 256 by default.
        is_allowed: Says whether a family may come in a main colour, to keep combinations back
            for a test: ``lambda family, colour: (family, colour) not in held_back``.

    Raises:
        ValueError: If ``num_objects`` is out of range or nothing is allowed.

    Example:
        >>> [thing.name for thing in random_scene(seed=1, num_objects=2).objects]
        ['black ring stacker', 'purple lamp']
    """
    rng = np.random.default_rng([seed, 3])
    if num_objects is None:
        num_objects = int(rng.integers(5, 8))
    if not 1 <= num_objects <= 7:
        raise ValueError(f"num_objects must be in [1, 7], got {num_objects}")
    choices = _draw_combinations(rng, num_objects, is_allowed or (lambda family, colour: True))
    places = _draw_places(rng, num_objects)
    ground = str(rng.choice(list(_GROUNDS)))
    materials, things = {ground: _GROUNDS[ground]}, []
    for (family, colour), (x, y) in zip(choices, places, strict=True):
        drawing = Drawing(rng, colour)
        thing = FAMILIES[family](drawing)
        materials.update(drawing.materials)
        angle = round(float(rng.uniform(0, 360)), 1)
        scale = round(float(rng.uniform(0.92, 1.08)), 3)
        at = (round(float(x), 3), round(float(y), 3), 0.0)
        things.append(replace(thing, at=at, turn=angle, scale=scale))
    reach = max(0.7, float(np.linalg.norm(places, axis=1).max()))
    return SceneSpec(
        name=f"random-{seed}",
        seed=seed,
        objects=tuple(things),
        ground=Ground(name=ground, radius=4.2 + reach, wall=2.4, material=ground),
        materials=materials,
        lights=_draw_lights(rng),
        sky=Sky(ambient=float(rng.uniform(0.48, 0.6))),
        cameras=(_draw_cameras(rng, views, held_out, 2.9 + 1.22 * reach),),
        image=image or ImageSpec(field_of_view=42),
    )


def _draw_combinations(
    rng: np.random.Generator, count: int, is_allowed: Callable[[str, str], bool]
) -> list[tuple[str, str]]:
    """Draw families with main colours; no family and, while there are others, no colour twice."""
    chosen: list[tuple[str, str]] = []
    for family in rng.permutation(list(FAMILIES)):
        used = [colour for _, colour in chosen]
        colours = [c for c in MAIN_COLOURS if c not in used and is_allowed(str(family), c)]
        if colours:
            chosen.append((str(family), str(rng.choice(colours))))
        if len(chosen) == count:
            return chosen
    raise ValueError(f"is_allowed leaves {len(chosen)} of {count} families with a colour")


def _draw_places(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw places apart from each other, drawn in as closely as they fit, about their middle."""
    if count == 1:
        return np.zeros((1, 2))
    radius = 0.7
    while True:
        places: list[np.ndarray] = []
        for _ in range(200):
            place = rng.uniform(-radius, radius, 2)
            if all(np.linalg.norm(place - other) >= _MIN_DISTANCE for other in places):
                places.append(place)
            if len(places) == count:
                return np.array(places) - np.mean(places, 0)
        radius += 0.05


def _draw_lights(rng: np.random.Generator) -> tuple[Light, ...]:
    azimuth = float(rng.uniform(0, 360))
    key = Light(
        azimuth=azimuth,
        elevation=float(rng.uniform(42, 65)),
        strength=float(rng.uniform(0.5, 0.68)),
        colour=str(rng.choice(["#fff1dc", "#ffffff", "#f2f4ff"])),
    )
    fill = Light(azimuth=azimuth + 180, elevation=35, strength=0.15, colour="#dce8ff", shadow=False)
    return key, fill


def _draw_cameras(rng: np.random.Generator, views: int, held_out: int, radius: float) -> CameraPath:
    low, high = rng.uniform(20, 28), rng.uniform(48, 62)
    kind = "orbit" if rng.random() < 0.5 else "hemisphere"
    return CameraPath(
        kind=kind,
        views=views,
        held_out=held_out,
        radius=radius,
        elevation=(float(low), float(high)),
        rounds=2.0,
        start=float(rng.uniform(0, 360)),
        target=(0.0, 0.0, 0.35),
        jitter=0.01,
    )
