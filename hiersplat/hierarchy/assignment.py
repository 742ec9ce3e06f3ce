"""Which node each Gaussian belongs to, given nodes found roughly: a mixture of masks.

Every view reports, for every Gaussian it sees, the mask it lies in. A node is a class that
explains such reports: in view v it shows mask m with probability P_v(m | node), estimated from
the Gaussians that belong to it now (Dawid and Skene's model of unreliable raters, 1979). A view
that merged two nodes shows the same mask for both and so says nothing about which one it is; a
view that split a node says a little less; no view has to be declared right or wrong.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from hiersplat.hierarchy.votes import Reports, indicator
from hiersplat.levels import UNLABELLED

_OUTLIER = 0.05
"""Probability that a Gaussian lies in a mask for no reason the node knows of."""


_ROWS = 1 << 16
"""Gaussians judged at once, which bounds memory in scenes of millions."""


def log_likelihoods(
    reports: Reports, nodes: Int[np.ndarray, " num_gaussians"], num_nodes: int
) -> Float[np.ndarray, "num_masks num_nodes"]:
    """Log-probability of each mask of each view, given that the Gaussian is of a node.

    Args:
        reports: What the views say at the level of small masks.
        nodes: Current node of every Gaussian, or ``UNLABELLED``.
        num_nodes: Number of nodes.
    """
    cover = reports.of_groups(nodes, num_nodes)  # (num_nodes, masks of all views)
    num_masks = np.concatenate([np.full(len(trust), len(trust)) for trust in reports.trust])
    # One Gaussian of prior, so that a node hardly seen in a view predicts nothing there.
    likely = cover + np.float32(1.0) / num_masks
    likely /= reports.spread(reports.per_view(cover) + 1.0)
    log_likely = np.log((1 - _OUTLIER) * likely + _OUTLIER / num_masks)
    return np.ascontiguousarray(log_likely.T, np.float32)


def assign_gaussians(
    reports: Reports,
    nodes: Int[np.ndarray, " num_gaussians"],
    num_nodes: int,
    neighbours: csr_matrix,
    seen: Bool[np.ndarray, " num_gaussians"],
    rounds: int,
    smoothing: float,
) -> Int[np.ndarray, " num_gaussians"]:
    """Give every seen Gaussian the node that explains its masks and its neighbours best.

    Args:
        reports: What the views say at the level of small masks.
        nodes: Nodes found so far, ``UNLABELLED`` where undecided.
        num_nodes: Number of nodes.
        neighbours: Row-normalised adjacency of the Gaussians.
        seen: Which Gaussians some view sees; the others stay ``UNLABELLED``.
        rounds: Number of times probabilities and nodes are taken anew.
        smoothing: Log-probability gained by the node that all neighbours share.
    """
    for _ in range(rounds):
        likely = log_likelihoods(reports, nodes, num_nodes)
        current = indicator(nodes, num_nodes)
        best = np.full(len(nodes), UNLABELLED, np.int32)
        for start in range(0, len(nodes), _ROWS):
            rows = slice(start, start + _ROWS)
            evidence = reports.stacked[rows] @ likely
            evidence += smoothing * csr_matrix(neighbours[rows] @ current).toarray()
            best[rows] = evidence.argmax(axis=1)
        nodes = np.where(seen, best, UNLABELLED).astype(np.int32)
    return nodes
