"""Colours of nodes: stable for an id, and alike within a whole."""

import numpy as np
from jaxtyping import Float

from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import UNLABELLED, Level
from hiersplat.segmentation.panels import color_labels

UNLABELLED_COLOR = 0.25
"""Grey of Gaussians without a node."""


def level_palette(tree: SceneTree) -> Float[np.ndarray, "num_gaussians 9"]:
    """RGB in [0, 1] of every Gaussian's small, part and whole node, side by side."""
    colors = np.full((tree.num_gaussians, len(Level), 3), UNLABELLED_COLOR, np.float32)
    for level in Level:
        ids = tree.node_ids[level]
        known = ids != UNLABELLED
        colors[known, level] = color_labels(ids[known][None])[0] / 255.0
    return colors.reshape(len(colors), -1)
