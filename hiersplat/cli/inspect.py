"""``hiersplat-inspect``: how far views agree with a hierarchy, in figures and pictures."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from hiersplat.cli.errors import run_cli
from hiersplat.levels import Level

if TYPE_CHECKING:
    from rich.console import Console

    from hiersplat.hierarchy.consistency import NodeAgreement
    from hiersplat.hierarchy.inspection import Inspection
    from hiersplat.hierarchy.tree import SceneTree

LevelName = Literal["small", "part", "whole"]
_ROWS = 12
"""Nodes a table shows; report.json holds all."""


def inspect(
    run: Positional[Path],
    level: LevelName | None = None,
    node: int | None = None,
    out: Path | None = None,
    show: bool = False,
    max_size: int = 512,
    max_points: int = 200_000,
    max_views: int = 8,
) -> None:
    """Print how far the views' own masks agree with a run's hierarchy, and draw it.

    For every training view the nodes of the tree are rendered and compared with the view's masks.
    Written are, for each level: points_LEVEL.ply (coloured by node, with node_id and agreement),
    boxes_LEVEL.ply (bounding boxes), sheet_LEVEL.png (views with agreeing and disagreeing
    pixels); and report.json with every figure. No window and no GPU is needed.

    Args:
        run: Folder of a finished run, or its config.yml.
        level: Look at one level only.
        node: Look at one node only: its views, the worst first, and its relatives.
        out: Where to write; RUN/inspection by default. Files of an earlier inspection are replaced.
        show: Open Open3D's viewer at the end. Needs a display.
        max_size: Views with a larger side, in pixels, are reduced: time and memory grow with
            its square.
        max_points: Clouds with more points are down-sampled by Open3D's voxel grid.
        max_views: Rows of a picture sheet.
    """
    from rich.console import Console
    from rich.progress import Progress

    from hiersplat.hierarchy.evidence import views_with_masks
    from hiersplat.hierarchy.inspection import inspect_run
    from hiersplat.hierarchy.run import load_run

    for name, value in (("max-size", max_size), ("max-points", max_points)):
        if value < 16:
            raise ValueError(f"--{name} {value}: it must be at least 16")
    if max_views < 1:
        raise ValueError(f"--max-views {max_views}: it must be at least 1")
    if show:
        _require_display()
    loaded = load_run(run)
    levels = tuple(Level) if level is None else (Level.parse(level),)
    if node is not None:
        levels = (loaded.tree.node(node).level,)
        if level is not None and Level.parse(level) not in levels:
            raise ValueError(f"node {node} is a {levels[0].title}, not a {level}")
    for asked in levels:
        if not len(loaded.tree.level_ids(asked)):
            raise ValueError(f"{loaded.path}: the level {asked.title} is empty: it has no node")
    views, gone = views_with_masks(loaded)

    console = Console()
    if gone:
        console.print(f"[yellow]{len(gone)} views left out: {gone[0]} and the like are gone")
    largest = max(max(view.camera.width, view.camera.height) for view in views)
    if largest > max_size:
        console.print(f"Views are reduced from {largest} to {max_size} pixels (--max-size).")
    with Progress(console=console, transient=True) as bars:
        task = bars.add_task("compare views", total=len(views))
        found = inspect_run(
            loaded, views, max_size, lambda done, total: bars.update(task, completed=done)
        )
    _print_levels(console, found)
    if node is None:
        _print_nodes(console, found, levels)
    else:
        _print_node(console, loaded.tree, found.report.node(node))
    folder = loaded.path / "inspection" if out is None else out
    _write(console, found, folder, levels, node, max_points, max_views, show)


def _require_display() -> None:
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not has_display:
        raise ValueError(
            "--show needs a display and there is none (DISPLAY is not set); leave it out and open "
            "the .ply files elsewhere"
        )


def _print_levels(console: "Console", found: "Inspection") -> None:
    from rich.table import Table

    console.print(str(found.run.path), soft_wrap=True)
    own = Table(
        title=f"Masks of {len(found.views)} views against the tree",
        caption="IoU: of a node with its best mask, mean over views and nodes. pixels: share whose "
        "node and mask are each other's best. covered: share of pixels under a mask.",
        caption_justify="left",
    )
    for name in ("level", "nodes", "IoU", "pixels", "covered"):
        own.add_column(name, justify="left" if name == "level" else "right")
    for level in found.report.levels:
        figures = (level.agreement, level.pixel_agreement, level.coverage)
        own.add_row(level.level.title, str(level.num_nodes), *map(_number, figures))
    console.print(own)

    num_points = found.surfaces[0].rendered.num_points
    shared = Table(
        title=f"The same {num_points} surface points in several views",
        caption="one id: share of observations that carry the point's most frequent id, for masks "
        "named after nodes and for the rendered tree. same mask: F1 of 'these two points "
        "lie in one mask' between views. Chance: what views without any sense would reach.",
        caption_justify="left",
    )
    for name in ("level", "one id: masks", "tree", "chance", "same mask", "chance"):
        shared.add_column(name, justify="left" if name == "level" else "right")
    for level, surface in zip(Level, found.surfaces, strict=True):
        one_id = (surface.masks.agreement, surface.rendered.agreement, surface.rendered.chance)
        figures = (*one_id, surface.pairs.f1, surface.pairs.chance)
        shared.add_row(level.title, *map(_number, figures))
    console.print(shared)


def _print_nodes(console: "Console", found: "Inspection", levels: tuple[Level, ...]) -> None:
    from rich.table import Table

    for level in levels:
        nodes = [node for node in found.report.nodes if node.level == level]
        # Nodes that no view judges come last: there is nothing to look at.
        nodes.sort(key=lambda node: (not node.views, node.agreement))
        table = Table(title=f"{level.title}: {min(_ROWS, len(nodes))} of {len(nodes)} nodes")
        for name in ("node", "name", "Gaussians", "views", "IoU", "covered", "worst views (IoU)"):
            table.add_column(name, justify="left" if name[0] in "nw" else "right")
        for node in nodes[:_ROWS]:
            entry = found.run.tree.node(node.node_id)
            worst = ", ".join(f"{name} {iou:.2f}" for name, iou in node.views[:3])
            table.add_row(
                str(node.node_id),
                entry.name or "",
                str(entry.num_gaussians),
                str(len(node.views)),
                _number(node.agreement),
                _number(node.coverage),
                worst,
            )
        console.print(table)
        worst_views = found.report.levels[level].worst_views[:3]
        text = ", ".join(f"{name} {share:.0%}" for name, share in worst_views)
        console.print(f"Views with the fewest agreeing pixels: {text}\n")
    chosen = [s for s in found.report.suggestions if s.level in levels]
    for suggestion in chosen[:_ROWS]:
        nodes = " and ".join(map(str, suggestion.nodes))
        verb = "draw as one" if suggestion.kind == "merge" else "draw as several"
        console.print(
            f"Likely {suggestion.kind} ({suggestion.level.title}): {suggestion.votes} of "
            f"{suggestion.num_views} views {verb} {nodes}"
        )
    if len(chosen) > _ROWS:
        console.print(f"... and {len(chosen) - _ROWS} more in report.json")


def _print_node(console: "Console", tree: "SceneTree", node: "NodeAgreement") -> None:
    from rich.table import Table

    entry = tree.node(node.node_id)
    name = f" {entry.name!r}" if entry.name else ""
    console.print(
        f"Node {node.node_id}{name}: a {entry.level.title} of {entry.num_gaussians} Gaussians"
    )
    console.print(f"  ancestors: {', '.join(map(str, tree.ancestors(entry.id))) or 'none'}")
    console.print(f"  children:  {', '.join(map(str, tree.children(entry.id))) or 'none'}")
    console.print(f"  covered by masks: {_number(node.coverage)}")
    table = Table(title=f"{len(node.views)} views, mean IoU {_number(node.agreement)}")
    table.add_column("view")
    table.add_column("IoU", justify="right")
    for view, iou in node.views:
        table.add_row(view, f"{iou:.2f}")
    console.print(table)


def _write(
    console: "Console",
    found: "Inspection",
    folder: Path,
    levels: tuple[Level, ...],
    node: int | None,
    max_points: int,
    max_views: int,
    show: bool,
) -> None:
    from PIL import Image

    from hiersplat.cache import write_atomically
    from hiersplat.hierarchy import clouds, sheets
    from hiersplat.hierarchy.inspection import report_as_json

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    shown = {}
    for level in levels:
        agreement = found.gaussian_agreement[level]
        cloud = clouds.node_cloud(
            found.run.splats, found.run.tree, level, agreement, max_points, node
        )
        if cloud.voxel_size is not None:
            console.print(
                f"{level.title}: points are down-sampled to {len(cloud.points)} by a voxel grid "
                f"of {cloud.voxel_size:.3g} (--max-points)."
            )
        name = level.title if node is None else f"node_{node}"
        shown[name] = cloud
        boxes = clouds.node_boxes(cloud)
        clouds.write_cloud(folder / f"points_{name}.ply", cloud)
        clouds.write_lines(folder / f"boxes_{name}.ply", clouds.box_lines(boxes))
        content = {str(key): {"min": low, "max": high} for key, (low, high) in boxes.items()}
        write_atomically(folder / f"boxes_{name}.json", json.dumps(content, indent=1).encode())
        if node is None:
            sheet = sheets.level_sheet(found, level, max_views)
        else:
            sheet = sheets.node_sheet(found, node, max_views)
        Image.fromarray(sheet).save(folder / f"sheet_{name}.png")
        written += [f"{kind}_{name}" for kind in ("points", "boxes", "sheet")]
    report = json.dumps(report_as_json(found), indent=1)
    write_atomically(folder / "report.json", report.encode())
    console.print(f"Written to {folder}: report.json, {', '.join(written)}", soft_wrap=True)
    if show:
        clouds.show(shown, f"hiersplat {found.run.path.name}")


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def main() -> None:
    """Run the program."""
    run_cli(inspect)
