"""Write a rendered scene as a data set that stock nerfstudio reads, with exact truth beside it.

``transforms.json`` is written last: a folder without it is no finished data set.
"""

import io
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from hiersplat.cache import write_atomically
from hiersplat.label_maps import label_map_path, write_label_map
from hiersplat.levels import Level
from hiersplat.scene.build import BuiltScene, build_scene
from hiersplat.scene.cameras import SceneCamera, scene_cameras
from hiersplat.scene.render import RenderedView, SceneRenderer
from hiersplat.scene.spec import SceneSpec

TRANSFORMS = "transforms.json"
DEPTH_FOLDER = "depth"
# The names come first: they mark a folder as ours, also when moving in is interrupted.
_ENTRIES = ("names.json", "images", "labels", DEPTH_FOLDER, "points.ply")


def render_dataset(
    spec: SceneSpec, out: Path, progress: bool = True, seed: int | None = None
) -> Path:
    """Render all views of a scene into a data set.

    Everything is rendered into a folder beside ``out`` and moved when it is complete; other
    files in ``out``, such as caches, stay.

    Args:
        spec: The scene.
        out: Folder of the data set; made if need be, its former rendering is replaced.
        progress: Whether to show a progress bar on standard error.
        seed: Seed of everything random; by default the scene's own.

    Returns:
        The folder of the data set.

    Raises:
        ValueError: If ``out`` holds files that are no rendered scene.
        OSError: If the folder cannot be written.
    """
    out = Path(out)
    _check_replaceable(out)
    if seed is not None:
        spec = replace(spec, seed=seed)
    built = build_scene(spec)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        cameras = scene_cameras(spec)
        points = _render_views(built, cameras, partial, progress)
        write_points(partial / "points.ply", *points)
        _write_json(partial / "names.json", describe_names(built))
        _write_json(partial / TRANSFORMS, describe_cameras(spec, cameras))
        _move_in(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _check_replaceable(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; choose a folder to render into")
    if not out.is_dir():
        return
    taken = [name for name in (*_ENTRIES, TRANSFORMS) if (out / name).exists()]
    is_ours = (out / "names.json").exists() or not taken
    if not is_ours:
        raise ValueError(
            f"{out}: holds {taken[0]} that is not from a rendered scene; choose another folder"
        )


def _move_in(partial: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / TRANSFORMS).unlink(missing_ok=True)
    for name in (*_ENTRIES, TRANSFORMS):
        target = out / name
        if target.is_dir():
            shutil.rmtree(target)
        (partial / name).replace(target)


def _render_views(
    built: BuiltScene, cameras: list[SceneCamera], folder: Path, progress: bool
) -> tuple[Float[np.ndarray, "num_points 3"], UInt8[np.ndarray, "num_points 3"]]:
    """Write images, labels and depth of every view; return coloured points of training views."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rng = np.random.default_rng([built.seed, 2])
    num_training = sum(not camera.is_held_out for camera in cameras)
    per_view = -(-built.spec.points // num_training)
    points, colours = [], []
    (folder / DEPTH_FOLDER).mkdir(parents=True)
    (folder / "images").mkdir()
    columns = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("views")]
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not progress
    ) as bar:
        task = bar.add_task(f"rendering {built.spec.name}", total=len(cameras))
        renderer = SceneRenderer(built)

        def render_and_write(camera: SceneCamera) -> RenderedView:
            view = renderer.render(camera)
            _write_view(folder, camera, view)
            return view

        # Points are drawn here, in order: threads must not change what a seed gives.
        for camera, view in zip(cameras, _map_in_order(render_and_write, cameras), strict=True):
            if not camera.is_held_out:
                sampled = sample_surface(view, camera, per_view, rng)
                points.append(sampled[0])
                colours.append(sampled[1])
            bar.advance(task)
    kept = rng.permutation(sum(map(len, points)))[: built.spec.points]
    return np.concatenate(points)[kept], np.concatenate(colours)[kept]


def _map_in_order(
    render: Callable[[SceneCamera], RenderedView], cameras: list[SceneCamera]
) -> Iterator[RenderedView]:
    """Render with as many threads as there are cores, a few views ahead and no more."""
    num_threads = max(1, min(len(os.sched_getaffinity(0)), 8))
    waiting: deque[Future[RenderedView]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for camera in cameras:
                waiting.append(pool.submit(render, camera))
                if len(waiting) > 2 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _write_view(folder: Path, camera: SceneCamera, view: RenderedView) -> None:
    import cv2

    path = folder / "images" / f"{camera.name}.png"
    # Encoded in memory: OpenCV's own writing of files says nothing of why it fails.
    encoded, image = cv2.imencode(".png", np.ascontiguousarray(view.image[..., ::-1]))
    assert encoded, "an image of 8 bits always fits a PNG"
    depth = io.BytesIO()
    np.save(depth, view.depth)
    try:
        path.write_bytes(image.tobytes())
        write_label_map(label_map_path(folder, path), view.labels)
        (folder / DEPTH_FOLDER / f"{camera.name}.npy").write_bytes(depth.getvalue())
    except OSError as error:
        raise OSError(
            f"{folder}: view {camera.name} cannot be written ({error.strerror or error}); "
            "free some space or choose another folder with --out"
        ) from error


def sample_surface(
    view: RenderedView, camera: SceneCamera, count: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "num_points 3"], UInt8[np.ndarray, "num_points 3"]]:
    """Draw surface points, with their colours, from the pixels of a view; sky gives none."""
    seen = np.flatnonzero(view.depth.ravel() > 0)
    chosen = rng.choice(seen, min(count, len(seen)), replace=False)
    y, x = np.divmod(chosen, camera.width)
    depth = view.depth.ravel()[chosen].astype(np.float64)
    local = np.stack(
        [
            (x + 0.5 - camera.width / 2) / camera.focal * depth,
            -(y + 0.5 - camera.height / 2) / camera.focal * depth,
            -depth,
        ],
        1,
    )
    pose = camera.camera_to_world
    return local @ pose[:3, :3].T + pose[:3, 3], view.image.reshape(-1, 3)[chosen]


def write_points(
    path: Path,
    points: Float[np.ndarray, "num_points 3"],
    colours: UInt8[np.ndarray, "num_points 3"],
) -> None:
    """Write coloured points as a binary ``.ply``."""
    rows = np.empty(
        len(points),
        [(name, "<f4") for name in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")],
    )
    for i, (axis, colour) in enumerate(zip("xyz", ("red", "green", "blue"), strict=True)):
        rows[axis] = points[:, i]
        rows[colour] = colours[:, i]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    text = "\n".join([*header, "end_header\n"])
    write_atomically(path, text.encode("ascii") + rows.tobytes())


def describe_names(built: BuiltScene) -> dict[str, Any]:
    """Return names by level and id, parents, and what each small segment is made of."""
    names: dict[str, Any] = {
        level.title: {str(i): name for i, name in enumerate(built.names[level])} for level in Level
    }
    names["parents"] = {
        Level.SMALL.title: {str(i): int(p) for i, p in enumerate(built.parents[0])},
        Level.PART.title: {str(i): int(p) for i, p in enumerate(built.parents[1])},
    }
    # The surface that covers most triangles speaks for the segment.
    looks = {}
    for small in range(built.num_ids(Level.SMALL)):
        worn = np.bincount(built.face_surface[built.face_small == small])
        surface = built.surfaces[int(worn.argmax())] if len(worn) else None
        if surface is not None:
            looks[str(small)] = {
                "material": surface.material.substance or surface.name,
                "colour": surface.material.colour,
            }
    names["looks"] = looks
    return names


def describe_cameras(spec: SceneSpec, cameras: list[SceneCamera]) -> dict[str, Any]:
    """Return the contents of ``transforms.json``."""
    camera = cameras[0]
    files = {c.name: f"images/{c.name}.png" for c in cameras}
    training = [files[c.name] for c in cameras if not c.is_held_out]
    held_out = [files[c.name] for c in cameras if c.is_held_out] or training[:1]
    return {
        "camera_model": "OPENCV",
        "fl_x": camera.focal,
        "fl_y": camera.focal,
        "cx": camera.width / 2,
        "cy": camera.height / 2,
        "w": camera.width,
        "h": camera.height,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "scene": {"name": spec.name, "seed": spec.seed},
        "ply_file_path": "points.ply",
        "train_filenames": training,
        "val_filenames": held_out,
        "test_filenames": held_out,
        "frames": [
            {"file_path": files[c.name], "transform_matrix": c.camera_to_world.tolist()}
            for c in cameras
        ],
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1).encode())


def with_image_size(spec: SceneSpec, width: int | None, height: int | None) -> SceneSpec:
    """Return the scene with other picture sizes; what is ``None`` stays."""
    image = spec.image
    if width is not None:
        image = replace(image, width=width)
    if height is not None:
        image = replace(image, height=height)
    return replace(spec, image=image)
