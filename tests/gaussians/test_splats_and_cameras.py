import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.gaussians.cameras import Camera, viewmat_from_camera_to_world
from hiersplat.gaussians.splats import Splats


def test_scales_and_opacities_are_activated(make_splats):
    splats = make_splats(5)
    torch.testing.assert_close(splats.scales.log(), splats.log_scales)
    torch.testing.assert_close(torch.logit(splats.opacities), splats.logit_opacities)
    assert len(splats) == 5
    assert splats.sh_degree == 3


def test_splats_move_to_a_device(make_splats):
    moved = make_splats(3).to("meta")
    assert moved.means.device.type == "meta"
    assert moved.sh.device.type == "meta"


@pytest.mark.parametrize("name", ["quats", "log_scales", "logit_opacities", "sh"])
def test_tensor_that_does_not_fit_is_named(make_splats, name):
    parts = vars(make_splats(4)) | {name: torch.zeros(3, 2)}
    with pytest.raises(ValueError, match=name):
        Splats(**parts)


def test_five_harmonics_are_no_degree(make_splats):
    with pytest.raises(ValueError, match="degree"):
        make_splats(4, bases=5)


@settings(deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_view_matrix_undoes_the_pose_up_to_axes(seed):
    random = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=random).double()).Q
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation * torch.sign(torch.linalg.det(rotation))
    pose[:3, 3] = torch.randn(3, generator=random)
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(viewmat_from_camera_to_world(pose) @ pose, flip)


def test_poses_are_converted_in_batches():
    poses = torch.eye(4).repeat(2, 3, 1, 1)[..., :3, :]
    assert viewmat_from_camera_to_world(poses).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"viewmat": torch.eye(3)}, "viewmat"),
        ({"K": torch.full((3, 3), float("nan"))}, "finite"),
        ({"width": 0}, "0 x 37"),
    ],
)
def test_impossible_camera_is_refused_by_name(make_camera, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        Camera(**(vars(make_camera(name="lamp")) | change))
    assert "lamp" in str(caught.value)
