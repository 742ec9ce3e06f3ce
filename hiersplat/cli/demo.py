"""``hiersplat-demo``: one image, its masks and its three levels, with the settings of training."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from hiersplat.cli.errors import run_cli
from hiersplat.semantics.config import DEFAULT_CHECKPOINT

if TYPE_CHECKING:
    from hiersplat.segmentation.proposals import MaskProposals
    from hiersplat.segmentation.pyramid import MaskPyramid


def demo(
    image: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGE")],
    config: Path = Path("quality"),
    segmenter: Literal["sam2", "regions"] | None = None,
    device: Literal["cuda", "cpu"] | None = None,
    prompt: str | None = None,
    clipseg: str = DEFAULT_CHECKPOINT,
    out: Path = Path("outputs/demo"),
) -> None:
    """Segment one image into small, part and whole masks and draw them.

    Writes three files named after the image: a panel (PNG), every mask that was found as a
    record in SAM's format with COCO's run-length code (JSON), and the three levels (npz).

    To look at a photo without any weights: hiersplat-demo photo.jpg --segmenter regions

    With the settings of a training: hiersplat-demo photo.jpg --config configs/speed.yaml

    To look for something in it: hiersplat-demo photo.jpg --prompt "the red mug"

    Args:
        image: Any image file. What is transparent is laid over white.
        config: Settings as training reads them: a YAML file, or one of the presets speed (small
            model, 16 x 16 points), quality (large, 32 x 32), coverage (large, 64 x 64: four
            times the time) and quickstart (no weights needed).
        segmenter: Use this segmenter instead of the one in the settings.
        device: Where the models run; CUDA when there is one.
        prompt: Also look for this text: draws relevancy by CLIPSeg for every pixel and every
            mask. Takes about a quarter of a second a mask on two cores.
        clipseg: CLIPSeg weights for the prompt: a folder, a name below checkpoints/ or on the
            Hugging Face hub. "micro-clipseg", trained by
            checkpoints/micro-clipseg/train.py, knows only generated scenes.
        out: Folder for the results.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from hiersplat.cli.prompt import Prompt
    from hiersplat.segmentation.images import read_image
    from hiersplat.segmentation.segmenter import View, build_segmenter, load_segmentation_config

    console = Console()
    pixels = read_image(image)
    settings = load_segmentation_config(config)
    if segmenter is not None:
        settings.segmenter = segmenter
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"loading {settings.segmenter}", total=None)
        # Before the long work: a text that cannot be asked for ends the program here.
        asked = None if prompt is None else Prompt(prompt, clipseg, device or _device("sam2"))
        finder = build_segmenter(settings, device or _device(settings.segmenter))
        size = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
        progress.update(task, description=f"finding masks in {size}")
        proposals = finder.propose(View(image.name, pixels))
        progress.update(task, description=f"arranging {len(proposals.records)} masks")
        pyramid = _pyramid(proposals, pixels.shape[:2], settings)
        progress.update(task, description="drawing")
        paths = _write(image, pixels, proposals, pyramid, settings, out)
        tables = [_table(pyramid, len(proposals.records))]
        if asked is not None:
            progress.update(task, description="looking for the text")
            picture, table = asked.answer(pixels, pyramid)
            paths.append(_write_picture(out / f"{image.stem}-prompt.png", picture))
            tables.append(table)
        progress.update(task, description="done")
    console.print(*tables, sep="\n")
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)


def _device(segmenter: str) -> str:
    if segmenter != "sam2":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _pyramid(proposals: "MaskProposals", shape: Any, settings: Any) -> "MaskPyramid":
    from hiersplat.segmentation.pyramid import build_pyramid

    return build_pyramid(proposals, (int(shape[0]), int(shape[1])), settings.pyramid)


def _write(
    image: Path,
    pixels: Any,
    proposals: "MaskProposals",
    pyramid: "MaskPyramid",
    settings: Any,
    out: Path,
) -> list[Path]:
    """Write panel, records and pyramid; each file is whole or not there."""
    from dataclasses import asdict

    from hiersplat.cache import encode_arrays, write_atomically
    from hiersplat.segmentation.masks import edges_of, rle_of
    from hiersplat.segmentation.panels import pyramid_panel

    shape = (int(pixels.shape[0]), int(pixels.shape[1]))
    records = [
        {
            **record,
            "segmentation": rle_of(edges_of(record["segmentation"], shape), shape, compress=True),
        }
        for record in proposals.records
    ]
    content = {
        "image": image.name,
        "size": list(shape),
        "settings": asdict(settings),
        "records": records,
    }
    paths = [out / f"{image.stem}-{end}" for end in ("panel.png", "records.json", "pyramid.npz")]
    _write_picture(paths[0], pyramid_panel(pixels, pyramid, image.name))
    write_atomically(paths[1], json.dumps(content, default=_plain).encode())
    write_atomically(paths[2], encode_arrays(pyramid.to_arrays()))
    return paths


def _write_picture(path: Path, picture: Any) -> Path:
    import io

    from PIL import Image

    from hiersplat.cache import write_atomically

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
    return path


def _plain(value: Any) -> Any:
    """Give paths and numpy's numbers the form that JSON has for them."""
    return str(value) if isinstance(value, Path) else value.tolist()


def _table(pyramid: "MaskPyramid", num_records: int):
    from rich.table import Table

    from hiersplat.levels import Level
    from hiersplat.segmentation.statistics import measure_pyramids

    statistics = measure_pyramids([pyramid])
    caption = f"{num_records} masks proposed; {statistics.coverage:.1%} of the image is labelled"
    table = Table(title="masks found per level", caption=caption)
    for heading in ("level", "found", "share", "inherited", "coverage", "mean area"):
        table.add_column(heading, justify="left" if heading == "level" else "right")
    for level in reversed(Level):
        row = statistics.levels[level]
        table.add_row(
            level.title,
            str(row.found),
            f"{row.share:.1%}",
            str(row.inherited),
            f"{row.coverage:.1%}",
            f"{row.mean_area:.2%}",
        )
    return table


def main() -> None:
    """Run the program."""
    run_cli(demo)
