"""Masks of all views become one tree of the scene.

The way: (1) neighbouring Gaussians that share small masks in nearly all views are contracted to a
thousand or two patches; (2) patches are linked by the votes of all views into small nodes;
(3) every Gaussian takes the node that best explains the masks it lies in; (4) small nodes are
linked into wholes, and inside each whole into parts, again by votes, so that ids are nested by
construction and the level of a node is settled by the majority of views.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix
from scipy.spatial import KDTree

from hiersplat.hierarchy.assignment import assign_gaussians
from hiersplat.hierarchy.linkage import contract_graph, flat_clusters, link, vote_ratio
from hiersplat.hierarchy.nodes import mean_pixels, measured_tree, node_agreement
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.hierarchy.view_masks import ViewMasks
from hiersplat.hierarchy.votes import Reports, edge_votes, gather_reports, group_votes, indicator
from hiersplat.levels import UNLABELLED, Level


@dataclass
class AssociationConfig:
    """How the masks of all views become a scene tree. Settings are the same for all scenes."""

    neighbours: int = 10
    """Neighbours of each Gaussian in the graph. More close small gaps, and cost time in step."""
    patch_threshold: float = 0.7
    """Share of votes for "same small mask" at which neighbours are contracted to a patch."""
    patches: int = 1500
    """Patches to aim for. Memory and time of linking grow with the square."""
    small_votes: float = 0.47
    """Share of votes for "same" at which groups become one small node. Higher: more nodes."""
    part_votes: float = 0.4
    """Share of votes at which small nodes of a whole become one part."""
    whole_votes: float = 0.3
    """Share of votes at which small nodes become one whole. Segmenters cut wholes into pieces far
    more often than they join two, so a minority of views may join."""
    min_agreement: float = 0.3
    """Mean overlap (IoU) with the best mask of each view that a node needs to be one. What lies
    on the edge between two masks matches neither, and stays below."""
    inherited_trust: float = 0.3
    """Weight of "same mask" in a mask that was not found but stands in for its container."""
    rounds: int = 4
    """Rounds of assigning Gaussians to nodes."""
    smoothing: float = 1.0
    """Log-probability that a Gaussian gains for the node of all its neighbours. 0: no smoothing."""
    min_weight: float = 0.1
    """Labelled pixels (blending weight over all views) a Gaussian needs to be judged itself;
    others take the node of the nearest that was judged."""
    min_pixels: float = 2.0
    """Mean pixels per view that sees it which a small node needs; smaller ones are dissolved."""
    max_gap: float = 10.0
    """Distance to a judged Gaussian, in median neighbour distances, beyond which an unseen one
    stays unlabelled."""

    def __post_init__(self):
        """Check ranges, so that a slip on the command line is named."""
        for name, low, high in (
            ("patch_threshold", 0.05, 1.0),
            ("small_votes", 0.05, 1.0),
            ("part_votes", 0.05, 1.0),
            ("whole_votes", 0.05, 1.0),
            ("min_agreement", 0.0, 1.0),
            ("inherited_trust", 0.0, 1.0),
            ("neighbours", 1, 1000),
            ("patches", 1, 20000),
            ("rounds", 1, 1000),
            ("smoothing", 0.0, 1e6),
            ("min_weight", 0.0, 1e6),
            ("min_pixels", 0.0, 1e6),
            ("max_gap", 0.0, 1e9),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be in [{low}, {high}]")


Progress = Callable[[str, float], None]
"""Called with the step that begins and the share of the work that is done."""


def associate(
    views: Sequence[ViewMasks],
    means: Float[np.ndarray, "num_gaussians 3"],
    config: AssociationConfig | None = None,
    progress: Progress | None = None,
) -> SceneTree:
    """Find the nodes of the scene that the masks of all views agree on.

    Args:
        views: Masks of all training views, lifted to the Gaussians.
        means: Centres of the Gaussians.
        config: Settings.
        progress: Told where the work stands.

    Raises:
        ValueError: If there are no views, a view is of another number of Gaussians, or no mask
            covers any Gaussian.
    """
    config = config or AssociationConfig()
    tell = progress or (lambda step, done: None)
    means = np.asarray(means, np.float32)
    _check(views, means)

    tell("neighbours", 0.0)
    support = sum(np.asarray(view.weights.sum(axis=1)).ravel() for view in views)
    seen = np.asarray(support) >= config.min_weight
    if not seen.any():
        raise ValueError(f"no mask of the {len(views)} views covers any of {len(means)} Gaussians")
    edges, spacing = _neighbour_edges(means, seen, config.neighbours)

    tell("patches", 0.1)
    reports = {level: gather_reports(views, level, config.inherited_trust) for level in Level}
    patches = _patches(reports[Level.SMALL], edges, seen, config)
    tell("small nodes", 0.3)
    smalls = _small_nodes(views, reports[Level.SMALL], patches, config)
    tell("assignment", 0.5)
    smalls = _settle(views, reports[Level.SMALL], smalls, edges, seen, config)
    tell("parts and wholes", 0.9)
    wholes = _coarser(views, reports[Level.WHOLE], smalls, config)
    parts = _coarser(views, reports[Level.PART], smalls, config, apart=wholes)
    smalls = _fill_unseen(smalls, means, config.max_gap * spacing)
    return measured_tree(views, means, smalls, parts, wholes)


def _check(views: Sequence[ViewMasks], means: np.ndarray) -> None:
    if not views:
        raise ValueError("association needs the masks of at least one view; there are none")
    if means.ndim != 2 or means.shape[1] != 3:
        raise ValueError(f"means must have shape (number of Gaussians, 3), not {means.shape}")
    for view in views:
        if view.num_gaussians != len(means):
            raise ValueError(
                f"view {view.name} was lifted to {view.num_gaussians} Gaussians, "
                f"but the scene has {len(means)}"
            )


def _neighbour_edges(
    means: np.ndarray, seen: Bool[np.ndarray, " n"], count: int
) -> tuple[Int[np.ndarray, "num_edges 2"], float]:
    """Edges between each seen Gaussian and its nearest, and the median distance to the first."""
    ids = np.flatnonzero(seen)
    count = min(count, len(ids) - 1)
    if count < 1:
        return np.zeros((0, 2), np.int64), 0.0
    distances, nearest = KDTree(means[ids]).query(means[ids], k=count + 1)
    pairs = np.stack(
        [np.repeat(np.arange(len(ids)), count), np.asarray(nearest)[:, 1:].ravel()], axis=1
    )
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return ids[pairs], float(np.median(distances[:, 1]))


def _patches(reports, edges, seen, config: AssociationConfig) -> Int[np.ndarray, " num_gaussians"]:
    same, total = edge_votes(reports, edges)
    max_size = max(4, int(3 * seen.sum() / config.patches))
    groups = contract_graph(
        edges, same, total, len(seen), config.patch_threshold, config.patches, max_size
    )
    # Stubborn single Gaussians, mostly on edges, are left out and assigned later.
    groups = np.where(seen, groups, UNLABELLED)
    sizes = np.bincount(groups[seen], minlength=groups.max() + 1)
    largest = np.argsort(-sizes, kind="stable")[: 2 * config.patches]
    largest = largest[sizes[largest] >= min(2, sizes.max())]
    kept = np.full(len(sizes) + 1, UNLABELLED)
    kept[largest] = np.arange(len(largest))
    return kept[groups]


def _small_nodes(
    views, reports: Reports, patches, config: AssociationConfig
) -> Int[np.ndarray, " num_gaussians"]:
    """Link patches to small nodes; patches of nodes that no mask supports are left undecided."""
    nodes = patches
    # First pairs of patches vote, then whole clusters: a view that sees both sides of a thing
    # counts once there, not once for every pair of patches on it.
    for half in (0.5, 5.0, 5.0):
        count = nodes.max() + 1
        same, total = group_votes(reports, nodes, count, half)
        clusters = flat_clusters(link(same, total, config.small_votes), count)
        nodes = np.append(clusters, UNLABELLED)[nodes]
    supported = _is_supported(views, np.arange(nodes.max() + 1), nodes, Level.SMALL, config)
    return _keep(nodes, supported)


def _coarser(
    views, reports: Reports, smalls, config: AssociationConfig, apart: np.ndarray | None = None
) -> Int[np.ndarray, " num_small"]:
    """Link small nodes to parts or wholes; what no mask supports joins what it is linked to most.

    Args:
        views: Masks of all views.
        smalls: Small node of every Gaussian.
        reports: What the views say at the level to link to.
        config: Settings.
        apart: A class of every small node; nodes of different classes are not linked.
    """
    count = smalls.max() + 1
    threshold = config.whole_votes if reports.level == Level.WHOLE else config.part_votes
    same, total = group_votes(reports, smalls, count, half=5.0)
    nodes = flat_clusters(link(same, total, threshold, apart), count)
    supported = _is_supported(views, nodes, smalls, reports.level, config)
    if supported.all() or not supported.any():
        return nodes
    gather = indicator(nodes, len(supported)).toarray()
    ratio = vote_ratio(gather.T @ same @ gather, gather.T @ total @ gather)
    ratio[:, ~supported] = -1.0
    if apart is not None:
        classes = apart[np.unique(nodes, return_index=True)[1]]
        ratio[classes[:, None] != classes[None, :]] = -1.0
    joins = ~supported & (ratio.max(axis=1) > 0)
    goal = np.where(joins, ratio.argmax(axis=1), np.arange(len(joins)))
    return np.unique(goal[nodes], return_inverse=True)[1].astype(np.int32)


def _is_supported(
    views, nodes, groups, level: Level, config: AssociationConfig
) -> Bool[np.ndarray, " num_nodes"]:
    """Whether masks match each node at all: groups on the edge between others match none."""
    labels = np.append(nodes, UNLABELLED)[groups]
    _, agreement = node_agreement(views, labels, nodes.max() + 1, level)
    return agreement >= config.min_agreement


def _settle(views, reports: Reports, nodes, edges, seen, config: AssociationConfig):
    """Assign Gaussians to nodes, dissolve nodes that are next to nothing, and assign again."""
    adjacency = _adjacency(edges, len(nodes))
    for _ in range(2):
        num_nodes = nodes.max() + 1
        nodes = assign_gaussians(
            reports, nodes, num_nodes, adjacency, seen, config.rounds // 2, config.smoothing
        )
        nodes = _keep(nodes, mean_pixels(views, nodes, num_nodes) >= config.min_pixels)
    num_nodes = nodes.max() + 1
    return assign_gaussians(reports, nodes, num_nodes, adjacency, seen, 1, config.smoothing)


def _adjacency(edges: Int[np.ndarray, "num_edges 2"], count: int) -> csr_matrix:
    rows = np.concatenate([edges[:, 0], edges[:, 1]])
    columns = np.concatenate([edges[:, 1], edges[:, 0]])
    degree = np.bincount(rows, minlength=count)
    return csr_matrix(((1.0 / degree[rows]).astype(np.float32), (rows, columns)), (count, count))


def _keep(nodes: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Dissolve nodes that are not kept; at least the one with most Gaussians stays."""
    counts = np.bincount(nodes[nodes != UNLABELLED], minlength=len(keep))
    keep = keep & (counts > 0)
    keep[counts.argmax()] = True
    renumbered = np.where(keep, np.cumsum(keep) - 1, UNLABELLED)
    return np.append(renumbered, UNLABELLED)[nodes].astype(np.int32)


def _fill_unseen(smalls: np.ndarray, means: np.ndarray, max_distance: float) -> np.ndarray:
    """Give Gaussians without a node that of the nearest one with a node, unless it is far."""
    missing = np.flatnonzero(smalls == UNLABELLED)
    known = np.flatnonzero(smalls != UNLABELLED)
    if not len(missing) or max_distance <= 0:
        return smalls
    distances, nearest = KDTree(means[known]).query(
        means[missing], distance_upper_bound=max_distance
    )
    found = np.isfinite(distances)
    filled = smalls.copy()
    filled[missing[found]] = smalls[known[np.asarray(nearest)[found]]]
    return filled
