"""Nested objects become one triangle mesh whose triangles know their small segment.

Ids are scene-wide and contiguous from 0 at every level. The ground comes first: small 0 of
part 0 of whole 0. A part's own shapes are one small segment under the part's name, each of
its details is another; copies made by a repetition are segments of their own with one name.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from hiersplat.levels import Level
from hiersplat.scene.meshes import (
    Mesh,
    corner_normals,
    is_closed,
    orient_outwards,
    revolve,
    subdivide,
)
from hiersplat.scene.shapes import Shape
from hiersplat.scene.spatial import rotation, transform_points, translation
from hiersplat.scene.spec import Material, Named, SceneSpec
from hiersplat.scene.textures import Surface, make_surface

GROUND = 0
"""Id of the ground at every level."""
_DEFAULT_MATERIAL = Material()


@dataclass(frozen=True)
class BuiltScene:
    """A scene as triangles with ids."""

    spec: SceneSpec
    """What it was built from."""
    seed: int
    """Seed of its random variation."""
    vertices: Float[np.ndarray, "num_vertices 3"]
    """Corners in world space, float32."""
    faces: Int[np.ndarray, "num_faces 3"]
    """Triangles."""
    normals: Float[np.ndarray, "num_faces 3 3"]
    """Unit normal of every corner of every triangle."""
    texture_points: Float[np.ndarray, "num_vertices 3"]
    """The vertices in the space their texture is evaluated in."""
    face_small: Int[np.ndarray, "num_faces"]
    """Small id of every triangle."""
    face_surface: Int[np.ndarray, "num_faces"]
    """Row of ``surfaces`` of every triangle."""
    surfaces: tuple[Surface, ...]
    """Materials with their colours drawn."""
    names: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    """Names by level and id."""
    parents: tuple[Int[np.ndarray, "num_small"], Int[np.ndarray, "num_parts"]]
    """Part of every small segment, whole of every part."""
    is_open: Bool[np.ndarray, "num_faces"]
    """Whether a triangle belongs to a surface without an inside, such as a leaf."""
    centre: Float[np.ndarray, "3"]
    """Middle of the box around the objects."""
    radius: float
    """Half the diagonal of the box around the objects."""

    def num_ids(self, level: Level) -> int:
        """Number of segments at one level."""
        return len(self.names[level])

    def ids(self, face_small: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "3 *shape"]:
        """Return the small, part and whole ids that belong to small ids."""
        part = self.parents[0][face_small]
        return np.stack([face_small, part, self.parents[1][part]]).astype(np.int32)


@dataclass
class _Builder:
    spec: SceneSpec
    rng: np.random.Generator
    meshes: list[Mesh] = field(default_factory=list)
    transforms: list[np.ndarray] = field(default_factory=list)
    small: list[int] = field(default_factory=list)
    surface: list[int] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)
    names: tuple[list[str], list[str], list[str]] = field(default_factory=lambda: ([], [], []))
    part_of_small: list[int] = field(default_factory=list)
    whole_of_part: list[int] = field(default_factory=list)

    def new_id(self, level: Level, name: str) -> int:
        self.names[level].append(name)
        if level == Level.SMALL:
            self.part_of_small.append(len(self.names[Level.PART]) - 1)
        elif level == Level.PART:
            self.whole_of_part.append(len(self.names[Level.WHOLE]) - 1)
        return len(self.names[level]) - 1

    def new_surface(self, name: str | None, variation: float) -> int:
        material = self.spec.materials[name] if name is not None else _DEFAULT_MATERIAL
        self.surfaces.append(make_surface(name or "plain", material, self.rng, variation))
        return len(self.surfaces) - 1

    def varied(self, node: Named) -> list[Float[np.ndarray, "4 4"]]:
        """Return the node's transforms, one a copy, with its random variation."""
        vary, result = node.vary, []
        for transform in node.transforms():
            # Drawn whether used or not: one node's variation must not change another's.
            draws = self.rng.uniform(-1, 1, 5)
            shift = translation(*(draws[:3] * vary.shift))
            local = rotation((0.0, 0.0, draws[3] * vary.turn))
            local[:3] *= 1 + draws[4] * vary.scale
            result.append(shift @ transform @ local)
        return result

    def add_shapes(
        self,
        shapes: tuple[Shape, ...],
        transform: np.ndarray,
        small: int,
        material: str | None,
        variation: float,
    ) -> None:
        surfaces: dict[str | None, int] = {}
        for shape in shapes:
            name = shape.material or material
            if name not in surfaces:
                surfaces[name] = self.new_surface(name, variation)
            local = orient_outwards(shape.mesh())
            for copy in shape.transforms():
                # A texture lives in the space of the part or detail: it runs on from shape to
                # shape.
                self.add_mesh(local.transformed(copy), transform, small, surfaces[name])

    def add_mesh(self, mesh: Mesh, transform: np.ndarray, small: int, surface: int) -> None:
        self.meshes.append(mesh.transformed(transform))
        self.transforms.append(transform)
        self.small.append(small)
        self.surface.append(surface)


def build_scene(spec: SceneSpec, seed: int | None = None) -> BuiltScene:
    """Turn a scene into triangles with small, part and whole ids.

    Args:
        spec: The scene.
        seed: Seed of the random variation; by default the scene's own.
    """
    seed = spec.seed if seed is None else seed
    builder = _Builder(spec, np.random.default_rng(seed))
    for level in (Level.WHOLE, Level.PART, Level.SMALL):
        builder.new_id(level, spec.ground.name)
    ground_surface = builder.new_surface(spec.ground.material, 0.0)
    for thing in spec.objects:
        for thing_transform in builder.varied(thing):
            builder.new_id(Level.WHOLE, thing.name)
            for part in thing.parts:
                part_material = part.material or thing.material
                for part_transform in builder.varied(part):
                    transform = thing_transform @ part_transform
                    colour = max(thing.vary.colour, part.vary.colour)
                    builder.new_id(Level.PART, part.name)
                    if part.shapes:
                        small = builder.new_id(Level.SMALL, part.name)
                        builder.add_shapes(part.shapes, transform, small, part_material, colour)
                    for detail in part.details:
                        material = detail.material or part_material
                        for detail_transform in builder.varied(detail):
                            small = builder.new_id(Level.SMALL, detail.name)
                            builder.add_shapes(
                                detail.shapes,
                                transform @ detail_transform,
                                small,
                                material,
                                max(colour, detail.vary.colour),
                            )
    objects = np.concatenate([mesh.vertices for mesh in builder.meshes])
    low, high = objects.min(0), objects.max(0)
    radius = float(np.linalg.norm(high - low)) / 2
    ground = orient_outwards(_ground_mesh(spec))
    builder.add_mesh(ground, np.eye(4), GROUND, ground_surface)
    return _finish(builder, seed, (low + high) / 2, radius)


def _ground_mesh(spec: SceneSpec) -> Mesh:
    """Return the ground: a disc whose rings grow outwards, then a quarter turn into the wall."""
    ground = spec.ground
    profile = [(ground.radius * t**1.5, 0.0) for t in np.linspace(0, 1, 18)]
    if ground.wall > 0:
        bend = min(ground.wall, 0.4 * ground.radius)
        angles = np.linspace(0, np.pi / 2, 10)[1:]
        profile += [(ground.radius + bend * np.sin(a), bend * (1 - np.cos(a))) for a in angles]
        if ground.wall > bend:
            profile.append((ground.radius + bend, ground.wall))
    return revolve(np.array(profile), 96, 360, closed=False)


def _finish(builder: _Builder, seed: int, centre: np.ndarray, radius: float) -> BuiltScene:
    """Refine triangles, so that ambient light can be kept at vertices, and join them."""
    vertices, faces, normals, texture_points, counts, is_open = [], [], [], [], [], []
    offset = 0
    for mesh, transform, small in zip(
        builder.meshes, builder.transforms, builder.small, strict=True
    ):
        is_ground = small == GROUND
        longest = (
            max(0.1 * radius, 0.04 * builder.spec.ground.radius) if is_ground else 0.06 * radius
        )
        fine = subdivide(mesh, longest)
        vertices.append(fine.vertices.astype(np.float32))
        faces.append(fine.faces + offset)
        normals.append(corner_normals(fine).astype(np.float32))
        texture_points.append(transform_points(np.linalg.inv(transform), fine.vertices))
        counts.append(len(fine.faces))
        is_open.append(not is_closed(mesh))
        offset += len(fine.vertices)
    names = builder.names
    return BuiltScene(
        spec=builder.spec,
        seed=seed,
        vertices=np.concatenate(vertices),
        faces=np.concatenate(faces).astype(np.int32),
        normals=np.concatenate(normals),
        texture_points=np.concatenate(texture_points).astype(np.float32),
        face_small=np.repeat(builder.small, counts).astype(np.int32),
        face_surface=np.repeat(builder.surface, counts).astype(np.int32),
        surfaces=tuple(builder.surfaces),
        names=(tuple(names[0]), tuple(names[1]), tuple(names[2])),
        parents=(np.array(builder.part_of_small), np.array(builder.whole_of_part)),
        is_open=np.repeat(is_open, counts),
        centre=centre,
        radius=radius,
    )
