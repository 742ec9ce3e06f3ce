"""The forest of masks that contain one another, and the level that a place in it means.

Masks come in canonical order (larger first), so a container always has the smaller index.
"""

import numpy as np
from jaxtyping import Float, Int

from hiersplat.levels import Level

Parents = Int[np.ndarray, " num_masks"]
"""Index of the mask that directly contains each mask; -1 for roots."""


def without_duplicates(
    shared: Float[np.ndarray, "num_masks num_masks"],
    scores: Float[np.ndarray, " num_masks"],
    duplicate_iou: float,
) -> Int[np.ndarray, " num_kept"]:
    """Return the masks that no better scored mask repeats, in their order."""
    areas = np.diag(shared)
    union = areas[:, None] + areas[None] - shared
    repeats = shared > duplicate_iou * union
    gone = np.zeros(len(areas), bool)
    for mask in np.argsort(-scores, kind="stable"):
        if not gone[mask]:
            gone |= repeats[mask]
            gone[mask] = False
    return np.flatnonzero(~gone)


def containment_forest(
    shared: Float[np.ndarray, "num_masks num_masks"], containment: float
) -> Parents:
    """Return the smallest mask that contains each mask to the share of ``containment``."""
    num_masks = len(shared)
    areas = np.diag(shared)
    contains = shared >= containment * areas[None]  # [container, contained]
    contains &= areas[:, None] > areas[None]
    smallest = num_masks - 1 - contains[::-1].argmax(axis=0) if num_masks else np.empty(0, int)
    return np.where(contains.any(axis=0), smallest, -1)


def given_forest(
    shared: Float[np.ndarray, "num_masks num_masks"], level: Int[np.ndarray, " num_masks"]
) -> tuple[Int[np.ndarray, " num_masks"], Parents]:
    """Link masks of known levels: the coarser mask that holds most of a mask is its parent.

    A mask that has no parent by majority hangs one level higher, and where no whole holds it
    either, it is a whole of its own.
    """
    num_masks = len(shared)
    areas = np.diag(shared)
    parent = np.full(num_masks, -1, np.int64)
    for child in Level:
        coarser = child.coarser
        while coarser is not None:
            nodes = np.flatnonzero((level == child) & (parent < 0))
            above = np.flatnonzero(level == coarser)
            if nodes.size and above.size:
                overlap = shared[np.ix_(above, nodes)]
                best = overlap.argmax(axis=0)
                holds = overlap[best, np.arange(nodes.size)] > areas[nodes] / 2
                parent[nodes[holds]] = above[best[holds]]
            coarser = coarser.coarser
    return np.where(parent < 0, Level.WHOLE, level), parent


def assign_levels(
    parent: Parents,
    areas: Float[np.ndarray, " num_masks"],
    scores: Float[np.ndarray, " num_masks"],
) -> tuple[Int[np.ndarray, " num_masks"], Parents]:
    """Give every mask a level by its place: roots are wholes, then parts, then small details.

    Where more than three masks lie in one another, the two that are closest in size say almost
    the same: the worse scored of them makes room (never the root), until three are left.

    Returns:
        The level of each mask, -1 for masks that made room, and its parent among the others.
    """
    parent = parent.copy()
    gone = np.zeros(len(parent), bool)
    while True:
        depth, height = _depth_and_height(parent, gone)
        crowded = (depth + height > 2) & (depth > 0) & ~gone
        if not crowded.any():
            break
        children = np.flatnonzero(crowded)
        ratios = areas[parent[children]] / areas[children]
        child = children[np.argmin(ratios)]
        above = parent[child]
        dropped = above if depth[child] > 1 and scores[above] < scores[child] else child
        gone[dropped] = True
        parent[parent == dropped] = parent[dropped]
        parent[dropped] = -1
    return np.where(gone, -1, Level.WHOLE - depth), parent


def _depth_and_height(
    parent: Parents, gone: np.ndarray
) -> tuple[Int[np.ndarray, " num_masks"], Int[np.ndarray, " num_masks"]]:
    """Return the steps up to the root, and down to the deepest descendant, of every mask."""
    depth, height = np.zeros(len(parent), np.int64), np.zeros(len(parent), np.int64)
    linked = np.flatnonzero((parent >= 0) & ~gone)
    for mask in linked:  # Containers come first.
        depth[mask] = depth[parent[mask]] + 1
    for mask in linked[::-1]:
        height[parent[mask]] = max(height[parent[mask]], height[mask] + 1)
    return depth, height
