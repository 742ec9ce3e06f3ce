"""Photographs with poses, as nerfstudio's ``transforms.json`` lists them, and light copies of it.

Poses are camera-to-world matrices with OpenGL axes, exactly as in the file.
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError

from hiersplat.cache import write_atomically

_FISHEYE = ("OPENCV_FISHEYE",)
_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL")
_FILE_KEYS = {"file_path": "images", "mask_path": "masks", "depth_file_path": "depths"}
"""Keys of a frame that name files, and how nerfstudio calls the folder of reduced ones."""


@dataclass(frozen=True)
class Intrinsics:
    """A camera in COLMAP's words; a pixel's centre lies at (column + 0.5, row + 0.5)."""

    model: str
    """``OPENCV``, ``FULL_OPENCV`` or ``OPENCV_FISHEYE``."""
    params: tuple[float, ...]
    """Focal lengths, principal point, distortion, in the model's order."""
    width: int
    height: int

    def scaled(self, width: int, height: int) -> "Intrinsics":
        """Return the camera of the same image at another size."""
        by_x, by_y = width / self.width, height / self.height
        fx, fy, cx, cy, *distortion = self.params
        params = (fx * by_x, fy * by_y, cx * by_x, cy * by_y, *distortion)
        return Intrinsics(self.model, params, width, height)


@dataclass(frozen=True)
class PosedImage:
    """An image, the camera that took it and where it stood."""

    path: Path
    intrinsics: Intrinsics
    camera_to_world: Float[np.ndarray, "4 4"]
    """OpenGL axes, as in ``transforms.json``."""


def transforms_path(data: Path) -> Path:
    """Path of the ``transforms.json`` of a data set given by its folder or by that very file.

    Raises:
        ValueError: If there is none.
    """
    if not data.exists():
        raise ValueError(f"{data}: no such folder")
    path = data if data.suffix == ".json" else data / "transforms.json"
    if not path.is_file():
        other = "; data sets of other formats bring their own loader" if data.is_dir() else ""
        raise ValueError(f"{path}: missing; expected a nerfstudio data set{other}")
    return path


def read_transforms(path: Path) -> dict[str, Any]:
    """Read a ``transforms.json``.

    Raises:
        ValueError: If it is no JSON or lists no frames.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        raise ValueError(f"{path}: lists no 'frames'; expected nerfstudio's transforms.json")
    if not meta["frames"]:
        raise ValueError(f"{path}: 'frames' is empty; the data set has no views")
    return meta


def posed_images(path: Path, meta: dict[str, Any]) -> list[PosedImage]:
    """Return the frames with their cameras, without those that the data set holds out itself.

    Args:
        path: Where ``meta`` was read; files are relative to its folder.
        meta: Content of ``transforms.json``; intrinsics may stand at its top or in the frames.

    Raises:
        ValueError: If a frame lacks something, its pose is no rigid motion, or an image is missing.
    """
    images = []
    held_out = {*meta.get("val_filenames", ()), *meta.get("test_filenames", ())}
    held_out -= {*meta.get("train_filenames", ())}
    for place, frame in enumerate(meta["frames"]):
        where = f"{path}: frame {place}"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise ValueError(f"{where}: no 'file_path'")
        if frame["file_path"] in held_out:
            continue
        image_path = path.parent / frame["file_path"]
        if not image_path.is_file():
            raise ValueError(f"{image_path}: missing, though {path.name} lists it")
        camera = _intrinsics(where, {**meta, **frame})
        images.append(PosedImage(image_path, camera, pose_of(where, frame)))
    return images


def pose_of(where: str, frame: dict[str, Any]) -> Float[np.ndarray, "4 4"]:
    """Return the camera-to-world matrix of a frame.

    Raises:
        ValueError: If it is no rigid motion; the message starts with ``where``.
    """
    try:
        pose = np.array(frame.get("transform_matrix"), np.float64)
    except (TypeError, ValueError):
        pose = np.empty(0)
    if pose.shape == (3, 4):
        pose = np.concatenate([pose, [[0.0, 0, 0, 1]]])
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f"{where}: 'transform_matrix' is no 4 x 4 matrix of finite numbers")
    # Poses of photographs are rarely orthonormal to the last digit.
    if not np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-2):
        raise ValueError(f"{where}: the left 3 x 3 of 'transform_matrix' is no rotation")
    return pose


def _intrinsics(where: str, values: dict[str, Any]) -> Intrinsics:
    model = values.get("camera_model", "OPENCV")
    if model not in _PERSPECTIVE + _FISHEYE:
        raise ValueError(f"{where}: camera model {model!r}; points need OPENCV or OPENCV_FISHEYE")
    try:
        pinhole = [float(values[key]) for key in ("fl_x", "fl_y", "cx", "cy")]
        width, height = int(values["w"]), int(values["h"])
        if "distortion_params" in values:
            # nerfstudio's order.
            names = ("k1", "k2", "k3", "k4", "p1", "p2")
            given = dict(zip(names, map(float, values["distortion_params"]), strict=True))
        else:
            given = {key: float(values.get(key, 0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2")}
    except KeyError as error:
        raise ValueError(f"{where}: no {error}, neither in the frame nor at the top") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: intrinsics are no numbers ({error})") from None
    k1, k2, k3, k4, p1, p2 = (given[key] for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if model in _FISHEYE:
        return Intrinsics("OPENCV_FISHEYE", (*pinhole, k1, k2, k3, k4), width, height)
    if k3 or k4:
        params = (*pinhole, k1, k2, p1, p2, k3, k4, 0.0, 0.0)
        return Intrinsics("FULL_OPENCV", params, width, height)
    return Intrinsics("OPENCV", (*pinhole, k1, k2, p1, p2), width, height)


def read_rgb(path: Path) -> Image.Image:
    """Read an image as nerfstudio does: without turning it, transparency laid over white.

    Raises:
        ValueError: If it is missing or spoiled.
    """
    try:
        with Image.open(path) as image:
            if "A" not in image.getbands():
                return image.convert("RGB")
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    except FileNotFoundError:
        raise ValueError(f"{path}: missing") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: spoiled or not an image ({error})") from None


def require_own_files(path: Path, meta: dict[str, Any]) -> None:
    """Refuse data sets that name files outside their own folder: a light copy cannot hold them.

    Raises:
        ValueError: If there is such a file.
    """
    require_inside(path, _files_of(meta))


def require_inside(where: Path, names: Iterable[str]) -> None:
    """Raise a ``ValueError`` for a file name that leads out of the folder it is relative to."""
    for name in names:
        if Path(name).is_absolute() or os.path.normpath(name).startswith(".."):
            raise ValueError(f"{where}: lists {name}, outside its own folder; copy it in first")


def write_light_copy(path: Path, meta: dict[str, Any], out: Path, copy: bool) -> None:
    """Put the files that ``meta`` lists under ``out``, as links or copies, and its JSON last.

    Args:
        path: Where ``meta`` was read, before it was changed.
        meta: Content of the new ``transforms.json``.
        out: Folder to write to; may exist.
        copy: Copy files instead of linking to them.

    Raises:
        ValueError: If the data set names files outside its own folder.
    """
    require_own_files(path, meta)
    for name in _files_of(meta):
        source, target = path.parent / name, out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if copy:
            shutil.copyfile(source, target)
        else:
            target.symlink_to(source.resolve())
    write_json(out / "transforms.json", meta)


def write_reduced(path: Path, meta: dict[str, Any], factors: Sequence[int]) -> None:
    """Write ``images_2/`` and the like beside ``images/``, as nerfstudio expects them.

    Args:
        path: The ``transforms.json`` beside whose images the reduced ones go.
        meta: Its content.
        factors: How many times smaller; nerfstudio's ``--downscale-factor``.

    Raises:
        ValueError: If there are depth maps, which have no reduced form.
    """
    for frame in meta["frames"]:
        if "depth_file_path" in frame:
            raise ValueError(
                f"{path}: has depth maps, which cannot be reduced; leave out downscale"
            )
        for key in ("file_path", "mask_path"):
            if key not in frame:
                continue
            is_mask = key == "mask_path"
            source = path.parent / frame[key]
            with Image.open(source) as image:
                for factor in factors:
                    target = path.parent / f"{_FILE_KEYS[key]}_{factor}" / source.name
                    size = (max(image.width // factor, 1), max(image.height // factor, 1))
                    how = Image.Resampling.NEAREST if is_mask else Image.Resampling.BOX
                    save_image(image.resize(size, how), target)


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image whole or not at all, in the format that its name says.

    Raises:
        CacheError: If it cannot be written; the message names the file.
    """
    content = io.BytesIO()
    image.save(content, Image.registered_extensions()[path.suffix.lower()], quality=95)
    write_atomically(path, content.getvalue())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_atomically(path, json.dumps(content, indent=1).encode())


def _files_of(meta: dict[str, Any]) -> list[str]:
    names = {frame[key] for frame in meta["frames"] for key in _FILE_KEYS if key in frame}
    return sorted(names)
