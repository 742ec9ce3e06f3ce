"""What a model starts from: Gaussians from points, from a finished run or at random."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.models.splatfacto import RGB2SH, num_sh_bases, random_quat_tensor
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from hiersplat.gaussians.splats import Splats

if TYPE_CHECKING:
    from hiersplat.plugin.model import HiersplatModelConfig

SeedPoints = tuple[Tensor, Tensor]
"""Positions (N, 3) and colours (N, 3) in [0, 255]."""


def initial_parameters(
    config: "HiersplatModelConfig", seed_points: SeedPoints | None, scene_box: SceneBox
) -> dict[str, Parameter]:
    """Return the parameters of all Gaussians, activations not applied.

    Args:
        config: ``geometry``, ``random_init``, ``num_random`` and ``sh_degree`` are used.
        seed_points: Points of the data set, if it has any.
        scene_box: Where random points are drawn if it has none.

    Raises:
        ValueError: If ``config.geometry`` is neither a run nor a 3DGS ``.ply``.
    """
    if config.geometry is not None:
        parameters = _parameters_of(load_geometry(config.geometry), config.sh_degree)
    else:
        parameters = _parameters_at(config, seed_points, scene_box)
    count = len(parameters["means"])
    parameters["hierarchy_features"] = torch.zeros(count, config.hierarchy_field.small_dims)
    parameters["semantic_features"] = torch.zeros(count, config.semantics.dims)
    return {name: Parameter(value.contiguous()) for name, value in parameters.items()}


def load_geometry(path: Path) -> Splats:
    """Read the Gaussians of a finished run or of a 3DGS ``.ply``."""
    if path.suffix == ".ply":
        from hiersplat.gaussians.ply import read_ply

        return read_ply(path)
    from hiersplat.hierarchy.run import load_splats

    return load_splats(path)


def _parameters_of(splats: Splats, sh_degree: int) -> dict[str, Tensor]:
    missing = num_sh_bases(sh_degree) - splats.sh.shape[1]
    sh = torch.nn.functional.pad(splats.sh, (0, 0, 0, max(missing, 0)))
    sh = sh[:, : num_sh_bases(sh_degree)]
    return {
        "means": splats.means,
        "scales": splats.log_scales,
        "quats": splats.quats,
        "features_dc": sh[:, 0],
        "features_rest": sh[:, 1:],
        "opacities": splats.logit_opacities[:, None],
    }


def _parameters_at(
    config: "HiersplatModelConfig", seed_points: SeedPoints | None, scene_box: SceneBox
) -> dict[str, Tensor]:
    sh = None
    if seed_points is not None and not config.random_init:
        means = seed_points[0].float()
        if len(seed_points[1]):
            colors = seed_points[1].float().cpu() / 255
            # Without harmonics splatfacto keeps colours as logits.
            sh = RGB2SH(colors) if config.sh_degree > 0 else torch.logit(colors, eps=1e-10)
    else:
        low, high = scene_box.aabb.cpu()
        means = low + torch.rand(config.num_random, 3) * (high - low)
        CONSOLE.log(
            f"No points to start from: {config.num_random} random ones inside the scene box "
            "(`hiersplat-points DATA` finds better ones in photographs)."
        )
    count = len(means)
    if sh is None:
        sh = torch.rand(count, 3)
    distance = _mean_neighbour_distance(means.cpu().numpy())
    return {
        "means": means,
        "scales": torch.log(torch.from_numpy(distance))[:, None].repeat(1, 3),
        "quats": random_quat_tensor(count),
        "features_dc": sh,
        "features_rest": torch.zeros(count, num_sh_bases(config.sh_degree) - 1, 3),
        "opacities": torch.logit(torch.full((count, 1), 0.1)),
    }


def _mean_neighbour_distance(means: np.ndarray) -> np.ndarray:
    """Mean distance (N,) to the three nearest other points, as the first size of a Gaussian."""
    from scipy.spatial import KDTree

    if len(means) < 2:
        return np.ones(len(means), np.float32)
    distances = KDTree(means).query(means, k=min(4, len(means)))[0]
    # Points that coincide would have size zero, whose logarithm is no number.
    return distances[:, 1:].mean(axis=1).clip(1e-6).astype(np.float32)
