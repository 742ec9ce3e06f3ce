"""Camera paths: where the views are taken from.

Poses are ``camera_to_world`` matrices in the OpenGL convention (+X right, +Y up, +Z back),
intrinsics are pinhole, and the middle of the top left pixel is at (0.5, 0.5).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hiersplat.scene.spec import CameraPath, ImageSpec, SceneSpec


@dataclass(frozen=True)
class SceneCamera:
    """One view of a scene."""

    name: str
    """Stem of its files."""
    camera_to_world: Float[np.ndarray, "4 4"]
    """Pose, OpenGL convention."""
    focal: float
    """Focal length in pixels, the same both ways."""
    width: int
    """Pixels across."""
    height: int
    """Pixels down."""
    is_held_out: bool = False
    """Whether it is kept from training."""

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:  # noqa: N802
        """Intrinsics in pixels."""
        return np.array(
            [[self.focal, 0, self.width / 2], [0, self.focal, self.height / 2], [0, 0, 1]]
        )

    def world_to_camera(self) -> Float[np.ndarray, "4 4"]:
        """Return the matrix into the OpenCV camera (+X right, +Y down, +Z forward)."""
        return np.diag([1.0, -1.0, -1.0, 1.0]) @ np.linalg.inv(self.camera_to_world)

    def project(
        self, points: Float[np.ndarray, "num_points 3"]
    ) -> tuple[Float[np.ndarray, "num_points 2"], Float[np.ndarray, "num_points"]]:
        """Return pixel positions (x, y) and z-depths of world points."""
        matrix = self.world_to_camera()
        local = points @ matrix[:3, :3].T + matrix[:3, 3]
        image = local @ self.K.T
        return image[:, :2] / image[:, 2:], local[:, 2]


def look_at(
    eye: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    """Return the pose, OpenGL convention, of a camera with its head up along z.

    Raises:
        ValueError: If the eye is at, straight above or straight below the target.
    """
    back = eye - target
    right = np.cross([0.0, 0.0, 1.0], back)
    if np.linalg.norm(right) < 1e-9:
        raise ValueError("a camera may not stand at, straight above or straight below its target")
    back = back / np.linalg.norm(back)
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, eye], 1)
    return pose


def focal_length(image: ImageSpec) -> float:
    """Return the focal length in pixels."""
    return 0.5 * image.height / float(np.tan(np.deg2rad(image.field_of_view) / 2))


def scene_cameras(spec: SceneSpec, seed: int | None = None) -> list[SceneCamera]:
    """Return all views of a scene, in the order of its paths.

    Args:
        spec: The scene.
        seed: Seed of the jitter; by default the scene's own.
    """
    # A stream of its own: more or fewer objects must not move the cameras.
    rng = np.random.default_rng([spec.seed if seed is None else seed, 1])
    cameras: list[SceneCamera] = []
    for path in spec.cameras:
        held_out = _evenly(path.held_out, path.views)
        for i, offset in enumerate(_offsets(path)):
            draws = rng.uniform(-1, 1, (2, 3)) * path.jitter * path.radius
            target = np.array(path.target) + draws[0]
            pose = look_at(np.array(path.target) + offset + draws[1], target)
            cameras.append(
                SceneCamera(
                    name=f"view_{len(cameras):03d}",
                    camera_to_world=pose,
                    focal=focal_length(spec.image),
                    width=spec.image.width,
                    height=spec.image.height,
                    is_held_out=i in held_out,
                )
            )
    return cameras


def _evenly(count: int, total: int) -> set[int]:
    """Return ``count`` of ``total`` indices, evenly spread and away from the ends."""
    return {int((i + 0.5) * total / count) for i in range(count)}


def _offsets(path: CameraPath) -> Float[np.ndarray, "num_views 3"]:
    """Return the places of the cameras about the target."""
    t = (np.arange(path.views) + 0.5) / path.views
    low, high = np.deg2rad(path.elevation)
    if path.kind == "orbit":
        azimuth = np.deg2rad(path.start) + 2 * np.pi * path.rounds * t
        # Up and down once a path, so that neighbours in time are neighbours in space.
        elevation = low + (high - low) * (0.5 - 0.5 * np.cos(2 * np.pi * t))
    else:
        # Even steps of height and the golden angle spread points evenly over a sphere.
        elevation = np.arcsin(np.sin(low) + (np.sin(high) - np.sin(low)) * t)
        azimuth = np.deg2rad(path.start) + np.pi * (3 - np.sqrt(5)) * np.arange(path.views)
    directions = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)]
    return path.radius * np.stack([*directions, np.sin(elevation)], 1)
