"""LERF-OVS: labels of real scenes for text queries, and the two protocols they are judged by.

A scene's labels are one JSON file a frame, as LangSplat published them: ``info`` with the
frame's name, width and height, and ``objects``, each with a ``category``, a ``segmentation``
polygon and a ``bbox`` (x1, y1, x2, y2), in pixels. Polygons of a category are joined.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from hiersplat.semantics.evaluation import intersection_over_union

SMOOTHING = 30
"""Side of LangSplat's mean filter in pixels."""
MASK_THRESHOLD = 0.4
"""LangSplat's threshold after its normalisation; one for all scenes."""
SILHOUETTE_THRESHOLD = 0.7
"""OpenGaussian's threshold on the accumulation of the chosen Gaussians."""
_MAJORITY = 7


@dataclass(frozen=True)
class Target:
    """What a text means in a frame."""

    mask: Bool[np.ndarray, "height width"]
    """All polygons of the category."""
    boxes: Float[np.ndarray, "num_boxes 4"]
    """Their boxes: x1, y1, x2, y2 in pixels."""

    def holds(self, row: int, column: int) -> bool:
        """Whether a pixel lies in one of the boxes, borders included."""
        x1, y1, x2, y2 = self.boxes.T
        return bool(((x1 <= column) & (column <= x2) & (y1 <= row) & (row <= y2)).any())


@dataclass(frozen=True)
class LabelledFrame:
    """One frame with its labels."""

    name: str
    """File name of the image."""
    size: tuple[int, int]
    """Height and width in pixels."""
    targets: Mapping[str, Target]
    """What each text means, by category."""


def read_frames(folder: Path) -> list[LabelledFrame]:
    """Read the labels of one scene, ordered by file name.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no labels, or a file is not in this format; names the file.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one JSON file a frame")
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ValueError(f"{folder}: no labels; expected one JSON file a frame (frame_00001.json)")
    return [_read_frame(file) for file in files]


def _read_frame(path: Path) -> LabelledFrame:
    try:
        content = json.loads(path.read_text())
        info = content["info"]
        size = (int(info["height"]), int(info["width"]))
        if min(size) < 1:
            raise ValueError(f"size {size} is not positive")
        targets: dict[str, Target] = {}
        for item in content["objects"]:
            category = str(item["category"])
            mask, box = _polygon(item, size), np.asarray(item["bbox"], float).reshape(1, 4)
            if category in targets:
                mask = targets[category].mask | mask
                box = np.concatenate([targets[category].boxes, box])
            targets[category] = Target(mask, box)
        return LabelledFrame(str(info["name"]), size, targets)
    except (KeyError, TypeError, ValueError, UnicodeDecodeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: not labels of LERF-OVS ({reason})") from error


def _polygon(item: dict[str, Any], size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    import cv2

    points = np.asarray(item["segmentation"], float)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
        raise ValueError(f"{item['category']!r}: segmentation is no polygon of (x, y) pairs")
    mask = np.zeros(size, np.uint8)
    # LangSplat truncates coordinates to whole pixels.
    cv2.fillPoly(mask, [points.astype(np.int32)], (1,))
    return mask.astype(bool)


@dataclass(frozen=True)
class MapAnswer:
    """LangSplat's reading of relevancy maps."""

    mask: Bool[np.ndarray, "height width"]
    """What is counted as found."""
    level: int
    """The level it was taken from: the one with the largest smoothed relevancy."""
    peak: tuple[int, int]
    """Row and column of the largest smoothed relevancy at that level."""


def answer_from_maps(
    relevancy: Float[np.ndarray, "num_levels height width"], threshold: float = MASK_THRESHOLD
) -> MapAnswer:
    """Turn relevancy maps of a text into a mask, as LangSplat does.

    Each map is averaged with its mean over 30 x 30 pixels; of the best level, what lies above
    ``threshold`` after scaling to [-1, 1] counts, by majority over 7 x 7 pixels.
    """
    import cv2

    kernel = np.full((SMOOTHING, SMOOTHING), 1 / SMOOTHING**2, np.float32)
    maps = [0.5 * (cv2.filter2D(each.astype(np.float32), -1, kernel) + each) for each in relevancy]
    level = int(np.argmax([each.max() for each in maps]))
    chosen = maps[level]
    row, column = np.unravel_index(int(chosen.argmax()), chosen.shape)
    unit = (chosen - chosen.min()) / (chosen.max() - chosen.min() + 1e-9)
    raw = (np.clip(2 * unit - 1, 0, 1) > threshold).astype(np.float32)
    share = cv2.blur(raw, (_MAJORITY, _MAJORITY), borderType=cv2.BORDER_REPLICATE)
    return MapAnswer(share > 0.5, level, (int(row), int(column)))


def answer_from_silhouette(
    accumulation: Float[np.ndarray, "height width"],
) -> Bool[np.ndarray, "height width"]:
    """Turn a rendering of the chosen Gaussians alone into a mask, as OpenGaussian does.

    Args:
        accumulation: Coverage in [0, 1]; all zeros if nothing was chosen.
    """
    solid = np.where(accumulation > SILHOUETTE_THRESHOLD, accumulation, 0.0)
    return np.round(solid * 255) > 10


@dataclass(frozen=True)
class ProtocolFigures:
    """Means over the queries of all frames."""

    miou: float
    """Mean IoU; a missing answer counts 0."""
    accuracy_25: float
    """Share of queries with IoU above 0.25."""
    accuracy_50: float
    """Share of queries with IoU above 0.5."""
    localization: float
    """Share of queries whose peak lies in a box; NaN for the protocol without peaks."""
    queries: int
    """Number of queries."""


def judge_maps(
    frames: list[LabelledFrame],
    maps: Mapping[tuple[str, str], Float[np.ndarray, "num_levels height width"]],
    threshold: float = MASK_THRESHOLD,
) -> ProtocolFigures:
    """Judge relevancy maps by LangSplat's protocol.

    Args:
        frames: The labels.
        maps: Relevancy per level by frame name and category; what is missing counts 0.
        threshold: Frozen before the figures are looked at.

    Raises:
        ValueError: If a map is not of its frame's size.
    """
    overlaps, located = [], []
    for frame in frames:
        for text, target in frame.targets.items():
            given = maps.get((frame.name, text))
            if given is None:
                overlaps.append(0.0)
                located.append(False)
                continue
            if given.shape[1:] != frame.size:
                raise ValueError(f"{frame.name}: maps are {given.shape[1:]}, labels {frame.size}")
            answer = answer_from_maps(given, threshold)
            overlaps.append(intersection_over_union(answer.mask, target.mask))
            located.append(target.holds(*answer.peak))
    return _figures(overlaps, located)


def judge_silhouettes(
    frames: list[LabelledFrame],
    silhouettes: Mapping[tuple[str, str], Float[np.ndarray, "height width"]],
) -> ProtocolFigures:
    """Judge renderings of chosen Gaussians by OpenGaussian's protocol.

    Args:
        frames: The labels.
        silhouettes: Coverage by frame name and category; what is missing counts 0.

    Raises:
        ValueError: If a silhouette is not of its frame's size.
    """
    overlaps = []
    for frame in frames:
        for text, target in frame.targets.items():
            given = silhouettes.get((frame.name, text))
            if given is None:
                overlaps.append(0.0)
                continue
            if given.shape != frame.size:
                raise ValueError(f"{frame.name}: silhouette {given.shape}, labels {frame.size}")
            overlaps.append(intersection_over_union(answer_from_silhouette(given), target.mask))
    return _figures(overlaps, None)


def _figures(overlaps: list[float], located: list[bool] | None) -> ProtocolFigures:
    values = np.array(overlaps)
    if not len(values):
        raise ValueError("the labels ask for nothing: no frame has an object")
    return ProtocolFigures(
        float(values.mean()),
        float((values > 0.25).mean()),
        float((values > 0.5).mean()),
        float("nan") if located is None else float(np.mean(located)),
        len(values),
    )
