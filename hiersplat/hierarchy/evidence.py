"""What the views of a run show: renderings, depth, rendered nodes, and the views' own masks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int, Int8, Int32, UInt8

from hiersplat.cache import read_arrays
from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.lifting import lift_maps, render_ids
from hiersplat.gaussians.rasterization import rasterization
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.consistency import AGREES, SILENT
from hiersplat.hierarchy.overlap import compact, overlap
from hiersplat.hierarchy.run import Run, RunView
from hiersplat.levels import UNLABELLED
from hiersplat.segmentation.pyramid import MaskPyramid

Progress = Callable[[int, int], None]
"""Called with the number of views that are done and the number there are."""


@dataclass(frozen=True)
class Evidence:
    """One view of a finished run."""

    camera: Camera
    """Reduced, where a largest size was asked for."""
    image: UInt8[np.ndarray, "height width 3"]
    """Rendering of the Gaussians."""
    depth: Float32[np.ndarray, "height width"]
    """Expected distance along the camera's axis; infinite where less than half is covered."""
    rendered: Int32[np.ndarray, "3 height width"]
    """Node ids of the tree."""
    masks: Int32[np.ndarray, "3 height width"]
    """The view's own labels."""

    @property
    def name(self) -> str:
        """Name of the view."""
        return self.camera.name


def views_with_masks(run: Run) -> tuple[list[RunView], list[Path]]:
    """Return the views whose masks can be read, and the mask files that are gone.

    Raises:
        ValueError: If fewer than two views are left: one view has nothing to agree with.
    """
    named = [(view, view.pyramid) for view in run.views if view.pyramid is not None]
    views = [view for view, path in named if path.is_file()]
    gone = [path for _, path in named if not path.is_file()]
    if len(views) < 2:
        where = f"; {len(gone)} mask files are gone, the first is {gone[0]}" if gone else ""
        raise ValueError(
            f"{run.path}: {len(views)} of {len(run.views)} views have masks, and agreement "
            f"needs at least two{where}"
        )
    return views, gone


def gather_evidence(
    run: Run,
    views: Sequence[RunView],
    max_size: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Evidence]:
    """Render views and read their masks, one at a time.

    Args:
        run: The finished run.
        views: Views with masks.
        max_size: Largest side in pixels; larger views are reduced.
        progress: Told after every view.

    Raises:
        ValueError: If a mask file is spoiled or is not of its camera's size.
    """
    for done, view in enumerate(views, start=1):
        masks = read_masks(view)
        camera = view.camera
        size = max(camera.width, camera.height)
        if max_size is not None and size > max_size:
            camera = reduced_camera(camera, max_size / size)
            rows = np.arange(camera.height) * view.camera.height // camera.height
            columns = np.arange(camera.width) * view.camera.width // camera.width
            masks = masks[:, rows[:, None], columns[None]]
        image, depth = render_view(run.splats, camera)
        rendered = render_ids(run.splats, camera, run.tree.node_ids)
        yield Evidence(camera, image, depth, rendered, np.ascontiguousarray(masks))
        if progress is not None:
            progress(done, len(views))


def read_masks(view: RunView) -> Int32[np.ndarray, "3 height width"]:
    """Read the labels of a view's pyramid.

    Raises:
        ValueError: If the view has none, the file is spoiled, or the sizes differ.
    """
    if view.pyramid is None:
        raise ValueError(f"view {view.name}: has no masks")
    try:
        labels = MaskPyramid.from_arrays(read_arrays(view.pyramid)).labels
    except ValueError as error:
        raise ValueError(f"view {view.name}: {view.pyramid}: {error}") from None
    if labels.shape[1:] != (view.camera.height, view.camera.width):
        raise ValueError(
            f"view {view.name}: masks of {labels.shape[2]} x {labels.shape[1]} pixels, a camera of "
            f"{view.camera.width} x {view.camera.height}; the data set does not match the run"
        )
    return labels


def reduced_camera(camera: Camera, factor: float) -> Camera:
    """Return the same view at ``factor`` times the size, at least one pixel."""
    width, height = (max(round(side * factor), 1) for side in (camera.width, camera.height))
    scale = torch.tensor([width / camera.width, height / camera.height, 1.0])
    return replace(camera, K=camera.K * scale[:, None], width=width, height=height)


@torch.no_grad()
def render_view(
    splats: Splats, camera: Camera
) -> tuple[UInt8[np.ndarray, "height width 3"], Float32[np.ndarray, "height width"]]:
    """Render colours over white, and depth as :class:`Evidence` has it."""
    colors, alphas, _ = rasterization(
        means=splats.means,
        quats=splats.quats,
        scales=splats.scales,
        opacities=splats.opacities,
        colors=splats.sh,
        viewmats=camera.viewmat[None],
        Ks=camera.K[None],
        width=camera.width,
        height=camera.height,
        sh_degree=splats.sh_degree,
        packed=False,
        render_mode="RGB+ED",
    )
    alpha = alphas[0]
    image = (colors[0, ..., :3] + 1 - alpha).clamp(0, 1)
    depth = torch.where(alpha[..., 0] < 0.5, torch.inf, colors[0, ..., 3])
    return (image * 255).round().byte().cpu().numpy(), depth.float().cpu().numpy()


def masks_as_nodes(
    masks: Int[np.ndarray, "height width"], rendered: Int[np.ndarray, "height width"]
) -> Int[np.ndarray, "height width"]:
    """Name every mask after the node that covers most of it: input masks after association.

    Masks of which less than half lies on nodes become ``UNLABELLED``: the background of an object
    without one touches its nodes at their edges only.
    """
    shared = overlap(masks, rendered)
    names = np.full(len(shared.truth_ids) + 1, UNLABELLED, np.int64)
    if shared.counts.size:
        best = shared.counts.argmax(axis=1)
        is_known = shared.counts.sum(axis=1) >= 0.5 * shared.truth_areas
        names[:-1] = np.where(is_known, shared.predicted_ids[best], UNLABELLED)
    return names[compact(masks)[1]]  # Unlabelled pixels (-1) find the last entry.


def agreement_of_gaussians(
    splats: Splats,
    cameras: Sequence[Camera],
    agreements: Iterable[Int8[np.ndarray, "3 height width"]],
) -> Float32[np.ndarray, "3 num_gaussians"]:
    """Share of a Gaussian's judged blending weight that agrees, per level, over all views.

    Args:
        splats: The scene.
        cameras: One a view.
        agreements: What :meth:`ConsistencyMeter.update` returned for the views.

    Returns:
        Values in [0, 1]; NaN for Gaussians that no judged pixel shows.
    """
    maps = (
        torch.from_numpy(
            np.concatenate([agreement == AGREES, agreement != SILENT])
            .astype(np.float32)
            .transpose(1, 2, 0)
            .copy()
        )
        for agreement in agreements
    )
    means, weights = lift_maps(splats, cameras, maps)
    agreeing, judged = means[:, :3].numpy().T, means[:, 3:].numpy().T
    is_seen = (judged > 1e-6) & (weights.numpy() > 0)
    shares = np.full(judged.shape, np.nan, np.float32)
    np.divide(agreeing, judged, out=shares, where=is_seen)
    return np.clip(shares, 0, 1)
