"""Text descriptors of a scene tree: every view's mask embeddings, gathered on the nodes."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from hiersplat.gaussians.lifting import render_ids
from hiersplat.hierarchy.evidence import read_masks, render_view, views_with_masks
from hiersplat.hierarchy.run import HIERARCHY_FOLDER, Run, RunView
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import Level
from hiersplat.segmentation.images import read_image
from hiersplat.semantics.clipseg import ClipSegEncoder
from hiersplat.semantics.descriptors import (
    DESCRIPTORS_FILE,
    NodeDescriptors,
    aggregate_descriptors,
)
from hiersplat.semantics.observations import observe_view
from hiersplat.semantics.view_features import embed_masks

ViewMasks = tuple[
    Int[np.ndarray, "3 height width"],
    Int[np.ndarray, "3 height width"],
    Sequence[Float[np.ndarray, "num_masks embedding_dim"]],
]
"""A view's mask labels, the node ids rendered from its camera, and its masks' embeddings."""


def describe_tree(tree: SceneTree, views: Iterable[ViewMasks], checkpoint: str) -> NodeDescriptors:
    """Give every node of a tree its descriptors.

    Args:
        tree: The hierarchy.
        views: One item a view, made one at a time.
        checkpoint: The model the embeddings come from.
    """
    return aggregate_descriptors(
        np.array([node.id for node in tree.nodes], np.int32),
        np.array([node.level for node in tree.nodes], np.int8),
        np.array([node.parent for node in tree.nodes], np.int32),
        (observe_view(*view) for view in views),
        checkpoint,
    )


def describe_run(
    run: Run, encoder: ClipSegEncoder, progress: Callable[[int, int], None] | None = None
) -> NodeDescriptors:
    """Describe the nodes of a finished run and save them with its hierarchy.

    For runs that were trained without semantics, or with another model. A photograph that is not
    of its camera's size (undistorted or reduced for training) is replaced by the rendering.

    Args:
        run: The finished run.
        encoder: The model.
        progress: Told after every view.

    Raises:
        ValueError: If fewer than two views have masks, or a file is spoiled.
        CacheError: If the descriptors cannot be written.
    """
    views, _ = views_with_masks(run)

    def view_masks() -> Iterable[ViewMasks]:
        for done, view in enumerate(views, start=1):
            labels = read_masks(view)
            counts = [int(labels[level].max(initial=-1)) + 1 for level in Level]
            nodes = render_ids(run.splats, view.camera, run.tree.node_ids)
            yield labels, nodes, embed_masks(encoder, _picture(run, view), labels, counts)
            if progress is not None:
                progress(done, len(views))

    descriptors = describe_tree(run.tree, view_masks(), encoder.config.checkpoint)
    descriptors.save(run.path / HIERARCHY_FOLDER / DESCRIPTORS_FILE)
    return descriptors


def _picture(run: Run, view: RunView) -> np.ndarray:
    if view.image is not None and view.image.is_file():
        image = read_image(view.image)
        if image.shape[:2] == (view.camera.height, view.camera.width):
            return image
    return render_view(run.splats, view.camera)[0]
