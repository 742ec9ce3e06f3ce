"""Queries: a text against the descriptors of the nodes.

Relevancy is LERF's: a descriptor is compared with the text and with a few words that fit
anything, by a softmax over the two; the smallest share over these negatives counts. It lies in
[0, 1], and above 0.5 a node fits the text better than any of them. (Kerr et al., "LERF", 2023.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from hiersplat.levels import UNLABELLED, Level
from hiersplat.semantics.descriptors import NodeDescriptors


@dataclass(frozen=True)
class QueryConfig:
    """How relevancy is measured."""

    negatives: tuple[str, ...] = ("object", "things", "stuff", "texture")
    """What the text competes with."""

    temperature: float = 10.0
    """Factor on cosines before the softmax; larger makes relevancy more decided."""

    threshold: float = 0.5
    """Relevancy above which a node is counted as found. Not tuned: the point where a node fits
    the text as well as the best negative."""


class TextEncoder(Protocol):
    """What embeds texts: a ``ClipSegEncoder``."""

    def text_embeddings(self, texts: Sequence[str]) -> Float[np.ndarray, "num_texts dim"]:
        """Embed texts as unit vectors."""
        ...


@dataclass(frozen=True)
class Ranking:
    """Nodes in the order of their relevancy, best first."""

    node_ids: Int[np.ndarray, " num_nodes"]
    """Ids of the nodes asked about."""
    relevancy: Float[np.ndarray, " num_nodes"]
    """How well each fits the text, in [0, 1]."""

    @property
    def best(self) -> int:
        """Id of the best node.

        Raises:
            ValueError: If no node was asked about.
        """
        if not len(self.node_ids):
            raise ValueError("there is no node to choose from")
        return int(self.node_ids[0])

    def above(self, threshold: float) -> Int[np.ndarray, " num_found"]:
        """Ids of the nodes whose relevancy exceeds a threshold."""
        return self.node_ids[self.relevancy > threshold]

    def of_ids(self, ids: Int[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Look relevancy up for an array of node ids (Gaussians', pixels'); 0 for all others."""
        if not len(self.node_ids):
            return np.zeros(ids.shape, np.float32)
        table = np.zeros(int(max(self.node_ids.max(), ids.max(initial=0))) + 2, np.float32)
        table[self.node_ids] = self.relevancy
        return table[ids]  # UNLABELLED is -1 and finds the last entry, which stays 0.


class NodeSearch:
    """Asks a scene in words; embeds the negatives once and keeps the descriptors unpacked."""

    def __init__(
        self,
        descriptors: NodeDescriptors,
        encoder: TextEncoder,
        config: QueryConfig = QueryConfig(),
    ) -> None:
        """Prepare for queries.

        Raises:
            ValueError: If encoder and descriptors are of different sizes.
        """
        self.descriptors = descriptors
        self.config = config
        self._encoder = encoder
        self._negatives = encoder.text_embeddings(config.negatives)
        dim = descriptors.vectors.shape[2]
        if len(descriptors) and dim not in (0, self._negatives.shape[1]):
            raise ValueError(
                f"descriptors of {descriptors.checkpoint} have {dim} values, the text encoder "
                f"{self._negatives.shape[1]}; use the model the run was trained with"
            )
        self._vectors = descriptors.vectors.astype(np.float32)

    def search(self, text: str, level: Level | None = None, within: int | None = None) -> Ranking:
        """Rank nodes by how well they fit a text.

        Args:
            text: What to look for.
            level: Only nodes of this level; all levels by default.
            within: Only this node and what is below it.

        Raises:
            ValueError: If the text cannot be asked for, or ``within`` is no node.
        """
        embedding = self._encoder.text_embeddings([text])[0]
        return self.rank(embedding, level, within)

    def rank(
        self,
        embedding: Float[np.ndarray, " dim"],
        level: Level | None = None,
        within: int | None = None,
    ) -> Ranking:
        """Rank nodes against a text that is embedded already."""
        wanted = np.ones(len(self.descriptors), bool)
        if level is not None:
            wanted &= self.descriptors.levels == level
        if within is not None:
            wanted &= subtree(self.descriptors.node_ids, self.descriptors.parents, within)
        relevancy = node_relevancy(
            self._vectors[wanted],
            self.descriptors.weights[wanted],
            embedding,
            self._negatives,
            self.config.temperature,
        )
        order = np.argsort(-relevancy, kind="stable")
        return Ranking(self.descriptors.node_ids[wanted][order], relevancy[order])


def node_relevancy(
    vectors: Float[np.ndarray, "num_nodes per_node dim"],
    weights: Float[np.ndarray, "num_nodes per_node"],
    text: Float[np.ndarray, " dim"],
    negatives: Float[np.ndarray, "num_negatives dim"],
    temperature: float = 10.0,
) -> Float[np.ndarray, " num_nodes"]:
    """Relevancy of every node to a text: the mean over its descriptors by their weights.

    A node without descriptors has relevancy 0: nothing is known of it.
    """
    if not vectors.size:
        return np.zeros(len(vectors), np.float32)
    # A node has one answer, so its sides are weighed, not the best of them picked: the best of
    # many guesses favours nodes with many descriptors.
    each = relevancy(vectors, text, negatives, temperature)
    return (each * weights).sum(axis=1).astype(np.float32)


def relevancy(
    vectors: Float[np.ndarray, "*shape dim"],
    text: Float[np.ndarray, " dim"],
    negatives: Float[np.ndarray, "num_negatives dim"],
    temperature: float = 10.0,
) -> Float[np.ndarray, "*shape"]:
    """LERF's relevancy: the smallest share of the text in a softmax against each negative.

    Example:
        >>> text, other = np.array([1.0, 0.0]), np.array([[0.0, 1.0]])
        >>> [round(float(relevancy(v, text, other)), 3) for v in (text, other[0])]
        [1.0, 0.0]
    """
    margin = vectors @ text - (vectors @ negatives.T).max(axis=-1)
    return 1 / (1 + np.exp(-temperature * margin))


def subtree(
    node_ids: Int[np.ndarray, " num_nodes"],
    parents: Int[np.ndarray, " num_nodes"],
    root: int,
) -> Bool[np.ndarray, " num_nodes"]:
    """Which nodes are ``root`` or lie below it.

    Raises:
        ValueError: If there is no such node.
    """
    if root not in node_ids:
        known = f"{node_ids.min()} to {node_ids.max()}" if len(node_ids) else "none"
        raise ValueError(f"the scene has no node {root} (ids: {known})")
    member = node_ids == root
    for _ in Level:
        has_parent = parents != UNLABELLED
        member = member | (has_parent & np.isin(parents, node_ids[member]))
    return member
