"""``hiersplat-stats``: what the masks of a scene look like, and which setting to change."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hiersplat.cli.errors import run_cli

if TYPE_CHECKING:
    from hiersplat.segmentation.pyramid import MaskPyramid
    from hiersplat.segmentation.statistics import PyramidStatistics


def stats(
    cache: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CACHE")],
    other: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[OTHER]")] = None,
) -> None:
    """Count the masks of a cache per level, and say what to change where a level is off.

    Small, part and whole masks are counted where they were really found; an inherited mask
    only stands in where nothing finer was found.

    For the cache of a data set: hiersplat-stats scenes/tabletop/.hiersplat

    To compare two settings: hiersplat-stats pyramids-0a1b2c3d4e5f pyramids-5f4e3d2c1b0a

    Args:
        cache: A folder of cached pyramids (pyramids-<settings>), a folder with one such folder,
            or SAM record lists of an older tool: sam_cache_*.pkl or a folder of them. A pickle
            may hold arrays and plain values; anything else in it is refused.
        other: Another cache, shown beside the first.
    """
    from rich.console import Console

    from hiersplat.segmentation.statistics import advise

    console = Console()
    measured = [_measure(path) for path in (cache, other) if path is not None]
    names = [str(path) for path in (cache, other) if path is not None]
    console.print(_table(names, measured))
    for name, statistics in zip(names, measured, strict=True):
        for advice in advise(statistics):
            console.print(f"[yellow]{name}[/]: {advice.finding}.", highlight=False)
            console.print(f"  try: {advice.setting}", highlight=False)
            console.print(f"  cost: {advice.cost}", highlight=False)


def _measure(path: Path) -> "PyramidStatistics":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from hiersplat.segmentation.statistics import measure_pyramids

    files = _files(path)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.description}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(str(path), total=len(files))

        def pyramids() -> Iterator["MaskPyramid"]:
            for file in files:
                yield from _read(file)
                progress.advance(task)

        try:
            return measure_pyramids(pyramids())
        except ValueError as error:
            known = str(path) in str(error)
            raise ValueError(str(error) if known else f"{path}: {error}") from error


def _files(path: Path) -> list[Path]:
    """List the files of a cache, whatever form it has."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such cache")
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.npz")) or sorted(path.glob("sam_cache_*.pkl"))
    if files:
        return files
    folders = sorted(folder for folder in path.glob("**/pyramids-*") if folder.is_dir())
    if len(folders) > 1:
        found = ", ".join(str(folder.relative_to(path)) for folder in folders)
        raise ValueError(f"{path}: holds several caches; name one or two of {found}")
    files = sorted(folders[0].glob("*.npz")) if folders else []
    if not files:
        raise ValueError(
            f"{path}: holds no cached pyramids (pyramids-*/*.npz) and no sam_cache_*.pkl; "
            "train a scene first, or name the folder of its cache"
        )
    return files


def _read(file: Path) -> Iterator["MaskPyramid"]:
    """Yield the pyramids of one file; a spoiled cache file is said and skipped."""
    from hiersplat.cache import read_arrays
    from hiersplat.segmentation.pickled import read_pickled_records
    from hiersplat.segmentation.proposals import MaskProposals
    from hiersplat.segmentation.pyramid import MaskPyramid, PyramidConfig, build_pyramid

    if file.suffix == ".npz":
        try:
            yield MaskPyramid.from_arrays(read_arrays(file))
        except ValueError as error:
            where = "" if str(file) in str(error) else f"{file}: "
            print(f"warning: {where}{error}; it is not counted", file=sys.stderr)
        return
    for name, records in read_pickled_records(file):
        try:
            size = records[0]["segmentation"]
            height, width = size["size"] if isinstance(size, dict) else size.shape
            proposals = MaskProposals([_with_scores(record) for record in records])
            pyramid = build_pyramid(proposals, (int(height), int(width)), PyramidConfig())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file}: {name}: its records are not SAM's ({error})") from error
        yield pyramid


def _with_scores(record: dict) -> dict:
    """Older tools drop the scores; masks without them count as equally good."""
    return {"predicted_iou": 1.0, "stability_score": 1.0, **record}


def _table(names: list[str], measured: "list[PyramidStatistics]"):
    from rich.table import Table

    from hiersplat.levels import Level

    table = Table(title="masks per level")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    table.add_row("views", *(str(entry.num_views) for entry in measured))
    for level in reversed(Level):
        rows = [entry.levels[level] for entry in measured]
        table.add_section()
        table.add_row(
            f"{level.title}: found (share)", *(f"{row.found} ({row.share:.1%})" for row in rows)
        )
        table.add_row("  inherited", *(str(row.inherited) for row in rows))
        table.add_row("  coverage by found", *(f"{row.coverage:.1%}" for row in rows))
        table.add_row("  mean area of the image", *(f"{row.mean_area:.2%}" for row in rows))
        table.add_row(
            "  scale, 10-50-90 % (spread)",
            *(
                " ".join(f"{value:.3f}" for value in row.scales) + f" (x {row.spread:.1f})"
                for row in rows
            ),
        )
    table.add_section()
    table.add_row("coverage", *(f"{entry.coverage:.1%}" for entry in measured))
    table.add_row("part masks, inside another", *(f"{e.nested_fraction:.1%}" for e in measured))
    table.add_row("part masks, below 1 % of image", *(f"{e.tiny_fraction:.1%}" for e in measured))
    return table


def main() -> None:
    """Run the program."""
    run_cli(stats)
