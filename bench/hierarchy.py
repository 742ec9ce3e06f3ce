"""Scene trees against exact truth: clean, spoiled and found masks, beside the usual recipes.

Every scene is rendered once with 24 training and 8 held-out views of 256 x 256, and its splats
are trained once. Each kind of masks is associated to a tree and the features are refined, as
``ns-train`` does by default; what they say is rendered to the held-out views and judged there, and
the seconds are those of both. Without refinement (``lifted`` rows, and ``regions`` as quickstart
takes them) a pixel takes the id that most of its blended weight carries. ``bound`` is what ids
reach in that way when every Gaussian gets the true id that most of its weight in the training
views lies in; what is missing to 1 is geometry's.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from baselines import contrastive, majority_vote
from geometry import psnr, trained_splats
from rich.console import Console
from rich.table import Table
from scene_data import TruthScene, TruthView, load_scene
from spoil import spoil

from hiersplat.gaussians.lifting import lift_labels, render_ids
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.association import AssociationConfig
from hiersplat.hierarchy.build import build_tree, lift_pyramid
from hiersplat.hierarchy.field import (
    HierarchyFieldConfig,
    initial_features,
    level_codes,
    render_features,
    render_nodes,
)
from hiersplat.hierarchy.losses import HierarchyLossConfig, edge_targets, hierarchy_losses
from hiersplat.hierarchy.metrics import HierarchyMetrics
from hiersplat.hierarchy.surface import sample_surface, view_consistency
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import UNLABELLED, Level
from hiersplat.scene import load_scene as read_scene
from hiersplat.scene import random_scene, render_dataset
from hiersplat.segmentation.pyramid import MaskPyramid, build_pyramid
from hiersplat.segmentation.segmenter import SegmentationConfig, View, build_segmenter

SCENES = Path(__file__).parent.parent / "scenes"
Masks = Literal["clean", "spoiled", "regions"]
Figures = dict[str, float]


@dataclass
class Settings:
    """What to measure."""

    scenes: tuple[str, ...] = ("tabletop", "desk", "kitchen", "toys")
    """Scenes of ``scenes/`` by name, or ``random-7`` for one drawn with that seed; one that is not
    rendered yet is rendered."""
    masks: tuple[Masks, ...] = ("clean", "spoiled", "regions")
    """Kinds of masks to build trees from."""
    contrastive_steps: int = 1000
    """Training steps of the contrastive recipe. 0 leaves the recipe out."""
    contrastive_masks: tuple[Masks, ...] = ("clean",)
    """Kinds of masks the contrastive recipe gets; minutes each."""
    refined_passes: int = 2
    """Passes over the training views in which the features are refined. 0 leaves them lifted."""
    repeats: int = 3
    """Times each hierarchy is built; the median time is reported."""


def main() -> None:
    """Run the benchmark."""
    settings = tyro.cli(Settings, description=__doc__)
    console = Console(file=sys.stderr if not sys.stdout.isatty() else sys.stdout, width=150)
    rows: dict[str, list[Figures]] = {}
    for name in settings.scenes:
        for kind, figures in measure(name, settings, console.print):
            rows.setdefault(kind, []).append(figures)
    console.print(table_of(rows))
    print(json.dumps(summary(rows)))


def measure(name: str, settings: Settings, say: Callable[[str], None]):
    """Yield the kind of result and its figures, for everything measured on one scene."""
    scene = load_scene(rendered(name, say))
    splats = trained_splats(scene)
    say(
        f"[bold]{name}[/]: {len(scene.train)} training and {len(scene.held_out)} held-out views, "
        f"{len(splats)} Gaussians, {psnr(scene, splats):.2f} dB on held-out views"
    )
    yield "bound", judged_ids(scene, splats, true_ids(scene, splats))
    for kind in settings.masks:
        pyramids = [pyramid_of(kind, view, index) for index, view in enumerate(scene.train)]
        if kind == "regions":
            flat = [pyramid_of(kind, view, 0).labels for view in scene.held_out]
            yield "regions, 2D alone", metrics_of(scene, flat).compute()
        cameras = [view.camera for view in scene.train]
        seconds = []
        for _ in range(settings.repeats):
            started = time.perf_counter()
            tree = build_tree(
                splats, zip(cameras, pyramids, strict=True), AssociationConfig(), len(cameras)
            )
            seconds.append(time.perf_counter() - started)
        maps = [render_ids(splats, view.camera, tree.node_ids) for view in scene.views]
        figures = judged(scene, maps, tree)
        figures["seconds"] = statistics.median(seconds)
        if settings.refined_passes:
            # Edges of masks that no network has found do not pay to be learnt: quickstart, which
            # takes them, leaves them lifted.
            keeps_lifted = kind == "regions"
            yield kind if keeps_lifted else f"{kind}, lifted", figures
            config = HierarchyFieldConfig()
            started = time.perf_counter()
            features = refined(scene, splats, pyramids, tree, settings.refined_passes)
            elapsed = time.perf_counter() - started + figures["seconds"]
            maps = [render_nodes(splats, v.camera, features, tree, config) for v in scene.views]
            figures = {**judged(scene, maps, tree), "seconds": elapsed}
            yield f"{kind}, refined" if keeps_lifted else kind, figures
        else:
            yield kind, figures
        started = time.perf_counter()
        views = [lift_pyramid(splats, *pair) for pair in zip(cameras, pyramids, strict=True)]
        ids = majority_vote(views)
        elapsed = time.perf_counter() - started
        yield f"{kind}, majority vote", {**judged_ids(scene, splats, ids), "seconds": elapsed}
        if settings.contrastive_steps and kind in settings.contrastive_masks:
            started = time.perf_counter()
            ids = contrastive(splats, cameras, pyramids, settings.contrastive_steps)
            elapsed = time.perf_counter() - started
            yield f"{kind}, contrastive", {**judged_ids(scene, splats, ids), "seconds": elapsed}


def rendered(name: str, say: Callable[[str], None]) -> Path:
    """Folder of a scene, rendered if it is not there yet."""
    folder = SCENES / name
    if not (folder / "transforms.json").is_file():
        say(f"rendering {name}")
        seed = name.removeprefix("random-")
        drawn = name != seed and seed.isdigit()
        spec = random_scene(int(seed)) if drawn else read_scene(SCENES / f"{name}.yaml")
        render_dataset(spec, folder)
    return folder


def pyramid_of(kind: Masks, view: TruthView, index: int) -> MaskPyramid:
    """Masks of one view: true, spoiled with a seed of its own, or found in the picture."""
    if kind == "spoiled":
        spoilt = spoil(view.labels, share=1 / 3, seed=index)
        ones = [np.where(flags, 0, 1).astype(np.float32) for flags in spoilt.inherited]
        return MaskPyramid(
            spoilt.labels, spoilt.parents, spoilt.inherited, (ones[0], ones[1], ones[2])
        )
    segmenter: Literal["labels", "regions"] = "labels" if kind == "clean" else "regions"
    config = SegmentationConfig(segmenter=segmenter)
    proposals = build_segmenter(config, "cpu").propose(View(view.name, view.image, view.labels))
    return build_pyramid(proposals, view.labels.shape[1:], config.pyramid)


def true_ids(scene: TruthScene, splats: Splats) -> np.ndarray:
    """Give each Gaussian the true id that most of its weight in the training views lies in."""
    ids = np.full((3, len(splats)), UNLABELLED, np.int32)
    for level in Level:
        count = max(int(view.labels[level].max()) for view in scene.train) + 1
        weights = sum(lift_labels(splats, v.camera, v.labels[level], count) for v in scene.train)
        dense = weights.toarray()
        ids[level] = np.where(dense.max(axis=1) > 0, dense.argmax(axis=1), UNLABELLED)
    return ids


def judged_ids(scene: TruthScene, splats: Splats, ids: np.ndarray) -> Figures:
    """Render ids to the held-out views and compare them with the truth."""
    maps = [render_ids(splats, view.camera, ids) for view in scene.held_out]
    return metrics_of(scene, maps).compute()


def judged(scene: TruthScene, maps: list[np.ndarray], tree: SceneTree) -> Figures:
    """Compare maps of all views, training views first, with the truth and with one another."""
    figures = metrics_of(scene, maps[len(scene.train) :], tree).compute()
    depths = [np.load(scene.folder / "depth" / f"{view.name}.npy") for view in scene.views]
    points = sample_surface([view.camera for view in scene.views], depths)
    found = [view_consistency(points.labels([m[level] for m in maps])) for level in Level]
    figures["view_consistency"] = float(np.mean([one.agreement for one in found]))
    figures["chance"] = float(np.mean([one.chance for one in found]))
    return figures


def refined(
    scene: TruthScene,
    splats: Splats,
    pyramids: list[MaskPyramid],
    tree: SceneTree,
    passes: int,
) -> torch.Tensor:
    """Refine the nested features of all Gaussians on the training views, as ``ns-train`` does."""
    config, generator = HierarchyFieldConfig(), torch.Generator().manual_seed(0)
    features = torch.nn.Parameter(initial_features(tree, config))
    optimizer = torch.optim.Adam([features], lr=0.02)
    codes, targets = level_codes(tree, config), []
    for view, pyramid in zip(scene.train, pyramids, strict=True):
        nodes = render_ids(splats, view.camera, tree.node_ids)
        targets.append(torch.from_numpy(edge_targets(pyramid.labels, nodes, tree)))
    for _ in range(passes):
        for index in torch.randperm(len(targets), generator=generator).tolist():
            image, alpha = render_features(splats, scene.train[index].camera, features)
            losses = hierarchy_losses(
                image, alpha, targets[index], codes, HierarchyLossConfig(), generator
            )
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
    return features.detach()


def metrics_of(
    scene: TruthScene, maps: list[np.ndarray], tree: SceneTree | None = None
) -> HierarchyMetrics:
    """Compare label maps of the held-out views with the truth."""
    metrics = HierarchyMetrics() if tree is None else HierarchyMetrics.of_tree(tree)
    for view, labels in zip(scene.held_out, maps, strict=True):
        metrics.update(view.name, labels, view.labels)
    return metrics


def mean(rows: list[Figures], name: str) -> float:
    """Mean of a figure over scenes; NaN where nobody measured it."""
    values = [row[name] for row in rows if name in row]
    return statistics.fmean(values) if values else float("nan")


def table_of(rows: dict[str, list[Figures]]) -> Table:
    """Means over scenes, one row a kind of result."""
    table = Table(title="mean over scenes, held-out views")
    for column in ("", "mIoU small", "part", "whole", "PQ small", "part", "whole"):
        table.add_column(column, justify="left" if not column else "right")
    for column in ("nodes/truth small", "part", "whole", "hier. recall@.5", "seconds"):
        table.add_column(column, justify="right")
    for kind, figures in rows.items():
        levels = [level.title for level in Level]
        quality = [f"{mean(figures, f'{what}_{x}'):.3f}" for what in ("miou", "pq") for x in levels]
        if kind == "regions, 2D alone":
            quality[3:] = ["-"] * 3  # ids of single views do not hold across views
        counts = [
            f"{mean(figures, f'num_predicted_{x}'):.1f}/{mean(figures, f'num_truth_{x}'):.1f}"
            for x in levels
        ]
        recall, seconds = mean(figures, "hier_recall50"), mean(figures, "seconds")
        table.add_row(kind, *quality, *counts, f"{recall:.3f}", f"{seconds:.2f}")
    return table


def summary(rows: dict[str, list[Figures]]) -> dict[str, float | None]:
    """Figures of the whole benchmark under the names that are compared between versions."""
    result: Figures = {}
    for kind in ("clean", "spoiled", "regions", "bound"):
        for what in ("miou", "pq"):
            for level in Level:
                name = f"{what}_{level.title}"
                result[f"{kind}_{name}"] = mean(rows.get(kind, []), name)
    ours = [row for kind in ("clean", "spoiled", "regions") for row in rows.get(kind, [])]
    result["nesting_violation"] = max(
        max(row["nesting_violation_gaussians_small"], row["nesting_violation_gaussians_part"])
        for row in ours
    )
    result["view_consistency"] = mean(ours, "view_consistency")
    result["view_consistency_chance"] = mean(ours, "chance")
    result["seconds_hierarchy"] = mean(ours, "seconds")
    result["seconds_hierarchy_max"] = max(row["seconds"] for row in ours)
    usual = [row for kind, found in rows.items() if kind.endswith("contrastive") for row in found]
    result["seconds_contrastive"] = mean(usual, "seconds")
    result["speedup_over_contrastive"] = mean(usual, "seconds") / result["seconds_hierarchy"]
    for level in Level:
        name = f"miou_{level.title}"
        gain = mean(rows.get("regions", []), name) - mean(rows.get("regions, 2D alone", []), name)
        result[f"gain_over_2d_{level.title}"] = gain
        for kind, found in rows.items():
            if "," in kind and "2D" not in kind:
                key = kind.replace(", ", "_").replace(" ", "_")
                result[f"{key}_{name}"] = mean(found, name)
                result[f"{key}_pq_{level.title}"] = mean(found, f"pq_{level.title}")
    result["threads"] = float(os.environ.get("OMP_NUM_THREADS", 0))
    # JSON knows no NaN: what was not measured is null.
    return {name: None if np.isnan(value) else round(value, 4) for name, value in result.items()}


if __name__ == "__main__":
    main()
