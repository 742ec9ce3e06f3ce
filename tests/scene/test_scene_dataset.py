"""Data sets: what is written, what stock nerfstudio makes of it, what an interruption leaves."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hiersplat.label_maps import read_label_map
from hiersplat.levels import Level
from hiersplat.scene import dataset
from hiersplat.scene.build import build_scene
from hiersplat.scene.cameras import scene_cameras
from hiersplat.scene.dataset import render_dataset, with_image_size
from hiersplat.scene.render import render_view
from hiersplat.scene.shapes import Box, Sphere
from hiersplat.scene.spec import (
    CameraPath,
    Detail,
    Ground,
    ImageSpec,
    Material,
    Part,
    SceneSpec,
    Thing,
    Vary,
    load_scene,
)

SCENES = Path(__file__).parent.parent.parent / "scenes"
KNOB = Detail(name="knob", at=(0, 0, 0.8), material="brass", shapes=(Sphere(radius=0.2),))
CHEST = Thing(
    name="chest",
    vary=Vary(turn=20),
    parts=(Part(name="chest lid", shapes=(Box(size=(1, 1, 0.7)),), details=(KNOB,)),),
)
SPEC = SceneSpec(
    name="tiny",
    objects=(CHEST,),
    ground=Ground(radius=3),
    materials={"brass": Material(colour="gold", substance="brass")},
    cameras=(CameraPath(views=5, held_out=2, radius=3),),
    image=ImageSpec(width=24, height=20),
    points=150,
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_dataset(SPEC, tmp_path_factory.mktemp("scenes") / "tiny", progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_view_has_image_labels_and_depth(rendered):
    frames = json.loads((rendered / "transforms.json").read_text())["frames"]
    assert len(frames) == 5
    for frame in frames:
        stem = Path(frame["file_path"]).stem
        assert (rendered / frame["file_path"]).exists()
        labels = read_label_map(rendered / "labels" / f"{stem}.png")
        depth = np.load(rendered / "depth" / f"{stem}.npy", allow_pickle=False)
        assert labels.shape == (3, 20, 24)
        assert depth.shape == (20, 24)
        assert ((labels[0] < 0) == (depth == 0)).all()


def test_files_hold_what_the_renderer_returns(rendered):
    import cv2

    camera = scene_cameras(SPEC)[3]
    view = render_view(build_scene(SPEC), camera)
    image = cv2.imread(str(rendered / "images" / f"{camera.name}.png"))
    assert image is not None
    assert np.array_equal(image[..., ::-1], view.image)
    assert np.array_equal(read_label_map(rendered / "labels" / f"{camera.name}.png"), view.labels)
    assert np.array_equal(np.load(rendered / "depth" / f"{camera.name}.npy"), view.depth)


def test_names_parents_and_looks_are_complete(rendered):
    names = json.loads((rendered / "names.json").read_text())
    assert names["whole"] == {"0": "ground", "1": "chest"}
    assert names["part"] == {"0": "ground", "1": "chest lid"}
    assert names["small"] == {"0": "ground", "1": "chest lid", "2": "knob"}
    assert names["parents"] == {"small": {"0": 0, "1": 1, "2": 1}, "part": {"0": 0, "1": 1}}
    assert names["looks"]["2"] == {"material": "brass", "colour": "gold"}


def test_stock_nerfstudio_reads_it_and_its_cameras_agree(rendered):
    import torch
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    config = NerfstudioDataParserConfig(
        data=rendered,
        orientation_method="none",
        center_method="none",
        auto_scale_poses=False,
        load_3D_points=True,
    )
    parser = config.setup()
    splits = {split: parser.get_dataparser_outputs(split) for split in ("train", "val", "test")}
    assert [len(splits[s].image_filenames) for s in ("train", "val", "test")] == [3, 2, 2]
    assert not set(splits["train"].image_filenames) & set(splits["test"].image_filenames)
    points = splits["train"].metadata["points3D_xyz"]
    colours = splits["train"].metadata["points3D_rgb"]
    assert points.shape == (min(150, 3 * 50), 3)
    assert colours.max() > 1
    # Nerfstudio's own rays through a pixel's middle, followed to our depth, end on the surface.
    cameras = splits["test"].cameras
    rays = cameras.generate_rays(camera_indices=0, keep_shape=True)
    stem = splits["test"].image_filenames[0].stem
    depth = np.load(rendered / "depth" / f"{stem}.npy")
    labels = read_label_map(rendered / "labels" / f"{stem}.png")
    axis = -cameras.camera_to_worlds[0, :, 2]
    along = (rays.directions * axis).sum(-1)
    ends = rays.origins + rays.directions * (torch.from_numpy(depth) / along)[..., None]
    heights = ends[..., 2].numpy()
    assert np.abs(heights[labels[Level.WHOLE] == 0]).max() < 1e-3
    assert heights[labels[Level.SMALL] == 2].min() > 0.55


def test_points_lie_on_what_training_views_show(rendered):
    from plyfile import PlyData

    vertices = PlyData.read(str(rendered / "points.ply"))["vertex"]
    points = np.stack([vertices[axis] for axis in "xyz"], 1).astype(float)
    assert len(points) == 150
    is_shown = np.zeros(len(points), bool)
    for camera in scene_cameras(SPEC):
        if camera.is_held_out:
            continue
        depth = np.load(rendered / "depth" / f"{camera.name}.npy")
        pixels, distance = camera.project(points)
        x, y = np.floor(pixels.T).astype(int)
        inside = (x >= 0) & (y >= 0) & (x < 24) & (y < 20)
        is_shown[inside] |= np.abs(depth[y[inside], x[inside]] - distance[inside]) < 1e-3
    assert is_shown.all()


def test_same_seed_gives_the_same_files_and_another_does_not(rendered, tmp_path):
    again = render_dataset(SPEC, tmp_path / "again", progress=False)
    assert contents(again) == contents(rendered)
    other = render_dataset(SPEC, tmp_path / "other", progress=False, seed=5)
    assert (other / "points.ply").read_bytes() != (rendered / "points.ply").read_bytes()
    assert json.loads((other / "transforms.json").read_text())["scene"]["seed"] == 5


def test_interrupted_rendering_leaves_no_transforms_and_no_rubbish(tmp_path, monkeypatch):
    calls = []

    def fail_at_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError("no space left on device")

    monkeypatch.setattr(dataset, "_write_view", fail_at_third)
    with pytest.raises(OSError, match="no space"):
        render_dataset(SPEC, tmp_path / "tiny", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_with_the_folder_and_what_to_do(tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.suffix == ".npy":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"tiny.*cannot be written \(No space left.*free some space"):
        render_dataset(SPEC, tmp_path / "tiny", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_failed_rendering_keeps_the_former_one(tmp_path, monkeypatch):
    folder = render_dataset(SPEC, tmp_path / "tiny", progress=False)
    before = contents(folder)

    def fail(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(dataset, "write_points", fail)
    with pytest.raises(OSError, match="no space"):
        render_dataset(SPEC, folder, progress=False, seed=9)
    assert contents(folder) == before


def test_folder_left_half_moved_in_is_rendered_anew(tmp_path, monkeypatch):
    moves = []
    replace_file = Path.replace

    def stop_after_three(path: Path, target: Path) -> Path:
        # Only the folder's own files are counted, not those written on the way.
        if target.parent.name == "tiny":
            moves.append(target.name)
        if len(moves) == 3:
            raise KeyboardInterrupt
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        render_dataset(SPEC, tmp_path / "tiny", progress=False)
    monkeypatch.undo()
    assert not (tmp_path / "tiny" / "transforms.json").exists()
    folder = render_dataset(SPEC, tmp_path / "tiny", progress=False)
    assert len(list((folder / "labels").iterdir())) == 5


def test_rendering_again_replaces_its_own_files_only(tmp_path):
    larger = replace(SPEC, cameras=(CameraPath(views=7, held_out=2, radius=3),))
    folder = render_dataset(larger, tmp_path / "tiny", progress=False)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "masks.npz").write_bytes(b"kept")
    render_dataset(SPEC, folder, progress=False)
    assert len(list((folder / "images").iterdir())) == 5
    assert (folder / ".cache" / "masks.npz").read_bytes() == b"kept"


def test_folder_with_photographs_is_never_overwritten(tmp_path):
    photographs = tmp_path / "fox"
    (photographs / "images").mkdir(parents=True)
    (photographs / "transforms.json").write_text("{}")
    with pytest.raises(ValueError, match="fox.*another folder"):
        render_dataset(SPEC, photographs, progress=False)
    assert (photographs / "transforms.json").read_text() == "{}"
    with pytest.raises(ValueError, match="is a file"):
        render_dataset(SPEC, photographs / "transforms.json", progress=False)


def test_negative_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        render_dataset(SPEC, tmp_path / "tiny", progress=False, seed=-1)


def test_scene_without_held_out_views_is_tested_on_one_it_is_trained_on(tmp_path):
    spec = replace(SPEC, cameras=(CameraPath(views=2, radius=3),))
    folder = render_dataset(spec, tmp_path / "tiny", progress=False)
    transforms = json.loads((folder / "transforms.json").read_text())
    assert len(transforms["train_filenames"]) == 2
    assert transforms["test_filenames"] == transforms["train_filenames"][:1]


def test_picture_size_is_changed_and_checked():
    spec = with_image_size(SPEC, 64, None)
    assert (spec.image.width, spec.image.height) == (64, 20)
    with pytest.raises(ValueError, match="height must be in"):
        with_image_size(SPEC, None, 0)


@pytest.mark.parametrize("name", ["tabletop", "kitchen", "desk", "toys"])
def test_shipped_scene_is_rich_and_its_details_are_large_enough(name):
    spec = load_scene(SCENES / f"{name}.yaml")
    assert (spec.name, spec.image.width, spec.image.height) == (name, 256, 256)
    cameras = scene_cameras(spec)
    assert sum(not camera.is_held_out for camera in cameras) == 24
    assert sum(camera.is_held_out for camera in cameras) == 8
    assert len(spec.objects) >= 6
    for thing in spec.objects:
        assert 2 <= len(thing.parts) <= 5
    with_details = [t for t in spec.objects if any(part.details for part in t.parts)]
    assert len(with_details) > len(spec.objects) / 2
    built = build_scene(spec)
    renderer = dataset.SceneRenderer(built)
    largest = np.zeros(built.num_ids(Level.SMALL))
    for camera in cameras[::4]:
        small = renderer.render(camera).labels[Level.SMALL]
        for index in np.unique(small[small >= 0]):
            y, x = np.nonzero(small == index)
            largest[index] = max(largest[index], min(np.ptp(x) + 1, np.ptp(y) + 1))
    hidden = [built.names[Level.SMALL][i] for i in np.flatnonzero(largest < 8)]
    assert hidden == []
