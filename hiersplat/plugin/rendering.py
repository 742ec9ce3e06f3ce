"""From splatfacto's parameters to pictures, by the project's one rasterization call."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hiersplat.gaussians.rasterization import rasterization


def rasterize(
    params: Mapping[str, Tensor],
    colors: Tensor,
    view: Mapping[str, Any],
    **options: Any,
) -> tuple[Tensor, Tensor, dict]:
    """Rasterize parameters as splatfacto keeps them, activations not applied.

    Args:
        params: ``means``, ``quats``, ``scales`` and ``opacities``.
        colors: What to blend: values or harmonics of every Gaussian.
        view: Camera, size and mode, under the names of ``rasterization``.
        **options: Further arguments of ``rasterization``.
    """
    return rasterization(
        means=params["means"],
        quats=params["quats"],
        scales=torch.exp(params["scales"]),
        opacities=torch.sigmoid(params["opacities"]).squeeze(-1),
        colors=colors,
        packed=False,
        **view,
        **options,
    )


def blend_values(
    params: Mapping[str, Tensor],
    values: Mapping[str, Float[Tensor, "num_gaussians num_channels"]],
    view: Mapping[str, Any],
) -> tuple[dict[str, Float[Tensor, "height width num_channels"]], Float[Tensor, "height width 1"]]:
    """Blend several values of every Gaussian in one pass, geometry detached.

    Returns:
        A map for each of the values, and the coverage.
    """
    fixed = {name: params[name].detach() for name in ("means", "quats", "scales", "opacities")}
    rendered, alpha, _ = rasterize(fixed, torch.cat(list(values.values()), dim=1), view)
    parts = rendered[0].split([one.shape[1] for one in values.values()], dim=-1)
    return dict(zip(values, parts, strict=True)), alpha[0]
