"""The picture sheet of a finished run: held-out views beside what was made of them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from hiersplat.gaussians.lifting import render_ids
from hiersplat.levels import Level
from hiersplat.plugin.datamanager import HiersplatDataManager
from hiersplat.segmentation.panels import color_labels, picture_grid

if TYPE_CHECKING:
    from hiersplat.plugin.model import HiersplatModel

NUM_VIEWS = 3
"""Views on a sheet, spread evenly over those held out."""
CELL_WIDTH = 256
"""Width of a picture on the sheet, in pixels."""


def draw_sheet(model: "HiersplatModel", manager: HiersplatDataManager, path: Path) -> None:
    """Draw photograph, rendering and the three levels, each above its truth where there is one.

    Ids of truth and prediction are unrelated, so a predicted node takes the colour of the true
    segment it overlaps most.
    """
    assert model.tree is not None
    count = len(manager.dataset("eval"))
    chosen = np.unique(np.linspace(0, count - 1, min(NUM_VIEWS, count)).round().astype(int))
    rows: list[list[tuple[str, np.ndarray]]] = []
    model.eval()
    for index in chosen.tolist():
        camera = manager.dataset("eval").cameras[index : index + 1].to(model.device)
        manager.camera("eval", index)  # Reads the image, which corrects the intrinsics.
        with torch.no_grad():
            rgb = model.get_outputs_for_camera(camera)["rgb"]
        rendered = (rgb * 255).round().to(torch.uint8).cpu().numpy()
        labels = render_ids(model.splats(), manager.camera("eval", index), model.tree.node_ids)
        truth = manager.truth("eval", index)
        name = manager.view_name("eval", index)
        shown = (
            labels
            if truth is None
            else np.stack([recolor(labels[level], truth[level]) for level in Level])
        )
        photograph = (f"{name}, held out", manager.image("eval", index))
        rendering = ("rendered", rendered)
        levels = [(level.title, color_labels(shown[level])) for level in Level]
        if truth is None:
            rows.append([photograph, rendering, *levels])
        else:
            true_levels = [(f"{level.title}: truth", color_labels(truth[level])) for level in Level]
            rows += [[photograph, *levels], [rendering, *true_levels]]
    model.train()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture_grid(rows, cell_width=CELL_WIDTH)).save(path)


def recolor(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rename predicted ids to the true id each overlaps most, one to one; others keep apart.

    Args:
        predicted: Ids (H, W), negative where unlabelled.
        truth: Ids (H, W), negative where void.
    """
    both = (predicted >= 0) & (truth >= 0)
    pairs, counts = np.unique(np.stack([predicted[both], truth[both]]), axis=1, return_counts=True)
    # Ids of nodes that matched nothing start behind every true id.
    names = np.arange(predicted.max(initial=0) + 1) + truth.max(initial=0) + 1
    used: set[int] = set()
    renamed: set[int] = set()
    for place in np.argsort(-counts, kind="stable"):
        ours, theirs = pairs[:, place].tolist()
        if ours not in renamed and theirs not in used:
            names[ours] = theirs
            used.add(theirs)
            renamed.add(ours)
    return np.where(predicted >= 0, names[predicted], -1)
