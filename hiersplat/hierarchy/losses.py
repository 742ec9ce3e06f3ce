"""What refines the nested features: contrast between the masks of one view, level by level.

Masks of one view never contradict each other, so every comparison stays inside a view. Containment
across levels needs no loss of its own: a level is a prefix (see :mod:`hiersplat.hierarchy.field`).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hiersplat.hierarchy.field import HierarchyFieldConfig
from hiersplat.hierarchy.overlap import overlap
from hiersplat.levels import UNLABELLED, Level


@dataclass
class HierarchyLossConfig:
    """How the features are refined."""

    contrast: float = 1.0
    """Weight of the contrast between masks of a view. 0 leaves the lifted features as they are."""
    level_weights: tuple[float, float, float] = field(default=(1.0, 1.0, 1.0))
    """Weights of small, part and whole."""
    pixels: int = 2048
    """Labelled pixels drawn per step. More: smoother gradients; time grows little."""
    temperature: float = 0.4
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
        if self.temperature <= 0 or self.pixels < 1:
            raise ValueError(
                f"temperature ({self.temperature}) must be above 0, pixels ({self.pixels}) at "
                "least 1"
            )


def hierarchy_losses(
    rendered: Float[Tensor, "height width dims"],
    accumulation: Float[Tensor, "height width 1"],
    labels: Int[Tensor, "3 height width"],
    field_config: HierarchyFieldConfig,
    config: HierarchyLossConfig,
    generator: torch.Generator | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Contrast of rendered features between the masks of one view, per level.

    Args:
        rendered: Features blended over the pixels of a view.
        accumulation: How far Gaussians cover each pixel, in [0, 1].
        labels: The view's own mask labels, best after :func:`agreeing_labels`; pixels that are
            unlabelled at a level or hardly covered are skipped there.
        field_config: Which dimensions belong to which level.
        config: Weights and settings.
        generator: Draws the pixels; the global one if ``None``.

    Returns:
        One weighted loss a level, ``hierarchy_small``, ``hierarchy_part``, ``hierarchy_whole``;
        empty if no pixel is labelled or every weight is 0.

    Raises:
        ValueError: If the labels are of another size than the rendered view.
    """
    height, width = rendered.shape[:2]
    if tuple(labels.shape) != (3, height, width):
        raise ValueError(f"labels of shape {tuple(labels.shape)} for a view of {width} x {height}")
    usable = (labels != UNLABELLED).any(dim=0) & (
        accumulation[..., 0].detach() >= config.min_accumulation
    )
    candidates = torch.nonzero(usable.flatten())[:, 0]
    if not len(candidates) or config.contrast == 0:
        return {}
    draw = torch.randint(
        len(candidates),
        (min(config.pixels, len(candidates)),),
        generator=generator,
        device=generator.device if generator is not None else candidates.device,
    )
    pixels = candidates[draw.to(candidates.device)]
    features = rendered.flatten(0, 1)[pixels] / accumulation.flatten(0, 1)[pixels].detach()
    losses = {}
    for level in Level:
        weight = config.contrast * config.level_weights[level]
        if weight > 0:
            own = labels[level].flatten()[pixels].long()
            told = own != UNLABELLED
            level_features = features[told, : field_config.dims(level)]
            loss = contrast_loss(level_features, own[told], config.temperature)
            losses[f"hierarchy_{level.title}"] = weight * loss
    return losses


def contrast_loss(
    features: Float[Tensor, "num_pixels dims"],
    labels: Int[Tensor, " num_pixels"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of finding each pixel's mask by the distance to the masks' mean features.

    Every mask counts the same, however large it is. With a single mask the loss is 0: there is
    nothing to tell apart.

    Args:
        features: Features of labelled pixels.
        labels: Mask of each pixel, at least 0.
        temperature: Squared distance that counts as one unit of evidence.
    """
    if not len(labels):
        return features.sum() * 0.0
    masks, own, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    if len(masks) < 2:
        return features.sum() * 0.0
    sums = features.new_zeros(len(masks), features.shape[1]).index_add(0, own, features)
    centres = sums / counts[:, None]
    logits = -torch.cdist(features, centres).square() / temperature
    entropy = torch.nn.functional.cross_entropy(logits, own, reduction="none")
    return (entropy / counts[own]).sum() / len(masks)


def agreeing_labels(
    labels: Int[np.ndarray, "3 height width"],
    node_ids: Int[np.ndarray, "3 height width"],
    min_iou: float = 0.75,
) -> Int[np.ndarray, "3 height width"]:
    """Leave out masks of a view that no node of the tree matches.

    Association has outvoted masks that are merged, split or on the wrong level; training on them
    again would bring their mistakes back.

    Args:
        labels: Mask labels of the view.
        node_ids: Nodes rendered to the view, ``UNLABELLED`` where there is none.
        min_iou: IoU with some node of the same level that a mask needs to stay.

    Returns:
        The labels, ``UNLABELLED`` where a mask was left out.

    Raises:
        ValueError: If the maps differ in shape.
    """
    if labels.shape != node_ids.shape:
        raise ValueError(f"labels of shape {labels.shape} for nodes of shape {node_ids.shape}")
    kept = np.full_like(labels, UNLABELLED)
    for level in Level:
        shared = overlap(labels[level], node_ids[level])
        good = shared.truth_ids[shared.iou.max(axis=1, initial=0.0) >= min_iou]
        kept[level] = np.where(np.isin(labels[level], good), labels[level], UNLABELLED)
    return kept
