"""Pinhole cameras as gsplat takes them: OpenCV axes (+X right, +Y down, +Z forward), pixels.

A pixel's centre lies at (column + 0.5, row + 0.5).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """One view of the scene."""

    name: str
    """Name of the view, the stem of its image most often."""

    viewmat: Float[Tensor, "4 4"]
    """World to camera, OpenCV axes, float32."""

    K: Float[Tensor, "3 3"]
    """Intrinsics in pixels, float32."""

    width: int
    """Pixels in a row."""

    height: int
    """Rows."""

    def __post_init__(self) -> None:
        """Check shapes and numbers.

        Raises:
            ValueError: If the camera could not make an image.
        """
        if tuple(self.viewmat.shape) != (4, 4) or tuple(self.K.shape) != (3, 3):
            raise ValueError(
                f"camera {self.name!r}: viewmat {tuple(self.viewmat.shape)} and "
                f"K {tuple(self.K.shape)}; expected (4, 4) and (3, 3)"
            )
        if self.width < 1 or self.height < 1:
            raise ValueError(f"camera {self.name!r}: an image of {self.width} x {self.height}")
        if not (bool(torch.isfinite(self.viewmat).all()) and bool(torch.isfinite(self.K).all())):
            raise ValueError(f"camera {self.name!r}: pose or intrinsics are not finite numbers")

    def to(self, device: torch.device | str) -> "Camera":
        """Return the same camera on another device."""
        return replace(self, viewmat=self.viewmat.to(device), K=self.K.to(device))


def viewmat_from_camera_to_world(
    camera_to_world: Float[Tensor, "*batch rows 4"],
) -> Float[Tensor, "*batch 4 4"]:
    """Turn nerfstudio's pose (OpenGL: +X right, +Y up, +Z back) into gsplat's view matrix.

    Args:
        camera_to_world: Camera-to-world matrices with 3 or 4 rows; their rotations are orthonormal.

    Returns:
        World-to-camera matrices with OpenCV axes.

    Example:
        >>> viewmat_from_camera_to_world(torch.eye(4))[:3, :3].diagonal().tolist()
        [1.0, -1.0, -1.0]
    """
    # OpenCV looks along +Z with +Y down: the second and third axis change their sign.
    flip = camera_to_world.new_tensor([1.0, -1.0, -1.0])
    rotation = camera_to_world[..., :3, :3] * flip
    inverse = rotation.transpose(-1, -2)
    translation = -inverse @ camera_to_world[..., :3, 3:4]
    top = torch.cat([inverse, translation], dim=-1)  # (..., 3, 4)
    bottom = camera_to_world.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)
