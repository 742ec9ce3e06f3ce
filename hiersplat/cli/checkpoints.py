"""``hiersplat-checkpoints``: which SAM 2 weights there are, where they lie, and how to get them."""

from typing import Annotated, Literal

import tyro

from hiersplat.cli.errors import run_cli
from hiersplat.segmentation.checkpoints import (
    ModelSize,
    ModelVersion,
    all_checkpoints,
    checkpoint_folders,
    checkpoint_info,
    fetch_checkpoint,
    find_checkpoint,
    missing_message,
)


def checkpoints(
    action: Annotated[Literal["list", "fetch", "where"], tyro.conf.Positional],
    size: Annotated[ModelSize | None, tyro.conf.Positional] = None,
    /,
    version: ModelVersion = "2.1",
) -> None:
    """List, fetch or find the weights of SAM 2.

    Weights are looked for in ``checkpoints/`` and then in the Hugging Face cache.

    ``hiersplat-checkpoints list`` shows every size, its download and whether it is here;
    ``hiersplat-checkpoints fetch large`` downloads one into the Hugging Face cache;
    ``hiersplat-checkpoints where large`` prints the path of the file, for scripts.

    Args:
        action: What to do.
        size: Which weights, for fetch and where. large finds the best masks.
        version: Release of the weights.
    """
    if action == "list":
        if size is not None:
            raise ValueError(f"list shows every size and takes none, but got {size!r}")
        _print_table()
        return
    if size is None:
        raise ValueError(f"{action} needs a size: tiny, small, base_plus or large")
    info = checkpoint_info(size, version)
    path = find_checkpoint(info)
    if path is None and action == "where":
        raise FileNotFoundError(missing_message(info, "it has not been fetched"))
    print(path or fetch_checkpoint(info))


def _print_table() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="SAM 2 weights", caption=f"looked for first in {checkpoint_folders()[0]}")
    for heading in ("size", "version", "file", "download", "here"):
        table.add_column(heading, overflow="fold")
    for info in all_checkpoints():
        megabytes = f"{info.num_bytes / 1e6:,.0f} MB"
        here = str(find_checkpoint(info) or "no")
        table.add_row(info.size, info.version, info.file_name, megabytes, here)
    Console().print(table)


def main() -> None:
    """Run the program."""
    run_cli(checkpoints)


if __name__ == "__main__":
    main()
