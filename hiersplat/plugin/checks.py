"""A data set is checked before anything is computed, so that what is wrong is said by name."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

MIN_VIEWS = 2
"""One view says nothing about depth, and nothing about how far views agree."""


def check_transforms(data: Path) -> list[Path]:
    """Check a data set in nerfstudio's format and return the paths of its full-size images.

    Args:
        data: Folder with a ``transforms.json``, or a ``.json`` file itself.

    Raises:
        ValueError: If the file is missing, is not JSON, lists no frames, lists a frame without
            a file or with a pose that is not a finite 3x4 or 4x4 matrix.
    """
    if not data.exists():
        raise ValueError(f"{data}: no such folder; give the folder of a data set with --data")
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
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise ValueError(f"{path}: frame {index} has no `file_path`")
        _check_pose(path, frame)
    return [path.parent / frame["file_path"] for frame in frames]


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
