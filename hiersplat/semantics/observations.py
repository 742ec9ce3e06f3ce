"""Which masks show which nodes of a scene, view by view.

A node is seen in many views, each time under a mask of its own quality. An observation is the
mask that fits the node best in one view; it counts by how much of the node it shows and how
well the two agree.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from hiersplat.levels import Level


@dataclass(frozen=True)
class DescriptorConfig:
    """How observations become descriptors."""

    per_node: int = 3
    """Most descriptors a node keeps; each costs two bytes a dimension and a node."""

    min_agreement: float = 0.3
    """Overlap (IoU) below which a mask says nothing about a node."""

    min_share: float = 0.15
    """Share of a node's observations, by weight, that a descriptor must stand for. What few
    views claim against all others is an error of segmentation, not another side of the node."""

    def __post_init__(self) -> None:
        """Reject values that leave no descriptors.

        Raises:
            ValueError: If a setting is out of its range.
        """
        if self.per_node < 1:
            raise ValueError(f"per_node must be at least 1, got {self.per_node}")
        for name in ("min_agreement", "min_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")


DEFAULT_DESCRIPTORS = DescriptorConfig()


@dataclass(frozen=True)
class ViewObservations:
    """Which masks of a view show which nodes."""

    node_ids: Int[np.ndarray, " num_observations"]
    """Id of the node, once a view at most."""
    embeddings: Float32[np.ndarray, "num_observations embedding_dim"]
    """Embedding of the mask that fits it best."""
    weights: Float[np.ndarray, " num_observations"]
    """Pixels of the node in this view times its agreement (IoU) with the mask."""


def observe_view(
    labels: Int[np.ndarray, "3 height width"],
    nodes: Int[np.ndarray, "3 height width"],
    embeddings: Sequence[Float[np.ndarray, "num_masks embedding_dim"]],
    config: DescriptorConfig = DEFAULT_DESCRIPTORS,
) -> ViewObservations:
    """Find the best mask of a view for every node that is visible in it.

    A node is compared with the masks of all levels: what one view calls a part may be a whole.

    Args:
        labels: Mask labels per level, as in a pyramid.
        nodes: Node ids rendered from the same camera, per level.
        embeddings: Embeddings of the masks per level, in label order.
        config: Settings.

    Raises:
        ValueError: If labels and nodes differ in size.
    """
    if labels.shape != nodes.shape:
        raise ValueError(f"labels are {labels.shape}, but the rendered nodes {nodes.shape}")
    best: dict[int, tuple[float, int, int, int]] = {}
    for level in Level:
        for mask_level in Level:
            for node, mask, overlap, pixels in _overlaps(nodes[level], labels[mask_level]):
                # At equal overlap the node's own level is the truer one.
                found = (overlap, int(mask_level == level))
                if overlap >= config.min_agreement and found > best.get(node, (0.0, 0))[:2]:
                    best[node] = (*found, int(mask_level) << 32 | mask, pixels)
    node_ids = np.array(sorted(best), np.int32)
    chosen = [best[node] for node in node_ids.tolist()]
    rows = [embeddings[key >> 32][key & 0xFFFFFFFF] for _, _, key, _ in chosen]
    dim = embeddings[0].shape[1]
    weights = np.array([overlap * pixels for overlap, _, _, pixels in chosen], np.float64)
    return ViewObservations(node_ids, np.asarray(rows, np.float32).reshape(len(rows), dim), weights)


def _overlaps(
    nodes: Int[np.ndarray, "height width"], labels: Int[np.ndarray, "height width"]
) -> Iterable[tuple[int, int, float, int]]:
    """Yield (node, mask, IoU, pixels of the node) for every pair that shares a pixel."""
    own, own_counts = np.unique(nodes[nodes >= 0], return_counts=True)
    mask_counts = np.bincount(labels[labels >= 0])
    if not len(own) or not len(mask_counts):
        return
    shared = (nodes >= 0) & (labels >= 0)
    row = np.searchsorted(own, nodes[shared])
    pairs, counts = np.unique(row * len(mask_counts) + labels[shared], return_counts=True)
    rows, masks = np.divmod(pairs, len(mask_counts))
    overlap = counts / (own_counts[rows] + mask_counts[masks] - counts)
    pixels = own_counts[rows]
    yield from zip(
        own[rows].tolist(), masks.tolist(), overlap.tolist(), pixels.tolist(), strict=True
    )
