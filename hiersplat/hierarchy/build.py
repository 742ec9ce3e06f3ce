"""Trained Gaussians and the pyramids of their views to a scene tree, one view at a time."""

from collections.abc import Callable, Iterable

from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.lifting import lift_labels
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.association import AssociationConfig, associate
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.hierarchy.view_masks import ViewMasks
from hiersplat.levels import Level
from hiersplat.segmentation.pyramid import MaskPyramid

Progress = Callable[[str, float], None]
"""Called with the step at work and the share of the whole that is done."""


def lift_pyramid(splats: Splats, camera: Camera, pyramid: MaskPyramid) -> ViewMasks:
    """Lift the masks of one view to the Gaussians.

    Raises:
        ValueError: If the pyramid is not of the camera's size.
    """
    if pyramid.labels.shape[1:] != (camera.height, camera.width):
        height, width = pyramid.labels.shape[1:]
        raise ValueError(
            f"view {camera.name}: masks of {width}x{height} pixels for a camera of "
            f"{camera.width}x{camera.height}; the data set does not match the run"
        )
    num_small = pyramid.num_masks(Level.SMALL)
    weights = lift_labels(splats, camera, pyramid.labels[Level.SMALL], num_small)
    return ViewMasks(camera.name, weights, pyramid.parents, pyramid.inherited, pyramid.scores)


def build_tree(
    splats: Splats,
    views: Iterable[tuple[Camera, MaskPyramid]],
    config: AssociationConfig,
    num_views: int,
    progress: Progress | None = None,
) -> SceneTree:
    """Lift every view's masks and associate them into one tree.

    Args:
        splats: Gaussians of the trained scene.
        views: Cameras and pyramids; pyramids are let go of once they are lifted.
        config: How masks are associated.
        num_views: Number of views, for the progress.
        progress: Told where the work stands.

    Raises:
        ValueError: If a pyramid does not fit its camera, or no mask covers a Gaussian.
    """
    tell = progress or (lambda step, done: None)
    lifted = []
    for index, (camera, pyramid) in enumerate(views):
        tell("lifting", 0.5 * index / num_views)
        lifted.append(lift_pyramid(splats, camera, pyramid))
    means = splats.means.detach().cpu().numpy()
    return associate(lifted, means, config, progress=lambda step, done: tell(step, 0.5 + done / 2))
