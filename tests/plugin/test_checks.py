import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hiersplat.plugin.checks import check_images, check_transforms, check_views

POSE = np.eye(4).tolist()


def write_transforms(folder: Path, frames: object) -> Path:
    (folder / "transforms.json").write_text(json.dumps({"frames": frames}))
    return folder


def frame(**changes: object) -> dict:
    return {"file_path": "images/a.png", "transform_matrix": POSE, **changes}


def test_a_good_data_set_passes(tmp_path: Path):
    images = check_transforms(write_transforms(tmp_path, [frame(), frame()]))
    assert images == [tmp_path / "images" / "a.png"] * 2


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        check_transforms(tmp_path / "nowhere")


def test_a_folder_without_transforms_says_how_to_make_them(tmp_path: Path):
    with pytest.raises(ValueError, match=r"transforms\.json: missing; make it with ns-process"):
        check_transforms(tmp_path)


def test_spoiled_json_is_named(tmp_path: Path):
    (tmp_path / "transforms.json").write_text('{"frames": [')
    with pytest.raises(ValueError, match=r"transforms\.json: not valid JSON"):
        check_transforms(tmp_path)


@pytest.mark.parametrize("frames", [[], None, "many"])
def test_no_views_is_an_error(tmp_path: Path, frames: object):
    with pytest.raises(ValueError, match="lists no views"):
        check_transforms(write_transforms(tmp_path, frames))


def test_a_frame_without_a_file_is_counted(tmp_path: Path):
    with pytest.raises(ValueError, match="frame 1 has no `file_path`"):
        check_transforms(write_transforms(tmp_path, [frame(), {"transform_matrix": POSE}]))


@pytest.mark.parametrize(
    "pose",
    [
        None,
        [[1, 0, 0, 0]],
        [["one", 0, 0, 0], *POSE[1:]],
        [[float("nan"), 0, 0, 0], *POSE[1:]],
        [[float("inf"), 0, 0, 0], *POSE[1:]],
        [[1, 0, 0], *POSE[1:]],
    ],
)
def test_a_pose_that_is_no_matrix_of_numbers_is_named(tmp_path: Path, pose: object):
    with pytest.raises(ValueError, match=r"the pose of images/a\.png is not a 4x4 matrix"):
        check_transforms(write_transforms(tmp_path, [frame(transform_matrix=pose)]))


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        Image.new("RGB", (4, 4)).save(path)
    return paths


def poses(count: int) -> torch.Tensor:
    return torch.eye(4)[:3].repeat(count, 1, 1)


def test_good_views_pass(tmp_path: Path, images: list[Path]):
    check_images(images)
    check_views(tmp_path, images, poses(2))


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_views_are_counted(tmp_path: Path, images: list[Path], count: int):
    with pytest.raises(ValueError, match=rf"{count} training view"):
        check_views(tmp_path, images[:count], poses(count))


def test_a_missing_image_is_named(tmp_path: Path, images: list[Path]):
    images[1].unlink()
    with pytest.raises(ValueError, match=r"b\.png: missing"):
        check_images(images)


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_spoiled_image_is_named(tmp_path: Path, images: list[Path], content: bytes | None):
    whole = images[0].read_bytes()
    images[0].write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match=r"a\.png: not a readable image"):
        check_images(images)


def test_a_pose_that_is_not_finite_is_named(tmp_path: Path, images: list[Path]):
    spoiled = poses(2)
    spoiled[1, 0, 3] = float("nan")
    with pytest.raises(ValueError, match=r"the pose of b\.png"):
        check_views(tmp_path, images, spoiled)
