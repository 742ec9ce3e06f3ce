"""What is kept of a view in words' space: dense features, and one embedding a mask.

A view of the published model takes about 190 kB for the dense features and 1 kB a mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float16, Float32, Int32, UInt8

from hiersplat.levels import Level
from hiersplat.semantics.clipseg import ClipSegEncoder


class LabelledLevels(Protocol):
    """The masks of a view at three nested levels (a ``MaskPyramid``)."""

    @property
    def labels(self) -> Int32[np.ndarray, "3 height width"]:
        """Mask label of every pixel per level; contiguous from 0 within a level."""
        ...

    def num_masks(self, level: Level) -> int:
        """Number of masks at one level."""
        ...


@dataclass(frozen=True)
class ViewFeatures:
    """CLIPSeg features of one view."""

    dense: Float16[np.ndarray, "rows columns dense_dim"]
    """Text-independent features of patches that cover the whole image evenly."""
    summary: Float16[np.ndarray, " dense_dim"]
    """The class token's share, which decoding a text needs beside ``dense``."""
    embeddings: tuple[
        Float16[np.ndarray, "num_small embedding_dim"],
        Float16[np.ndarray, "num_part embedding_dim"],
        Float16[np.ndarray, "num_whole embedding_dim"],
    ]
    """Unit vector of every mask per level, in label order."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the features as plain arrays for the cache."""
        arrays = {"dense": self.dense, "summary": self.summary}
        return arrays | {f"{level.title}_embeddings": self.embeddings[level] for level in Level}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "ViewFeatures":
        """Rebuild features from :meth:`to_arrays`.

        Raises:
            ValueError: If the arrays are not those of a view's features or contradict one another.
        """
        try:
            dense, summary = arrays["dense"], arrays["summary"]
            small, part, whole = (arrays[f"{level.title}_embeddings"] for level in Level)
        except KeyError as error:
            raise ValueError(f"these arrays are no view features ({error} is missing)") from error
        tables = (small, part, whole)
        fits = (
            dense.ndim == 3
            and summary.shape == dense.shape[2:]
            and all(table.ndim == 2 for table in tables)
            and len({table.shape[1] for table in tables}) == 1
        )
        if not fits:
            raise ValueError("these arrays are no view features (their shapes disagree)")
        return cls(dense, summary, tables)


def compute_view_features(
    encoder: ClipSegEncoder, image: UInt8[np.ndarray, "height width 3"], pyramid: LabelledLevels
) -> ViewFeatures:
    """Compute the dense features of a view and the embedding of every mask.

    Raises:
        ValueError: If image and pyramid differ in size.
    """
    dense, summary = encoder.encode_view(image)
    small, part, whole = (
        table.astype(np.float16)
        for table in embed_masks(
            encoder, image, pyramid.labels, [pyramid.num_masks(level) for level in Level]
        )
    )
    return ViewFeatures(dense.astype(np.float16), summary.astype(np.float16), (small, part, whole))


def embed_masks(
    encoder: ClipSegEncoder,
    image: UInt8[np.ndarray, "height width 3"],
    labels: Int32[np.ndarray, "3 height width"],
    counts: Sequence[int],
) -> list[Float32[np.ndarray, "num_masks embedding_dim"]]:
    """Embed the masks of all levels, those with the same pixels once.

    Args:
        encoder: The model.
        image: The view.
        labels: Mask labels per level, nested.
        counts: Number of masks per level.

    Raises:
        ValueError: If image and labels differ in size.
    """
    tables: dict[Level, Float32[np.ndarray, "num_masks embedding_dim"]] = {}
    for level in reversed(Level):
        own = labels[level]
        if level.coarser is None:
            tables[level] = encoder.mask_embeddings(image, own, counts[level])
            continue
        same_as = _same_mask(own, labels[level.coarser], counts[level])
        copied = same_as >= 0
        # One more entry, so that -1 finds "not copied" at the end.
        remaining = np.where(np.append(copied, False)[own], -1, own)
        table = encoder.mask_embeddings(image, remaining, counts[level])
        table[copied] = tables[level.coarser][same_as[copied]]
        tables[level] = table
    return [tables[level] for level in Level]


def _same_mask(
    labels: Int32[np.ndarray, "height width"],
    coarser: Int32[np.ndarray, "height width"],
    num_masks: int,
) -> Int32[np.ndarray, " num_masks"]:
    """Return the coarser label with exactly the same pixels for every label, or -1."""
    labelled = (labels >= 0) & (coarser >= 0)
    own, above = labels[labelled], coarser[labelled]
    parent = np.full(num_masks, -1, np.int32)
    parent[own] = above
    areas = np.bincount(labels[labels >= 0], minlength=num_masks)
    shared = np.bincount(own[parent[own] == above], minlength=num_masks)
    coarser_areas = np.bincount(coarser[coarser >= 0], minlength=int(coarser.max(initial=-1)) + 1)
    same = (parent >= 0) & (shared == areas)
    same[same] &= coarser_areas[parent[same]] == areas[same]
    return np.where(same, parent, -1).astype(np.int32)
