"""Label maps on disk: one 16-bit, three-channel PNG a view, named like the image.

A data set that knows its instances carries ``labels/<image stem>.png`` beside
``images/``: red is the small id, green the part id, blue the whole id, and
65535 stands for ``UNLABELLED``. Ids hold across all views of a scene.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from hiersplat.levels import UNLABELLED

_VOID = 65535
LABELS_FOLDER = "labels"
"""Folder of a data set, beside ``images/``, that holds its label maps."""


def label_map_path(data: Path, image_path: Path) -> Path:
    """Path of the label map that belongs to an image of the data set at ``data``."""
    return data / LABELS_FOLDER / f"{image_path.stem}.png"


def write_label_map(path: Path, labels: Int[np.ndarray, "3 height width"]) -> None:
    """Write the small, part and whole ids of a view.

    Raises:
        ValueError: If an id is outside [-1, 65534].
    """
    import cv2

    if labels.min(initial=0) < UNLABELLED or labels.max(initial=0) >= _VOID:
        raise ValueError(f"{path}: ids must be in [-1, {_VOID - 1}]")
    stored = np.where(labels == UNLABELLED, _VOID, labels).astype(np.uint16)
    # OpenCV stores channels in the order blue, green, red.
    encoded, buffer = cv2.imencode(".png", np.ascontiguousarray(stored[::-1].transpose(1, 2, 0)))
    if not encoded:
        raise ValueError(f"{path}: the label map of shape {labels.shape} cannot be encoded as PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.tobytes())


def read_label_map(path: Path) -> Int[np.ndarray, "3 height width"]:
    """Read the small, part and whole ids of a view as int32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no 16-bit PNG with three channels.
    """
    import cv2

    buffer = np.frombuffer(path.read_bytes(), np.uint8)
    stored = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED) if buffer.size else None
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[2] != 3:
        raise ValueError(f"{path}: expected a 16-bit PNG with three channels (small, part, whole)")
    labels = stored[..., ::-1].transpose(2, 0, 1).astype(np.int32)
    labels[labels == _VOID] = UNLABELLED
    return labels
