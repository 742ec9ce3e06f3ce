"""CLIPSeg's dense features distilled into the Gaussians: a few values each, trained by a loss.

Views see patches of some 16 pixels; Gaussians that many views see through different patches can
hold more detail than any of them. The values are the views' principal directions
(:mod:`hiersplat.semantics.projection`). As with the nested features, lifting gives the start in
closed form and training sharpens it (GARField and Feature 3DGS distil in the same way).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.lifting import lift_maps
from hiersplat.gaussians.splats import Splats


@dataclass
class SemanticFieldConfig:
    """How CLIPSeg's dense features supervise the Gaussians."""

    dims: int = 8
    """Values a Gaussian. More hold more of the features' variance; each costs 4 bytes a Gaussian
    and a channel to render in every step of the hierarchy stage."""
    weight: float = 1.0
    """Weight of the loss. 0 leaves the values as lifting finds them."""
    min_accumulation: float = 0.5
    """Patches that Gaussians cover less than this are not compared."""

    def __post_init__(self):
        """Check ranges, so that a slip on the command line is named."""
        if self.dims < 1:
            raise ValueError(f"dims must be at least 1, not {self.dims}")
        if self.weight < 0:
            raise ValueError(f"weight must not be negative, not {self.weight}")


def lift_semantics(
    splats: Splats,
    cameras: Sequence[Camera],
    targets: Iterable[Float[Tensor, "rows columns dims"]],
) -> Float[Tensor, "num_gaussians dims"]:
    """Average the views' projected features for each Gaussian; 0 where no view sees it.

    Args:
        splats: The Gaussians.
        cameras: The views.
        targets: Projected features of the patches of each view, which cover it evenly.

    Raises:
        ValueError: If there is no view.
    """
    maps = (
        _at_size(target, camera.height, camera.width)
        for target, camera in zip(targets, cameras, strict=True)
    )
    return lift_maps(splats, cameras, maps)[0]


def _at_size(
    target: Float[Tensor, "rows columns dims"], height: int, width: int
) -> Float[Tensor, "height width dims"]:
    planes = target.float().movedim(-1, 0)[None]
    return interpolate(planes, (height, width), mode="bilinear")[0].movedim(0, -1)


def patch_means(
    rendered: Float[Tensor, "height width dims"],
    accumulation: Float[Tensor, "height width 1"],
    rows: int,
    columns: int,
) -> tuple[Float[Tensor, "rows columns dims"], Float[Tensor, "rows columns"]]:
    """Average a rendering over patches by its coverage; return also the patches' coverage.

    Args:
        rendered: Values blended over the pixels of a view.
        accumulation: How far Gaussians cover each pixel, in [0, 1].
        rows: Patches in a column of the view.
        columns: Patches in a row of it.
    """
    planes = torch.cat([rendered, accumulation], dim=-1).movedim(-1, 0)
    pooled = adaptive_avg_pool2d(planes, (rows, columns)).movedim(0, -1)
    covered = pooled[..., -1]
    return pooled[..., :-1] / covered.clamp(min=1e-6)[..., None], covered


def distillation_loss(
    rendered: Float[Tensor, "height width dims"],
    accumulation: Float[Tensor, "height width 1"],
    target: Float[Tensor, "rows columns dims"],
    config: SemanticFieldConfig,
) -> Float[Tensor, ""]:
    """Mean squared difference between the patches of a rendering and of the view.

    Projected features have variance 1, so a loss of 1 is that of knowing nothing.

    Args:
        rendered: Values blended over the pixels of a view, with gradients.
        accumulation: How far Gaussians cover each pixel, in [0, 1].
        target: The view's projected features.
        config: Weight and least coverage.
    """
    means, covered = patch_means(rendered, accumulation.detach(), target.shape[0], target.shape[1])
    usable = covered >= config.min_accumulation
    if not usable.any():
        return config.weight * 0.0 * rendered.sum()
    return config.weight * (means[usable] - target[usable]).square().mean()
