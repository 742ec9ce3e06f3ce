import numpy as np
import pytest
import torch
from plyfile import PlyData

from hiersplat.gaussians.ply import read_ply, write_ply


@pytest.mark.parametrize("bases", [1, 4, 9, 16])
def test_gaussians_survive_the_file(tmp_path, make_splats, bases):
    splats = make_splats(7, bases=bases)
    write_ply(tmp_path / "scene.ply", splats)
    back = read_ply(tmp_path / "scene.ply")
    for name, tensor in vars(splats).items():
        torch.testing.assert_close(getattr(back, name), tensor, rtol=0, atol=0)


def test_rest_of_the_harmonics_lies_channel_by_channel(tmp_path, make_splats):
    splats = make_splats(2, bases=4)
    write_ply(tmp_path / "scene.ply", splats)
    vertex = PlyData.read(tmp_path / "scene.ply")["vertex"]
    np.testing.assert_array_equal(vertex["f_rest_1"], splats.sh[:, 2, 0].numpy())
    np.testing.assert_array_equal(vertex["f_rest_3"], splats.sh[:, 1, 1].numpy())


def test_extra_properties_travel_and_are_ignored(tmp_path, make_splats):
    splats = make_splats(5)
    labels = np.array([3, -1, 0, 2, 2], np.int32)
    write_ply(tmp_path / "scene.ply", splats, {"part_id": labels})
    np.testing.assert_array_equal(PlyData.read(tmp_path / "scene.ply")["vertex"]["part_id"], labels)
    assert len(read_ply(tmp_path / "scene.ply")) == 5


def test_empty_scene_survives_the_file(tmp_path, make_splats):
    write_ply(tmp_path / "scene.ply", make_splats(0))
    assert len(read_ply(tmp_path / "scene.ply")) == 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"part_id": np.zeros(3)}, "shape"),
        ({"opacity": np.zeros(5, np.float32)}, "taken"),
        ({"part id": np.zeros(5, np.float32)}, "identifier"),
        ({"part_id": np.zeros(5, np.int64)}, "int64"),
    ],
)
def test_extra_property_that_does_not_fit_is_refused(tmp_path, make_splats, extra, message):
    with pytest.raises(ValueError, match=message):
        write_ply(tmp_path / "scene.ply", make_splats(5), extra)
    assert not (tmp_path / "scene.ply").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no ply at all",
        b"ply\nformat ascii 1.0\nelement face 0\nproperty list uchar int a\nend_header\n",
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n",
        b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nend_header\n1",
    ],
)
def test_file_that_is_no_3dgs_gets_one_line(tmp_path, content):
    path = tmp_path / "points.ply"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a 3DGS file") as caught:
        read_ply(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_ply(tmp_path / "nowhere.ply")
