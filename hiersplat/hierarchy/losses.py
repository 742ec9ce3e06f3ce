"""What refines the nested features: every pixel is drawn to the address of its own node.

The masks of a view say where the edges between nodes run, to within a pixel or two; what is what
has been settled by all views together. Containment across levels needs no loss of its own: a level
is a prefix (see :mod:`hiersplat.hierarchy.field`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hiersplat.hierarchy.overlap import overlap
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import UNLABELLED, Level


@dataclass
class HierarchyLossConfig:
    """How the features are refined."""

    contrast: float = 1.0
    """Weight of the contrast between nodes. 0 leaves the lifted features as they are."""
    level_weights: tuple[float, float, float] = field(default=(1.0, 1.0, 1.0))
    """Weights of small, part and whole."""
    passes: int = 2
    """Passes over the training views in which the nodes' edges are learnt. More follow the slips
    of single masks, and held-out views get worse."""
    pixels: int = 16384
    """Pixels drawn per step, half of them on edges. More: smoother gradients; memory grows with
    pixels times nodes."""
    temperature: float = 0.15
    """Squared distance that counts as one unit of evidence. Smaller: only close calls matter."""
    min_accumulation: float = 0.5
    """Pixels that Gaussians cover less than this are not asked."""

    def __post_init__(self):
        """Check ranges, so that a slip on the command line is named."""
        if self.contrast < 0 or min(self.level_weights) < 0:
            raise ValueError(
                f"contrast ({self.contrast}) and level_weights {self.level_weights} must not be "
                "negative"
            )
        if self.temperature <= 0 or self.pixels < 1 or self.passes < 0:
            raise ValueError(
                f"temperature ({self.temperature}) must be above 0, pixels ({self.pixels}) at "
                f"least 1, passes ({self.passes}) not negative"
            )


def hierarchy_losses(
    rendered: Float[Tensor, "height width dims"],
    accumulation: Float[Tensor, "height width 1"],
    targets: Int[Tensor, "3 height width"],
    codes: Sequence[Float[Tensor, "_ _"]],
    config: HierarchyLossConfig,
    generator: torch.Generator | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Contrast of rendered features between the addresses of all nodes, per level.

    Args:
        rendered: Features blended over the pixels of a view.
        accumulation: How far Gaussians cover each pixel, in [0, 1].
        targets: Node of every pixel, from :func:`edge_targets`; pixels that are unlabelled at a
            level or hardly covered are skipped there.
        codes: Addresses of the nodes of each level, from :func:`level_codes`.
        config: Weights and settings.
        generator: Draws the pixels; the global one if ``None``.

    Returns:
        One weighted loss a level, ``hierarchy_small``, ``hierarchy_part``, ``hierarchy_whole``;
        empty if no pixel is labelled or every weight is 0.

    Raises:
        ValueError: If the targets are of another size than the rendered view.
    """
    height, width = rendered.shape[:2]
    if tuple(targets.shape) != (3, height, width):
        raise ValueError(f"labels of shape {tuple(targets.shape)} for a view of {width} x {height}")
    usable = (targets != UNLABELLED).any(dim=0) & (
        accumulation[..., 0].detach() >= config.min_accumulation
    )
    if not usable.any() or config.contrast == 0:
        return {}
    pixels = _draw(usable, edges_of(targets), config.pixels, generator)
    features = rendered.flatten(0, 1)[pixels] / accumulation.flatten(0, 1)[pixels].detach()
    losses = {}
    for level in Level:
        weight = config.contrast * config.level_weights[level]
        if weight > 0:
            own = targets[level].flatten()[pixels].long()
            loss = address_loss(features, own, codes[level], config.temperature)
            losses[f"hierarchy_{level.title}"] = weight * loss
    return losses


def address_loss(
    features: Float[Tensor, "num_pixels dims"],
    own: Int[Tensor, " num_pixels"],
    codes: Float[Tensor, "num_nodes level_dims"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of finding each pixel's node by the distance to the nodes' addresses.

    Addresses stand still. Where they may move, or means of a view stand in for them, wrong masks
    of one view move the nodes of all.

    Args:
        features: Features of pixels; dimensions beyond those of the addresses are not looked at.
        own: Node of each pixel as a row of ``codes``; ``UNLABELLED`` ones are skipped.
        codes: Addresses of all nodes of a level.
        temperature: Squared distance that counts as one unit of evidence.
    """
    told = own != UNLABELLED
    if not told.any():
        return features.sum() * 0.0
    values = features[told, : codes.shape[1]]
    # Squared distances without the features' own squares, which all nodes share.
    scores = (2 * values @ codes.T - codes.square().sum(dim=1)) / temperature
    return torch.nn.functional.cross_entropy(scores, own[told])


def edges_of(labels: Int[Tensor, "3 height width"]) -> Bool[Tensor, "height width"]:
    """Pixels that have a pixel of another label above, below, left or right, at any level."""
    edges = torch.zeros(labels.shape[1:], dtype=torch.bool, device=labels.device)
    down = (labels[:, 1:] != labels[:, :-1]).any(dim=0)
    right = (labels[:, :, 1:] != labels[:, :, :-1]).any(dim=0)
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges


def _draw(
    usable: Bool[Tensor, "height width"],
    edges: Bool[Tensor, "height width"],
    count: int,
    generator: torch.Generator | None,
) -> Int[Tensor, " num_pixels"]:
    """Draw pixels, half of them on edges: what lies inside a node is settled already."""
    drawn = []
    for mask, share in ((usable & edges, count // 2), (usable, count - count // 2)):
        candidates = torch.nonzero(mask.flatten())[:, 0]
        if len(candidates) > share:
            device = generator.device if generator is not None else candidates.device
            chosen = torch.randint(len(candidates), (share,), generator=generator, device=device)
            candidates = candidates[chosen.to(candidates.device)]
        drawn.append(candidates)
    return torch.cat(drawn)


def edge_targets(
    labels: Int[np.ndarray, "3 height width"],
    node_ids: Int[np.ndarray, "3 height width"],
    tree: SceneTree,
    min_iou: float = 0.75,
    reach: int = 2,
) -> Int[np.ndarray, "3 height width"]:
    """Node of every pixel of a view: that of the tree, its edges moved to where masks have them.

    Masks that no node matches are left out: association has outvoted what is merged, split or on
    the wrong level, and training on it again would bring the mistakes back. Masks that do match
    are believed only near their node, because a mask with a bite or a bulge matches as well.

    Args:
        labels: Mask labels of the view.
        node_ids: Nodes rendered to the view, ``UNLABELLED`` where there is none.
        tree: The nodes.
        min_iou: IoU with its node that a mask needs to be heard.
        reach: Pixels by which a mask may move its node's edges.

    Returns:
        Places of nodes among those of their level (as :meth:`SceneTree.labels` counts them).

    Raises:
        ValueError: If the maps differ in shape.
    """
    if labels.shape != node_ids.shape:
        raise ValueError(f"labels of shape {labels.shape} for nodes of shape {node_ids.shape}")
    targets = np.full_like(labels, UNLABELLED, dtype=np.int32)
    for level in Level:
        nodes, wanted = node_ids[level], _matched_nodes(labels[level], node_ids[level], min_iou)
        moves = (wanted != UNLABELLED) & _occurs_within(nodes, wanted, reach)
        moved = np.where(moves, wanted, nodes)
        known = moved != UNLABELLED
        targets[level][known] = np.searchsorted(tree.level_ids(level), moved[known])
    return targets


def _matched_nodes(
    labels: Int[np.ndarray, "height width"],
    node_ids: Int[np.ndarray, "height width"],
    min_iou: float,
) -> Int[np.ndarray, "height width"]:
    """Node that matches the mask of each pixel, ``UNLABELLED`` where none does."""
    shared = overlap(labels, node_ids)
    table = np.full(int(labels.max(initial=UNLABELLED)) + 2, UNLABELLED, np.int64)
    if shared.counts.size:
        matched = shared.iou.max(axis=1) >= min_iou
        nodes = shared.predicted_ids[shared.iou.argmax(axis=1)]
        table[shared.truth_ids[matched]] = nodes[matched]
    return table[labels]  # UNLABELLED (-1) finds the last entry.


def _occurs_within(
    labels: Int[np.ndarray, "height width"], wanted: Int[np.ndarray, "height width"], reach: int
) -> Bool[np.ndarray, "height width"]:
    """Whether the wanted label of each pixel occurs at most ``reach`` rows and columns away."""
    height, width = labels.shape
    padded = np.pad(labels, reach, constant_values=UNLABELLED - 1)
    found = np.zeros(labels.shape, bool)
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            found |= padded[row : row + height, column : column + width] == wanted
    return found
