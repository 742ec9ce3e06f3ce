"""Reading one image of whatever kind as RGB, and saying clearly why one cannot be read."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 100_000_000
"""Larger images are refused: their masks would not fit the memory of an ordinary machine."""


def read_image(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Read an image file as 8-bit RGB, its pixels as they are stored (no EXIF rotation).

    Greyscale becomes three equal channels, 16 bits are reduced to 8, and what is transparent
    is laid over white, as renders with an alpha channel expect.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no image, is cut off, or is too large; the message names it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such image")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name one image in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(_too_large(path, f"{image.width} x {image.height} pixels"))
                image.load()
                return _as_rgb(image, path)
    except UnidentifiedImageError:
        raise ValueError(f"{path}: is not an image in a format that can be read") from None
    except Image.DecompressionBombError:
        raise ValueError(_too_large(path, "its number of pixels")) from None
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{path}: is damaged or cut off ({error}); copy it again") from error


def _too_large(path: Path, size: str) -> str:
    return f"{path}: {size} exceed the limit of {MAX_PIXELS // 10**6} million; scale it down first"


def _as_rgb(image: Image.Image, path: Path) -> UInt8[np.ndarray, "height width 3"]:
    if image.mode == "F":
        raise ValueError(f"{path}: holds floating-point values, not colours; save it with 8 bits")
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        grey = (deep.clip(0, 65535) * 255 + 32767) // 65535
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB")).copy()
    return np.asarray(image.convert("RGB")).copy()
