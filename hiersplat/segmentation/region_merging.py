"""Merging the regions of an image, the most alike first, to a tree whose heights mean something.

How likely two neighbours belong to one small detail, one part, one whole is told by a small
network (:class:`Likeness`) from their colours, textures, shapes and sizes. It comes with the
package, 10 kB fitted on generated scenes by ``bench/fit_regions.py``; there is nothing to download.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from hiersplat.cache import read_arrays
from hiersplat.segmentation.region_features import NUM_FEATURES, PERIMETER, Regions, pair_features

LIKENESS_FILE = "region_likeness.npz"

PairLikeness = Callable[
    [Float[np.ndarray, "num_pairs num_features"]], Float[np.ndarray, "num_pairs 3"]
]
"""Probability that the regions of a pair lie in one small, one part, one whole segment."""
Observer = Callable[
    [Int[np.ndarray, " num_pairs"], int, Float[np.ndarray, "num_pairs num_features"]], None
]
"""Is shown every pair that is judged: its first nodes, its common second node, its features."""


@dataclass(frozen=True)
class Likeness:
    """A perceptron over the features of pairs."""

    mean: Float[np.ndarray, " num_features"]
    """Mean of the features it was fitted on."""
    scale: Float[np.ndarray, " num_features"]
    """Their standard deviation."""
    weights: tuple[Float[np.ndarray, "num_inputs num_outputs"], ...]
    """Weights of the layers."""
    biases: tuple[Float[np.ndarray, " num_outputs"], ...]
    """Biases of the layers."""

    def __call__(
        self, features: Float[np.ndarray, "num_pairs num_features"]
    ) -> Float[np.ndarray, "num_pairs 3"]:
        """Return the probabilities of one small, one part, one whole."""
        # Photographs reach further than the scenes it was fitted on; there it does not guess.
        values = np.clip((features - self.mean) / self.scale, -5, 5)
        for weights, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            values = np.maximum(values @ weights + bias, 0)
        return 1 / (1 + np.exp(-(values @ self.weights[-1] + self.biases[-1])))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the network as arrays to store."""
        arrays = {"mean": self.mean, "scale": self.scale}
        for layer, (weights, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            arrays[f"weights_{layer}"], arrays[f"bias_{layer}"] = weights, bias
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    @classmethod
    def read(cls, path: Path) -> "Likeness":
        """Read a network that was stored.

        Raises:
            ValueError: If the file holds no network for these features.
        """
        arrays = read_arrays(path)
        num_layers = sum(name.startswith("weights_") for name in arrays)
        if num_layers == 0 or arrays["weights_0"].shape[0] != NUM_FEATURES:
            raise ValueError(f"{path}: holds no network over {NUM_FEATURES} features")
        return cls(
            arrays["mean"],
            arrays["scale"],
            tuple(arrays[f"weights_{layer}"] for layer in range(num_layers)),
            tuple(arrays[f"bias_{layer}"] for layer in range(num_layers)),
        )


@cache
def fitted_likeness() -> Likeness:
    """Return the network that comes with the package."""
    return Likeness.read(Path(str(resources.files("hiersplat.segmentation") / LIKENESS_FILE)))


class _Merger:
    """The regions as they grow; rows are appended, one a merge."""

    def __init__(self, regions: Regions, likeness: PairLikeness, observer: Observer | None) -> None:
        num_regions, num_measures = regions.measures.shape
        num_nodes = 2 * num_regions - 1
        self.likeness, self.observer = likeness, observer
        self.num_pixels = float(regions.measures[:, 0].sum())
        self.measures = np.zeros((num_nodes, num_measures))
        self.measures[:num_regions] = regions.measures
        self.heights = np.zeros((num_nodes, 3))
        self.contrast = np.zeros(num_nodes)
        """Largest contrast across which a node was merged."""
        self.neighbours: list[dict[int, tuple[float, float]]] = [{} for _ in range(num_nodes)]
        for (first, second), border in regions.borders.items():
            self.neighbours[first][second] = self.neighbours[second][first] = border

    def unlikeness(self, node: int, others: list[int]) -> Float[np.ndarray, "num_others 3"]:
        """Return how unlikely a node lies in one small, part, whole with neighbours of it.

        What lies in one small detail lies in one part, and what lies in one part in one whole.
        """
        nodes = np.array(others)
        borders = np.array([self.neighbours[node][other] for other in others])
        features = pair_features(
            self.measures[nodes],
            np.broadcast_to(self.measures[node], (len(nodes), self.measures.shape[1])),
            borders[:, 0],
            borders[:, 1],
            np.maximum(self.contrast[nodes], self.contrast[node]),
            np.stack(
                [
                    self.heights[nodes].sum(axis=1),
                    np.full(len(nodes), self.heights[node].sum()),
                ]
            ),
            self.num_pixels,
        )
        if self.observer is not None:
            self.observer(nodes, node, features)
        unlike = 1 - self.likeness(features)
        return np.maximum.accumulate(unlike[:, ::-1], axis=1)[:, ::-1]

    def merge(self, first: int, second: int, node: int, unlike: np.ndarray) -> None:
        """Make ``node`` of two neighbours."""
        length, steps = self.neighbours[first][second]
        self.measures[node] = self.measures[first] + self.measures[second]
        self.measures[node, PERIMETER] -= 2 * length
        # Heights grow from child to parent, so that a cut at a height is a partition.
        self.heights[node] = np.maximum.reduce([unlike, self.heights[first], self.heights[second]])
        self.contrast[node] = max(self.contrast[first], self.contrast[second], steps / length)
        merged = self.neighbours[node]
        for part in (first, second):
            for other, (length, steps) in self.neighbours[part].items():
                if other not in (first, second):
                    before = merged.get(other, (0.0, 0.0))
                    merged[other] = (before[0] + length, before[1] + steps)
        for other, border in merged.items():
            self.neighbours[other].pop(first, None)
            self.neighbours[other].pop(second, None)
            self.neighbours[other][node] = border


def merge_regions(
    regions: Regions, likeness: PairLikeness, observer: Observer | None = None
) -> tuple[Int[np.ndarray, " num_nodes"], Float[np.ndarray, "num_nodes 3"]]:
    """Merge neighbours, the most alike first, until one region is left.

    Args:
        regions: The regions and their borders.
        likeness: Judge of pairs.
        observer: Is shown every pair that is judged; for fitting a judge.

    Returns:
        The parent of every node, and how unlikely what was merged last in it lies in one small,
        one part, one whole. Regions come first, at height 0; the last node is the whole image and
        its own parent. Heights grow from child to parent and fall from small to whole.
    """
    num_regions = len(regions.measures)
    num_nodes = 2 * num_regions - 1
    parents = np.arange(num_nodes)
    merger = _Merger(regions, likeness, observer)
    queue: list[tuple[float, int, int, np.ndarray]] = []

    def judge(node: int, others: list[int]) -> None:
        if others:
            for other, unlike in zip(others, merger.unlikeness(node, others), strict=True):
                # No two entries share both nodes, so the arrays are never compared.
                heapq.heappush(queue, (float(unlike.sum()), other, node, unlike))

    for node in range(num_regions):
        judge(node, [other for other in merger.neighbours[node] if other < node])
    alive = np.ones(num_nodes, bool)
    for node in range(num_regions, num_nodes):
        _, first, second, unlike = heapq.heappop(queue)
        while not (alive[first] and alive[second]):
            _, first, second, unlike = heapq.heappop(queue)
        alive[[first, second]] = False
        parents[[first, second]] = node
        merger.merge(first, second, node, unlike)
        judge(node, list(merger.neighbours[node]))
    return parents, merger.heights
