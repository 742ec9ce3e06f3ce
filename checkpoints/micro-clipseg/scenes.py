"""Training scenes of the micro CLIPSeg: things of declared scenes, mixed and recoloured."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hiersplat.scene.colours import COLOURS, parse_colour
from hiersplat.scene.spec import CameraPath, Light, Material, SceneSpec, Thing, Vary

_WORDS = sorted(COLOURS)
_TEXTURES = ("solid", "solid", "solid", "stripes", "dots", "checker", "noise")


def colour_word(colour: str) -> str:
    """Return the colour with a name that is nearest to a colour as scenes write it."""
    value = np.array(parse_colour(colour)) * 255
    return min(_WORDS, key=lambda word: float(((np.array(COLOURS[word]) - value) ** 2).sum()))


def mixed_scene(specs: Sequence[SceneSpec], seed: int, views: int, size: int) -> SceneSpec:
    """Return a scene of things from several scenes, in other colours, places and light.

    A name that begins with a colour follows its thing's new colour.

    Args:
        specs: Scenes to take things, places and grounds from.
        seed: Seed of every choice.
        views: Number of views; a quarter of them is held out.
        size: Width and height of the views in pixels.
    """
    rng = np.random.default_rng(seed)
    stage = specs[int(rng.integers(len(specs)))]
    owners = [(spec, thing) for spec in specs for thing in spec.objects]
    places = rng.permutation([thing.at[:2] for thing in stage.objects])
    chosen = rng.permutation(len(owners))[: int(rng.integers(4, len(places) + 1))]
    painter = _Painter(rng)
    things = []
    for index, (x, y) in zip(chosen, places, strict=False):
        spec, thing = owners[index]
        things.append(
            replace(
                painter.thing(thing, spec),
                at=(
                    float(x + rng.uniform(-0.1, 0.1)),
                    float(y + rng.uniform(-0.1, 0.1)),
                    thing.at[2],
                ),
                turn=(0.0, 0.0, float(rng.uniform(0, 360))),
                scale=float(rng.uniform(0.85, 1.15)),
            )
        )
    ground = painter.material(stage.ground.material, stage)
    return replace(
        stage,
        objects=tuple(things),
        seed=seed,
        materials=painter.materials,
        ground=replace(stage.ground, material=ground),
        lights=(
            Light(
                azimuth=float(rng.uniform(0, 360)),
                elevation=float(rng.uniform(35, 75)),
                strength=float(rng.uniform(0.45, 0.7)),
            ),
        ),
        cameras=(
            CameraPath(
                kind="hemisphere",
                views=views,
                held_out=views // 4,
                radius=float(rng.uniform(3.4, 4.5)),
                elevation=(15, 62),
                start=float(rng.uniform(0, 360)),
                target=(0.0, 0.0, 0.4),
                jitter=0.05,
            ),
        ),
        image=replace(stage.image, width=size, height=size),
    )


class _Painter:
    """Gives things new materials and keeps them for the scene."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.materials: dict[str, Material] = {}

    def thing(self, thing: Thing, spec: SceneSpec) -> Thing:
        painted: dict[str, str] = {}

        def paint(name: str | None) -> str | None:
            if name is not None and name not in painted:
                painted[name] = self.material(name, spec) or name
            return painted.get(name) if name is not None else None

        def named(name: str, material: str | None) -> str:
            first, _, rest = name.partition(" ")
            if not rest or first not in COLOURS or material is None:
                return name
            return f"{colour_word(self.materials[material].colour)} {rest}"

        parts = []
        for part in thing.parts:
            details = []
            for detail in part.details:
                shapes = tuple(replace(s, material=paint(s.material)) for s in detail.shapes)
                material = paint(detail.material)
                own = material or paint(part.material or thing.material)
                details.append(
                    replace(detail, name=named(detail.name, own), material=material, shapes=shapes)
                )
            shapes = tuple(replace(s, material=paint(s.material)) for s in part.shapes)
            material = paint(part.material)
            own = material or paint(thing.material)
            parts.append(
                replace(
                    part,
                    name=named(part.name, own),
                    material=material,
                    shapes=shapes,
                    details=tuple(details),
                )
            )
        material = paint(thing.material)
        return replace(
            thing,
            name=named(thing.name, material),
            material=material,
            parts=tuple(parts),
            vary=Vary(colour=0.1),
        )

    def material(self, name: str | None, spec: SceneSpec) -> str | None:
        """Add a variant of a material, recoloured four times in five, and return its name."""
        if name is None:
            return None
        old = spec.materials[name]
        key = f"{name} {len(self.materials)}"
        if self.rng.random() < 0.8:
            word = _WORDS[int(self.rng.integers(len(_WORDS)))]
            plain = old.texture in ("solid", "stripes", "dots", "checker")
            texture = _TEXTURES[int(self.rng.integers(len(_TEXTURES)))] if plain else old.texture
            size = float(self.rng.uniform(0.05, 0.15)) if texture != old.texture else old.size
            new = replace(old, colour=word, second=None, texture=texture, size=size)
        else:
            new = old
        self.materials[key] = replace(new, substance=old.substance or name)
        return key
