"""`hiersplat-report`: what a finished run achieved, and where its pictures lie."""

import json
from pathlib import Path
from typing import Annotated

import tyro

from hiersplat.cli.errors import run_cli
from hiersplat.commands import command
from hiersplat.levels import Level

EVALUATION = "eval.json"
"""Where `ns-eval --output-path RUN/eval.json` puts its figures."""
_SUMMARY_KEYS = tuple(
    ["nodes", "seconds", "gaussians", "peak_memory_mb", "cache_bytes_per_view", "segmenter"]
)


def find_run(path: Path) -> Path:
    """Return the run at ``path``, or the newest finished one below it.

    Raises:
        ValueError: If there is none.
    """
    if path.name == "config.yml":
        path = path.parent
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder; give a run or a folder of runs")
    if (path / "config.yml").is_file():
        return path
    runs = [
        file.parent for file in path.glob("**/config.yml") if _summary_path(file.parent).exists()
    ]
    if not runs:
        raise ValueError(f"{path}: no finished run with a hierarchy below it; train one first")
    return max(runs, key=lambda run: _summary_path(run).stat().st_mtime)


def _summary_path(run: Path) -> Path:
    return run / "hierarchy" / "summary.json"


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"{path}: holds no table of figures; train again")
        return content
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; the run has no hierarchy or did not finish") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); train again") from None


def report(
    run: Annotated[Path, tyro.conf.Positional],
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Print what a run achieved: figures, seconds a stage, sizes, and where to look.

    Figures on held-out views appear once `ns-eval --load-config RUN/config.yml --output-path
    RUN/eval.json` has written them.

    Args:
        run: A run's folder, or a folder of runs, of which the newest counts.
        json_output: Print one JSON object instead of tables.
    """
    folder = find_run(run)
    summary = _read_json(_summary_path(folder))
    missing = [key for key in _SUMMARY_KEYS if key not in summary]
    if missing:
        raise ValueError(f"{_summary_path(folder)}: has no {missing[0]!r}; train again")
    evaluation = folder / EVALUATION
    figures = _read_json(evaluation).get("results", {}) if evaluation.exists() else {}
    if json_output:
        print(json.dumps({"run": str(folder), **summary, "figures": figures}))
        return
    _print_tables(folder, summary, figures)


def _print_tables(folder: Path, summary: dict, figures: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    from hiersplat.semantics.descriptors import DESCRIPTORS_FILE

    console = Console(soft_wrap=True, highlight=False)
    config = folder / "config.yml"
    levels = Table(title="Hierarchy", title_justify="left")
    levels.add_column("level")
    levels.add_column("nodes", justify="right")
    judged = "miou_whole" in figures
    shown = (
        ("miou", "mIoU"),
        ("miou_any", "mIoU, best of any level"),
        ("recall50", "recall at 0.5"),
        ("pq", "PQ"),
    )
    for _, title in shown if judged else ():
        levels.add_column(title, justify="right")
    for level in Level:
        cells = [f"{figures[f'{key}_{level.title}']:.3f}" for key, _ in shown] if judged else []
        levels.add_row(level.title, str(summary["nodes"][level.title]), *cells)
    console.print(levels)
    if not figures:
        evaluate = command("ns-eval", "--load-config", config, "--output-path", folder / EVALUATION)
        console.print(f"no figures yet: {evaluate}")
    elif not judged:
        console.print("the data set carries no truth labels, so the levels are not judged")

    cost = Table(title="Run", title_justify="left", show_header=False)
    if "psnr" in figures:
        cost.add_row("PSNR on held-out views", f"{figures['psnr']:.2f} dB")
        cost.add_row("SSIM on held-out views", f"{figures['ssim']:.3f}")
    for stage, seconds in summary["seconds"].items():
        cost.add_row(f"{stage}", f"{seconds:.1f} s")
    cost.add_row("Gaussians", f"{summary['gaussians']:,}")
    cost.add_row("peak memory", f"{summary['peak_memory_mb']:,.0f} MB")
    cost.add_row("mask cache a view", f"{summary['cache_bytes_per_view'] / 1000:.1f} kB")
    cost.add_row("segmenter", summary["segmenter"])
    console.print(cost)
    console.print(f"run      {folder}")
    console.print(f"pictures {folder / 'hierarchy' / 'sheet.png'}")
    console.print(f"viewer   {command('ns-viewer', '--load-config', config)}")
    if (folder / "hierarchy" / DESCRIPTORS_FILE).is_file():
        console.print(f"in words {command('hiersplat-query', folder, 'what to look for')}")


def main() -> None:
    """Run the program."""
    run_cli(report)
