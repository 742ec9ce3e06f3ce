"""Families of household things, drawn at random: what :func:`random_scene` puts on a table.

A family is a function from a :class:`~hiersplat.scene.drawing.Drawing` to a thing. Names say
what people would: the whole carries its main colour ("red mug"), a part its owner ("mug handle"),
a detail what it is made of where that shows ("brass knob"). Lengths keep details visible.
"""

from collections.abc import Callable

from hiersplat.scene.drawing import Drawing
from hiersplat.scene.furniture_families import FURNITURE
from hiersplat.scene.shapes import Cylinder, Lathe, Sphere, Tube
from hiersplat.scene.spec import Detail, Part, Thing
from hiersplat.scene.toy_families import TOYS


def mug(draw: Drawing) -> Thing:
    """A mug with a handle, often with a stripe."""
    r, h = draw.size(0.27, 0.34), draw.size(0.52, 0.68)
    stripe = draw.other_colour()
    rim = ((0, 0), (r - 0.05, 0), (r, 0.04), (r, h), (r - 0.035, h), (r - 0.035, h / 2), (0, h / 2))
    details = (
        Detail(
            name=f"{stripe} stripe",
            at=(0, 0, h * 0.5),
            material=draw.look("ceramic", stripe),
            shapes=(Cylinder(radius=r + 0.01, hole=r - 0.02, height=h * 0.22),),
        ),
        Detail(
            name=(drink := draw.one_of(["coffee", "milk"])),
            at=(0, 0, h * 0.75),
            material=draw.look("ceramic", "white") if drink == "milk" else draw.look("soil"),
            shapes=(Cylinder(radius=r - 0.03, height=0.03),),
        ),
    )
    path = (
        (r - 0.02, 0, 0.2 * h),
        (r + 0.2, 0, 0.22 * h),
        (r + 0.2, 0, 0.75 * h),
        (r - 0.02, 0, 0.8 * h),
    )
    return Thing(
        name=f"{draw.colour} mug",
        material=draw.look("ceramic"),
        parts=(
            Part(name="mug body", shapes=(Lathe(profile=rim),), details=details),
            Part(name="mug handle", shapes=(Tube(path=path, radius=0.055),)),
        ),
    )


def teapot(draw: Drawing) -> Thing:
    """A teapot with lid, spout and handle."""
    r = draw.size(0.34, 0.44)
    knob = draw.one_of(["brass", "walnut"])
    body = (
        (0, 0),
        (0.5 * r, 0),
        (0.62 * r, 0.03),
        (r, 0.22),
        (r, 0.42),
        (0.62 * r, 0.58),
        (0, 0.61),
    )
    spout = ((r - 0.1, 0, 0.2), (r + 0.12, 0, 0.28), (r + 0.2, 0, 0.46), (r + 0.3, 0, 0.58))
    handle = ((0.1 - r, 0, 0.48), (-r - 0.16, 0, 0.54), (-r - 0.22, 0, 0.36), (0.1 - r, 0, 0.16))
    lid = ((0, 0), (0.6 * r, 0), (0.6 * r, 0.035), (0.3 * r, 0.1), (0, 0.12))
    return Thing(
        name=f"{draw.colour} teapot",
        material=draw.look("ceramic"),
        parts=(
            Part(name="teapot body", shapes=(Lathe(profile=body, smooth=True),)),
            Part(
                name="teapot lid",
                at=(0, 0, 0.57),
                material=draw.look("ceramic", draw.other_colour()),
                shapes=(Lathe(profile=lid),),
                details=(
                    Detail(
                        name=f"{knob} lid knob".replace("walnut", "wooden"),
                        at=(0, 0, 0.17),
                        material=draw.look(knob),
                        shapes=(Sphere(radius=0.1),),
                    ),
                ),
            ),
            Part(name="teapot spout", shapes=(Tube(path=spout, radius=0.11, taper=0.55),)),
            Part(name="teapot handle", shapes=(Tube(path=handle, radius=0.05),)),
        ),
    )


def vase(draw: Drawing) -> Thing:
    """A vase with a band."""
    belly, neck = draw.size(0.3, 0.42), draw.size(0.14, 0.2)
    h = draw.size(0.7, 1.0)
    band = draw.other_colour()
    body = (
        (0, 0),
        (0.2, 0),
        (belly, 0.3 * h),
        (0.9 * belly, 0.5 * h),
        (neck, 0.8 * h),
        (0, 0.82 * h),
    )
    mouth = ((neck - 0.02, 0), (neck + 0.08, 0.2 * h), (neck + 0.04, 0.2 * h), (neck - 0.06, 0))
    return Thing(
        name=f"{draw.colour} vase",
        material=draw.look("ceramic"),
        parts=(
            Part(name="vase body", shapes=(Lathe(profile=body, smooth=True),)),
            Part(
                name="vase neck",
                at=(0, 0, 0.78 * h),
                shapes=(Lathe(profile=mouth, closed=True),),
                details=(
                    Detail(
                        name=f"{band} neck ring",
                        material=draw.look("ceramic", band),
                        shapes=(
                            Cylinder(radius=neck + 0.05, hole=neck - 0.03, height=0.12, bevel=0.02),
                        ),
                    ),
                ),
            ),
        ),
    )


def bottle(draw: Drawing) -> Thing:
    """A bottle with a label and a cap."""
    r, h = draw.size(0.18, 0.25), draw.size(0.5, 0.7)
    cap, label = draw.one_of(["brass", "steel", "rubber"]), draw.other_colour()
    body = ((0, 0), (r - 0.03, 0), (r, 0.05), (r, 0.7 * h), (0.8 * r, 0.85 * h), (0.07, h), (0, h))
    return Thing(
        name=f"{draw.colour} bottle",
        material=draw.look("glass"),
        parts=(
            Part(
                name="bottle body",
                shapes=(Lathe(profile=body, smooth=True),),
                details=(
                    Detail(
                        name=f"{label} label",
                        at=(0, 0, 0.15 * h),
                        material=draw.look("paper", label),
                        shapes=(Cylinder(radius=r + 0.012, hole=r - 0.02, height=0.45 * h),),
                    ),
                ),
            ),
            Part(
                name="bottle neck",
                at=(0, 0, h - 0.06),
                shapes=(Cylinder(radius=0.08, height=0.24),),
                details=(
                    Detail(
                        name=f"{cap} cap",
                        at=(0, 0, 0.2),
                        material=draw.look(cap),
                        shapes=(Cylinder(radius=0.11, height=0.13, bevel=0.02),),
                    ),
                ),
            ),
        ),
    )


VESSELS: dict[str, Callable[[Drawing], Thing]] = {
    "mug": mug,
    "teapot": teapot,
    "vase": vase,
    "bottle": bottle,
}

FAMILIES: dict[str, Callable[[Drawing], Thing]] = {**VESSELS, **FURNITURE, **TOYS}
"""All families of things by name."""
