"""``hiersplat-export``: a run's hierarchy as files for other programs."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from hiersplat.cli.errors import run_cli
from hiersplat.levels import Level


def export(
    run: Positional[Path],
    out: Path | None = None,
    nodes: Literal["small", "part", "whole"] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the Gaussians of a run with their labels, the tree as JSON, and nodes one by one.

    gaussians.ply is a usual 3DGS file with three more properties, node_small, node_part and
    node_whole: ids of nodes in tree.json, -1 where a Gaussian belongs to none. Viewers that do
    not know them leave them out.

    Args:
        run: Folder of a finished run, or its config.yml.
        out: Where to write; RUN/export by default.
        nodes: Also write nodes/LEVEL_ID.ply, one file for every node of this level.
        overwrite: Replace files that are there; without it nothing is ever replaced.
    """
    from rich.console import Console
    from rich.progress import Progress

    from hiersplat.hierarchy.export import export_run
    from hiersplat.hierarchy.run import load_run

    loaded = load_run(run)
    folder = loaded.path / "export" if out is None else out
    level = None if nodes is None else Level.parse(nodes)
    console = Console()
    with Progress(console=console, transient=True) as bars:
        task = bars.add_task("write", total=None)
        written = export_run(
            loaded,
            folder,
            level,
            overwrite,
            lambda done, total: bars.update(task, completed=done, total=total),
        )
    counts = ", ".join(f"{len(loaded.tree.level_ids(x))} {x.title}" for x in Level)
    console.print(f"{loaded.tree.num_gaussians} Gaussians in {counts} nodes")
    for path in written[:2]:
        console.print(f"  {path}", soft_wrap=True)
    if level is not None:
        num_empty = len(loaded.tree.level_ids(level)) + 2 - len(written)
        left_out = f" ({num_empty} without Gaussians left out)" if num_empty else ""
        console.print(f"  {folder / 'nodes'}: {len(written) - 2} files{left_out}", soft_wrap=True)


def main() -> None:
    """Run the program."""
    run_cli(export)
