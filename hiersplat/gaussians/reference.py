"""The slow, obvious twin: every Gaussian against every pixel, in plain torch.

Projection and spherical harmonics are gsplat's own torch functions; blending follows gsplat's
CUDA kernel line by line: a Gaussian reaches the tiles that the square of its radius touches,
alpha is capped at 0.999, alphas below 1/255 are skipped, and a pixel stops *before* the Gaussian
that would bring its transmittance to 1e-4 or less. Autograd gives the gradients. Memory grows
with pixels times Gaussians, so it is for tests and small scenes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.splats import Splats
from hiersplat.levels import UNLABELLED

ALPHA_MIN = 1.0 / 255.0
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4


@dataclass(frozen=True)
class Projected:
    """Gaussians on the image planes; rows with ``radii`` 0 are not visible."""

    radii: Int[Tensor, "num_cameras num_gaussians"]
    """Three standard deviations in pixels, rounded up; 0 for what is not seen."""

    means2d: Float[Tensor, "num_cameras num_gaussians 2"]
    """Centres in pixels."""

    depths: Float[Tensor, "num_cameras num_gaussians"]
    """z in the camera."""

    conics: Float[Tensor, "num_cameras num_gaussians 3"]
    """Inverse covariances: xx, xy, yy."""

    compensations: Float[Tensor, "num_cameras num_gaussians"]
    """Factor of the opacity in antialiased mode."""


def project_(
    means: Float[Tensor, "num_gaussians 3"],
    covars: Float[Tensor, "num_gaussians 3 3"],
    viewmats: Float[Tensor, "num_cameras 4 4"],
    Ks: Float[Tensor, "num_cameras 3 3"],
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
) -> Projected:
    """Project Gaussians by gsplat's torch functions."""
    from gsplat.cuda._torch_impl import _fully_fused_projection

    radii, means2d, depths, conics, compensations = _fully_fused_projection(
        means,
        covars,
        viewmats,
        Ks,
        width,
        height,
        eps2d=eps2d,
        near_plane=near_plane,
        far_plane=far_plane,
        calc_compensations=True,
    )
    assert compensations is not None
    radii = torch.where(radii > radius_clip, radii, 0)
    return Projected(radii, means2d, depths, conics, compensations)


def covariances_(
    quats: Float[Tensor, "num_gaussians 4"], scales: Float[Tensor, "num_gaussians 3"]
) -> Float[Tensor, "num_gaussians 3 3"]:
    """Return the covariances of Gaussians in the world."""
    from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci

    covars, _ = _quat_scale_to_covar_preci(quats, scales, True, False, triu=False)
    assert covars is not None
    return covars


def sh_colors_(
    means: Float[Tensor, "num_gaussians 3"],
    viewmats: Float[Tensor, "num_cameras 4 4"],
    sh: Float[Tensor, "num_cameras num_gaussians num_bases 3"],
    degree: int,
) -> Float[Tensor, "num_cameras num_gaussians 3"]:
    """Evaluate view-dependent colours, clamped at zero."""
    from gsplat.cuda._torch_impl import _spherical_harmonics

    centres = torch.inverse(viewmats)[:, None, :3, 3]
    directions = means[None] - centres
    return torch.clamp_min(_spherical_harmonics(degree, directions, sh) + 0.5, 0.0)


def pixel_weights_(
    means2d: Float[Tensor, "num_gaussians 2"],
    conics: Float[Tensor, "num_gaussians 3"],
    opacities: Float[Tensor, " num_gaussians"],
    radii: Int[Tensor, " num_gaussians"],
    pixels: Int[Tensor, "num_pixels 2"],
    tile_size: int = 16,
) -> tuple[Float[Tensor, "num_pixels num_gaussians"], Float[Tensor, " num_pixels"]]:
    """Blend Gaussians that are sorted front to back over some pixels.

    Args:
        means2d: Centres in pixels.
        conics: Inverse covariances.
        opacities: Opacities, compensated in antialiased mode.
        radii: Radii in pixels; 0 is never blended.
        pixels: Column and row of each pixel.
        tile_size: Side of gsplat's tiles, which bound a Gaussian's reach.

    Returns:
        The blending weight of every Gaussian in every pixel, and the transmittance left.
    """
    delta = means2d[None] - (pixels[:, None].to(means2d.dtype) + 0.5)
    sigma = (
        0.5 * (conics[:, 0] * delta[..., 0] ** 2 + conics[:, 2] * delta[..., 1] ** 2)
        + conics[:, 1] * delta[..., 0] * delta[..., 1]
    )
    alpha = torch.clamp(opacities * torch.exp(-sigma), max=ALPHA_MAX)
    reached = reach_(means2d, radii, pixels, tile_size)
    blended = reached & (sigma >= 0) & (alpha >= ALPHA_MIN)
    alpha = torch.where(blended, alpha, 0.0)
    after = torch.cumprod(1.0 - alpha, dim=1)
    # Transmittance never rises, so the first Gaussian that crosses the limit ends the pixel.
    alpha = torch.where(after > TRANSMITTANCE_MIN, alpha, 0.0)
    after = torch.cumprod(1.0 - alpha, dim=1)
    before = torch.cat([after.new_ones(len(after), 1), after], dim=1)
    return alpha * before[:, :-1], before[:, -1]


@torch.no_grad()
def reach_(
    means2d: Float[Tensor, "num_gaussians 2"],
    radii: Int[Tensor, " num_gaussians"],
    pixels: Int[Tensor, "num_pixels 2"],
    tile_size: int,
) -> Bool[Tensor, "num_pixels num_gaussians"]:
    """Tell which pixels lie in a tile that the square around a Gaussian touches."""
    size = radii[:, None].to(means2d.dtype)
    low = torch.floor((means2d - size) / tile_size)
    high = torch.ceil((means2d + size) / tile_size)
    tiles = torch.div(pixels, tile_size, rounding_mode="floor")[:, None]  # (pixels, 1, 2)
    return ((tiles >= low) & (tiles < high)).all(-1) & (radii > 0)


def rasterization_(
    means: Float[Tensor, "num_gaussians 3"],
    quats: Float[Tensor, "num_gaussians 4"],
    scales: Float[Tensor, "num_gaussians 3"],
    opacities: Float[Tensor, " num_gaussians"],
    colors: Tensor,
    viewmats: Float[Tensor, "num_cameras 4 4"],
    Ks: Float[Tensor, "num_cameras 3 3"],
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    tile_size: int = 16,
    backgrounds: Float[Tensor, "num_cameras num_channels"] | None = None,
    render_mode: str = "RGB",
    rasterize_mode: str = "classic",
    covars: Float[Tensor, "num_gaussians 3 3"] | None = None,
    rows_at_once: int = 16,
) -> tuple[
    Float[Tensor, "num_cameras height width channels"],
    Float[Tensor, "num_cameras height width 1"],
    dict,
]:
    """Render as :func:`hiersplat.gaussians.rasterization.rasterization` does, slowly.

    Computes in the precision of its input, so float64 gives a truth to compare with.
    """
    count, num_cameras = means.shape[0], viewmats.shape[0]
    world = covariances_(quats, scales) if covars is None else covars
    planes = project_(
        means, world, viewmats, Ks, width, height, near_plane, far_plane, radius_clip, eps2d
    )
    if sh_degree is not None:
        sh = colors if colors.ndim == 4 else colors[None].expand(num_cameras, -1, -1, -1)
        colors = sh_colors_(means, viewmats, sh, sh_degree)
    elif colors.ndim == 2:
        colors = colors[None].expand(num_cameras, -1, -1)
    layered = opacities[None].expand(num_cameras, -1)
    if rasterize_mode == "antialiased":
        layered = layered * planes.compensations
    if render_mode in ("D", "ED"):
        colors = planes.depths[..., None]
        backgrounds = None if backgrounds is None else torch.zeros_like(backgrounds[:, :1])
    elif render_mode != "RGB":
        colors = torch.cat([colors, planes.depths[..., None]], dim=-1)
        if backgrounds is not None:
            backgrounds = torch.cat([backgrounds, torch.zeros_like(backgrounds[:, :1])], dim=-1)

    images, alphas = [], []
    for camera in range(num_cameras):
        seen = torch.nonzero(planes.radii[camera] > 0)[:, 0]
        order = seen[torch.sort(planes.depths[camera, seen], stable=True).indices]
        strips, left = [], []
        for top in range(0, height, rows_at_once):
            rows = torch.arange(top, min(top + rows_at_once, height), device=means.device)
            columns = torch.arange(width, device=means.device)
            grid_y, grid_x = torch.meshgrid(rows, columns, indexing="ij")
            pixels = torch.stack([grid_x.flatten(), grid_y.flatten()], dim=-1)
            weights, transmittance = pixel_weights_(
                planes.means2d[camera, order],
                planes.conics[camera, order],
                layered[camera, order],
                planes.radii[camera, order],
                pixels,
                tile_size,
            )
            strip = weights @ colors[camera, order]
            if backgrounds is not None:
                strip = strip + transmittance[:, None] * backgrounds[camera]
            strips.append(strip)
            left.append(transmittance)
        images.append(torch.cat(strips).reshape(height, width, -1))
        alphas.append(1.0 - torch.cat(left).reshape(height, width, 1))
    image, alpha = torch.stack(images), torch.stack(alphas)
    if render_mode in ("ED", "RGB+ED"):
        expected = image[..., -1:] / alpha.clamp(min=1e-10)
        image = torch.cat([image[..., :-1], expected], dim=-1)
    tiles = (math.ceil(width / tile_size), math.ceil(height / tile_size))
    info = {
        "radii": planes.radii,
        "means2d": planes.means2d,
        "depths": planes.depths,
        "conics": planes.conics,
        "opacities": layered,
        "width": width,
        "height": height,
        "n_cameras": num_cameras,
        "tile_size": tile_size,
        "tile_width": tiles[0],
        "tile_height": tiles[1],
        "num_gaussians": count,
    }
    return image, alpha, info


@torch.no_grad()
def weights_(
    splats: Splats, camera: Camera
) -> tuple[Float[Tensor, "num_pixels num_gaussians"], Float[Tensor, " num_pixels"]]:
    """Return every Gaussian's blending weight in every pixel of a view, and the light left."""
    covars = covariances_(splats.quats, splats.scales)
    planes = project_(
        splats.means, covars, camera.viewmat[None], camera.K[None], camera.width, camera.height
    )
    seen = torch.nonzero(planes.radii[0] > 0)[:, 0]
    order = seen[torch.sort(planes.depths[0, seen], stable=True).indices]
    grid_y, grid_x = torch.meshgrid(
        torch.arange(camera.height), torch.arange(camera.width), indexing="ij"
    )
    weights, left = pixel_weights_(
        planes.means2d[0, order],
        planes.conics[0, order],
        splats.opacities[order],
        planes.radii[0, order],
        torch.stack([grid_x.flatten(), grid_y.flatten()], dim=-1),
    )
    everywhere = weights.new_zeros(len(weights), len(splats))
    everywhere[:, order] = weights
    return everywhere, left


def lift_labels_(
    splats: Splats, camera: Camera, labels: Int[np.ndarray, "height width"], num_labels: int
) -> Float[Tensor, "num_gaussians num_labels"]:
    """Sum weights over labels, densely; the twin of ``lifting.lift_labels``."""
    one_hot = torch.from_numpy(labels.reshape(-1, 1) == np.arange(num_labels))
    weights, _ = weights_(splats, camera)
    return weights.T @ one_hot.to(weights.dtype)


def render_ids_(
    splats: Splats, camera: Camera, ids: Int[np.ndarray, "num_levels num_gaussians"]
) -> tuple[
    Int[np.ndarray, "num_levels height width"], Float[np.ndarray, "num_levels height width"]
]:
    """Vote densely; the twin of ``lifting.render_ids``.

    Returns:
        The winners, and by how much weight each leads, which tells near ties apart.
    """
    weights, left = weights_(splats, camera)
    winners, leads = [], []
    for level_ids in ids:
        names = np.unique(level_ids)
        one_hot = torch.from_numpy(level_ids[:, None] == names).to(weights.dtype)
        votes = torch.cat([weights @ one_hot, torch.zeros_like(weights[:, :1])], dim=1)
        best = torch.topk(votes, 2, dim=1)
        named = np.append(names, UNLABELLED)[best.indices[:, 0].numpy()]
        winners.append(np.where((1.0 - left).numpy() >= 0.5, named, UNLABELLED))
        leads.append((best.values[:, 0] - best.values[:, 1]).numpy())
    shape = (len(ids), camera.height, camera.width)
    return np.stack(winners).reshape(shape).astype(np.int32), np.stack(leads).reshape(shape)
