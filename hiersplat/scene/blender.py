"""NeRF-synthetic ("blender") data sets: renderings with ``transforms_{train,val,test}.json``.

nerfstudio's ``blender-data`` reads points only if ``--ply-path`` names them, takes intrinsics from
the size of the first image, and has no option for smaller images: a light copy holds smaller ones.
"""

import math
import shutil
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from hiersplat.scene.posed_images import (
    Intrinsics,
    PosedImage,
    pose_of,
    read_transforms,
    require_inside,
    save_image,
    write_json,
)

_SPLITS = ("train", "val", "test")


def is_blender(data: Path) -> bool:
    """Whether a folder holds a NeRF-synthetic data set."""
    return (data / "transforms_train.json").is_file() and not (data / "transforms.json").is_file()


def blender_images(data: Path, split: str = "train") -> list[PosedImage]:
    """Return the views of a split with their cameras; images are opened, but not read.

    Raises:
        ValueError: If something is missing or spoiled; the message names file and frame.
    """
    path = data / f"transforms_{split}.json"
    if not path.is_file():
        raise ValueError(f"{path}: missing; a NeRF-synthetic data set has one for every split")
    meta = read_transforms(path)
    images = []
    for place, frame in enumerate(meta["frames"]):
        where = f"{path}: frame {place}"
        image_path = data / _file_of(where, frame)
        try:
            with Image.open(image_path) as image:
                width, height = image.size
        except FileNotFoundError:
            raise ValueError(f"{image_path}: missing, though {path.name} lists it") from None
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{image_path}: spoiled or not an image ({error})") from None
        try:
            focal = 0.5 * width / math.tan(0.5 * float(meta["camera_angle_x"]))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            raise ValueError(f"{path}: 'camera_angle_x' is missing or no angle") from None
        params = (focal, focal, width / 2, height / 2, 0.0, 0.0, 0.0, 0.0)
        camera = Intrinsics("OPENCV", params, width, height)
        images.append(PosedImage(image_path, camera, pose_of(where, frame)))
    return images


def write_light_blender(data: Path, out: Path, factor: int, copy: bool) -> None:
    """Put the images of all splits under ``out``, linked, copied or reduced, and the JSON files.

    Args:
        data: The data set.
        out: Folder to write to; may exist.
        factor: How many times smaller; 1 leaves images as they are.
        copy: Copy images instead of linking to them, where they are not reduced.

    Raises:
        ValueError: If an image is missing or spoiled, or lies outside the data set.
    """
    contents: dict[str, Any] = {}
    for split in _SPLITS:
        path = data / f"transforms_{split}.json"
        if path.is_file():
            contents[path.name] = read_transforms(path)
    names = {
        _file_of(f"{data / name}: frame {place}", frame)
        for name, meta in contents.items()
        for place, frame in enumerate(meta["frames"])
    }
    require_inside(data, names)
    for name in sorted(names):
        source, target = data / name, out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if not source.is_file():
            raise ValueError(f"{source}: missing, though the data set lists it")
        if factor > 1:
            write_smaller(source, target, factor)
        elif copy:
            shutil.copyfile(source, target)
        else:
            target.symlink_to(source.resolve())
    for name, meta in contents.items():
        write_json(out / name, meta)


def _file_of(where: str, frame: Any) -> str:
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
        raise ValueError(f"{where}: no 'file_path'")
    return frame["file_path"].replace("./", "") + ".png"


def write_smaller(source: Path, target: Path, factor: int) -> None:
    """Write an image ``factor`` times smaller, each pixel the mean of those it stands for.

    Raises:
        ValueError: If the image cannot be read.
    """
    try:
        with Image.open(source) as image:
            size = (max(image.width // factor, 1), max(image.height // factor, 1))
            if image.mode == "RGBA":
                # Averaged with colours weighted by opacity: what is transparent has no colour.
                smaller = image.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")
            else:
                smaller = image.resize(size, Image.Resampling.BOX)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{source}: spoiled or not an image ({error})") from None
    save_image(smaller, target)
