"""``hiersplat-query``: find the nodes of a scene that fit a text."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from hiersplat.cli.errors import run_cli
from hiersplat.levels import Level

if TYPE_CHECKING:
    from hiersplat.hierarchy.run import Run
    from hiersplat.semantics.query import Ranking

_SHEET_VIEWS = 3


def query(
    run: Positional[Path],
    text: Positional[str],
    level: Literal["small", "part", "whole"] | None = None,
    within: int | None = None,
    describe: str | None = None,
    top: int = 8,
    out: Path | None = None,
    device: Literal["cuda", "cpu"] | None = None,
) -> None:
    """Rank the nodes of a finished run by how well they fit a text.

    Prints a table and writes two files: sheet.png (views with their heat map and what was
    found) and selected.ply (the Gaussians of the best node and of every node of its level that
    is found as well). A node counts as found above a relevancy of 0.5: it then fits the text
    better than "object", "things", "stuff" and "texture".

    The best answer at one level: hiersplat-query RUN "drawer knob" --level small

    A run trained without semantics: hiersplat-query RUN "mug handle" --describe micro-clipseg

    Args:
        run: Folder of a finished run, or its config.yml.
        text: What to look for, in a few words.
        level: Only nodes of this level.
        within: Only this node and what is below it.
        describe: First describe the nodes with this CLIPSeg model (a folder, a name below
            checkpoints/ or on the Hugging Face hub) and keep that with the run: for runs trained
            without semantics. Takes a second a view and more with published weights.
        top: Rows of the table.
        out: Where to write; RUN/queries/TEXT by default. What is there is replaced.
        device: Where CLIPSeg runs; CUDA when there is one.
    """
    import time

    from rich.console import Console

    from hiersplat.hierarchy.run import HIERARCHY_FOLDER, load_run
    from hiersplat.semantics.clipseg import ClipSegEncoder
    from hiersplat.semantics.config import FeaturesConfig
    from hiersplat.semantics.descriptors import DESCRIPTORS_FILE, NodeDescriptors
    from hiersplat.semantics.query import NodeSearch

    if top < 1:
        raise ValueError(f"--top {top}: it must be at least 1")
    console = Console()
    loaded = load_run(run)
    path = loaded.path / HIERARCHY_FOLDER / DESCRIPTORS_FILE
    if describe is None and not path.is_file():
        raise FileNotFoundError(
            f"{path}: the run has no text descriptors; add --describe "
            "CIDAS/clipseg-rd64-refined, or a model trained by checkpoints/micro-clipseg/train.py"
        )
    descriptors = None if describe is not None else NodeDescriptors.load(path)
    checkpoint = describe if descriptors is None else descriptors.checkpoint
    encoder = ClipSegEncoder(FeaturesConfig(checkpoint=checkpoint or ""), device or _device())
    # Before the long work: a text that cannot be asked for ends the program here.
    embedding = encoder.text_embeddings([text])[0]
    if descriptors is None:
        descriptors = _describe(console, loaded, encoder)
    elif set(descriptors.node_ids.tolist()) != {node.id for node in loaded.tree.nodes}:
        raise ValueError(f"{path}: is of another tree; describe the run again with --describe")
    if encoder.note:
        console.print(f"[yellow]{encoder.note}", highlight=False)
    search = NodeSearch(descriptors, encoder)
    start = time.perf_counter()
    ranking = search.rank(embedding, None if level is None else Level.parse(level), within)
    milliseconds = (time.perf_counter() - start) * 1000
    if not len(ranking.node_ids):
        raise ValueError(f"there is no {level or 'node'} within node {within} to choose from")
    found = _found(loaded, ranking, search.config.threshold)
    title = f'"{text}": {len(ranking.node_ids)} nodes ranked in {milliseconds:.1f} ms'
    console.print(_table(loaded, ranking, top, search.config.threshold, title))
    folder = out or loaded.path / "queries" / (re.sub(r"\W+", "-", text.lower()).strip("-") or "_")
    for file in _write(loaded, ranking, found, text, folder):
        console.print(str(file), highlight=False, soft_wrap=True)
    if not found:
        console.print(
            f"Nothing is found: the best node, {ranking.best}, has relevancy "
            f"{ranking.relevancy[0]:.2f}, which is not above {search.config.threshold}."
        )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _describe(console: Any, run: "Run", encoder: Any) -> Any:
    from rich.progress import Progress

    from hiersplat.hierarchy.describing import describe_run

    with Progress(console=console, transient=True) as bars:
        task = bars.add_task("describe views", total=None)
        return describe_run(
            run, encoder, lambda done, total: bars.update(task, completed=done, total=total)
        )


def _found(run: "Run", ranking: "Ranking", threshold: float) -> list[int]:
    """Ids above the threshold at the level of the best node: answers of one kind."""
    above = ranking.above(threshold).tolist()
    best = run.tree.node(ranking.best).level
    return [node for node in above if run.tree.node(node).level == best]


def _table(run: "Run", ranking: "Ranking", top: int, threshold: float, title: str) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for heading in ("node", "level", "name", "relevancy", "Gaussians", "within"):
        table.add_column(heading, justify="left" if heading in ("level", "name") else "right")
    for node_id, value in list(zip(ranking.node_ids, ranking.relevancy, strict=True))[:top]:
        node = run.tree.node(int(node_id))
        table.add_row(
            str(node.id),
            node.level.title,
            node.name or "",
            f"{value:.2f}",
            str(node.num_gaussians),
            "" if node.parent < 0 else str(node.parent),
            style="bold" if value > threshold else "",
        )
    return table


def _write(run: "Run", ranking: "Ranking", found: list[int], text: str, folder: Path) -> list[Path]:
    """Write the sheet and, if something was found, its Gaussians."""
    import io

    import numpy as np
    import torch
    from PIL import Image

    from hiersplat.cache import write_atomically
    from hiersplat.gaussians.ply import write_ply
    from hiersplat.hierarchy.export import LABELS, chosen_splats

    buffer = io.BytesIO()
    Image.fromarray(_sheet(run, ranking, found, text)).save(buffer, "PNG")
    paths = [folder / "sheet.png"]
    write_atomically(paths[0], buffer.getvalue())
    if found:
        own = np.any([run.tree.gaussians_of(node) for node in found], axis=0)
        labels = {name: run.tree.node_ids[level][own] for level, name in LABELS.items()}
        paths.append(folder / "selected.ply")
        write_ply(paths[1], chosen_splats(run.splats, torch.from_numpy(own)), labels)
    else:
        (folder / "selected.ply").unlink(missing_ok=True)
    return paths


def _sheet(run: "Run", ranking: "Ranking", found: list[int], text: str) -> Any:
    """Rows of views: the rendering, relevancy as heat, and what was found."""
    import numpy as np

    from hiersplat.cli.prompt import blend_heat
    from hiersplat.gaussians.lifting import render_ids
    from hiersplat.hierarchy.evidence import render_view
    from hiersplat.segmentation.panels import draw_contours, picture_grid

    best = run.tree.node(ranking.best)
    maps = {v.name: render_ids(run.splats, v.camera, run.tree.node_ids) for v in run.views}
    shown = sorted(run.views, key=lambda v: -int((maps[v.name][best.level] == best.id).sum()))
    rows = []
    for view in shown[:_SHEET_VIEWS]:
        image = render_view(run.splats, view.camera)[0]
        nodes = maps[view.name][best.level]
        blended = blend_heat(image, ranking.of_ids(nodes))
        chosen = np.isin(nodes, found or [best.id])
        dimmed = np.where(chosen[..., None], image, image // 3)
        caption = f"{len(found)} found" if found else f"best: node {best.id}, not found"
        rows.append(
            [
                (view.name, image),
                (f"relevancy of {best.level.title} nodes", blended),
                (caption, draw_contours(dimmed, chosen.astype(np.int32))),
            ]
        )
    return picture_grid(rows, f'"{text}"')


def main() -> None:
    """Run the program."""
    run_cli(query)


if __name__ == "__main__":
    main()
