"""What one view says about the Gaussians: how much each of its masks covers each of them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from hiersplat.levels import UNLABELLED, Level


@dataclass(frozen=True)
class ViewMasks:
    """The masks of one view, lifted to Gaussians.

    Built from a lifted pyramid in one line::

        ViewMasks(name, lift_labels(splats, camera, pyramid.labels[Level.SMALL], count),
                  pyramid.parents, pyramid.inherited, pyramid.scores)

    Raises:
        ValueError: If the numbers of masks do not fit together.
    """

    name: str
    """Name of the view, for messages and reports."""
    weights: csr_matrix
    """Blending weight, in pixels, of every Gaussian (row) summed over every small mask (column)."""
    parents: tuple[Int[np.ndarray, " num_small"], Int[np.ndarray, " num_part"]]
    """Part of every small mask, and whole of every part mask."""
    inherited: tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]
    """Per level, which masks were not found but stand in for the mask that contains them."""
    scores: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]
    """Per level, the segmenter's confidence in each mask, in [0, 1]."""

    def __post_init__(self):
        """Check that every level has as many masks as its neighbours say."""
        object.__setattr__(self, "weights", csr_matrix(self.weights, dtype=np.float32))
        smalls = (self.weights.get_shape()[1], len(self.parents[0]))
        if smalls[0] != smalls[1]:
            raise ValueError(
                f"view {self.name}: weights of {smalls[0]} small masks, parents of {smalls[1]}"
            )
        for level in (Level.PART, Level.WHOLE):
            parents, count = self.parents[level - 1], self.num_masks(level)
            if parents.size and not 0 <= parents.min() <= parents.max() < count:
                raise ValueError(
                    f"view {self.name}: a {Level(level - 1).title} mask has a parent outside "
                    f"the {count} {level.title} masks"
                )
        for level in Level:
            count = self.num_masks(level)
            if len(self.inherited[level]) != count or len(self.scores[level]) != count:
                raise ValueError(
                    f"view {self.name}: {count} {level.title} masks, but 'inherited' has "
                    f"{len(self.inherited[level])} and 'scores' {len(self.scores[level])}"
                )

    @property
    def num_gaussians(self) -> int:
        """Number of Gaussians of the scene."""
        return self.weights.get_shape()[0]

    def num_masks(self, level: Level) -> int:
        """Return the number of masks at one level."""
        return len(self.inherited[level])

    def ancestors(self, level: Level) -> Int[np.ndarray, " num_small"]:
        """Return the mask of one level that contains each small mask."""
        if level == Level.SMALL:
            return np.arange(self.weights.get_shape()[1])
        parts = np.asarray(self.parents[0])
        return parts if level == Level.PART else np.asarray(self.parents[1])[parts]

    def membership(self, level: Level) -> csr_matrix:
        """One row a small mask, with a single 1 at the mask of ``level`` that contains it."""
        columns = self.ancestors(level)
        rows, shape = np.arange(len(columns)), (len(columns), self.num_masks(level))
        return csr_matrix((np.ones(len(columns), np.float32), (rows, columns)), shape=shape)

    def level_weights(self, level: Level) -> csr_matrix:
        """Return the blending weight of every Gaussian summed over every mask of one level."""
        if level == Level.SMALL:
            return self.weights
        return csr_matrix(self.weights @ self.membership(level))


def dominant_masks(
    weights: csr_matrix,
) -> tuple[Int[np.ndarray, " num_gaussians"], Float[np.ndarray, " num_gaussians"]]:
    """Return the mask with the largest weight of every row, and that weight.

    Rows without weight get ``UNLABELLED`` and 0.
    """
    counts = np.diff(weights.indptr)
    rows = np.flatnonzero(counts)
    labels = np.full(len(counts), UNLABELLED, np.int32)
    largest = np.zeros(len(counts), np.float32)
    if not rows.size:
        return labels, largest
    peak = np.maximum.reduceat(weights.data, weights.indptr[rows])
    largest[rows] = peak
    # Entries equal to their row's peak; the first of a tie wins, because later writes come first.
    entry_rows = np.repeat(np.arange(len(counts)), counts)
    winners = np.flatnonzero(weights.data >= largest[entry_rows])[::-1]
    labels[entry_rows[winners]] = weights.indices[winners]
    labels[largest <= 0] = UNLABELLED
    return labels, largest
