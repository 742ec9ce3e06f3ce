"""A cache of arrays: one compact file a view, written whole or not at all.

A file's place says what made it: ``<root>/<kind>-<settings hash>/<view>-<image hash>.npz``.
The settings hash covers every field of the settings dataclass and a code version, so no
setting can be forgotten; the image hash covers the pixels. Files are written beside and
renamed, so an interrupted run leaves either a whole file or none. Zip stores a CRC-32 of
every array, which is how a spoiled file is noticed. Pickle is never read or written.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

logger = logging.getLogger(__name__)


class CacheError(RuntimeError):
    """The cache cannot be written; the message names the path and what to do."""


def settings_hash(settings: Any, version: int) -> str:
    """Hash every field of a settings dataclass together with a code version.

    Raises:
        TypeError: If a field holds something JSON has no form for.
    """
    fields = asdict(cast(Any, settings)) if is_dataclass(settings) else settings
    text = json.dumps({"version": version, "settings": fields}, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"settings of type {type(value).__name__} cannot be part of a cache key")


def array_hash(array: np.ndarray) -> str:
    """Hash the shape, type and bytes of an array (an image, most often)."""
    digest = hashlib.blake2b(f"{array.shape}{array.dtype}".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, flush it to the disk and rename it.

    Raises:
        CacheError: If the folder cannot be written or the disk is full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise CacheError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "free some space or choose another folder"
        ) from error


def encode_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the arrays as the bytes of a compressed ``.npz``."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a ``.npz`` file, checking every one of them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is spoiled or is not a ``.npz`` of plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        AttributeError,
    ) as error:
        raise ValueError(f"{path}: spoiled or not a cache file ({error})") from error


@dataclass(frozen=True)
class ViewCache:
    """The cached arrays of one kind, made under one group of settings."""

    folder: Path
    """Folder of this kind and these settings."""

    @classmethod
    def at(cls, root: Path, kind: str, settings: Any, version: int) -> "ViewCache":
        """Return the cache below ``root`` for arrays of ``kind`` made under ``settings``."""
        return cls(root / f"{kind}-{settings_hash(settings, version)}")

    def path(self, view_name: str, image_hash: str) -> Path:
        """Path of one view's file; the name is made safe, so it never leaves the folder."""
        safe = re.sub(r"[^A-Za-z0-9_-]+", "_", view_name)[-80:]
        return self.folder / f"{safe}-{image_hash}.npz"

    def load(self, view_name: str, image_hash: str) -> dict[str, np.ndarray] | None:
        """Return one view's arrays, or ``None`` where there are none or they are spoiled."""
        path = self.path(view_name, image_hash)
        try:
            return read_arrays(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("%s; it is made again", error)
            return None

    def store(self, view_name: str, image_hash: str, arrays: Mapping[str, np.ndarray]) -> Path:
        """Write one view's arrays and return the path.

        Raises:
            CacheError: If they cannot be written.
        """
        path = self.path(view_name, image_hash)
        write_atomically(path, encode_arrays(arrays))
        return path
