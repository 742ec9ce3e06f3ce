"""The CPU's engine: torch functions with gradients round the compiled kernels.

Three steps, each differentiable on its own: :func:`project`, :func:`view_colors`, :func:`blend`.
Importing this module imports numba; the first call of a kernel compiles it and keeps the result
beside the source, which takes seconds once per machine.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from hiersplat.gaussians import blending, harmonics, projection
from hiersplat.gaussians.tile_lists import flat, list_tiles, zeros
from hiersplat.gaussians.workers import in_shares, num_workers, side_by_side, undisturbed

_NOTHING = np.zeros(0, np.float32)


def _wide(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().contiguous().numpy().reshape(-1)


@dataclass(frozen=True)
class View:
    """What projection needs to know about the image."""

    width: int
    height: int
    eps2d: float = 0.3
    near_plane: float = 0.01
    far_plane: float = 1e10
    radius_clip: float = 0.0


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor | None,
        scales: Tensor | None,
        covars: Tensor | None,
        viewmats: Tensor,
        Ks: Tensor,
        view: View,
    ) -> tuple[Tensor, ...]:
        shape = (len(viewmats), len(means))
        radii = torch.from_numpy(np.zeros(shape, np.int32))
        means2d, conics = zeros(*shape, 2), zeros(*shape, 3)
        depths, compensations = zeros(*shape), zeros(*shape)
        gaussians = _gaussians(means, quats, scales, covars)
        for camera in range(shape[0]):
            in_shares(
                projection.project_forward,
                *gaussians,
                _wide(viewmats[camera]),
                _wide(Ks[camera]),
                view.width,
                view.height,
                view.eps2d,
                view.near_plane,
                view.far_plane,
                view.radius_clip,
                flat(radii[camera]),
                flat(means2d[camera]),
                flat(depths[camera]),
                flat(conics[camera]),
                flat(compensations[camera]),
            )
        ctx.view = view
        ctx.save_for_backward(means, quats, scales, covars, viewmats, Ks, radii, compensations)
        ctx.mark_non_differentiable(radii)
        return radii, means2d, depths, conics, compensations

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        means, quats, scales, covars, viewmats, Ks, radii, compensations = ctx.saved_tensors
        view, count = ctx.view, len(means)
        grad_means = zeros(*means.shape)
        grad_quats = zeros(count if covars is None else 0, 4)
        grad_scales = zeros(count if covars is None else 0, 3)
        grad_covars = zeros(0 if covars is None else count, 6)
        grad_viewmats = zeros(*viewmats.shape)
        gaussians = _gaussians(means, quats, scales, covars)
        with undisturbed():
            for camera in range(len(viewmats)):
                grad_view = np.zeros(num_workers() * 12)
                in_shares(
                    projection.project_backward,
                    *gaussians,
                    _wide(viewmats[camera]),
                    _wide(Ks[camera]),
                    view.width,
                    view.height,
                    view.eps2d,
                    flat(radii[camera]),
                    flat(compensations[camera]),
                    flat(grads[1][camera]),
                    flat(grads[2][camera]),
                    flat(grads[3][camera]),
                    flat(grads[4][camera]),
                    flat(grad_means),
                    flat(grad_quats),
                    flat(grad_scales),
                    flat(grad_covars),
                    grad_view,
                )
                rows = torch.from_numpy(grad_view.reshape(-1, 3, 4).sum(0))
                grad_viewmats[camera, :3] = rows.to(viewmats.dtype)
        by_shape = (
            (None, None, grad_covars) if covars is not None else (grad_quats, grad_scales, None)
        )
        return grad_means, *by_shape, grad_viewmats, None, None


def _gaussians(
    means: Tensor, quats: Tensor | None, scales: Tensor | None, covars: Tensor | None
) -> tuple[np.ndarray, ...]:
    if covars is not None:
        return flat(means), _NOTHING, _NOTHING, flat(covars)
    assert quats is not None
    assert scales is not None
    return flat(means), flat(quats), flat(scales), _NOTHING


def project(
    means: Float[Tensor, "num_gaussians 3"],
    quats: Float[Tensor, "num_gaussians 4"] | None,
    scales: Float[Tensor, "num_gaussians 3"] | None,
    covars: Float[Tensor, "num_gaussians 6"] | None,
    viewmats: Float[Tensor, "num_cameras 4 4"],
    Ks: Float[Tensor, "num_cameras 3 3"],
    view: View,
) -> tuple[Tensor, ...]:
    """Project Gaussians into all cameras.

    Args:
        means: Centres in the world.
        quats: Orientations, with ``scales``; or neither of them.
        scales: Standard deviations.
        covars: Upper triangles of covariances in place of ``quats`` and ``scales``.
        viewmats: World to camera.
        Ks: Intrinsics; no gradient flows to them.
        view: Size of the image and what is culled.

    Returns:
        ``radii, means2d, depths, conics, compensations``, with rows for cameras and Gaussians; all
        zero for what is not seen.
    """
    with undisturbed():
        return _Project.apply(means, quats, scales, covars, viewmats, Ks, view)  # type: ignore[return-value]


class _ViewColors(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, means: Tensor, centres: Tensor, sh: Tensor, degree: int, radii: Tensor
    ) -> Tensor:
        colors = zeros(*radii.shape, 3)
        for camera in range(len(radii)):
            in_shares(
                harmonics.colors_forward,
                flat(means),
                _wide(centres[camera]),
                flat(sh if sh.ndim == 3 else sh[camera]),
                sh.shape[-2],
                degree,
                flat(radii[camera]),
                flat(colors[camera]),
            )
        ctx.degree = degree
        ctx.save_for_backward(means, centres, sh, radii, colors)
        return colors

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        means, centres, sh, radii, colors = ctx.saved_tensors
        grad_means, grad_sh = zeros(*means.shape), zeros(*sh.shape)
        grad_centres = zeros(*centres.shape)
        with undisturbed():
            for camera in range(len(radii)):
                grad_centre = np.zeros(num_workers() * 3)
                in_shares(
                    harmonics.colors_backward,
                    flat(means),
                    _wide(centres[camera]),
                    flat(sh if sh.ndim == 3 else sh[camera]),
                    sh.shape[-2],
                    ctx.degree,
                    flat(radii[camera]),
                    flat(colors[camera]),
                    flat(grads[0][camera]),
                    flat(grad_means),
                    grad_centre,
                    flat(grad_sh if sh.ndim == 3 else grad_sh[camera]),
                )
                grad_centres[camera] = torch.from_numpy(grad_centre.reshape(-1, 3).sum(0))
        return grad_means, grad_centres, grad_sh, None, None


def view_colors(
    means: Float[Tensor, "num_gaussians 3"],
    viewmats: Float[Tensor, "num_cameras 4 4"],
    sh: Float[Tensor, "*num_cameras num_gaussians num_bases 3"],
    degree: int,
    radii: Int[Tensor, "num_cameras num_gaussians"],
) -> Float[Tensor, "num_cameras num_gaussians 3"]:
    """Evaluate spherical harmonics towards every camera; zero for what is not seen."""
    centres = torch.inverse(viewmats)[:, :3, 3]
    with undisturbed():
        return _ViewColors.apply(means, centres, sh, degree, radii)  # type: ignore[return-value]


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        colors: Tensor,
        opacities: Tensor,
        backgrounds: Tensor | None,
        radii: Tensor,
        depths: Tensor,
        bounds: tuple[int, ...],
        size: tuple[int, int, int],
        absgrad: bool,
    ) -> tuple[Tensor, Tensor]:
        width, height, tile_size = size
        ctx.save_for_backward(means2d, colors, opacities, backgrounds)
        means2d, colors, opacities, conics, radii, depths = _rows(
            means2d, colors, opacities, conics, radii, depths
        )
        cameras, channels = len(bounds) - 1, colors.shape[-1]
        image = means2d.new_empty(cameras, height, width, channels)
        alphas = means2d.new_empty(cameras, height, width, 1)
        lists, finals, lasts = [], [], []
        pairs = np.zeros(2, np.int64)
        for camera in range(cameras):
            seen = slice(bounds[camera], bounds[camera + 1])
            sorted_ = list_tiles(
                flat(means2d[seen]),
                flat(conics[seen]),
                flat(opacities[seen]),
                flat(radii[seen]),
                flat(depths[seen]),
                width,
                height,
                tile_size,
            )
            final = np.empty((len(sorted_.starts) - 1) * blending.PIXELS, np.float32)
            last = np.empty_like(final)
            side_by_side(
                blending.blend_forward,
                np.zeros(1, np.int64),
                sorted_.starts,
                sorted_.entries,
                sorted_.words,
                sorted_.records,
                sorted_.order,
                flat(colors[seen]),
                channels,
                _NOTHING if backgrounds is None else flat(backgrounds[camera]),
                width,
                height,
                flat(image[camera]),
                flat(alphas[camera]),
                final,
                last,
                pairs,
            )
            lists.append(sorted_)
            finals.append(final)
            lasts.append(last)
        ctx.lists, ctx.finals, ctx.lasts = lists, finals, lasts
        ctx.bounds, ctx.size, ctx.absgrad = bounds, size, absgrad
        ctx.alphas = alphas if backgrounds is not None and backgrounds.requires_grad else None
        ctx.pairs = int(pairs[0])
        return image, alphas

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved_means2d, saved_colors, saved_opacities, backgrounds = ctx.saved_tensors
        means2d, colors, opacities = _rows(saved_means2d, saved_colors, saved_opacities)
        width, height, _ = ctx.size
        channels = colors.shape[-1]
        grad_means2d, grad_colors = zeros(*means2d.shape), zeros(*colors.shape)
        grad_opacities = zeros(*opacities.shape)
        grad_conics = zeros(len(means2d), 3)
        absolute = zeros(len(means2d) if ctx.absgrad else 0, 2)
        with undisturbed():
            for camera, sorted_ in enumerate(ctx.lists):
                seen = slice(ctx.bounds[camera], ctx.bounds[camera + 1])
                row = -(-(blending.MOMENTS + channels) // 16) * 16
                slots = np.empty(len(sorted_.entries) * row, np.float32)
                side_by_side(
                    blending.blend_backward,
                    np.zeros(1, np.int64),
                    sorted_.starts,
                    sorted_.entries,
                    sorted_.words,
                    sorted_.slot_of,
                    sorted_.records,
                    sorted_.order,
                    flat(colors[seen]),
                    channels,
                    _NOTHING if backgrounds is None else flat(backgrounds[camera]),
                    width,
                    height,
                    ctx.finals[camera],
                    ctx.lasts[camera],
                    flat(grads[0][camera]),
                    flat(grads[1][camera]),
                    ctx.absgrad,
                    row,
                    slots,
                )
                in_shares(
                    blending.gather_gradients,
                    sorted_.slots,
                    slots,
                    row,
                    sorted_.records,
                    sorted_.order,
                    channels,
                    ctx.absgrad,
                    flat(grad_means2d[seen]),
                    flat(absolute[seen]),
                    flat(grad_conics[seen]),
                    flat(grad_colors[seen]),
                    flat(grad_opacities[seen]),
                )
        grad_backgrounds = None
        if ctx.alphas is not None:
            grad_backgrounds = (grads[0] * (1.0 - ctx.alphas)).sum((1, 2))
        if ctx.absgrad:
            saved_means2d.absgrad = absolute.reshape(saved_means2d.shape)
        shape = saved_opacities.shape
        return (
            grad_means2d.reshape(*shape, 2),
            grad_conics.reshape(*shape, 3),
            grad_colors.reshape(*shape, channels),
            grad_opacities.reshape(shape),
            grad_backgrounds,
            *(None,) * 5,
        )


def _rows(means2d: Tensor, colors: Tensor, opacities: Tensor, *rest: Tensor) -> list[Tensor]:
    """Flatten cameras and Gaussians into rows."""
    depth = opacities.ndim
    return [tensor.flatten(0, depth - 1) for tensor in (means2d, colors, opacities, *rest)]


def blend(
    means2d: Float[Tensor, "*rows 2"],
    conics: Float[Tensor, "*rows 3"],
    colors: Float[Tensor, "*rows num_channels"],
    opacities: Float[Tensor, "*rows"],
    backgrounds: Float[Tensor, "num_cameras num_channels"] | None,
    radii: Int[Tensor, "*rows"],
    depths: Float[Tensor, "*rows"],
    bounds: tuple[int, ...],
    size: tuple[int, int, int],
    absgrad: bool = False,
) -> tuple[
    Float[Tensor, "num_cameras height width num_channels"],
    Float[Tensor, "num_cameras height width 1"],
]:
    """Blend projected Gaussians into images.

    Args:
        means2d: Centres in pixels, ``(num_cameras, num_gaussians, 2)`` or packed into rows of which
            a camera's lie together.
        conics: Inverse covariances.
        colors: Any number of channels.
        opacities: Opacities, compensated in antialiased mode.
        backgrounds: Channels behind everything.
        radii: Radii in pixels; 0 is never blended.
        depths: z in the camera, which decides the order.
        bounds: First row of every camera, and one more.
        size: Width, height and gsplat's ``tile_size``.
        absgrad: Set ``means2d.absgrad`` in the backward pass.
    """
    with undisturbed():
        return _Blend.apply(
            means2d, conics, colors, opacities, backgrounds, radii, depths, bounds, size, absgrad
        )  # type: ignore[return-value]
