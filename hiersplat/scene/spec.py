"""A scene in words: the dataclasses behind ``scenes/*.yaml``.

A scene is a ground, lights, camera paths and objects; an object is made of named parts, a part
of shapes of its own and of named details, a detail of shapes. Objects become the wholes of the
truth, parts its parts; details, and what a part shows apart from its details, its small segments.

Lengths are in scene units, angles in degrees; z points up and the ground is the plane z = 0.
A thing is scaled, then turned (about x, then y, then z), then moved ``at`` its place in its
parent; a repetition then copies it. Numbers under ``vary`` are the largest change to
either side that a seed may draw.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hiersplat.scene.colours import parse_colour
from hiersplat.scene.reading import read_yaml
from hiersplat.scene.shapes import Shape
from hiersplat.scene.spatial import Placed, Vector

MAX_SIDE = 4096
MAX_VIEWS = 2000


@dataclass(frozen=True)
class Material:
    """How a surface looks."""

    colour: str = "grey"
    """Main colour: a name or '#rrggbb'."""
    second: str | None = None
    """Second colour of a pattern; by default a darker main colour."""
    texture: Literal["solid", "checker", "stripes", "rings", "noise", "wood", "planks", "dots"] = (
        "solid"
    )
    """Pattern, evaluated in the space of the thing that carries it."""
    size: float = 0.1
    """Size of one element of the pattern."""
    axis: Literal["x", "y", "z"] = "z"
    """Axis across stripes and rings, and along the grain of wood."""
    gloss: float = 0.0
    """Strength of highlights in [0, 1]; they differ from view to view, so a little goes far."""
    glow: float = 0.0
    """Light of its own in [0, 1], for bulbs and lamps."""
    substance: str | None = None
    """Word for what it is made of ('brass'); by default the name of the material."""

    def __post_init__(self) -> None:
        parse_colour(self.colour)
        if self.second is not None:
            parse_colour(self.second)
        if self.size <= 0:
            raise ValueError(f"size must be positive, got {self.size}")
        for name in ("gloss", "glow"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class Vary:
    """What a seed may change, as the largest change to either side."""

    shift: Vector = (0.0, 0.0, 0.0)
    """Change of place along x, y, z."""
    turn: float = 0.0
    """Change of direction about z, in degrees."""
    scale: float = 0.0
    """Change of size, as a share of it."""
    colour: float = 0.0
    """Change of brightness and hue of all materials, as a share."""

    def __post_init__(self) -> None:
        if min(*self.shift, self.turn, self.scale, self.colour) < 0:
            raise ValueError("numbers under 'vary' must not be negative")
        if self.scale >= 1 or self.colour > 1:
            raise ValueError("'scale' must be below 1 and 'colour' at most 1")


@dataclass(frozen=True)
class Named(Placed):
    """Something that has a name, a place and a look."""

    name: str = ""
    """What people call it: 'red mug', 'mug handle'. Several things may share a name."""
    material: str | None = None
    """Name of a material; by default the parent's."""
    vary: Vary = Vary()
    """What a seed may change."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.strip():
            raise ValueError("needs the key 'name'")


@dataclass(frozen=True)
class Detail(Named):
    """The finest thing with a name: one small segment."""

    shapes: tuple[Shape, ...] = ()
    """What it is made of."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shapes:
            raise ValueError(f"{self.name!r} has no shapes")


@dataclass(frozen=True)
class Part(Named):
    """A part of an object: its own shapes are one small segment, each detail is another."""

    shapes: tuple[Shape, ...] = ()
    """What shows apart from the details."""
    details: tuple[Detail, ...] = ()
    """Things on it that have names of their own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shapes and not self.details:
            raise ValueError(f"{self.name!r} has neither shapes nor details")


@dataclass(frozen=True)
class Thing(Named):
    """An object: a whole."""

    parts: tuple[Part, ...] = ()
    """What it is made of."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parts:
            raise ValueError(f"{self.name!r} has no parts")


@dataclass(frozen=True)
class Ground:
    """What the objects stand on: a disc, or a studio sweep that rises into a wall."""

    name: str = "ground"
    """What people call it."""
    radius: float = 6.0
    """Radius of the flat disc."""
    wall: float = 0.0
    """Height of the wall that the disc sweeps up into; 0 leaves a flat disc under the sky."""
    material: str | None = None
    """Name of a material."""

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.wall < 0:
            raise ValueError("'radius' must be positive and 'wall' must not be negative")
        if not self.name.strip():
            raise ValueError("needs a name")


@dataclass(frozen=True)
class Light:
    """A sun: parallel light from a direction."""

    azimuth: float = 40.0
    """Direction it comes from, about z, in degrees."""
    elevation: float = 55.0
    """Height above the horizon, in degrees in (0, 90]."""
    strength: float = 0.8
    """Light on a surface that faces it."""
    colour: str = "#ffffff"
    """Its colour."""
    shadow: bool = True
    """Whether it casts shadows; each such light costs one more ray a sample."""

    def __post_init__(self) -> None:
        parse_colour(self.colour)
        if not 0 < self.elevation <= 90:
            raise ValueError(f"elevation must be in (0, 90], got {self.elevation}")
        if self.strength < 0:
            raise ValueError(f"strength must not be negative, got {self.strength}")


@dataclass(frozen=True)
class Sky:
    """Light from everywhere, and what is seen where there is nothing."""

    zenith: str = "#dfe7f2"
    """Colour above."""
    horizon: str = "#f2ede4"
    """Colour at the horizon."""
    ambient: float = 0.55
    """Strength of the light from everywhere; corners and contacts get less of it."""

    def __post_init__(self) -> None:
        parse_colour(self.zenith)
        parse_colour(self.horizon)
        if self.ambient < 0:
            raise ValueError(f"ambient must not be negative, got {self.ambient}")


@dataclass(frozen=True)
class CameraPath:
    """Views along a path around a target."""

    kind: Literal["orbit", "hemisphere"] = "orbit"
    """'orbit': rounds at even steps while the elevation goes from its first to its second
    value; 'hemisphere': spread evenly over the directions between the two elevations."""
    views: int = 32
    """Number of views."""
    held_out: int = 0
    """How many of them, evenly spread, are kept from training."""
    radius: float = 4.0
    """Distance from the target."""
    elevation: tuple[float, float] = (20.0, 50.0)
    """Lowest and highest angle above the horizon, in degrees in [-85, 85]."""
    rounds: float = 1.0
    """Rounds of an orbit; below 1 for an arc."""
    start: float = 0.0
    """Direction of the first view about z, in degrees."""
    target: Vector = (0.0, 0.0, 0.5)
    """What the cameras look at."""
    jitter: float = 0.0
    """Random change of every camera's place and target, as a share of the radius."""

    def __post_init__(self) -> None:
        if not 1 <= self.views <= MAX_VIEWS:
            raise ValueError(f"views must be in [1, {MAX_VIEWS}], got {self.views}")
        if not 0 <= self.held_out <= self.views:
            raise ValueError(f"held_out must be in [0, {self.views}], got {self.held_out}")
        if self.radius <= 0:
            raise ValueError(f"radius must be positive, got {self.radius}")
        if not -85 <= self.elevation[0] <= self.elevation[1] <= 85:
            raise ValueError("elevation must be two rising angles in [-85, 85]")
        if not 0 <= self.jitter < 0.5:
            raise ValueError(f"jitter must be in [0, 0.5), got {self.jitter}")


@dataclass(frozen=True)
class ImageSpec:
    """The pictures."""

    width: int = 256
    """Pixels across; rendering time grows with the number of pixels."""
    height: int = 256
    """Pixels down."""
    field_of_view: float = 45.0
    """Vertical angle of view in degrees."""

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if not 8 <= getattr(self, name) <= MAX_SIDE:
                raise ValueError(f"{name} must be in [8, {MAX_SIDE}], got {getattr(self, name)}")
        if not 5 <= self.field_of_view <= 120:
            raise ValueError(f"field_of_view must be in [5, 120], got {self.field_of_view}")


@dataclass(frozen=True)
class SceneSpec:
    """A whole scene."""

    name: str
    """Name of the scene and of the folder it is rendered into."""
    objects: tuple[Thing, ...]
    """What stands in it."""
    seed: int = 0
    """Seed of everything under 'vary', of jitter, noise and of the sampled points."""
    ground: Ground = Ground()
    """What the objects stand on."""
    materials: dict[str, Material] = field(default_factory=dict)
    """Looks by name."""
    lights: tuple[Light, ...] = (Light(),)
    """Suns."""
    sky: Sky = Sky()
    """Light from everywhere."""
    cameras: tuple[CameraPath, ...] = (CameraPath(held_out=8),)
    """Camera paths."""
    image: ImageSpec = ImageSpec()
    """The pictures."""
    points: int = 15000
    """Number of coloured surface points that training starts from."""

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_" for c in self.name):
            raise ValueError(f"name must be letters, digits, '-' and '_', got {self.name!r}")
        if not self.objects:
            raise ValueError("'objects' is empty")
        if not self.cameras:
            raise ValueError("'cameras' is empty")
        if self.points < 1:
            raise ValueError(f"points must be positive, got {self.points}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if sum(path.views - path.held_out for path in self.cameras) == 0:
            raise ValueError("every view is held out; at least one must be left for training")
        _check_materials(self)


def _check_materials(spec: SceneSpec) -> None:
    def check(where: str, material: str | None) -> None:
        if material is not None and material not in spec.materials:
            known = ", ".join(spec.materials) or "none are given"
            raise ValueError(f"{where} asks for material {material!r}; 'materials' has: {known}")

    check("ground", spec.ground.material)
    for i, thing in enumerate(spec.objects):
        check(f"objects[{i}]", thing.material)
        for j, part in enumerate(thing.parts):
            path = f"objects[{i}].parts[{j}]"
            check(path, part.material)
            for k, shape in enumerate(part.shapes):
                check(f"{path}.shapes[{k}]", shape.material)
            for k, detail in enumerate(part.details):
                check(f"{path}.details[{k}]", detail.material)
                for m, shape in enumerate(detail.shapes):
                    check(f"{path}.details[{k}].shapes[{m}]", shape.material)


def load_scene(path: Path) -> SceneSpec:
    """Read a scene from its YAML file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not describe a scene; names file, line, key and what was expected.
    """
    return read_yaml(Path(path), SceneSpec)
