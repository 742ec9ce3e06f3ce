import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from PIL import Image

from hiersplat.plugin.checks import (
    check_blender,
    check_images,
    check_points,
    check_sizes,
    check_transforms,
    check_views,
)
from hiersplat.scene.dataset import write_points

POSE = np.eye(4).tolist()
BESIDE = [[1, 0, 0, 1], *POSE[1:]]
INTRINSICS = {"fl_x": 4, "fl_y": 4.0, "cx": 2, "cy": 2, "w": 4, "h": 4}


def write_transforms(folder: Path, frames: object, **top: object) -> Path:
    content = {**INTRINSICS, **top, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def frame(**changes: object) -> dict:
    return {"file_path": "images/a.png", "transform_matrix": POSE, **changes}


def other(**changes: object) -> dict:
    return frame(file_path="images/b.png", transform_matrix=BESIDE, **changes)


def test_a_good_data_set_passes(tmp_path: Path):
    images = check_transforms(write_transforms(tmp_path, [frame(), other()]))
    assert images == [tmp_path / "images" / name for name in ("a.png", "b.png")]


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


def test_one_view_is_too_few(tmp_path: Path):
    with pytest.raises(ValueError, match=r"transforms\.json: lists one view"):
        check_transforms(write_transforms(tmp_path, [frame()]))


def test_views_that_all_stand_at_one_place_are_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"transforms\.json: all views stand at the same place"):
        check_transforms(write_transforms(tmp_path, [frame(), frame()]))


@pytest.mark.parametrize("value", [None, "wide", float("nan"), 0, True])
def test_intrinsics_that_are_no_numbers_are_named(tmp_path: Path, value: object):
    data = write_transforms(tmp_path, [frame(), other()], fl_x=value)
    with pytest.raises(ValueError, match=r"transforms\.json: 'fl_x' is .* for images/a\.png"):
        check_transforms(data)


def test_intrinsics_may_stand_in_every_frame(tmp_path: Path):
    (tmp_path / "transforms.json").write_text(
        json.dumps({"frames": [frame(**INTRINSICS), other(**INTRINSICS)]})
    )
    assert len(check_transforms(tmp_path)) == 2
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": [frame(), other()]}))
    with pytest.raises(ValueError, match=r"no 'fl_x' for images/a\.png"):
        check_transforms(tmp_path)


def test_an_unknown_camera_model_is_named(tmp_path: Path):
    data = write_transforms(tmp_path, [frame(), other()], camera_model="HOLOGRAM")
    with pytest.raises(
        ValueError, match="camera_model 'HOLOGRAM' is not known; use one of .*OPENCV"
    ):
        check_transforms(data)


def splits(**changes: object) -> dict:
    both = ["images/a.png", "images/b.png"]
    lists = {"train_filenames": both, "val_filenames": both[:1], "test_filenames": both[:1]}
    return {key: value for key, value in {**lists, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_filenames": ["images/a.png", "images/c.png"]}, "lists images/c.png"),
        ({"train_filenames": ["images/a.png"]}, "`train_filenames` lists one view"),
        ({"val_filenames": []}, "`val_filenames` must list files"),
        ({"test_filenames": None}, "`test_filenames` must list files"),
    ],
)
def test_lists_of_views_that_do_not_fit_are_named(tmp_path: Path, changes: dict, expected: str):
    assert check_transforms(write_transforms(tmp_path, [frame(), other()], **splits()))
    with pytest.raises(ValueError, match=expected):
        check_transforms(write_transforms(tmp_path, [frame(), other()], **splits(**changes)))


def test_points_that_are_listed_but_missing_are_named(tmp_path: Path):
    data = write_transforms(tmp_path, [frame(), other()], ply_file_path="dots.ply")
    with pytest.raises(ValueError, match=r"dots\.ply: missing; find points with hiersplat-points"):
        check_transforms(data)
    write_points(data / "dots.ply", np.zeros((3, 3)), np.zeros((3, 3), np.uint8))
    assert check_transforms(data)


@pytest.mark.parametrize("content", [b"", b"ply\nformat asc", b"no ply", "cut", "empty"])
def test_points_that_are_spoiled_are_named(tmp_path: Path, content: bytes | str):
    path = tmp_path / "dots.ply"
    count = 0 if content == "empty" else 9
    write_points(path, np.zeros((count, 3)), np.zeros((count, 3), np.uint8))
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"dots\.ply: not a \.ply of points"):
        check_points(path)


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
        check_transforms(write_transforms(tmp_path, [frame(transform_matrix=pose), other()]))


def test_a_pose_without_a_rotation_is_named(tmp_path: Path):
    flat = [[0.0] * 4] * 4
    with pytest.raises(ValueError, match=r"the pose of images/b\.png is no rotation"):
        check_transforms(
            write_transforms(tmp_path, [frame(), {**other(), "transform_matrix": flat}])
        )


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    """A NeRF-synthetic data set of two views a split."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        frames = []
        for name, pose in (("a", POSE), ("b", BESIDE)):
            Image.new("RGBA", (4, 4)).save(tmp_path / split / f"{name}.png")
            frames.append({"file_path": f"./{split}/{name}", "transform_matrix": pose})
        content = {"camera_angle_x": 0.7, "frames": frames}
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps(content))
    return tmp_path


def change(path: Path, edit) -> None:
    meta = json.loads(path.read_text())
    edit(meta)
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda data: (data / "transforms_val.json").unlink(), r"transforms_val\.json: missing"),
        (lambda data: (data / "train" / "a.png").unlink(), r"train/a\.png: missing"),
        (lambda data: (data / "val" / "b.png").write_bytes(b"x"), r"val/b\.png: spoiled"),
        (lambda data: (data / "transforms_train.json").write_text("5"), r"train\.json: lists no"),
        (
            lambda data: change(data / "transforms_train.json", lambda m: m.update(frames=[])),
            r"transforms_train\.json: 'frames' is empty",
        ),
        (
            lambda data: change(data / "transforms_val.json", lambda m: m.pop("camera_angle_x")),
            r"transforms_val\.json: 'camera_angle_x' is missing",
        ),
        (
            lambda data: change(
                data / "transforms_train.json",
                lambda m: m["frames"][1].update(transform_matrix=[["one"]]),
            ),
            r"transforms_train\.json: frame 1: 'transform_matrix' is no 4 x 4",
        ),
    ],
)
def test_what_is_wrong_with_a_synthetic_data_set_is_named(synthetic: Path, spoil, expected: str):
    check_blender(synthetic, None)
    spoil(synthetic)
    with pytest.raises(ValueError, match=expected):
        check_blender(synthetic, None)


def test_points_of_a_synthetic_data_set_lie_inside_it(synthetic: Path):
    with pytest.raises(ValueError, match=r"dots\.ply: missing"):
        check_blender(synthetic, Path("dots.ply"))


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


def cameras(width: int, height: int) -> Cameras:
    return Cameras(poses(2), fx=4.0, fy=4.0, cx=2.0, cy=2.0, width=width, height=height)


def test_an_image_of_another_size_than_its_camera_is_named(images: list[Path]):
    check_sizes(images, cameras(4, 4))
    Image.new("RGB", (4, 3)).save(images[1])
    with pytest.raises(
        ValueError, match=r"b\.png: is 4 x 3 pixels, but its camera's size is 4 x 4"
    ):
        check_sizes(images, cameras(4, 4))


def test_a_pose_that_is_not_finite_is_named(tmp_path: Path, images: list[Path]):
    spoiled = poses(2)
    spoiled[1, 0, 3] = float("nan")
    with pytest.raises(ValueError, match=r"the pose of b\.png"):
        check_views(tmp_path, images, spoiled)
