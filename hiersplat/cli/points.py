"""``hiersplat-points``: give a data set without points a start, from its photographs and poses."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import OmitArgPrefixes, Positional

from hiersplat.cli.errors import run_cli
from hiersplat.commands import command
from hiersplat.scene.points import PointsConfig

if TYPE_CHECKING:
    from hiersplat.scene.posed_images import PosedImage

_DEFAULT = PointsConfig()


def points(
    data: Positional[Path],
    out: Path | None = None,
    config: OmitArgPrefixes[PointsConfig] = _DEFAULT,
    downscale: tuple[int, ...] = (),
    copy: bool = False,
    overwrite: bool = False,
) -> None:
    """Find 3D points in posed photographs, so that Gaussians start where the surfaces are.

    Features are matched by pycolmap and triangulated with the poses and intrinsics of the data
    set's transforms.json, so the points lie in its own frame. Without --out, sparse_pc.ply is
    written into the data set and transforms.json gains 'ply_file_path'; with --out the data set
    stays untouched and a light one (links to its images) is made that trains like any other:

    hiersplat-points photos --out photos-with-points --downscale 4

    ns-train hiersplat --data photos-with-points nerfstudio-data --downscale-factor 4

    Args:
        data: Folder with transforms.json and images (nerfstudio's format), or that file; or a
            NeRF-synthetic data set (transforms_train.json).
        out: Folder for the light data set; without it points go into DATA itself.
        config: How points are found.
        downscale: Also write images this many times smaller (images_2/, images_4/ ...), which
            nerfstudio's option --downscale-factor expects to find. NeRF-synthetic data has no
            such option: there the images of the light data set themselves are smaller.
        copy: Copy the images instead of linking to them: the light data set can then be moved,
            at the cost of its size.
        overwrite: Replace points that are there.
    """
    from rich.console import Console
    from rich.progress import Progress

    from hiersplat.scene.blender import is_blender
    from hiersplat.scene.dataset import write_points
    from hiersplat.scene.points import triangulate
    from hiersplat.scene.posed_images import transforms_path

    if any(factor < 2 for factor in downscale):
        raise ValueError(f"--downscale {downscale}: factors start at 2")
    if is_blender(data):
        images, write_rest = _blender(data, out, downscale, copy)
        folder = data
    else:
        path = transforms_path(data)
        folder = path.parent
        images, write_rest = _nerfstudio(path, out, downscale, copy, overwrite)
    target_folder = folder if out is None else out
    target = target_folder / "sparse_pc.ply"
    is_same = target_folder.resolve() == folder.resolve()
    jsons = ("transforms.json", "transforms_train.json")
    for existing in (target, *(() if is_same else (target_folder / name for name in jsons))):
        if existing.exists() and not overwrite:
            raise ValueError(f"{existing}: exists; choose another --out or give --overwrite")

    console = Console()
    with Progress(console=console) as bars:
        bar_ids = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in bar_ids:
                for bar_id in bar_ids.values():
                    bars.update(bar_id, completed=bars.tasks[bar_id].total)
                bar_ids[stage] = bars.add_task(stage, total=total)
            bars.update(bar_ids[stage], completed=done)

        found = triangulate(images, config, report)

    target_folder.mkdir(parents=True, exist_ok=True)
    write_points(target, found.positions, found.colors)
    how = write_rest(target)
    console.print(
        f"{len(found)} points, {found.errors.mean():.2f} px from their features on average: "
        f"{target}\nTrain with: {command('ns-train', 'hiersplat', '--data', target_folder)} {how}",
        soft_wrap=True,
    )


def _nerfstudio(
    path: Path, out: Path | None, downscale: tuple[int, ...], copy: bool, overwrite: bool
) -> tuple[list["PosedImage"], Callable[[Path], str]]:
    """Return the images of a nerfstudio data set, and what writes the rest once points are found.

    The latter returns the words that make ``ns-train`` read the result.
    """
    from hiersplat.scene import posed_images

    meta = posed_images.read_transforms(path)
    if out is None or out.resolve() == path.parent.resolve():
        if "ply_file_path" in meta and not overwrite:
            raise ValueError(f"{path}: names points already; give --overwrite to replace them")
    else:
        posed_images.require_own_files(path, meta)
    images = posed_images.posed_images(path, meta)

    def write_rest(target: Path) -> str:
        new_path = target.parent / "transforms.json"
        new_meta = {**meta, "ply_file_path": target.name}
        if new_path.resolve() == path.resolve():
            posed_images.write_json(path, new_meta)
        else:
            posed_images.write_light_copy(path, new_meta, target.parent, copy)
        posed_images.write_reduced(new_path, new_meta, downscale)
        factor = f" --downscale-factor {downscale[-1]}" if downscale else ""
        return f"nerfstudio-data{factor}"

    return images, write_rest


def _blender(
    data: Path, out: Path | None, downscale: tuple[int, ...], copy: bool
) -> tuple[list["PosedImage"], Callable[[Path], str]]:
    """As :func:`_nerfstudio`, for a NeRF-synthetic data set."""
    from hiersplat.scene.blender import blender_images, write_light_blender

    is_same = out is None or out.resolve() == data.resolve()
    if len(downscale) > 1 or (downscale and is_same):
        raise ValueError(
            f"{data}: a NeRF-synthetic data set is reduced by one factor, into another --out"
        )
    images = blender_images(data)

    def write_rest(target: Path) -> str:
        if not is_same:
            write_light_blender(data, target.parent, downscale[0] if downscale else 1, copy)
        return f"blender-data --ply-path {target.name}"

    return images, write_rest


def main() -> None:
    """Run the program."""
    run_cli(points)
