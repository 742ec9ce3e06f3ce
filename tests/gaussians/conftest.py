"""Small scenes of Gaussians that the tests of this room share."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hiersplat.gaussians.cameras import Camera, viewmat_from_camera_to_world
from hiersplat.gaussians.splats import Splats


def _make_splats(count: int, seed: int = 0, size: float = 0.05, bases: int = 16) -> Splats:
    random = torch.Generator().manual_seed(seed)
    return Splats(
        means=torch.randn(count, 3, generator=random),
        quats=torch.randn(count, 4, generator=random),
        log_scales=torch.randn(count, 3, generator=random) * 0.5 + float(np.log(size)),
        logit_opacities=torch.randn(count, generator=random) * 2,
        sh=torch.randn(count, bases, 3, generator=random) * 0.3,
    )


def _make_camera(
    width: int = 52, height: int = 37, distance: float = 4.0, name: str = "view"
) -> Camera:
    pose = torch.eye(4)
    pose[2, 3] = distance
    focal = 1.2 * width
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Camera(name, viewmat_from_camera_to_world(pose), intrinsics, width, height)


@pytest.fixture(scope="session")
def make_splats() -> Callable[..., Splats]:
    """Build random Gaussians round the origin."""
    return _make_splats


@pytest.fixture(scope="session")
def make_camera() -> Callable[..., Camera]:
    """Build a camera that looks at the origin."""
    return _make_camera
