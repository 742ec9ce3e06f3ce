"""Ray-cast views of a built scene: colours with shadows, exact ids and exact depth.

Ids and z-depth are those of the ray through the middle of each pixel. Colours start from the
same ray; pixels whose surroundings differ in colour are sampled four times more.
Light from everywhere is dimmed where surroundings block it; this is found once a scene, at the
corners of all triangles, and so agrees between views.
"""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from hiersplat.levels import UNLABELLED
from hiersplat.scene.build import GROUND, BuiltScene
from hiersplat.scene.cameras import SceneCamera
from hiersplat.scene.colours import linear_from_srgb, parse_colour, srgb_from_linear
from hiersplat.scene.textures import surface_colour

_AMBIENT_RAYS = 48
_RAYS_AT_ONCE = 1 << 17
_EDGE_CONTRAST = 0.05
# A turned grid: five different rows and columns, the middle included.
_SUBPIXEL = np.array([(1, 3), (3, -1), (-1, -3), (-3, 1)]) / 8


@dataclass(frozen=True)
class RenderedView:
    """One view and its truth."""

    image: UInt8[np.ndarray, "height width 3"]
    """sRGB colours."""
    labels: Int[np.ndarray, "3 height width"]
    """Small, part and whole ids; ``UNLABELLED`` where there is only sky."""
    depth: Float[np.ndarray, "height width"]
    """Distance along the optical axis in scene units, float32; 0 where there is only sky."""


@dataclass(frozen=True)
class _Hits:
    """What a batch of rays met; rows are rays."""

    distance: np.ndarray
    face: np.ndarray
    barycentric: np.ndarray
    is_hit: np.ndarray


class SceneRenderer:
    """Renders views of one scene; building it costs one pass of ambient light."""

    def __init__(self, built: BuiltScene):
        import open3d as o3d

        self.built = built
        # The package has type stubs that know fewer arguments than its functions take.
        self._o3d: Any = o3d
        self._caster = self._new_caster(built.faces)
        # The ground throws no shadows, or its wall would shut out low suns.
        self._shadow_caster = self._new_caster(built.faces[built.face_small != GROUND])
        materials = [surface.material for surface in built.surfaces]
        self._gloss = np.array([m.gloss for m in materials], np.float32)[built.face_surface]
        self._glow = np.array([m.glow for m in materials], np.float32)[built.face_surface]
        self._ambient = self._ambient_light()

    def _new_caster(self, faces: np.ndarray) -> Any:
        caster = self._o3d.t.geometry.RaycastingScene()
        caster.add_triangles(
            self._o3d.core.Tensor(np.ascontiguousarray(self.built.vertices, np.float32)),
            self._o3d.core.Tensor(np.ascontiguousarray(faces, np.uint32)),
        )
        # The first query builds the search tree, which two threads must not do at once.
        self._is_blocked(caster, np.ones((1, 6), np.float32), 1.0)
        return caster

    def render(self, camera: SceneCamera) -> RenderedView:
        """Render one view."""
        x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        centres = np.stack([x.ravel(), y.ravel()], 1)
        hits, light = self._trace(camera, centres)
        shape = camera.height, camera.width
        small = self.built.face_small[hits.face]
        labels = np.where(hits.is_hit, self.built.ids(small), UNLABELLED)
        light = light.reshape(*shape, 3)
        rough = np.flatnonzero(_needs_samples(light, small.reshape(shape)))
        flat = light.reshape(-1, 3)
        if len(rough):
            samples = (centres[rough, None] + _SUBPIXEL).reshape(-1, 2)
            _, extra = self._trace(camera, samples)
            total = extra.reshape(len(rough), len(_SUBPIXEL), 3).sum(1) + flat[rough]
            flat[rough] = total / (len(_SUBPIXEL) + 1)
        colours = np.round(srgb_from_linear(flat) * 255).astype(np.uint8)
        return RenderedView(
            image=colours.reshape(*shape, 3),
            labels=labels.reshape(3, *shape).astype(np.int32),
            depth=np.where(hits.is_hit, hits.distance, 0).reshape(shape).astype(np.float32),
        )

    def _trace(
        self, camera: SceneCamera, pixels: Float[np.ndarray, "num_rays 2"]
    ) -> tuple[_Hits, Float[np.ndarray, "num_rays 3"]]:
        """Follow any number of rays, so many at once that memory stays small."""
        pieces = [
            self._trace_piece(camera, pixels[start : start + _RAYS_AT_ONCE])
            for start in range(0, len(pixels), _RAYS_AT_ONCE)
        ]
        hits = [piece[0] for piece in pieces]
        joined = _Hits(
            *(np.concatenate(column) for column in zip(*map(astuple, hits), strict=True))
        )
        return joined, np.concatenate([piece[1] for piece in pieces])

    def _trace_piece(
        self, camera: SceneCamera, pixels: Float[np.ndarray, "num_rays 2"]
    ) -> tuple[_Hits, Float[np.ndarray, "num_rays 3"]]:
        """Follow rays through pixel positions; return hits and linear light."""
        # Directions with a forward component of 1, so that distances are z-depths.
        x = (pixels[:, 0] - camera.width / 2) / camera.focal
        y = (pixels[:, 1] - camera.height / 2) / camera.focal
        right, up, back = camera.camera_to_world[:3, :3].T
        rays = np.empty((len(pixels), 6), np.float32)
        rays[:, :3] = camera.camera_to_world[:3, 3]
        rays[:, 3:] = x[:, None] * right - y[:, None] * up - back
        hits = self._cast(rays)
        directions = rays[:, 3:]
        if hits.is_hit.all():
            return hits, self._shade(rays, hits)
        light = self._sky_light(directions)
        rows = np.flatnonzero(hits.is_hit)
        if len(rows):
            seen = _Hits(hits.distance[rows], hits.face[rows], hits.barycentric[rows], rows >= 0)
            light[rows] = self._shade(rays[rows], seen)
        return hits, light

    def _cast(self, rays: Float[np.ndarray, "num_rays 6"]) -> _Hits:
        answer = self._caster.cast_rays(self._o3d.core.Tensor(rays))
        distance = answer["t_hit"].numpy()
        is_hit = np.isfinite(distance)
        face = np.where(is_hit, answer["primitive_ids"].numpy(), 0).astype(np.int64)
        uv = answer["primitive_uvs"].numpy()
        barycentric = np.stack([1 - uv[:, 0] - uv[:, 1], uv[:, 0], uv[:, 1]], 1)
        return _Hits(distance, face, barycentric, is_hit)

    def _is_blocked(
        self, caster: Any, rays: Float[np.ndarray, "num_rays 6"], far: float
    ) -> Bool[np.ndarray, "num_rays"]:
        return caster.test_occlusions(self._o3d.core.Tensor(rays), tnear=0.0, tfar=far).numpy()

    def _sky_light(self, directions: np.ndarray) -> Float[np.ndarray, "num_rays 3"]:
        sky = self.built.spec.sky
        up = directions[:, 2] / np.sqrt(_dot(directions, directions))
        share = np.sqrt(up.clip(0, 1))[:, None].astype(np.float32)
        return (1 - share) * _light(sky.horizon) + share * _light(sky.zenith)

    def _shade(
        self, rays: Float[np.ndarray, "num_rays 6"], hits: _Hits
    ) -> Float[np.ndarray, "num_rays 3"]:
        """Return the light that comes back along rays that all met something."""
        built = self.built
        face, barycentric = hits.face, hits.barycentric
        to_eye = _unit(-rays[:, 3:])
        normals = _unit(np.einsum("nk,nkd->nd", barycentric, built.normals[face]))
        is_back = _dot(normals, to_eye) < 0
        normals[is_back] *= -1
        ambient = _dot(barycentric, self._ambient[face, :, is_back.astype(int)])
        # The sky lights what looks up, the ground sends a little back to what looks down.
        ambient *= built.spec.sky.ambient * (0.75 + 0.25 * normals[:, 2])
        light = np.repeat(ambient[:, None], 3, 1)
        shadow_rays = np.empty_like(rays)
        shadow_rays[:, :3] = rays[:, :3] + hits.distance[:, None] * rays[:, 3:]
        shadow_rays[:, :3] += normals * np.float32(2e-3 * built.radius)
        gloss = self._gloss[face]
        shiny = np.flatnonzero(gloss)
        highlight = np.zeros((len(shiny), 3), np.float32)
        for sun in built.spec.lights:
            towards = _direction(sun.azimuth, sun.elevation)
            facing = (normals @ towards).clip(0, None)
            if sun.shadow:
                lit = np.flatnonzero(facing)
                blockable = shadow_rays[lit]
                blockable[:, 3:] = towards
                facing[lit] *= ~self._is_blocked(self._shadow_caster, blockable, np.inf)
            colour = np.float32(sun.strength) * _light(sun.colour)
            light += facing[:, None] * colour
            half = _unit(to_eye[shiny] + towards)
            peak = _dot(normals[shiny], half).clip(0, 1) ** 40 * gloss[shiny]
            highlight += np.where(facing[shiny] > 0, peak, 0)[:, None] * colour
        glow = self._glow[face][:, None]
        light = self._albedo(face, barycentric) * (light * (1 - glow) + glow)
        light[shiny] += highlight
        return light

    def _albedo(self, face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
        built = self.built
        corners = built.texture_points[built.faces[face]]
        points = np.einsum("nk,nkd->nd", barycentric, corners)
        surface = built.face_surface[face]
        albedo = np.empty((len(face), 3), np.float32)
        order = np.argsort(surface, kind="stable")
        worn, starts = np.unique(surface[order], return_index=True)
        for index, rows in zip(worn, np.split(order, starts[1:]), strict=True):
            albedo[rows] = surface_colour(built.surfaces[index], points[rows])
        return albedo

    def _ambient_light(self) -> Float[np.ndarray, "num_faces 3 2"]:
        """Return the share of light from everywhere that reaches each corner, in [0, 1].

        The last axis is the side: where the normal points, and, for open surfaces, the other.
        """
        built = self.built
        keys = np.concatenate(
            [built.faces.reshape(-1, 1), (built.normals.reshape(-1, 3) * 20).round()], 1
        ).astype(np.int64)
        # Corners that share vertex and normal share their light.
        packed = keys @ np.array([125000, 2500, 50, 1])
        _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
        corners = built.vertices[built.faces]
        # Drawn in towards the triangle, so that neighbours across an edge do not block it.
        places = (0.97 * corners + 0.03 * corners.mean(1, keepdims=True)).reshape(-1, 3)[first]
        normals = built.normals.reshape(-1, 3)[first]
        light = np.empty((len(first), 2), np.float32)
        light[:, 0] = light[:, 1] = self._openness(places, normals)
        is_open = np.repeat(built.is_open, 3)[first]
        light[is_open, 1] = self._openness(places[is_open], -normals[is_open])
        return light[inverse].reshape(-1, 3, 2)

    def _openness(self, places: np.ndarray, normals: np.ndarray) -> Float[np.ndarray, "num"]:
        """Return the cosine-weighted share of directions in which nothing is near."""
        rays = np.empty((len(places), 6), np.float32)
        rays[:, :3] = places + normals * (4e-3 * self.built.radius)
        free = np.zeros(len(places), np.float32)
        for direction in _even_directions(_AMBIENT_RAYS):
            # A normal plus a point of the unit sphere is a cosine-weighted direction.
            rays[:, 3:] = _unit(normals + direction)
            free += ~self._is_blocked(self._caster, rays, 0.5 * self.built.radius)
        return free / _AMBIENT_RAYS


def render_view(built: BuiltScene, camera: SceneCamera) -> RenderedView:
    """Render a single view; for several, keep one :class:`SceneRenderer`."""
    return SceneRenderer(built).render(camera)


def _needs_samples(
    light: Float[np.ndarray, "height width 3"], small: Int[np.ndarray, "height width"]
) -> Bool[np.ndarray, "height width"]:
    """Mark pixels that differ from a neighbour in what is seen or in colour."""
    marked = np.zeros(small.shape, bool)
    shown = srgb_from_linear(light)
    for axis in (0, 1):
        change = np.abs(np.diff(shown, axis=axis)).max(-1) > _EDGE_CONTRAST
        change |= np.diff(small, axis=axis) != 0
        if axis == 0:
            marked[1:] |= change
            marked[:-1] |= change
        else:
            marked[:, 1:] |= change
            marked[:, :-1] |= change
    return marked


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", a, b)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(_dot(vectors, vectors)).clip(1e-12)[:, None]


def _light(colour: str) -> Float[np.ndarray, "3"]:
    return linear_from_srgb(np.array(parse_colour(colour))).astype(np.float32)


def _direction(azimuth: float, elevation: float) -> Float[np.ndarray, "3"]:
    a, e = np.deg2rad([azimuth, elevation])
    return np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], np.float32)


def _even_directions(count: int) -> Float[np.ndarray, "count 3"]:
    """Spread points evenly over the unit sphere."""
    i = np.arange(count) + 0.5
    z = 1 - 2 * i / count
    angle = np.pi * (1 + np.sqrt(5)) * i
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], 1).astype(np.float32)
