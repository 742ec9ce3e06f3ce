"""Text queries on generated scenes: found and named apart, beside CLIPSeg without the tree.

Every scene is rendered with its truth; surface points of the training views, with their true
depth, stand in for trained Gaussians, so the figures are those of masks, tree and text, not of
optimisation. The tree comes from the training views' masks, a node's descriptors from CLIPSeg on
those masks. Asked is for every name of every level that a held-out view shows; what is measured
is the overlap in that view of the node the text chose. Thresholds are those of the programs.
"""

import json
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from distilled import distil
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.spatial import KDTree

from hiersplat.gaussians.cameras import Camera, viewmat_from_camera_to_world
from hiersplat.gaussians.lifting import render_ids
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.association import AssociationConfig
from hiersplat.hierarchy.build import build_tree
from hiersplat.hierarchy.describing import describe_tree
from hiersplat.levels import Level
from hiersplat.scene.build import build_scene
from hiersplat.scene.cameras import SceneCamera, scene_cameras
from hiersplat.scene.colours import COLOURS
from hiersplat.scene.dataset import describe_names, sample_surface
from hiersplat.scene.random_scene import random_scene
from hiersplat.scene.render import RenderedView, SceneRenderer
from hiersplat.scene.spec import SceneSpec, load_scene
from hiersplat.segmentation.pyramid import PyramidConfig, build_pyramid
from hiersplat.segmentation.segmenter import SegmentationConfig, View, build_segmenter
from hiersplat.semantics.captions import is_held_out, segments_of, split_colour
from hiersplat.semantics.clipseg import ClipSegEncoder
from hiersplat.semantics.config import MICRO_CHECKPOINT, FeaturesConfig
from hiersplat.semantics.evaluation import (
    QueryScore,
    best_node_overlap,
    best_overlap,
    innermost,
    is_inside,
    summarise_scores,
)
from hiersplat.semantics.query import NodeSearch, QueryConfig
from hiersplat.semantics.view_features import embed_masks

_DECLARED = ("tabletop", "desk", "kitchen", "toys")
_FIRST_SEED = 100_000
"""Random scenes of training have seeds below this."""
_SMALLEST = 0.001
"""Share of a view below which a true segment is not asked for (metrics.md)."""
_SH_C0 = 0.28209479177387814

Key = tuple[Level, bool]
"""Level of a query, and whether its combination of colour and thing was held out of training."""


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    checkpoint: str = MICRO_CHECKPOINT
    """CLIPSeg model: a folder, a name below checkpoints/ or on the hub."""
    segmenter: Literal["regions", "labels"] = "regions"
    """Where the tree's masks come from: found in the pictures, or the truth."""
    declared: int = 4
    """How many of the scenes in scenes/ are measured."""
    drawn: int = 8
    """How many random scenes; each shows at least two combinations held out of training. With
    few of them one thing that is named wrongly moves the figures by a tenth."""
    points: int = 60_000
    """Surface points a scene."""
    distilled_steps: int = 200
    """Training steps of the distilled dense features. 0 leaves them out."""


@dataclass
class Results:
    """Scores of all scenes."""

    tree: dict[Key, list[QueryScore]]
    flat: dict[Key, list[QueryScore]]
    query_ms: list[float]
    encoder_ms: list[float]
    lifted: list[float]
    refined: list[float]
    node_bytes: int = 0
    gaussian_bytes: int = 0


def scenes(setting: Setting) -> list[SceneSpec]:
    """Return the scenes to measure: the declared ones, then drawn ones with held-out things."""
    folder = Path(__file__).resolve().parent.parent / "scenes"
    specs = [load_scene(folder / f"{name}.yaml") for name in _DECLARED[: setting.declared]]
    seed, wanted = _FIRST_SEED, len(specs) + setting.drawn
    while len(specs) < wanted:
        spec = random_scene(seed, views=32, held_out=8)
        if sum(_name_is_held_out(thing.name) for thing in spec.objects) >= 2:
            specs.append(spec)
        seed += 1
    return specs


def _name_is_held_out(name: str) -> bool:
    from hiersplat.semantics.captions import Segment, nouns_of

    colour, noun = split_colour(name, frozenset(COLOURS))
    colours = frozenset({colour} if colour else ())
    return is_held_out(Segment(Level.WHOLE, 0, 0, name, nouns_of(noun), colours, None))


def measure(spec: SceneSpec, encoder: ClipSegEncoder, setting: Setting, results: Results) -> None:
    """Build one scene's tree, describe it, and ask for everything its held-out views show."""
    built = build_scene(spec)
    renderer = SceneRenderer(built)
    poses = scene_cameras(spec)
    rendered = [renderer.render(pose) for pose in poses]
    cameras = [_camera(pose) for pose in poses]
    training = [i for i, pose in enumerate(poses) if not pose.is_held_out]
    splats = surface_splats([(rendered[i], poses[i]) for i in training], setting.points)
    segmenter = build_segmenter(SegmentationConfig(segmenter=setting.segmenter), "cpu")
    pyramids = {}
    for i in training:
        view = View(poses[i].name, rendered[i].image, rendered[i].labels)
        shape = (view.image.shape[0], view.image.shape[1])
        pyramids[i] = build_pyramid(segmenter.propose(view), shape, PyramidConfig())
    pairs = ((cameras[i], pyramids[i]) for i in training)
    tree = build_tree(splats, pairs, AssociationConfig(), len(training))
    descriptors = describe_tree(
        tree,
        (
            (
                pyramids[i].labels,
                render_ids(splats, cameras[i], tree.node_ids),
                embed_masks(
                    encoder,
                    rendered[i].image,
                    pyramids[i].labels,
                    [pyramids[i].num_masks(level) for level in Level],
                ),
            )
            for i in training
        ),
        encoder.config.checkpoint,
    )
    results.node_bytes += descriptors.num_bytes
    results.gaussian_bytes += len(splats) * 512 * 4
    if setting.distilled_steps:
        shown = [(cameras[i], encoder.dense_features(rendered[i].image)) for i in training]
        kept_out = [
            (cameras[i], encoder.dense_features(rendered[i].image))
            for i, pose in enumerate(poses)
            if pose.is_held_out
        ]
        lifted, refined = distil(splats, shown, kept_out, setting.distilled_steps)
        results.lifted.append(lifted)
        results.refined.append(refined)
    search = NodeSearch(descriptors, encoder)
    names = describe_names(built)
    held_out = [
        (rendered[i], render_ids(splats, cameras[i], tree.node_ids))
        for i, pose in enumerate(poses)
        if pose.is_held_out
    ]
    small = np.stack([view.labels[Level.SMALL] for view, _ in held_out])
    areas = np.bincount(small[small >= 0], minlength=built.num_ids(Level.SMALL))
    segments = segments_of(names, COLOURS, lambda colour: colour, areas)
    unseen = {s.whole for s in segments if is_held_out(s)}
    for level in Level:
        queries: dict[str, list[int]] = defaultdict(list)
        wholes: dict[str, set[int]] = defaultdict(set)
        for segment in segments:
            if segment.level == level:
                queries[segment.name].append(segment.id)
                wholes[segment.name].add(segment.whole)
        texts = sorted(queries)
        best = {text: _timed(search, encoder, text, level, results) for text in texts}
        for view, nodes in held_out:
            truth = {text: _truths(view.labels[level], queries[text]) for text in texts}
            asked = [text for text in texts if truth[text]]
            maps = encoder.relevancy_maps(view.image, asked)
            for text, heat in zip(asked, maps, strict=True):
                key = (level, wholes[text] <= unseen)
                oracle = best_node_overlap(nodes[level][None], truth[text])
                answer = nodes[level] == best[text]
                overlap = best_overlap(answer, truth[text])
                located = is_inside(innermost(answer), truth[text])
                results.tree[key].append(QueryScore(text, oracle, overlap, located))
                found = best_overlap(heat > QueryConfig().threshold, truth[text])
                row, column = np.unravel_index(int(heat.argmax()), heat.shape)
                located = is_inside((int(row), int(column)), truth[text])
                results.flat[key].append(QueryScore(text, found, found, located))


def _timed(
    search: NodeSearch, encoder: ClipSegEncoder, text: str, level: Level, results: Results
) -> int:
    start = time.perf_counter()
    embedding = encoder.text_embeddings([text])[0]
    middle = time.perf_counter()
    ranking = search.rank(embedding, level)
    results.encoder_ms.append(1000 * (middle - start))
    results.query_ms.append(1000 * (time.perf_counter() - middle))
    return ranking.best if len(ranking.node_ids) else -2


def _truths(labels: np.ndarray, ids: list[int]) -> list[np.ndarray]:
    masks = [labels == ident for ident in ids]
    return [mask for mask in masks if mask.mean() >= _SMALLEST]


def surface_splats(views: list[tuple[RenderedView, SceneCamera]], count: int) -> Splats:
    """Return Gaussians on the true surface, spread evenly enough to cover it."""
    rng = np.random.default_rng(0)
    drawn = [sample_surface(view, camera, 2 * count // len(views), rng) for view, camera in views]
    points = np.concatenate([place for place, _ in drawn])
    colours = np.concatenate([colour for _, colour in drawn]) / 255
    chosen = rng.choice(len(points), min(count, len(points)), replace=False)
    points, colours = points[chosen], colours[chosen]
    spacing = np.asarray(KDTree(points).query(points, k=4)[0])[:, 1:].mean(axis=1).clip(1e-4)
    return Splats(
        means=torch.from_numpy(points).float(),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(len(points), 1),
        log_scales=torch.from_numpy(np.log(0.6 * spacing)).float()[:, None].repeat(1, 3),
        logit_opacities=torch.full((len(points),), 2.0),
        sh=torch.from_numpy((colours - 0.5) / _SH_C0).float()[:, None],
    )


def _camera(pose: SceneCamera) -> Camera:
    viewmat = viewmat_from_camera_to_world(torch.from_numpy(pose.camera_to_world).float())
    return Camera(pose.name, viewmat, torch.from_numpy(pose.K).float(), pose.width, pose.height)


def main(setting: Setting) -> None:
    """Measure all scenes, print a table and one JSON line."""
    torch.set_num_threads(1)
    console = Console()
    encoder = ClipSegEncoder(FeaturesConfig(checkpoint=setting.checkpoint), "cpu")
    if encoder.note:
        console.print(encoder.note)
    results = Results(defaultdict(list), defaultdict(list), [], [], [], [])
    for spec in track(scenes(setting), description="scenes", console=console):
        measure(spec, encoder, setting, results)
    figures = {}
    table = Table(title=f"{setting.checkpoint}, masks: {setting.segmenter}, held-out views")
    headings = ["level", "things", "asked", "oracle", "text", "gap", "located", "2D", "located 2D"]
    for heading in headings:
        table.add_column(heading, justify="left" if heading in headings[:2] else "right")
    for level in reversed(Level):
        for label, kinds in (("all", (False, True)), ("held out", (True,))):
            tree = summarise_scores(s for k in kinds for s in results.tree[level, k])
            flat = summarise_scores(s for k in kinds for s in results.flat[level, k])
            name = level.title if label == "all" else f"{level.title}_held_out"
            figures[name] = {
                **{key: _rounded(value) for key, value in tree.items()},
                "text_miou_2d": _rounded(flat["text_miou"]),
                "localization_2d": _rounded(flat["localization"]),
            }
            row = [tree[k] for k in ("oracle_miou", "text_miou", "naming_gap", "localization")]
            row += [flat["text_miou"], flat["localization"]]
            cells = [f"{value:.3f}" for value in row]
            table.add_row(level.title, label, str(tree["queries"]), *cells)
    console.print(table)
    figures["query_ms"] = _rounded(float(np.median(results.query_ms)))
    figures["query_ms_with_encoder"] = _rounded(
        float(np.median(np.add(results.query_ms, results.encoder_ms)))
    )
    if results.lifted:
        figures["dense_explained_lifted"] = _rounded(float(np.mean(results.lifted)))
        figures["dense_explained_refined"] = _rounded(float(np.mean(results.refined)))
    figures["node_bytes"] = results.node_bytes
    figures["bytes_of_512_floats_a_gaussian"] = results.gaussian_bytes
    figures["segmenter"], figures["checkpoint"] = setting.segmenter, setting.checkpoint
    print(json.dumps(figures))


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


if __name__ == "__main__":
    main(tyro.cli(Setting))
