"""Pairwise votes: in how many views do two things lie in the same mask, and in different ones?

A vote is the product of two visibilities, so a view counts for a pair only as far as it sees
both. Votes of several Gaussians or views add up, which makes every linkage below an average over
all pairs and views it joins: one wrong view, or one Gaussian on an edge, cannot weld two things.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix, hstack

from hiersplat.hierarchy.view_masks import ViewMasks, dominant_masks
from hiersplat.levels import UNLABELLED, Level

_CHUNK = 1 << 16
_FAINT = 0.4
"""Share of its largest weight in any view at which a Gaussian counts as half visible. What shines
through others gets a little weight, and then lies in the mask of what stands before it."""


@dataclass(frozen=True)
class Reports:
    """What every view says about every Gaussian at one level, ready to be counted."""

    level: Level
    shares: tuple[csr_matrix, ...]
    """Per view: how far each Gaussian (row) lies in each mask (column); a row sums to the
    Gaussian's visibility in [0, 1)."""
    trust: tuple[Float[np.ndarray, " num_masks"], ...]
    """Per view: weight of a vote for "same" by each mask, less than 1 for inherited ones."""

    @cached_property
    def stacked(self) -> csr_matrix:
        """Shares of all views side by side: one column a mask of a view."""
        return csr_matrix(hstack(self.shares, format="csr"))

    @cached_property
    def starts(self) -> Int[np.ndarray, " num_views"]:
        """First column of every view in `stacked`."""
        return np.cumsum([0] + [len(trust) for trust in self.trust[:-1]])

    def of_groups(self, groups: Int[np.ndarray, " num_gaussians"], num_groups: int) -> np.ndarray:
        """Sum the shares of the Gaussians of every group, one column a mask of a view."""
        return csr_matrix(indicator(groups, num_groups).T.tocsr() @ self.stacked).toarray()

    def per_view(self, values: np.ndarray) -> Float[np.ndarray, "num_groups num_views"]:
        """Sum columns of `stacked` over the masks of every view."""
        # A view without masks has no column of its own; reduceat would give it the next view's.
        sums = np.zeros((len(values), len(self.trust)), values.dtype)
        filled = np.array([len(trust) > 0 for trust in self.trust])
        if filled.any():
            sums[:, filled] = np.add.reduceat(values, self.starts[filled], axis=1)
        return sums

    def spread(self, values: Float[np.ndarray, "num_groups num_views"]) -> np.ndarray:
        """Repeat every view's value for each of its masks."""
        return np.repeat(values, [len(trust) for trust in self.trust], axis=1)


def gather_reports(views: Sequence[ViewMasks], level: Level, inherited_trust: float) -> Reports:
    """Turn blending weights into reports: shares are squared and scaled to the visibility.

    Every Gaussian counts once however large it is, and one that reaches over an edge reports the
    mask that holds most of it; otherwise the few large Gaussians round a small node become part
    of what that node is expected to show, and then part of the node.
    """
    totals = [np.asarray(view.weights.sum(axis=1)).ravel() for view in views]
    faint = np.maximum(_FAINT * np.max(totals, axis=0), 1e-6)
    shares = []
    for view, total in zip(views, totals, strict=True):
        weights = view.level_weights(level)
        ratio = (total / faint) ** 2
        data = weights.data.astype(np.float32) ** 2
        counts = np.diff(weights.indptr)
        squared = csr_matrix((data, weights.indices, weights.indptr), shape=weights.shape)
        scale = ratio / (ratio + 1.0) / np.maximum(np.asarray(squared.sum(axis=1)).ravel(), 1e-12)
        data = (data * np.repeat(scale, counts)).astype(np.float32)
        shares.append(csr_matrix((data, weights.indices, weights.indptr), shape=weights.shape))
    trust = [
        np.where(view.inherited[level], inherited_trust, 1.0).astype(np.float32) for view in views
    ]
    return Reports(level, tuple(shares), tuple(trust))


def edge_votes(
    reports: Reports, edges: Int[np.ndarray, "num_edges 2"]
) -> tuple[Float[np.ndarray, " num_edges"], Float[np.ndarray, " num_edges"]]:
    """Votes between pairs of Gaussians, by the dominant mask of each in every view.

    Returns:
        Votes for "same mask", and all votes.
    """
    same = np.zeros(len(edges), np.float32)
    total = np.zeros(len(edges), np.float32)
    for shares, mask_trust in zip(reports.shares, reports.trust, strict=True):
        # A Gaussian that straddles two masks votes only as far as one of them holds it.
        labels, sure = dominant_masks(shares)
        trust = np.append(mask_trust, np.float32(0.0))
        for start in range(0, len(edges), _CHUNK):
            part = slice(start, start + _CHUNK)
            first, second = edges[part, 0], edges[part, 1]
            pair = sure[first] * sure[second]
            agree = (labels[first] == labels[second]) & (labels[first] != UNLABELLED)
            votes_same = pair * agree * trust[labels[first]]
            same[part] += votes_same
            total[part] += np.where(agree, votes_same, pair)
    return same, total


def group_votes(
    reports: Reports, groups: Int[np.ndarray, " num_gaussians"], num_groups: int, half: float
) -> tuple[Float[np.ndarray, "k k"], Float[np.ndarray, "k k"]]:
    """Votes between all pairs of groups of Gaussians, by the share of each in every mask.

    Args:
        reports: What the views say at the level that is asked.
        groups: Group of every Gaussian, or ``UNLABELLED``.
        num_groups: Number of groups, k.
        half: Number of visible Gaussians at which a group is half visible in a view.

    Returns:
        Votes for "same mask", and all votes.
    """
    shares = reports.of_groups(groups, num_groups)
    visible = reports.per_view(shares)
    seen = visible / (visible + half)
    shares *= reports.spread(seen / np.maximum(visible, 1e-12))
    same = (shares * np.concatenate(reports.trust)) @ shares.T
    return same, seen @ seen.T + same - shares @ shares.T


def indicator(groups: Int[np.ndarray, " num"], num_groups: int) -> csr_matrix:
    """Sparse matrix with one row an element and a 1 at its group; no entry if ``UNLABELLED``."""
    rows = np.flatnonzero(groups != UNLABELLED)
    ones = np.ones(len(rows), np.float32)
    return csr_matrix((ones, (rows, groups[rows])), shape=(len(groups), num_groups))
