"""How much of the dense features of held-out views the Gaussians explain, lifted and refined."""

import numpy as np
import torch

from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.lifting import render_channels
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.semantic_field import (
    SemanticFieldConfig,
    distillation_loss,
    lift_semantics,
    patch_means,
)
from hiersplat.semantics.projection import fit_projection

DenseViews = list[tuple[Camera, np.ndarray]]
"""Cameras, and the dense features of their views."""


def distil(
    splats: Splats, shown: DenseViews, held_out: DenseViews, steps: int
) -> tuple[float, float]:
    """Return the variance of held-out dense features that the field explains: lifted, refined."""
    config, generator = SemanticFieldConfig(), np.random.default_rng(0)
    projection = fit_projection((dense for _, dense in shown), config.dims)
    targets = [torch.from_numpy(projection.project(dense)) for _, dense in shown]
    cameras = [camera for camera, _ in shown]
    values = torch.nn.Parameter(lift_semantics(splats, cameras, targets))
    wanted = [(camera, torch.from_numpy(projection.project(dense))) for camera, dense in held_out]
    lifted = _explained(splats, values, wanted)
    optimizer = torch.optim.Adam([values], lr=0.02)
    for _ in range(steps):
        index = int(generator.integers(len(shown)))
        image, alpha = render_channels(splats, cameras[index], values)
        loss = distillation_loss(image, alpha, targets[index], config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return lifted, _explained(splats, values, wanted)


@torch.no_grad()
def _explained(
    splats: Splats, values: torch.Tensor, views: list[tuple[Camera, torch.Tensor]]
) -> float:
    errors, variances = [], []
    for camera, target in views:
        means, covered = patch_means(*render_channels(splats, camera, values), *target.shape[:2])
        usable = covered >= SemanticFieldConfig().min_accumulation
        errors.append(float((means[usable] - target[usable]).square().mean()))
        variances.append(float(target[usable].var(dim=0).mean()))
    return 1 - float(np.mean(errors)) / float(np.mean(variances))
