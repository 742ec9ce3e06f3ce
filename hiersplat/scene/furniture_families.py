"""Families of furniture and what stands on it; see :mod:`hiersplat.scene.families`."""

from collections.abc import Callable

from hiersplat.scene.drawing import Drawing
from hiersplat.scene.shapes import Box, Cone, Cylinder, Lathe, Leaf, Sphere
from hiersplat.scene.spatial import Repeat
from hiersplat.scene.spec import Detail, Part, Thing, Vary


def lamp(draw: Drawing) -> Thing:
    """A lamp with a shade on a stem."""
    h, r = draw.size(0.7, 1.0), draw.size(0.3, 0.4)
    shade = ((0.55 * r, 0.36), (r, 0), (r - 0.03, 0), (0.55 * r - 0.03, 0.36))
    stem = draw.one_of(["brass", "steel", "walnut"])
    button = draw.other_colour()
    return Thing(
        name=f"{draw.colour} lamp",
        parts=(
            Part(
                name="lamp foot",
                material=draw.look(stem),
                shapes=(
                    Cylinder(radius=0.28, height=0.08, bevel=0.03),
                    Cylinder(radius=0.05, height=h),
                ),
                details=(
                    Detail(
                        name=f"{button} switch",
                        at=(0.17, 0, 0.07),
                        material=draw.look("plastic", button),
                        shapes=(Cylinder(radius=0.085, height=0.07, bevel=0.02),),
                    ),
                ),
            ),
            Part(
                name="lamp shade",
                at=(0, 0, h - 0.08),
                material=draw.look("cloth"),
                shapes=(Lathe(profile=shade, closed=True),),
                details=(
                    Detail(
                        name="light bulb",
                        at=(0, 0, 0.22),
                        material=draw.look("lamp light"),
                        shapes=(Sphere(radius=0.15),),
                    ),
                ),
            ),
        ),
    )


def cabinet(draw: Drawing) -> Thing:
    """A cabinet of drawers with knobs."""
    count = int(draw.rng.integers(2, 4))
    width, pitch = draw.size(0.7, 0.9), 0.27
    height = count * pitch + 0.08
    knob = draw.one_of(["brass", "steel", "rubber"])
    frame = draw.one_of(["oak", "walnut"])
    return Thing(
        name=f"{draw.colour} drawer cabinet",
        material=draw.look(frame),
        parts=(
            Part(
                name="cabinet frame",
                shapes=(
                    Box(size=(0.56, width, height), bevel=0.02),
                    Box(size=(0.64, width + 0.08, 0.06), at=(0, 0, height), bevel=0.02),
                ),
            ),
            Part(
                name="drawer",
                at=(0.29, 0, 0.06),
                material=draw.look("plastic"),
                repeat=Repeat(count=count, step=(0, 0, pitch)),
                shapes=(Box(size=(0.05, width - 0.1, pitch - 0.03), bevel=0.02),),
                details=(
                    Detail(
                        name=f"{knob} drawer knob",
                        at=(0.07, 0, 0.12),
                        material=draw.look(knob),
                        shapes=(Sphere(radius=0.085),),
                    ),
                ),
            ),
        ),
    )


def plant(draw: Drawing) -> Thing:
    """A plant in a pot, with leaves and a flower."""
    leaves = int(draw.rng.integers(5, 8))
    h = draw.size(0.5, 0.7)
    pot = ((0, 0), (0.24, 0), (0.36, 0.4), (0.32, 0.4), (0.3, 0.33), (0, 0.33))
    flower = draw.other_colour()
    leaf = Leaf(length=draw.size(0.5, 0.65), width=draw.size(0.22, 0.28), bend=draw.size(0.2, 0.4))
    return Thing(
        name=f"plant in a {draw.colour} pot",
        parts=(
            Part(
                name="flower pot",
                material=draw.look("ceramic"),
                shapes=(Lathe(profile=pot),),
                details=(
                    Detail(
                        name="soil",
                        at=(0, 0, 0.34),
                        material=draw.look("soil"),
                        shapes=(Cylinder(radius=0.32, height=0.05),),
                    ),
                ),
            ),
            Part(
                name="foliage",
                at=(0, 0, 0.36),
                material=draw.look("leaf"),
                shapes=(Cylinder(radius=0.04, height=h),),
                details=(
                    Detail(
                        name="leaf",
                        at=(0, 0, 0.1),
                        turn=(0, -30, 0),
                        repeat=Repeat(count=leaves, ring=0.03),
                        vary=Vary(turn=8, scale=0.1, colour=0.12),
                        shapes=(leaf,),
                    ),
                ),
            ),
            Part(
                name=f"{flower} flower",
                at=(0, 0, 0.36 + h),
                turn=(10, 12, 0),
                material=draw.look("cloth", flower),
                shapes=(
                    Leaf(length=0.27, width=0.2, bend=-0.2, repeat=Repeat(count=6, ring=0.03)),
                ),
                details=(
                    Detail(
                        name="flower centre",
                        material=draw.look("brass"),
                        shapes=(Sphere(radius=0.1, scale=(1, 1, 0.7)),),
                    ),
                ),
            ),
        ),
    )


def books(draw: Drawing) -> Thing:
    """A stack of two or three books."""
    parts, z = [], 0.0
    colours = [draw.colour, draw.other_colour(), draw.other_colour()]
    for colour in colours[: int(draw.rng.integers(2, 4))]:
        w, d, t = draw.size(0.62, 0.78), draw.size(0.46, 0.56), draw.size(0.13, 0.2)
        label = draw.one_of([c for c in ("white", "yellow", "pink") if c != colour])
        cover = Box(size=(w, d, 0.03))
        parts.append(
            Part(
                name=f"{colour} book",
                at=(0, 0, round(z, 3)),
                turn=draw.size(-18, 18),
                material=draw.look("cloth", colour),
                shapes=(
                    cover,
                    Box(size=(w, d, 0.03), at=(0, 0, t)),
                    Box(size=(0.03, d, t + 0.03), at=(-w / 2, 0, 0)),
                ),
                details=(
                    Detail(
                        name="book pages",
                        at=(0, 0, 0.03),
                        material=draw.look("pages"),
                        shapes=(Box(size=(w - 0.05, d - 0.05, t - 0.03)),),
                    ),
                    Detail(
                        name=f"{label} title",
                        at=(0.04, 0, t + 0.028),
                        material=draw.look("paper", label),
                        shapes=(Box(size=(0.3, 0.22, 0.012)),),
                    ),
                ),
            )
        )
        z += t + 0.03
    return Thing(name="stack of books", parts=tuple(parts))


def stool(draw: Drawing) -> Thing:
    """A stool with a cushion."""
    r, h = draw.size(0.3, 0.4), draw.size(0.45, 0.65)
    wood = draw.one_of(["oak", "walnut"])
    leg = Cone(radius=0.05, top=0.07, height=h)
    return Thing(
        name=f"{draw.colour} stool",
        parts=(
            Part(
                name="stool seat",
                at=(0, 0, h),
                material=draw.look(wood),
                shapes=(Cylinder(radius=r, height=0.08, bevel=0.02),),
                details=(
                    Detail(
                        name=f"{draw.colour} cushion",
                        at=(0, 0, 0.07),
                        material=draw.look("leather"),
                        shapes=(Cylinder(radius=r - 0.03, height=0.14, bevel=0.06),),
                    ),
                ),
            ),
            Part(
                name="stool leg",
                turn=(0, -5, 0),
                material=draw.look(wood),
                repeat=Repeat(count=int(draw.rng.integers(3, 5)), ring=r - 0.1),
                shapes=(leg,),
                details=(
                    Detail(
                        name="rubber foot",
                        material=draw.look("rubber"),
                        shapes=(Cylinder(radius=0.09, height=0.1, bevel=0.02),),
                    ),
                ),
            ),
        ),
    )


FURNITURE: dict[str, Callable[[Drawing], Thing]] = {
    "lamp": lamp,
    "drawer cabinet": cabinet,
    "plant": plant,
    "books": books,
    "stool": stool,
}
"""Families of this module by name."""
