"""The CPU's engine, seen from a camera: torch functions with gradients round compiled kernels.

Two steps, each differentiable on its own, :func:`project` and :func:`view_colors`; what they give
is blended by :mod:`hiersplat.gaussians.cpu_blending`.

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

from hiersplat.gaussians import harmonics, projection
from hiersplat.gaussians.tile_lists import flat, zeros
from hiersplat.gaussians.workers import in_shares, num_workers, undisturbed

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
