"""From 2D to Gaussians and back by blending weights, in closed form.

A pixel's colour is a sum of weights times colours; the same weights say how much of a pixel's
label or feature belongs to which Gaussian. Nothing is trained here. On a CPU the weights are
handed out by compiled kernels; on CUDA they are read off gsplat's backward pass, since the
gradient of a rendered channel with respect to a Gaussian's channel *is* the weight.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.rasterization import rasterization
from hiersplat.gaussians.splats import Splats
from hiersplat.gaussians.workers import undisturbed
from hiersplat.levels import UNLABELLED

_CHANNELS_AT_ONCE = 32


def lift_labels(
    splats: Splats,
    camera: Camera,
    labels: Int[np.ndarray, "height width"],
    num_labels: int,
) -> sparse.csr_matrix:
    """Sum each Gaussian's blending weights over the pixels of each label of one view.

    Args:
        splats: The Gaussians.
        camera: The view.
        labels: Label of every pixel; ``UNLABELLED`` pixels are skipped.
        num_labels: Columns to return.

    Returns:
        Weights in pixels, float32, ``(num_gaussians, num_labels)``.

    Raises:
        ValueError: If the labels do not fit the camera or exceed ``num_labels``.
    """
    _check_size("labels", labels.shape, camera)
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < UNLABELLED or highest >= num_labels:
        raise ValueError(
            f"view {camera.name!r}: labels reach from {lowest} to {highest}; expected "
            f"{UNLABELLED} to {num_labels - 1}"
        )
    if splats.means.is_cuda:
        return lift_labels_by_gradient(splats, camera, labels, num_labels)
    with undisturbed():
        from hiersplat.gaussians import cpu_lifting

        gaussians, columns, weights = cpu_lifting.weigh_labels(
            cpu_lifting.list_view(splats, camera),
            np.ascontiguousarray(labels, dtype=np.int32).reshape(-1),
            num_labels,
            camera.width,
            camera.height,
        )
    return sparse.csr_matrix(
        (weights, (gaussians, columns)), shape=(len(splats), num_labels), dtype=np.float32
    )


def lift_labels_by_gradient(
    splats: Splats, camera: Camera, labels: Int[np.ndarray, "height width"], num_labels: int
) -> sparse.csr_matrix:
    """Do what :func:`lift_labels` does by rasterizing forward and backward, on any device."""
    on_device = torch.from_numpy(np.ascontiguousarray(labels)).to(splats.means.device).long()
    parts = []
    for first in range(0, num_labels, _CHANNELS_AT_ONCE):
        names = torch.arange(
            first, min(first + _CHANNELS_AT_ONCE, num_labels), device=on_device.device
        )
        one_hot = (on_device[..., None] == names).float()
        parts.append(sparse.csr_matrix(_weighted_sums(splats, camera, one_hot).cpu().numpy()))
    if not parts:
        return sparse.csr_matrix((len(splats), 0), dtype=np.float32)
    return sparse.csr_matrix(sparse.hstack(parts), dtype=np.float32)


def lift_maps(
    splats: Splats,
    cameras: Sequence[Camera],
    maps: Iterable[Float[Tensor, "height width num_channels"]],
) -> tuple[Float[Tensor, "num_gaussians num_channels"], Float[Tensor, " num_gaussians"]]:
    """Average 2D maps over all views for each Gaussian, weighted by blending.

    Maps are taken one at a time, so a generator keeps memory at one view.

    Args:
        splats: The Gaussians.
        cameras: The views.
        maps: One map per view, in the order of the views.

    Returns:
        The weighted means, zero for a Gaussian that no view sees, and the sums of the weights,
        in pixels: how far a mean can be relied on.

    Raises:
        ValueError: If there is no view, or a map does not fit its camera or the other maps.
    """
    sums: Tensor | None = None
    weights = splats.means.new_zeros(len(splats))
    for camera, values in zip(cameras, maps, strict=True):
        _check_size("the map", values.shape[:2], camera)
        values = values.detach().to(splats.means.device, torch.float32)
        if sums is None:
            sums = splats.means.new_zeros(len(splats), values.shape[-1])
        if values.shape[-1] != sums.shape[-1]:
            raise ValueError(
                f"view {camera.name!r}: a map of {values.shape[-1]} channels after maps of "
                f"{sums.shape[-1]}"
            )
        if splats.means.is_cuda:
            add_map_by_gradient(splats, camera, values, sums, weights)
            continue
        with undisturbed():
            from hiersplat.gaussians import cpu_lifting

            cpu_lifting.weigh_map(cpu_lifting.list_view(splats, camera), values, sums, weights)
    if sums is None:
        raise ValueError("no views: nothing can be lifted")
    return sums / weights.clamp(min=1e-12)[:, None], weights


def add_map_by_gradient(
    splats: Splats,
    camera: Camera,
    values: Float[Tensor, "height width num_channels"],
    sums: Float[Tensor, "num_gaussians num_channels"],
    weights: Float[Tensor, " num_gaussians"],
) -> None:
    """Add one view's weighted sums to ``sums`` and ``weights`` in place, on any device."""
    ones = values.new_ones(*values.shape[:2], 1)
    weights += _weighted_sums(splats, camera, ones)[:, 0]
    for first in range(0, values.shape[-1], _CHANNELS_AT_ONCE):
        some = slice(first, first + _CHANNELS_AT_ONCE)
        sums[:, some] += _weighted_sums(splats, camera, values[..., some])


def _weighted_sums(
    splats: Splats, camera: Camera, values: Float[Tensor, "height width num_channels"]
) -> Float[Tensor, "num_gaussians num_channels"]:
    """Sum a map over the pixels of a view with every Gaussian's weights, by the backward pass."""
    channels = splats.means.new_zeros(len(splats), values.shape[-1], requires_grad=True)
    with torch.enable_grad():
        image, _ = render_channels(splats, camera, channels)
        (sums,) = torch.autograd.grad(image, channels, values.contiguous())
    return sums


def render_channels(
    splats: Splats, camera: Camera, channels: Float[Tensor, "num_gaussians num_channels"]
) -> tuple[Float[Tensor, "height width num_channels"], Float[Tensor, "height width 1"]]:
    """Blend values of fixed Gaussians over a view; return the image and its coverage.

    Gradients flow to ``channels`` alone.
    """
    camera = camera.to(splats.means.device)
    image, alphas, _ = rasterization(
        splats.means.detach(),
        splats.quats.detach(),
        splats.scales.detach(),
        splats.opacities.detach(),
        channels,
        camera.viewmat[None],
        camera.K[None],
        camera.width,
        camera.height,
        packed=False,
    )
    return image[0], alphas[0]


def render_ids(
    splats: Splats, camera: Camera, ids: Int[np.ndarray, "num_levels num_gaussians"]
) -> Int[np.ndarray, "num_levels height width"]:
    """Render, per pixel and level, the id with the largest blended weight.

    Gaussians without an id vote for ``UNLABELLED``, which also stands wherever less than half of
    the light is covered.

    Args:
        splats: The Gaussians.
        camera: The view.
        ids: Ids of every Gaussian, ``UNLABELLED`` or from 0 on.

    Raises:
        ValueError: If the ids do not fit the Gaussians.
    """
    if ids.ndim != 2 or ids.shape[1] != len(splats):
        raise ValueError(f"ids has shape {ids.shape}; expected (levels, {len(splats)})")
    if ids.size and ids.min() < UNLABELLED:
        raise ValueError(f"ids reach down to {ids.min()}; the lowest is {UNLABELLED}")
    if not ids.size:
        return np.full((len(ids), camera.height, camera.width), UNLABELLED, np.int32)
    if splats.means.is_cuda:
        return render_ids_by_channels(splats, camera, ids)
    with undisturbed():
        from hiersplat.gaussians import cpu_lifting

        return cpu_lifting.vote_ids(
            cpu_lifting.list_view(splats, camera),
            np.ascontiguousarray(ids, dtype=np.int32),
            camera.width,
            camera.height,
        )


@torch.no_grad()
def render_ids_by_channels(
    splats: Splats, camera: Camera, ids: Int[np.ndarray, "num_levels num_gaussians"]
) -> Int[np.ndarray, "num_levels height width"]:
    """Do what :func:`render_ids` does with one channel per id, on any device."""
    out = np.full((len(ids), camera.height, camera.width), UNLABELLED, np.int32)
    for level, level_ids in enumerate(ids):
        names, local = np.unique(level_ids, return_inverse=True)
        place = torch.from_numpy(local.astype(np.int64)).to(splats.means.device)
        best = splats.means.new_zeros(camera.height, camera.width)
        winner = torch.full(best.shape, -1, device=best.device, dtype=torch.long)
        coverage = best[..., None]
        for first in range(0, len(names), _CHANNELS_AT_ONCE):
            some = torch.arange(
                first, min(first + _CHANNELS_AT_ONCE, len(names)), device=best.device
            )
            image, coverage = render_channels(splats, camera, (place[:, None] == some).float())
            votes, index = image.max(-1)
            winner = torch.where(votes > best, index + first, winner)
            best = torch.maximum(votes, best)
        chosen = winner.cpu().numpy()
        kept = (chosen >= 0) & (coverage[..., 0] >= 0.5).cpu().numpy()
        out[level, kept] = names[chosen[kept]]
    return out


def _check_size(name: str, shape: Sequence[int], camera: Camera) -> None:
    if tuple(shape) != (camera.height, camera.width):
        raise ValueError(
            f"view {camera.name!r}: {name} of {tuple(shape)} rows and columns for an image of "
            f"{(camera.height, camera.width)}"
        )
