"""Families of toys and small machines, drawn at random; see :mod:`hiersplat.scene.families`."""

from collections.abc import Callable

from hiersplat.scene.drawing import Drawing
from hiersplat.scene.shapes import Box, Cone, Cylinder, Extrude, Lathe, Sphere, Torus, Tube
from hiersplat.scene.spatial import Repeat
from hiersplat.scene.spec import Detail, Part, Thing


def truck(draw: Drawing) -> Thing:
    """A truck with cab, bed and wheels."""
    length = draw.size(0.6, 0.8)
    hub, bed = draw.one_of(["brass", "steel"]), draw.other_colour()
    rail = Box(size=(length, 0.05, 0.28), at=(0, 0.235, 0))
    end = Box(size=(0.05, 0.52, 0.28), at=(length / 2 - 0.03, 0, 0))
    wheel = Cylinder(radius=0.18, height=0.14, bevel=0.03, turn=(90, 0, 0), at=(0, 0.07, 0))
    cap = Cylinder(radius=0.105, height=0.2, bevel=0.02, turn=(90, 0, 0), at=(0, 0.1, 0))
    return Thing(
        name=f"{draw.colour} truck",
        parts=(
            Part(
                name="truck cab",
                at=(0.22, 0, 0.2),
                material=draw.look("plastic"),
                shapes=(
                    Box(size=(0.36, 0.5, draw.size(0.42, 0.52)), bevel=0.06),
                    Box(size=(0.18, 0.48, 0.22), at=(0.22, 0, 0), bevel=0.05),
                ),
                details=(
                    Detail(
                        name="windscreen",
                        at=(0.175, 0, 0.23),
                        material=draw.look("glass", "teal"),
                        shapes=(Box(size=(0.03, 0.38, 0.16), bevel=0.012),),
                    ),
                    Detail(
                        name="headlight",
                        at=(0.3, -0.14, 0.12),
                        turn=(0, 90, 0),
                        material=draw.look("lamp light"),
                        repeat=Repeat(count=2, step=(0, 0.28, 0)),
                        shapes=(Cylinder(radius=0.1, height=0.05, bevel=0.02),),
                    ),
                ),
            ),
            Part(
                name="truck bed",
                at=(-length / 2 + 0.04, 0, 0.22),
                material=draw.look("plastic", bed),
                shapes=(
                    Box(size=(length, 0.52, 0.06)),
                    rail,
                    Box(size=(length, 0.05, 0.28), at=(0, -0.235, 0)),
                    end,
                    Box(size=(0.05, 0.52, 0.28), at=(0.03 - length / 2, 0, 0)),
                ),
            ),
            Part(
                name="truck wheel",
                at=(0.22, 0.27, 0.18),
                material=draw.look("rubber"),
                repeat=(
                    Repeat(count=2, step=(0, -0.54, 0)),
                    Repeat(count=2, step=(-length + 0.02, 0, 0)),
                ),
                shapes=(wheel,),
                details=(Detail(name=f"{hub} hubcap", material=draw.look(hub), shapes=(cap,)),),
            ),
        ),
    )


def robot(draw: Drawing) -> Thing:
    """A robot with head, arms and legs."""
    w = draw.size(0.5, 0.6)
    eye, hand = draw.other_colour(), draw.other_colour()
    return Thing(
        name=f"{draw.colour} robot",
        material=draw.look("metal"),
        parts=(
            Part(
                name="robot body",
                at=(0, 0, 0.36),
                shapes=(Box(size=(0.4, w, 0.5), bevel=0.06),),
                details=(
                    Detail(
                        name=f"{hand} button",
                        at=(0.19, -0.11, 0.28),
                        turn=(0, 90, 0),
                        material=draw.look("plastic", hand),
                        repeat=Repeat(count=2, step=(0, 0.22, 0)),
                        shapes=(Cylinder(radius=0.095, height=0.05, bevel=0.015),),
                    ),
                ),
            ),
            Part(
                name="robot head",
                at=(0, 0, 0.88),
                material=draw.look("steel"),
                shapes=(
                    Box(size=(0.38, 0.44, 0.36), bevel=0.05),
                    Cylinder(radius=0.1, height=0.1, at=(0, 0, -0.06)),
                ),
                details=(
                    Detail(
                        name=f"{eye} robot eye",
                        at=(0.17, -0.11, 0.2),
                        turn=(0, 90, 0),
                        material=draw.look("glass", eye),
                        repeat=Repeat(count=2, step=(0, 0.22, 0)),
                        shapes=(Cylinder(radius=0.095, height=0.06, bevel=0.02),),
                    ),
                    Detail(
                        name="brass antenna",
                        at=(0, 0, 0.35),
                        material=draw.look("brass"),
                        shapes=(
                            Cylinder(radius=0.03, height=0.14),
                            Sphere(radius=0.09, at=(0, 0, 0.18)),
                        ),
                    ),
                ),
            ),
            Part(
                name="robot arm",
                at=(0, w / 2 + 0.08, 0.76),
                repeat=(Repeat(count=2, ring=0),),
                shapes=(
                    Sphere(radius=0.1),
                    Tube(path=((0, 0, 0), (0.02, 0.06, -0.18), (0.08, 0.06, -0.36)), radius=0.065),
                ),
                details=(
                    Detail(
                        name=f"{hand} robot hand",
                        at=(0.09, 0.06, -0.42),
                        material=draw.look("plastic", hand),
                        shapes=(Sphere(radius=0.12),),
                    ),
                ),
            ),
            Part(
                name="robot leg",
                at=(0, 0.14, 0),
                repeat=Repeat(count=2, step=(0, -0.28, 0)),
                shapes=(Cylinder(radius=0.09, height=0.32, at=(0, 0, 0.08)),),
                details=(
                    Detail(
                        name="rubber robot foot",
                        at=(0.05, 0, 0),
                        material=draw.look("rubber"),
                        shapes=(Box(size=(0.34, 0.23, 0.13), bevel=0.04),),
                    ),
                ),
            ),
        ),
    )


def rocket(draw: Drawing) -> Thing:
    """A rocket with a nose cone, fins and portholes."""
    h = draw.size(0.7, 0.9)
    nose, fin = draw.other_colour(), draw.other_colour()
    body = ((0, 0), (0.2, 0), (0.28, 0.25 * h), (0.3, 0.5 * h), (0.24, h), (0, h))
    tip = ((0, 0), (0.25, 0), (0.2, 0.16), (0.1, 0.32), (0, 0.4))
    outline = ((0, 0.2), (0.32, 0), (0.36, 0.22), (0.1, 0.56))
    return Thing(
        name=f"{draw.colour} rocket",
        material=draw.look("metal"),
        parts=(
            Part(
                name="rocket body",
                at=(0, 0, 0.14),
                shapes=(Lathe(profile=body),),
                details=(
                    Detail(
                        name="porthole",
                        at=(0, 0, 0.58 * h),
                        turn=(0, 90, 0),
                        material=draw.look("glass", "navy"),
                        repeat=Repeat(count=3, ring=0.23),
                        shapes=(Cylinder(radius=0.12, height=0.09, bevel=0.02),),
                    ),
                ),
            ),
            Part(
                name=f"{nose} nose cone",
                at=(0, 0, 0.14 + h),
                material=draw.look("plastic", nose),
                shapes=(Lathe(profile=tip, smooth=True),),
            ),
            Part(
                name=f"{fin} rocket fin",
                at=(0.17, 0, 0),
                turn=(90, 0, 0),
                material=draw.look("plastic", fin),
                repeat=Repeat(count=int(draw.rng.integers(3, 5)), ring=0, start=60),
                shapes=(Extrude(outline=outline, height=0.07, at=(0, 0, -0.035)),),
            ),
        ),
    )


def stacker(draw: Drawing) -> Thing:
    """A stack of rings on a pole."""
    colours = [draw.colour]
    while len(colours) < 3:
        colour = draw.other_colour()
        if colour not in colours:
            colours.append(colour)
    rings = tuple(
        Part(
            name=f"{colour} ring",
            at=(0, 0, 0.2 + 0.2 * i),
            material=draw.look("plastic", colour),
            shapes=(Torus(radius=0.26 - 0.05 * i, tube=0.12 - 0.01 * i),),
        )
        for i, colour in enumerate(colours)
    )
    knob = draw.other_colour()
    base = Part(
        name="stacker base",
        material=draw.look("oak"),
        shapes=(
            Cylinder(radius=0.42, height=0.1, bevel=0.03),
            Cylinder(radius=0.06, height=0.76),
        ),
        details=(
            Detail(
                name=f"{knob} stacker knob",
                at=(0, 0, 0.8),
                material=draw.look("plastic", knob),
                shapes=(Sphere(radius=0.12),),
            ),
        ),
    )
    return Thing(name=f"{draw.colour} ring stacker", parts=(base, *rings))


def house(draw: Drawing) -> Thing:
    """A toy house with roof, door, windows and chimney."""
    w, h = draw.size(0.6, 0.75), draw.size(0.42, 0.55)
    door, roof = draw.other_colour(), draw.other_colour()
    gable = ((-w / 2 - 0.06, 0), (w / 2 + 0.06, 0), (0, 0.34))
    return Thing(
        name=f"{draw.colour} toy house",
        parts=(
            Part(
                name="house wall",
                material=draw.look("plastic"),
                shapes=(Box(size=(0.56, w, h)),),
                details=(
                    Detail(
                        name=f"{door} door",
                        at=(0.28, -0.12, 0),
                        material=draw.look("plastic", door),
                        shapes=(Box(size=(0.04, 0.2, 0.3)),),
                    ),
                    Detail(
                        name="house window",
                        at=(0.28, 0.15, 0.16),
                        material=draw.look("lamp light"),
                        shapes=(Box(size=(0.04, 0.18, 0.18)),),
                    ),
                ),
            ),
            Part(
                name=f"{roof} roof",
                at=(-0.34, 0, h),
                turn=(90, 0, 90),
                material=draw.look("plastic", roof),
                shapes=(Extrude(outline=gable, height=0.68),),
            ),
            Part(
                name="chimney",
                at=(-0.1, 0.18, h + 0.1),
                material=draw.look("walnut"),
                shapes=(Box(size=(0.14, 0.14, 0.34)),),
            ),
        ),
    )


def train(draw: Drawing) -> Thing:
    """A locomotive with boiler, cab, funnel and wheels."""
    length = draw.size(0.5, 0.65)
    cab, wheel = draw.other_colour(), draw.other_colour()
    disc = Cylinder(radius=0.16, height=0.12, bevel=0.02, turn=(90, 0, 0), at=(0, 0.06, 0))
    hub = Cylinder(radius=0.085, height=0.17, bevel=0.02, turn=(90, 0, 0), at=(0, 0.085, 0))
    return Thing(
        name=f"{draw.colour} train",
        parts=(
            Part(
                name="boiler",
                at=(-0.1, 0, 0.36),
                turn=(0, 90, 0),
                material=draw.look("metal"),
                shapes=(Cylinder(radius=0.2, height=length, bevel=0.04),),
                details=(
                    Detail(
                        name="brass boiler front",
                        at=(0, 0, length - 0.03),
                        material=draw.look("brass"),
                        shapes=(Cylinder(radius=0.13, height=0.06, bevel=0.02),),
                    ),
                ),
            ),
            Part(
                name="train cab",
                at=(-0.26, 0, 0.16),
                material=draw.look("metal", cab),
                shapes=(
                    Box(size=(0.34, 0.48, 0.56), bevel=0.03),
                    Box(size=(0.42, 0.56, 0.06), at=(0, 0, 0.56), bevel=0.02),
                ),
                details=(
                    Detail(
                        name="cab window",
                        at=(0, 0.235, 0.32),
                        material=draw.look("lamp light"),
                        repeat=(Repeat(count=2, ring=0),),
                        shapes=(Box(size=(0.19, 0.03, 0.18)),),
                    ),
                ),
            ),
            Part(
                name="funnel",
                at=(length - 0.26, 0, 0.52),
                material=draw.look("rubber"),
                shapes=(Cone(radius=0.07, top=0.14, height=0.26),),
            ),
            Part(
                name="train wheel",
                at=(length - 0.26, 0.22, 0.16),
                material=draw.look("metal", wheel),
                repeat=(
                    Repeat(count=2, step=(0, -0.44, 0)),
                    Repeat(count=2, step=(-length + 0.02, 0, 0)),
                ),
                shapes=(disc,),
                details=(
                    Detail(name="steel wheel hub", material=draw.look("steel"), shapes=(hub,)),
                ),
            ),
        ),
    )


TOYS: dict[str, Callable[[Drawing], Thing]] = {
    "truck": truck,
    "robot": robot,
    "rocket": rocket,
    "ring stacker": stacker,
    "toy house": house,
    "train": train,
}
"""Families of this module by name."""
