"""The CPU's engine, onto the image: blending with gradients round compiled kernels."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from hiersplat.gaussians import blending
from hiersplat.gaussians.tile_lists import flat, list_tiles, zeros
from hiersplat.gaussians.workers import in_shares, side_by_side, undisturbed

_NOTHING = np.zeros(0, np.float32)


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
