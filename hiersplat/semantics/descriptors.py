"""Descriptors of nodes: the embeddings of the masks that show a node, brought together.

A node keeps a few descriptors rather than one: a drawer from the front and
from the side are two things to CLIP, and their mean is neither.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16, Float32, Int

from hiersplat.cache import encode_arrays, read_arrays, write_atomically
from hiersplat.levels import UNLABELLED
from hiersplat.semantics.observations import DEFAULT_DESCRIPTORS, DescriptorConfig, ViewObservations

DESCRIPTORS_FILE = "descriptors.npz"
"""Name of the file in a run's ``hierarchy`` folder."""


@dataclass(frozen=True)
class NodeDescriptors:
    """What every node of a scene looks like, in a model's joint space."""

    node_ids: Int[np.ndarray, " num_nodes"]
    """Stable id of every node, ascending."""
    levels: Int[np.ndarray, " num_nodes"]
    """Level of every node."""
    parents: Int[np.ndarray, " num_nodes"]
    """Id of the node one level up; ``UNLABELLED`` for wholes."""
    vectors: Float16[np.ndarray, "num_nodes per_node embedding_dim"]
    """Unit vectors, heaviest first; zero where a node has fewer."""
    weights: Float32[np.ndarray, "num_nodes per_node"]
    """Share of the node's observations each stands for; they sum to 1, or 0 if it has none."""
    checkpoint: str
    """The CLIPSeg model they come from; a text must be embedded by the same."""

    def __post_init__(self) -> None:
        """Check that the arrays belong together.

        Raises:
            ValueError: If they do not.
        """
        count = len(self.node_ids)
        fits = (
            self.vectors.ndim == 3
            and self.vectors.shape[:2] == self.weights.shape
            and len(self.vectors) == len(self.levels) == len(self.parents) == count
            and bool((np.diff(self.node_ids) > 0).all())
        )
        if not fits:
            raise ValueError(
                f"descriptors of shape {self.vectors.shape} and weights of shape "
                f"{self.weights.shape} do not fit {count} nodes"
            )

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.node_ids)

    @property
    def num_bytes(self) -> int:
        """Bytes of all descriptors and weights."""
        return self.vectors.nbytes + self.weights.nbytes

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the descriptors as plain arrays, for a file or a checkpoint."""
        return {
            "node_ids": self.node_ids,
            "levels": self.levels,
            "parents": self.parents,
            "vectors": self.vectors,
            "weights": self.weights,
            "checkpoint": np.frombuffer(self.checkpoint.encode(), np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "NodeDescriptors":
        """Rebuild descriptors from :meth:`to_arrays`.

        Raises:
            ValueError: If an array is missing or they do not belong together.
        """
        try:
            return cls(
                arrays["node_ids"],
                arrays["levels"],
                arrays["parents"],
                arrays["vectors"],
                arrays["weights"],
                arrays["checkpoint"].tobytes().decode(),
            )
        except (KeyError, IndexError) as error:
            raise ValueError(f"{error} is missing") from error

    def save(self, path: Path) -> None:
        """Write the descriptors, whole or not at all.

        Raises:
            CacheError: If the file cannot be written.
        """
        write_atomically(path, encode_arrays(self.to_arrays()))

    @classmethod
    def load(cls, path: Path) -> "NodeDescriptors":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file: the run was trained without semantics.
            ValueError: If it is spoiled or holds something else; the message names the file.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: the run has no text descriptors; train it with CLIPSeg features"
            )
        arrays = read_arrays(path)
        try:
            return cls.from_arrays(arrays)
        except ValueError as error:
            raise ValueError(f"{path}: not a file of node descriptors ({error})") from error


def aggregate_descriptors(
    node_ids: Int[np.ndarray, " num_nodes"],
    levels: Int[np.ndarray, " num_nodes"],
    parents: Int[np.ndarray, " num_nodes"],
    views: Iterable[ViewObservations],
    checkpoint: str,
    config: DescriptorConfig = DEFAULT_DESCRIPTORS,
) -> NodeDescriptors:
    """Bring the observations of all views together on the nodes.

    Args:
        node_ids: Stable id of every node.
        levels: Level of every node.
        parents: Id of the node one level up; ``UNLABELLED`` for wholes.
        views: Observations, one item a view, from :func:`observe_view`.
        checkpoint: The model the embeddings come from.
        config: Settings.

    Raises:
        ValueError: If the ids are no table of a tree, or a view observes a node it lacks.
    """
    order = np.argsort(node_ids)
    node_ids, levels, parents = node_ids[order], levels[order], parents[order]
    seen: list[list[tuple[np.ndarray, float]]] = [[] for _ in node_ids]
    dim = 0
    for view in views:
        dim = view.embeddings.shape[1]
        unknown = np.setdiff1d(view.node_ids, node_ids)
        if unknown.size:
            raise ValueError(f"a view observes node {unknown[0]}, which the tree does not have")
        rows = np.searchsorted(node_ids, view.node_ids)
        for row, vector, weight in zip(rows, view.embeddings, view.weights, strict=True):
            seen[row].append((vector, float(weight)))
    vectors = np.zeros((len(node_ids), config.per_node, dim), np.float16)
    weights = np.zeros((len(node_ids), config.per_node), np.float32)
    for row, observations in enumerate(seen):
        found, shares = summarise(
            np.array([vector for vector, _ in observations]).reshape(len(observations), dim),
            np.array([weight for _, weight in observations]),
            config,
        )
        vectors[row, : len(found)] = found
        weights[row, : len(found)] = shares
    return NodeDescriptors(
        node_ids.astype(np.int32),
        levels.astype(np.int8),
        np.where(parents < 0, UNLABELLED, parents).astype(np.int32),
        vectors,
        weights,
        checkpoint,
    )


def summarise(
    vectors: Float[np.ndarray, "num_observations dim"],
    weights: Float[np.ndarray, " num_observations"],
    config: DescriptorConfig = DEFAULT_DESCRIPTORS,
) -> tuple[Float[np.ndarray, "num_descriptors dim"], Float[np.ndarray, " num_descriptors"]]:
    """Reduce unit vectors to a few, heaviest first, with the share each stands for.

    Spherical k-means from the heaviest agreement outwards; groups that stand for less than
    ``min_share`` are dropped. Within a group, vectors far from its middle count less.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> found, shares = summarise(vectors, np.array([5.0, 4.0, 1.0]))
        >>> found.tolist(), shares.tolist()
        ([[1.0, 0.0]], [1.0])
    """
    lengths = np.linalg.norm(vectors, axis=1)
    usable = (lengths > 0) & (weights > 0) & np.isfinite(lengths)
    if not usable.any():
        return vectors[:0], weights[:0]
    units = vectors[usable] / lengths[usable, None]
    weights = weights[usable] / weights[usable].sum()
    similarity = units @ units.T
    centres = units[_spread(similarity, weights, config.per_node)]
    for _ in range(10):
        group = (units @ centres.T).argmax(axis=1)
        centres = np.stack([_middle(units, weights, group == g) for g in range(len(centres))])
        centres = centres[np.linalg.norm(centres, axis=1) > 0]
    group = (units @ centres.T).argmax(axis=1)
    shares = np.bincount(group, weights, len(centres))
    kept = np.flatnonzero(shares >= min(config.min_share, shares.max()))
    kept = kept[np.argsort(-shares[kept], kind="stable")]
    return centres[kept], shares[kept] / shares[kept].sum()


def _spread(
    similarity: Float[np.ndarray, "num num"], weights: Float[np.ndarray, " num"], count: int
) -> list[int]:
    """Choose a start: the vector others agree with most, then what the choice represents least."""
    chosen = [int((similarity @ weights).argmax())]
    while len(chosen) < min(count, len(weights)):
        distance = 1 - similarity[chosen].max(axis=0)
        if (distance * weights).max() < 1e-6:
            break
        chosen.append(int((distance * weights).argmax()))
    return chosen


def _middle(units: np.ndarray, weights: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Return the direction of a group, with what lies far from it counting less."""
    own, weight = units[member], weights[member]
    centre = (own * weight[:, None]).sum(axis=0)
    for _ in range(3):
        centre = centre / max(float(np.linalg.norm(centre)), 1e-12)
        doubt = np.clip(1 - own @ centre, 0.05, None)  # 0.05: below it nothing is an outlier.
        centre = (own * (weight / doubt)[:, None]).sum(axis=0)
    return centre / max(float(np.linalg.norm(centre)), 1e-12)
