"""Training data of the micro CLIPSeg: crops of segments, and views with what texts mean in them.

What belongs to a held-out combination of colour and thing is never shown: its crops are not cut,
its texts are not said, and its pixels do not count.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from hiersplat.levels import Level
from hiersplat.semantics.captions import Phrase, Segment, is_held_out, phrases_of
from hiersplat.semantics.crops import mask_crops


@dataclass(frozen=True)
class SceneSample:
    """Views of one scene with their truth, and the names of its segments."""

    images: UInt8[np.ndarray, "num_views height width 3"]
    """The views."""
    labels: Int[np.ndarray, "num_views 3 height width"]
    """Small, part and whole ids."""
    segments: tuple[Segment, ...]
    """Everything in the scene that has a name."""


@dataclass(frozen=True)
class CropPool:
    """Masked crops of all scenes at the model's size."""

    pixels: UInt8[np.ndarray, "num_crops side side 3"]
    """The crops."""
    segments: tuple[Segment, ...]
    """The segment each crop shows."""
    scenes: Int[np.ndarray, " num_crops"]
    """The scene it is from."""


def cut_crops(
    samples: Sequence[SceneSample],
    side: int,
    rng: np.random.Generator,
    held_out: bool = False,
    smallest: int = 40,
) -> CropPool:
    """Cut every segment of every view, with varied context, background and outline.

    Args:
        samples: The scenes.
        side: Side of the crops in pixels.
        rng: Source of the variation.
        held_out: Cut only what belongs to held-out combinations, instead of all the rest.
        smallest: Fewest pixels a segment must show.

    Raises:
        ValueError: If the scenes show nothing to cut.
    """
    import cv2

    crops, shown, scenes = [], [], []
    for index, sample in enumerate(samples):
        by_id = {(segment.level, segment.id): segment for segment in sample.segments}
        kept_from_training = _held_out_wholes(sample)
        for image, labels in zip(sample.images, sample.labels, strict=True):
            for level in Level:
                ragged = _ragged(labels[level], rng)
                areas = np.bincount(ragged[ragged >= 0])
                context, background = rng.uniform(0.15, 0.35), rng.uniform(0.2, 0.4)
                for label, crop in mask_crops(image, ragged, context, background):
                    segment = by_id[level, label]
                    if areas[label] < smallest or (
                        (segment.whole in kept_from_training) != held_out
                    ):
                        continue
                    crops.append(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA))
                    shown.append(segment)
                    scenes.append(index)
    if not crops:
        raise ValueError(f"none of the {len(samples)} scenes shows a segment to train on")
    return CropPool(np.stack(crops), tuple(shown), np.array(scenes, np.int32))


def _held_out_wholes(sample: SceneSample) -> frozenset[int]:
    return frozenset(segment.whole for segment in sample.segments if is_held_out(segment))


def _ragged(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move outlines by up to two pixels, as no segmenter finds them exactly."""
    import cv2

    shifts = cv2.GaussianBlur(
        rng.normal(size=(2, *labels.shape)).transpose(1, 2, 0), (0, 0), sigmaX=4
    )
    scale = rng.uniform(0, 2) / max(float(np.abs(shifts).max()), 1e-6)
    rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]]
    moved = np.round(np.stack([rows, columns], -1) + shifts * scale).astype(int)
    moved = moved.clip(0, np.array(labels.shape) - 1)
    return labels[moved[..., 0], moved[..., 1]]


class ViewPool:
    """Views of all scenes at the model's size, with targets for any text."""

    def __init__(self, samples: Sequence[SceneSample], side: int) -> None:
        import cv2

        images, smalls, usable, scenes = [], [], [], []
        for index, sample in enumerate(samples):
            kept_from_training = list(_held_out_wholes(sample))
            for image, labels in zip(sample.images, sample.labels, strict=True):
                images.append(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
                # The decoder of a model with patches of 8 pixels puts out half the view's side.
                size = (side // 2, side // 2)
                coarse = [
                    cv2.resize(labels[level], size, interpolation=cv2.INTER_NEAREST)
                    for level in Level
                ]
                smalls.append(np.stack(coarse).astype(np.int16))
                usable.append(~np.isin(coarse[Level.WHOLE], kept_from_training))
                scenes.append(index)
        self.images = np.stack(images)
        self.labels = np.stack(smalls)
        self.usable = np.stack(usable)
        self.scenes = scenes
        self.segments = [
            [s for s in sample.segments if s.whole not in _held_out_wholes(sample)]
            for sample in samples
        ]

    def targets(
        self, view: int, count: int, all_phrases: Sequence[Phrase], rng: np.random.Generator
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield texts with the pixels they mean; every fourth means nothing in the view."""
        segments = self.segments[self.scenes[view]]
        labels = self.labels[view]
        present = [s for s in segments if (labels[s.level] == s.id).any()]
        for index in range(count):
            mask = np.zeros(labels.shape[1:], bool)
            if index % 4 == 3 or not present:
                phrase = all_phrases[int(rng.integers(len(all_phrases)))]
            else:
                phrase = choose(phrases_of(present[int(rng.integers(len(present)))]), rng)
            for segment in segments:
                if phrase.means(segment):
                    mask |= labels[segment.level] == segment.id
            yield say(phrase, rng), mask


def say(phrase: Phrase, rng: np.random.Generator) -> str:
    """Say a phrase with or without an article."""
    return ("", "the ", "a ")[int(rng.integers(3))] + phrase.text


def choose(items: Sequence[Any], rng: np.random.Generator) -> Any:
    """Draw one of several things."""
    return items[int(rng.integers(len(items)))]


def varied(
    images: UInt8[np.ndarray, "num side side 3"], rng: np.random.Generator, flip: bool = True
) -> np.ndarray:
    """Vary brightness, and mirror each image by chance; as float32 in [0, 255]."""
    gain = rng.uniform(0.85, 1.15, (len(images), 1, 1, 1)).astype(np.float32)
    result = images.astype(np.float32) * gain
    if flip:
        mirrored = rng.random(len(images)) < 0.5
        result[mirrored] = result[mirrored, :, ::-1]
    return result.clip(0, 255)
