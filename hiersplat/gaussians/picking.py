"""What a click meets: the Gaussian at which a ray becomes half opaque."""

import torch
from jaxtyping import Float
from torch import Tensor

from hiersplat.gaussians.splats import Splats

_MIN_ALPHA = 1 / 255
"""Below this a Gaussian leaves no trace, as in gsplat."""


def pick_gaussian(
    splats: Splats, origin: Float[Tensor, " 3"], direction: Float[Tensor, " 3"]
) -> int | None:
    """Return the index of the Gaussian at the ray's median depth.

    Every Gaussian acts with its largest response along the ray, and they are composited in
    the order of those points, which is what the pixel of that ray shows.

    Args:
        splats: Gaussians of the scene.
        origin: Start of the ray, in the scene's frame.
        direction: Direction of the ray, of any length but zero.

    Returns:
        ``None`` where the ray stays more than half transparent.
    """
    direction = direction / direction.norm()
    offsets = splats.means - origin
    # In a Gaussian's own axes, divided by its scales, it is the unit sphere.
    rotations = _rotation_matrices(splats.quats)
    scales = splats.scales.clamp_min(1e-9)
    centers = torch.einsum("nji,nj->ni", rotations, offsets) / scales
    directions = torch.einsum("nji,j->ni", rotations, direction) / scales
    depths = (centers * directions).sum(-1) / directions.square().sum(-1)
    distances = (depths[:, None] * directions - centers).square().sum(-1)
    alphas = splats.opacities * torch.exp(-0.5 * distances)
    hit = torch.nonzero((alphas > _MIN_ALPHA) & (depths > 0)).squeeze(-1)
    hit = hit[depths[hit].argsort()]
    opaque = torch.nonzero((1 - alphas[hit]).cumprod(0) <= 0.5)
    return int(hit[opaque[0, 0]]) if len(opaque) else None


def _rotation_matrices(quats: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
