"""From groups of Gaussians to the nodes of a tree: numbers, sizes, and how far views agree."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from hiersplat.hierarchy.tree import Node, SceneTree, bounding_box
from hiersplat.hierarchy.view_masks import ViewMasks
from hiersplat.hierarchy.votes import indicator
from hiersplat.levels import UNLABELLED, Level


def measured_tree(
    views: Sequence[ViewMasks],
    means: Float[np.ndarray, "num_gaussians 3"],
    smalls: Int[np.ndarray, " num_gaussians"],
    parts: Int[np.ndarray, " num_small"],
    wholes: Int[np.ndarray, " num_small"],
) -> SceneTree:
    """Number the nodes, wholes first and large ones first, and measure them.

    Args:
        views: Masks of all views.
        means: Centres of the Gaussians.
        smalls: Small node of every Gaussian, ``UNLABELLED`` where it has none.
        parts: Part of every small node.
        wholes: Whole of every small node; small nodes of one part share it.
    """
    labelled = smalls != UNLABELLED
    keys = np.full((3, len(smalls)), UNLABELLED)
    keys[:, labelled] = np.stack(
        [smalls[labelled], parts[smalls[labelled]], wholes[smalls[labelled]]]
    )
    node_ids = np.full((3, len(smalls)), UNLABELLED, np.int32)
    offset = 0
    for level in reversed(Level):
        found, first, inverse, counts = np.unique(
            keys[level, labelled], return_index=True, return_inverse=True, return_counts=True
        )
        rank = np.empty(len(found), np.int32)
        rank[np.lexsort((first, -counts))] = np.arange(len(found))
        node_ids[level, labelled] = offset + rank[inverse]
        offset += len(found)

    nodes = []
    for level in Level:
        ids = np.unique(node_ids[level, labelled])
        views_seen, agreement = node_agreement(views, node_ids[level] - ids[0], len(ids), level)
        for index, node_id in enumerate(ids.tolist()):
            members = np.flatnonzero(node_ids[level] == node_id)
            low, high = bounding_box(means[members])
            parent = UNLABELLED if level == Level.WHOLE else int(node_ids[level + 1, members[0]])
            nodes.append(
                Node(
                    node_id,
                    level,
                    parent,
                    num_gaussians=len(members),
                    bbox_min=low,
                    bbox_max=high,
                    views_seen=int(views_seen[index]),
                    agreement=float(agreement[index]),
                )
            )
    return SceneTree(tuple(nodes), node_ids)


def node_agreement(
    views: Sequence[ViewMasks],
    labels: Int[np.ndarray, " num_gaussians"],
    num_labels: int,
    level: Level,
) -> tuple[Int[np.ndarray, " num_labels"], Float[np.ndarray, " num_labels"]]:
    """How well the masks of the views agree with nodes of one level.

    Args:
        views: Masks of all views.
        labels: Node of every Gaussian, contiguous from 0; negative where there is none.
        num_labels: Number of nodes.
        level: Level of the nodes.

    Returns:
        Number of views that see each node under a mask (one pixel or more), and the mean over
        its labelled pixels in all views of the best IoU, by blending weights, of the node with a
        mask of the level in the pixel's view.
    """
    members = indicator(np.where(labels < 0, UNLABELLED, labels), num_labels).T.tocsr()
    count = np.zeros(num_labels, np.int64)
    agreeing, pixels = np.zeros(num_labels), np.zeros(num_labels)
    for view in views:
        shared = csr_matrix(members @ view.level_weights(level)).toarray().astype(np.float64)
        own = shared.sum(axis=1)
        masks = shared.sum(axis=0)
        union = np.maximum(own[:, None] + masks[None, :] - shared, 1e-9)
        count += own >= 1.0
        agreeing += own * (shared / union).max(axis=1, initial=0.0)
        pixels += own
    return count, agreeing / np.maximum(pixels, 1e-9)


def mean_pixels(
    views: Sequence[ViewMasks], nodes: Int[np.ndarray, " num_gaussians"], num_nodes: int
) -> Float[np.ndarray, " num_nodes"]:
    """Mean pixels of every node over the views that see a pixel of it."""
    members = indicator(nodes, num_nodes).T.tocsr()
    pixels = np.stack([np.asarray((members @ v.weights).sum(axis=1)).ravel() for v in views])
    visible = pixels >= 1.0
    num_views = np.count_nonzero(visible, axis=0)
    return (pixels * visible).sum(axis=0) / np.maximum(num_views, 1)
