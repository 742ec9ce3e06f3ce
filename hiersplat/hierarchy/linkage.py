"""Agglomeration by summed votes, of many elements on a graph and of few elements all to all."""

import numpy as np
from jaxtyping import Float, Int

_PRIOR_VOTES = 0.25
"""Imaginary votes for "different" added to every pair, so that a pair no view has seen together is
never joined by default: things at two ends of a house have nothing in common but that."""


def vote_ratio(same: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Share of votes for "same"; near 0 where there are next to no votes."""
    return same / (total + _PRIOR_VOTES)


def contract_graph(
    edges: Int[np.ndarray, "num_edges 2"],
    same: Float[np.ndarray, " num_edges"],
    total: Float[np.ndarray, " num_edges"],
    num_elements: int,
    threshold: float,
    target: int,
    max_size: int,
    seed: int = 0,
) -> Int[np.ndarray, " num_elements"]:
    """Merge neighbours that agree until about ``target`` groups of at most ``max_size`` are left.

    In every round half of the groups, drawn at random, stand still and each of the others may
    join the neighbour it agrees with most. Votes of merged edges add up.

    Args:
        edges: Neighbouring elements.
        same: Votes for "same" of every edge.
        total: All votes of every edge.
        num_elements: Number of elements; those without edges stay alone.
        threshold: Smallest share of votes for "same" at which two groups may merge.
        target: Number of groups at which to stop; more are left if neighbours do not agree.
        max_size: Largest number of elements in a group.
        seed: Seed of the random halves.

    Returns:
        Group of every element, contiguous from 0.
    """
    rng = np.random.default_rng(seed)
    groups = np.arange(num_elements)
    sizes = np.ones(num_elements, np.int64)
    first, second = edges[:, 0].astype(np.int64), edges[:, 1].astype(np.int64)
    idle = 0
    while len(sizes) > target and idle < 4:
        ratio = vote_ratio(same, total)
        fits = (ratio >= threshold) & (sizes[first] + sizes[second] <= max_size)
        if not fits.any():
            break
        stands = rng.random(len(sizes)) < 0.5
        source = np.concatenate([first[fits], second[fits]])
        goal = np.concatenate([second[fits], first[fits]])
        quality = np.concatenate([ratio[fits], ratio[fits]])
        moves = ~stands[source] & stands[goal]
        source, goal, quality = source[moves], goal[moves], quality[moves]
        best = np.lexsort((-quality, source))
        source, goal = source[best], goal[best]
        source, firsts = np.unique(source, return_index=True)
        goal = goal[firsts]
        # Several groups may want the same goal: admit them in order while it has room.
        order = np.argsort(goal, kind="stable")
        source, goal = source[order], goal[order]
        sums = np.cumsum(sizes[source])
        starts = np.searchsorted(goal, goal)
        joined = sums - np.where(starts > 0, sums[starts - 1], 0)
        admitted = sizes[goal] + joined <= max_size
        source, goal = source[admitted], goal[admitted]
        idle = 0 if len(source) else idle + 1
        target_of = np.arange(len(sizes))
        target_of[source] = goal
        kept, target_of = np.unique(target_of, return_inverse=True)
        sizes = np.bincount(target_of, weights=sizes, minlength=len(kept)).astype(np.int64)
        groups = target_of[groups]
        first, second, same, total = _merge_edges(
            target_of[first], target_of[second], same, total, len(kept)
        )
    return groups.astype(np.int32)


def _merge_edges(first, second, same, total, num_groups):
    """Drop edges inside a group and add up the votes of parallel edges."""
    outside = first != second
    low = np.minimum(first, second)[outside]
    high = np.maximum(first, second)[outside]
    keys, inverse = np.unique(low * num_groups + high, return_inverse=True)
    same = np.bincount(inverse, weights=same[outside], minlength=len(keys))
    total = np.bincount(inverse, weights=total[outside], minlength=len(keys))
    return keys // num_groups, keys % num_groups, same, total


def link(
    same: Float[np.ndarray, "k k"],
    total: Float[np.ndarray, "k k"],
    threshold: float,
    apart: Int[np.ndarray, " k"] | None = None,
) -> Int[np.ndarray, "num_merges 2"]:
    """Merge the pair with the largest share of votes for "same", again and again.

    Votes of merged elements add up, so a share is always that of all pairs between two clusters.

    Args:
        same: Votes for "same" between all pairs; symmetric, the diagonal is ignored.
        total: All votes between all pairs.
        threshold: Share below which to stop.
        apart: A class of every element; elements of different classes never merge.

    Returns:
        The two clusters of every merge, in order: numbers below k are elements, and k + i is
        the result of merge i.

    Example:
        >>> same = np.array([[0.0, 9.0, 1.0], [9.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> link(same, np.full((3, 3), 10.0), threshold=0.5).tolist()
        [[0, 1]]
        >>> link(same, np.full((3, 3), 10.0), threshold=0.01).tolist()
        [[0, 1], [3, 2]]
    """
    count = len(same)
    merges: list[tuple[int, int]] = []
    if count < 2:
        return np.zeros((0, 2), np.int32)
    names = np.arange(count)
    same, total = same.astype(np.float64), total.astype(np.float64)
    allowed = np.ones((count, count), bool) if apart is None else apart[:, None] == apart[None, :]
    np.fill_diagonal(allowed, False)
    ratio = np.where(allowed, vote_ratio(same, total), -1.0)
    nearest = ratio.argmax(axis=1)
    best = ratio[np.arange(count), nearest]
    while True:
        keep = int(best.argmax())
        if best[keep] < max(threshold, 0.0):
            break
        drop = int(nearest[keep])
        merges.append((names[keep], names[drop]))
        names[keep] = count + len(merges) - 1
        for votes in (same, total):
            votes[keep] += votes[drop]
            votes[:, keep] = votes[keep]
        ratio[drop] = ratio[:, drop] = -1.0
        alive = ratio[keep] >= 0
        row = np.where(alive, vote_ratio(same[keep], total[keep]), -1.0)
        ratio[keep] = ratio[:, keep] = row
        best[drop] = -1.0
        # Rows that pointed at one of the two look again, unless the merged one is no worse.
        pointed = alive & ((nearest == keep) | (nearest == drop))
        better = alive & (row >= best)
        nearest[better], best[better] = keep, row[better]
        stale = np.append(np.flatnonzero(pointed & ~better), keep)
        nearest[stale] = ratio[stale].argmax(axis=1)
        best[stale] = ratio[stale, nearest[stale]]
    return np.array(merges, np.int32).reshape(-1, 2)


def flat_clusters(
    merges: Int[np.ndarray, "num_merges 2"], count: int
) -> Int[np.ndarray, " {count}"]:
    """Cluster of every element after all merges, contiguous from 0.

    Example:
        >>> flat_clusters(np.array([[0, 2]]), 3).tolist()
        [0, 1, 0]
    """
    clusters = np.arange(count + len(merges))
    for index in range(len(merges) - 1, -1, -1):
        clusters[merges[index]] = clusters[count + index]
    _, first, inverse = np.unique(clusters[:count], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int32)
