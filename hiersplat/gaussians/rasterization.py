"""One call to render Gaussians on any device, with gsplat 1.4's signature and ``info`` keys.

CUDA tensors go to gsplat. Tensors on a CPU go to this project's own engine, since gsplat has none;
what that engine does not do is refused with a ``ValueError``.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hiersplat.gaussians.workers import undisturbed

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]


def rasterization(
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
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Float[Tensor, "num_cameras num_channels"] | None = None,
    render_mode: RenderMode = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: Literal["classic", "antialiased"] = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: Literal["pinhole", "ortho", "fisheye"] = "pinhole",
    covars: Float[Tensor, "num_gaussians 3 3"] | None = None,
) -> tuple[
    Float[Tensor, "num_cameras height width channels"],
    Float[Tensor, "num_cameras height width 1"],
    dict[str, Any],
]:
    """Render Gaussians into images; parameters mean what they mean in gsplat 1.4.

    On a CPU ``channel_chunk`` has no effect: any number of channels is rendered at once. The
    ``info`` has no ``isect_ids``, ``flatten_ids`` and ``isect_offsets``, since the engine's own
    lists are tighter than gsplat's.

    Returns:
        Channels, coverage, and ``info``: ``camera_ids, gaussian_ids, radii, means2d, depths,
        conics, opacities, tile_width, tile_height, tiles_per_gauss, width, height, tile_size,
        n_cameras``. ``means2d`` is part of the graph: ``retain_grad()`` works, and the backward
        pass sets its ``absgrad`` where that is asked for.

    Raises:
        ValueError: If shapes do not fit, or the CPU's engine lacks an option.
    """
    if means.is_cuda:
        from gsplat import rasterization as rasterization_on_cuda

        return rasterization_on_cuda(
            means,
            quats,
            scales,
            opacities,
            colors,
            viewmats,
            Ks,
            width,
            height,
            near_plane=near_plane,
            far_plane=far_plane,
            radius_clip=radius_clip,
            eps2d=eps2d,
            sh_degree=sh_degree,
            packed=packed,
            tile_size=tile_size,
            backgrounds=backgrounds,
            render_mode=render_mode,
            sparse_grad=sparse_grad,
            absgrad=absgrad,
            rasterize_mode=rasterize_mode,
            channel_chunk=channel_chunk,
            distributed=distributed,
            camera_model=camera_model,
            covars=covars,
        )
    _refuse(sparse_grad, distributed, camera_model, render_mode, rasterize_mode, tile_size)
    _check_shapes(means, quats, scales, opacities, colors, viewmats, Ks, sh_degree, covars)
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels cannot be rendered")
    with undisturbed():
        # Half an import would stay broken for good, so it must not be interrupted either.
        from hiersplat.gaussians import cpu_blending, cpu_projection

    num_cameras, count = len(viewmats), len(means)
    view = cpu_projection.View(width, height, eps2d, near_plane, far_plane, radius_clip)
    if covars is None:
        planes = cpu_projection.project(means, quats, scales, None, viewmats, Ks, view)
    else:
        upper = covars[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
        planes = cpu_projection.project(means, None, None, upper, viewmats, Ks, view)
    radii, means2d, depths, conics, compensations = planes
    layered = opacities.expand(num_cameras, count)
    if rasterize_mode == "antialiased":
        layered = layered * compensations
    if sh_degree is not None:
        colors = cpu_projection.view_colors(means, viewmats, colors, sh_degree, radii)
    elif colors.ndim == 2:
        colors = colors.expand(num_cameras, -1, -1)
    camera_ids = gaussian_ids = None
    bounds = tuple(range(0, (num_cameras + 1) * count, max(count, 1)))
    if count == 0:
        bounds = (0,) * (num_cameras + 1)
    if packed:
        camera_ids, gaussian_ids = torch.nonzero(radii > 0, as_tuple=True)
        radii, means2d, depths, conics, layered, colors = (
            tensor[camera_ids, gaussian_ids]
            for tensor in (radii, means2d, depths, conics, layered, colors)
        )
        counts = torch.bincount(camera_ids, minlength=num_cameras)
        bounds = (0, *torch.cumsum(counts, 0).tolist())
    info: dict[str, Any] = {
        "camera_ids": camera_ids,
        "gaussian_ids": gaussian_ids,
        "radii": radii,
        "means2d": means2d,
        "depths": depths,
        "conics": conics,
        "opacities": layered,
        "tile_width": math.ceil(width / tile_size),
        "tile_height": math.ceil(height / tile_size),
        "tiles_per_gauss": _tiles_per_gaussian(means2d, radii, width, height, tile_size),
        "width": width,
        "height": height,
        "tile_size": tile_size,
        "n_cameras": num_cameras,
    }
    if render_mode in ("D", "ED"):
        colors = depths[..., None]
        backgrounds = None if backgrounds is None else backgrounds.new_zeros(num_cameras, 1)
    elif render_mode != "RGB":
        colors = torch.cat([colors, depths[..., None]], dim=-1)
        if backgrounds is not None:
            backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(num_cameras, 1)], dim=-1)
    if backgrounds is not None and tuple(backgrounds.shape) != (num_cameras, colors.shape[-1]):
        raise ValueError(
            f"backgrounds has shape {tuple(backgrounds.shape)}; one row of channels per camera "
            "is needed"
        )
    image, alphas = cpu_blending.blend(
        means2d,
        conics,
        colors,
        layered,
        backgrounds,
        radii,
        depths,
        bounds,
        (width, height, tile_size),
        absgrad,
    )
    if render_mode in ("ED", "RGB+ED"):
        expected = image[..., -1:] / alphas.clamp(min=1e-10)
        image = torch.cat([image[..., :-1], expected], dim=-1)
    return image, alphas, info


def _refuse(
    sparse_grad: bool,
    distributed: bool,
    camera_model: str,
    render_mode: str,
    rasterize_mode: str,
    tile_size: int,
) -> None:
    """Refuse what the CPU's engine does not do."""
    if sparse_grad or distributed:
        name = "sparse_grad" if sparse_grad else "distributed"
        raise ValueError(f"{name}=True needs CUDA; the CPU renders without it")
    if camera_model != "pinhole":
        raise ValueError(f"camera_model {camera_model!r} needs CUDA; the CPU renders 'pinhole'")
    if render_mode not in ("RGB", "D", "ED", "RGB+D", "RGB+ED"):
        raise ValueError(f"render_mode {render_mode!r}; expected RGB, D, ED, RGB+D or RGB+ED")
    if rasterize_mode not in ("classic", "antialiased"):
        raise ValueError(f"rasterize_mode {rasterize_mode!r}; expected classic or antialiased")
    if tile_size < 4 or tile_size % 4:
        raise ValueError(f"tile_size {tile_size}; the CPU renders with a multiple of 4")


def _check_shapes(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    sh_degree: int | None,
    covars: Tensor | None,
) -> None:
    """Check shapes and types, since compiled kernels do not."""
    count, num_cameras = means.shape[0], viewmats.shape[0]
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("means", means, (count, 3)),
        ("opacities", opacities, (count,)),
        ("viewmats", viewmats, (num_cameras, 4, 4)),
        ("Ks", Ks, (num_cameras, 3, 3)),
    ]
    if covars is not None:
        expected.append(("covars", covars, (count, 3, 3)))
    else:
        expected += [("quats", quats, (count, 4)), ("scales", scales, (count, 3))]
    for name, tensor, shape in expected:
        if tensor is None or tuple(tensor.shape) != shape:
            given = None if tensor is None else tuple(tensor.shape)
            raise ValueError(f"{name} has shape {given}; expected {shape}")
        if tensor.dtype != torch.float32 or tensor.is_cuda:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}; expected float32 on cpu"
            )
    if colors.dtype != torch.float32 or colors.is_cuda:
        raise ValueError(f"colors is {colors.dtype} on {colors.device}; expected float32 on cpu")
    shape = tuple(colors.shape)
    if sh_degree is None:
        if not (
            (colors.ndim == 2 and shape[0] == count)
            or (colors.ndim == 3 and shape[:2] == (num_cameras, count))
        ):
            raise ValueError(
                f"colors has shape {shape}; expected ({count}, channels) or "
                f"({num_cameras}, {count}, channels)"
            )
        if shape[-1] == 0:
            raise ValueError("colors has no channels")
        return
    if sh_degree not in (0, 1, 2, 3):
        raise ValueError(f"sh_degree {sh_degree}; the CPU evaluates degree 0 to 3")
    if not (
        (colors.ndim == 3 and shape[0] == count)
        or (colors.ndim == 4 and shape[:2] == (num_cameras, count))
    ) or (shape[-1] != 3 or shape[-2] < (sh_degree + 1) ** 2):
        raise ValueError(
            f"colors has shape {shape}; degree {sh_degree} needs ({count}, bases, 3) with "
            f"{(sh_degree + 1) ** 2} bases or more"
        )


def _tiles_per_gaussian(
    means2d: Tensor, radii: Tensor, width: int, height: int, tile_size: int
) -> Tensor:
    """Count gsplat's tiles, those that the square of the radius touches."""
    centres, reach = means2d.detach().numpy() / tile_size, radii.numpy() / tile_size
    counts = (radii.numpy() > 0).astype(np.int32)
    for axis, size in enumerate((width, height)):
        limit = math.ceil(size / tile_size)
        low = np.clip(np.floor(centres[..., axis] - reach), 0, limit)
        high = np.clip(np.ceil(centres[..., axis] + reach), 0, limit)
        counts *= (high - low).astype(np.int32)
    return torch.from_numpy(counts)
