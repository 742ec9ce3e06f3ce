"""A data set is checked before anything is computed, so that what is wrong is said by name."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from nerfstudio.cameras.cameras import CAMERA_MODEL_TO_TYPE, Cameras
from torch import Tensor

MIN_VIEWS = 2
"""One view says nothing about depth, and nothing about how far views agree."""
_INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")
_SPLITS = ("train", "val", "test")


def check_transforms(data: Path) -> list[Path]:
    """Check a data set in nerfstudio's format and return the paths of its full-size images.

    Args:
        data: Folder with a ``transforms.json``, or a ``.json`` file itself.

    Raises:
        ValueError: If the file is missing, is not JSON, lists too few frames, a frame without a
            file, a pose that is not a finite matrix, intrinsics that are not numbers, or files
            that are not there.
    """
    check_exists(data)
    path = data if data.suffix == ".json" else data / "transforms.json"
    if not path.is_file():
        raise ValueError(
            f"{path}: missing; make it with ns-process-data, or name the data set's format after "
            "the options, e.g. `--data DIR blender-data`"
        )
    try:
        meta = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list) or not frames:
        raise ValueError(f"{path}: lists no views under `frames`; add at least {MIN_VIEWS}")
    if len(frames) < MIN_VIEWS:
        raise ValueError(f"{path}: lists one view under `frames`; add at least one more")
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise ValueError(f"{path}: frame {index} has no `file_path`")
        _check_pose(path, frame)
        _check_intrinsics(path, frame["file_path"], {**meta, **frame})
    if np.ptp([np.array(frame["transform_matrix"])[:3, 3] for frame in frames], axis=0).max() == 0:
        raise ValueError(f"{path}: all views stand at the same place, so nothing shows depth")
    _check_splits(path, meta, {frame["file_path"] for frame in frames})
    if isinstance(points := meta.get("ply_file_path"), str):
        check_points(path.parent / points)
    return [path.parent / frame["file_path"] for frame in frames]


def check_exists(data: Path) -> None:
    """Check that a data set is there.

    Raises:
        ValueError: If it is not.
    """
    if not data.exists():
        raise ValueError(f"{data}: no such folder; give the folder of a data set with --data")


def check_blender(data: Path, points: Path | None) -> None:
    """Check a NeRF-synthetic data set, of which training reads two splits.

    Args:
        data: Folder with ``transforms_train.json`` and ``transforms_val.json``.
        points: Points to start from, within that folder.

    Raises:
        ValueError: If something is missing or spoiled; the message names file and frame.
    """
    from hiersplat.scene.blender import blender_images

    check_exists(data)
    for split in ("train", "val"):
        blender_images(data, split)
    if points is not None:
        check_points(data / points)


def check_points(path: Path) -> None:
    """Check a file of points, of which Open3D would only print a warning.

    Raises:
        ValueError: If it is missing or holds no points.
    """
    from plyfile import PlyData, PlyParseError

    if not path.is_file():
        raise ValueError(
            f"{path}: missing; find points with hiersplat-points, or leave them out for random ones"
        )
    try:
        with path.open("rb") as file:
            vertices = PlyData.read(file)["vertex"]
            if not len(vertices) or not {"x", "y", "z"} <= {p.name for p in vertices.properties}:
                raise ValueError("no points with x, y and z")
    except (PlyParseError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: not a .ply of points ({error}); find new ones with hiersplat-points"
        ) from error


def _check_intrinsics(path: Path, name: str, values: dict) -> None:
    for key in _INTRINSICS:
        value = values.get(key)
        # Written so that not-a-number fails the test.
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e9:
            given = f"{key!r} is {value!r}" if key in values else f"no {key!r}"
            raise ValueError(
                f"{path}: {given} for {name}, neither right in its frame nor at the top; "
                "a focal length, a middle and a size in pixels are needed"
            )
    model = values.get("camera_model", "OPENCV")
    if model not in CAMERA_MODEL_TO_TYPE:
        known = ", ".join(CAMERA_MODEL_TO_TYPE)
        raise ValueError(f"{path}: camera_model {model!r} is not known; use one of {known}")


def _check_splits(path: Path, meta: dict, listed: set[str]) -> None:
    given = [split for split in _SPLITS if f"{split}_filenames" in meta]
    for split in _SPLITS if given else ():
        key = f"{split}_filenames"
        names = meta.get(key)
        if not isinstance(names, list) or not names:
            raise ValueError(
                f"{path}: lists {given[0]}_filenames, so `{key}` must list files as well"
            )
        unknown = [name for name in names if name not in listed]
        if unknown:
            raise ValueError(f"{path}: `{key}` lists {unknown[0]}, which is in no frame")
    if given and len(set(meta["train_filenames"])) < MIN_VIEWS:
        raise ValueError(
            f"{path}: `train_filenames` lists one view; at least {MIN_VIEWS} are needed"
        )


def _check_pose(path: Path, frame: dict) -> None:
    name = frame["file_path"]
    matrix = frame.get("transform_matrix")
    rows = matrix if isinstance(matrix, list) else []
    shaped = len(rows) in (3, 4) and all(isinstance(row, list) and len(row) == 4 for row in rows)
    numbers = shaped and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for row in rows
        for value in row
    )
    if not numbers:
        raise ValueError(
            f"{path}: the pose of {name} is not a 4x4 matrix of finite numbers; "
            "mend or remove that frame"
        )
    if abs(np.linalg.det(np.array(rows, float)[:3, :3])) < 1e-6:
        raise ValueError(
            f"{path}: the left 3x3 of the pose of {name} is no rotation; mend or remove that frame"
        )


def check_images(paths: Sequence[Path]) -> None:
    """Check that images are there and can be read to their ends.

    Raises:
        ValueError: Naming the first that cannot.
    """
    from PIL import Image, UnidentifiedImageError

    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path}: missing; put the image there or remove its frame")
        try:
            with Image.open(path) as image:
                image.load()
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise ValueError(
                f"{path}: not a readable image ({error}); replace it or remove its frame"
            ) from error


def check_sizes(paths: Sequence[Path], cameras: Cameras) -> None:
    """Check that images have the size that their cameras say.

    Raises:
        ValueError: Naming the first that has another.
    """
    from PIL import Image

    sizes = torch.stack((cameras.width, cameras.height), dim=-1).reshape(-1, 2).tolist()
    for path, (width, height) in zip(paths, sizes, strict=True):
        with Image.open(path) as image:
            if image.size != (width, height):
                raise ValueError(
                    f"{path}: is {image.width} x {image.height} pixels, but its camera's size is "
                    f"{width} x {height}; bring it to that size or mend the camera's w and h"
                )


def check_views(data: Path, image_paths: Sequence[Path], camera_to_worlds: Tensor) -> None:
    """Check what a data parser found: enough views, and poses that are finite.

    Raises:
        ValueError: If there are too few, or naming the first pose that is wrong.
    """
    if len(image_paths) < MIN_VIEWS:
        raise ValueError(
            f"{data}: {len(image_paths)} training view(s); at least {MIN_VIEWS} are needed"
        )
    for path, pose in zip(image_paths, camera_to_worlds, strict=True):
        if not torch.isfinite(pose).all():
            raise ValueError(f"{data}: the pose of {path.name} has entries that are not finite")
