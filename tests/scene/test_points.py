import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiersplat import cache
from hiersplat.cache import CacheError
from hiersplat.cli import points as points_cli
from hiersplat.scene.blender import write_smaller
from hiersplat.scene.dataset import render_dataset
from hiersplat.scene.points import PointsConfig, nearest_views, triangulate
from hiersplat.scene.posed_images import (
    Intrinsics,
    posed_images,
    read_rgb,
    read_transforms,
    save_image,
    transforms_path,
)
from hiersplat.scene.shapes import Box
from hiersplat.scene.spec import CameraPath, Ground, ImageSpec, Material, Part, SceneSpec, Thing

GRAIN = Material(texture="noise", colour="#ffffff", second="#000000", size=0.12)
BOX = Part(name="box", shapes=(Box(size=(1, 1, 1)),), material="grain")
SCENE = SceneSpec(
    name="grainy-box",
    image=ImageSpec(width=256, height=256, field_of_view=42),
    ground=Ground(radius=3, material="grain"),
    materials={"grain": GRAIN},
    objects=(
        Thing(
            name="box", parts=(Part(name="box", shapes=(Box(size=(1, 1, 1)),), material="grain"),)
        ),
    ),
    cameras=(CameraPath(views=6, rounds=0.15, elevation=(40, 45), radius=4.0),),
    points=100,
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six views along an arc around a box on a disc, with exact depth."""
    return render_dataset(SCENE, tmp_path_factory.mktemp("scenes") / "arc", progress=False)


@pytest.fixture
def data(rendered: Path, tmp_path: Path) -> Path:
    """The same views as a data set of somebody else's: without points and splits."""
    folder = tmp_path / "data"
    shutil.copytree(rendered / "images", folder / "images")
    meta = json.loads((rendered / "transforms.json").read_text())
    kept = {key: value for key, value in meta.items() if not key.endswith("_filenames")}
    del kept["ply_file_path"]
    for frame in kept["frames"]:
        for key in [key for key in frame if key not in ("file_path", "transform_matrix")]:
            del frame[key]
    (folder / "transforms.json").write_text(json.dumps(kept))
    return folder


@pytest.fixture
def synthetic(rendered: Path, tmp_path: Path) -> Path:
    """The same views as a NeRF-synthetic data set; the last is held out."""
    folder = tmp_path / "synthetic"
    meta = json.loads((rendered / "transforms.json").read_text())
    angle = 2 * math.atan(0.5 * meta["w"] / meta["fl_x"])
    frames = {"train": [], "test": []}
    for place, frame in enumerate(meta["frames"]):
        split = "train" if place < len(meta["frames"]) - 1 else "test"
        target = folder / split / Path(frame["file_path"]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(rendered / frame["file_path"]) as image:
            image.convert("RGBA").save(target)
        name = f"./{split}/{target.stem}"
        frames[split].append({"file_path": name, "transform_matrix": frame["transform_matrix"]})
    for split, own in (*frames.items(), ("val", frames["test"])):
        content = {"camera_angle_x": angle, "frames": own}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder


def change_transforms(data: Path, change) -> None:
    path = data / "transforms.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def run_program(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["hiersplat-points", *map(str, arguments)])
    points_cli.main()


def expect_error(monkeypatch, capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as error:
        run_program(monkeypatch, *arguments)
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def distance_to_surface(rendered: Path, positions: np.ndarray) -> np.ndarray:
    """Difference of each point's depth and the true depth, in the view where it fits best."""
    path = rendered / "transforms.json"
    best = np.full(len(positions), np.inf)
    for image in posed_images(path, read_transforms(path)):
        depth = np.load(rendered / "depth" / f"{image.path.stem}.npy")
        world_to_camera = np.linalg.inv(image.camera_to_world @ np.diag([1.0, -1, -1, 1]))
        local = positions @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
        fx, fy, cx, cy = image.intrinsics.params[:4]
        columns = np.floor(local[:, 0] / local[:, 2] * fx + cx).astype(int)
        rows = np.floor(local[:, 1] / local[:, 2] * fy + cy).astype(int)
        inside = (local[:, 2] > 0) & (columns >= 0) & (columns < depth.shape[1])
        inside &= (rows >= 0) & (rows < depth.shape[0])
        error = np.abs(depth[rows[inside], columns[inside]] - local[inside, 2])
        best[inside] = np.minimum(best[inside], error)
    return best


def test_points_lie_on_the_true_surface_in_the_frame_of_the_data(rendered: Path, data: Path):
    path = transforms_path(data)
    done: dict[str, list[int]] = {}
    points = triangulate(
        posed_images(path, read_transforms(path)),
        PointsConfig(),
        lambda stage, so_far, total: done.setdefault(stage, []).append(so_far),
    )
    assert len(points) > 500
    # The scene is 6 units wide, seen from 4 units away; a pixel there is 0.012 wide.
    errors = distance_to_surface(rendered, points.positions)
    assert np.median(errors) < 0.01
    assert (errors < 0.05).mean() > 0.9
    assert (points.errors <= 2.0).all()
    assert points.colors.std() > 10
    assert list(done) == ["reduce images", "find features", "match pairs of views", "triangulate"]


def test_light_data_set_trains_like_any_other(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    before = sorted(path.relative_to(data) for path in data.rglob("*"))
    out = tmp_path / "out"
    run_program(monkeypatch, data, "--out", out, "--downscale", 2)
    assert "points" in capsys.readouterr().out
    assert sorted(path.relative_to(data) for path in data.rglob("*")) == before
    assert (out / "images" / "view_000.png").is_symlink()
    for factor in (1, 2):
        parser = NerfstudioDataParserConfig(
            data=out, downscale_factor=factor, load_3D_points=True, eval_mode="all"
        ).setup()
        outputs = parser.get_dataparser_outputs("train")
        assert outputs.image_filenames[0].is_file()
        with Image.open(outputs.image_filenames[0]) as image:
            assert image.size == (256 // factor, 256 // factor)
        assert int(outputs.cameras.width[0]) == 256 // factor
        # nerfstudio turned cameras and points alike: points lie before the first camera.
        pose = outputs.cameras.camera_to_worlds[0].numpy()
        local = (outputs.metadata["points3D_xyz"].numpy() - pose[:, 3]) @ pose[:, :3]
        focal = float(outputs.cameras.fx[0])
        seen = (local[:, 2] < 0) & (np.abs(local[:, 0] / local[:, 2]) < 128 / factor / focal)
        assert seen.mean() > 0.8
    assert "exists" in expect_error(monkeypatch, capsys, data, "--out", out)


def test_points_go_into_the_data_set_itself_without_out(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    before = json.loads((data / "transforms.json").read_text())
    run_program(monkeypatch, data, "--max-features", 1000)
    meta = json.loads((data / "transforms.json").read_text())
    assert meta.pop("ply_file_path") == "sparse_pc.ply"
    assert meta == before
    assert (data / "sparse_pc.ply").is_file()
    assert "names points already" in expect_error(monkeypatch, capsys, data)


def test_copies_can_be_moved(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    run_program(monkeypatch, data, "--out", out, "--copy", "--max-features", 500)
    copied = out / "images" / "view_000.png"
    assert not copied.is_symlink()
    assert copied.read_bytes() == (data / "images" / "view_000.png").read_bytes()


def test_held_out_views_give_no_points(data: Path):
    path = data / "transforms.json"
    meta = read_transforms(path)
    names = [frame["file_path"] for frame in meta["frames"]]
    meta.update(train_filenames=names[:4], val_filenames=names[4:], test_filenames=names[4:])
    assert [image.path.name for image in posed_images(path, meta)] == [
        Path(name).name for name in names[:4]
    ]


def test_nerf_synthetic_data_gets_points_and_smaller_images(
    rendered: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

    out = tmp_path / "out"
    run_program(monkeypatch, synthetic, "--out", out, "--downscale", 2)
    assert "blender-data --ply-path sparse_pc.ply" in capsys.readouterr().out
    parser = BlenderDataParserConfig(data=out, ply_path=Path("sparse_pc.ply")).setup()
    outputs = parser.get_dataparser_outputs("train")
    assert len(outputs.image_filenames) == 5
    assert int(outputs.cameras.width[0]) == 128
    points = outputs.metadata["points3D_xyz"].numpy()
    assert len(points) > 300
    assert np.median(distance_to_surface(rendered, points)) < 0.01
    assert len(parser.get_dataparser_outputs("val").image_filenames) == 1
    assert not (synthetic / "sparse_pc.ply").exists()
    assert "exists" in expect_error(monkeypatch, capsys, synthetic, "--out", out)


def test_smaller_images_keep_their_colours_where_nothing_shines_through(tmp_path: Path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (200, 100, 50, 255)  # half red, half transparent black
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write_smaller(tmp_path / "a.png", tmp_path / "b.png", 2)
    with Image.open(tmp_path / "b.png") as image:
        value = np.asarray(image)[0, 0].astype(int)
    assert (np.abs(value - (200, 100, 50, 128)) <= 2).all()


def test_bad_nerf_synthetic_data_is_one_line(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    line = expect_error(monkeypatch, capsys, synthetic, "--downscale", 2)
    assert "into another --out" in line
    path = synthetic / "transforms_train.json"
    meta = json.loads(path.read_text())
    (synthetic / "train" / "view_001.png").rename(tmp_path / "kept.png")
    assert "view_001.png: missing" in expect_error(monkeypatch, capsys, synthetic)
    (synthetic / "train" / "view_001.png").write_bytes(b"spoiled")
    assert "view_001.png: spoiled" in expect_error(monkeypatch, capsys, synthetic)
    (tmp_path / "kept.png").rename(synthetic / "train" / "view_001.png")
    meta["frames"][2]["transform_matrix"] = [1, 2]
    path.write_text(json.dumps(meta))
    assert "frame 2: 'transform_matrix'" in expect_error(monkeypatch, capsys, synthetic)
    del meta["camera_angle_x"]
    path.write_text(json.dumps(meta))
    assert "'camera_angle_x'" in expect_error(monkeypatch, capsys, synthetic)


def test_poses_that_do_not_fit_give_no_points(data: Path):
    path = transforms_path(data)
    images = posed_images(path, read_transforms(path))
    # Cameras that all stand at one place see nothing in depth.
    still = [replace(image, camera_to_world=images[0].camera_to_world) for image in images]
    with pytest.raises(ValueError, match="no points: the poses"):
        triangulate(still, PointsConfig(max_features=500))


def test_fewer_than_three_images_are_refused(data: Path):
    path = transforms_path(data)
    images = posed_images(path, read_transforms(path))
    with pytest.raises(ValueError, match="at least three"):
        triangulate(images[:2], PointsConfig())


def test_nearest_views_pairs_neighbours_that_look_the_same_way():
    # Four cameras on a line look along -Z; a fifth among them looks the other way.
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:4, 0, 3] = [0, 1, 2, 3]
    poses[4, 0, 3] = 0.1
    poses[4, :3, :3] = np.diag([-1.0, 1, -1])
    pairs = nearest_views(poses, 1).tolist()
    assert [0, 1] in pairs
    assert [2, 3] in pairs
    assert [0, 4] in pairs  # the fifth needs some partner
    assert [0, 3] not in pairs
    assert len(nearest_views(poses, 10)) == 10  # all pairs of five


def test_intrinsics_scale_with_the_image():
    camera = Intrinsics("OPENCV", (100.0, 90.0, 50.0, 40.0, 0.1, 0, 0, 0), 100, 80)
    half = camera.scaled(50, 40)
    assert half.params == (50.0, 45.0, 25.0, 20.0, 0.1, 0, 0, 0)


def test_distortion_is_read_in_every_spelling(data: Path):
    path = data / "transforms.json"
    meta = read_transforms(path)
    meta.update(k1=0.1, k2=0.2, p1=0.3, p2=0.4)
    assert posed_images(path, meta)[0].intrinsics.params[4:] == (0.1, 0.2, 0.3, 0.4)
    meta["k3"] = 0.5
    found = posed_images(path, meta)[0].intrinsics
    assert (found.model, found.params[4:9]) == ("FULL_OPENCV", (0.1, 0.2, 0.3, 0.4, 0.5))
    meta["distortion_params"] = [0.1, 0.2, 0.0, 0.0, 0.3, 0.4]
    assert posed_images(path, meta)[0].intrinsics.model == "OPENCV"
    meta["camera_model"] = "OPENCV_FISHEYE"
    assert posed_images(path, meta)[0].intrinsics.params[4:] == (0.1, 0.2, 0.0, 0.0)


def test_intrinsics_of_a_frame_come_before_those_of_the_file(data: Path):
    path = data / "transforms.json"
    meta = read_transforms(path)
    meta["frames"][1]["fl_x"] = 77.0
    images = posed_images(path, meta)
    assert images[1].intrinsics.params[0] == 77.0
    assert images[0].intrinsics.params[0] == meta["fl_x"]


def test_transparency_is_laid_over_white_and_exif_is_not_applied(tmp_path: Path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = np.asarray(read_rgb(tmp_path / "a.png"))
    assert read[0, 0].tolist() == [10, 20, 30]
    assert read[1, 1].tolist() == [255, 255, 255]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(pixels[..., :3]).save(tmp_path / "b.jpg", exif=exif)
    assert read_rgb(tmp_path / "b.jpg").size == (3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.update(frames=[]), "no views"),
        (lambda meta: meta.pop("frames"), "no 'frames'"),
        (lambda meta: meta["frames"][0].pop("file_path"), "frame 0: no 'file_path'"),
        (lambda meta: meta["frames"][0].update(file_path="images/x.png"), "x.png: missing"),
        (lambda meta: meta["frames"][2].update(transform_matrix="no"), "frame 2: 'transform"),
        (lambda meta: meta["frames"][2].pop("transform_matrix"), "frame 2: 'transform_matrix'"),
        (
            lambda meta: meta["frames"][1]["transform_matrix"][0].__setitem__(0, 7.0),
            "frame 1: the left 3 x 3",
        ),
        (
            lambda meta: meta["frames"][1]["transform_matrix"][0].__setitem__(0, float("nan")),
            "frame 1: 'transform_matrix' is no",
        ),
        (lambda meta: meta.pop("fl_x"), "no 'fl_x'"),
        (lambda meta: meta.update(cx="left"), "intrinsics are no numbers"),
        (lambda meta: meta.update(camera_model="EQUIRECTANGULAR"), "EQUIRECTANGULAR"),
        (lambda meta: meta.update(w=100), "says 100 x 256"),
        (lambda meta: meta.update(frames=meta["frames"][:1]), "at least three"),
    ],
)
def test_data_that_cannot_give_points_is_one_line_and_stays_as_it_was(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys, change, message: str
):
    change_transforms(data, change)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    line = expect_error(monkeypatch, capsys, data)
    assert message in line
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_missing_folders_and_spoiled_files_are_named(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert "no such folder" in expect_error(monkeypatch, capsys, data / "nowhere")
    assert "transforms.json: missing" in expect_error(monkeypatch, capsys, data / "images")
    assert "--downscale" in expect_error(monkeypatch, capsys, data, "--downscale", 1)
    assert "max_features" in expect_error(monkeypatch, capsys, data, "--max-features", 1)
    (data / "images" / "view_003.png").write_bytes(b"spoiled")
    assert "view_003.png: spoiled" in expect_error(monkeypatch, capsys, data)
    (data / "transforms.json").write_text("{")
    assert "not a JSON file" in expect_error(monkeypatch, capsys, data)


def test_files_outside_the_data_set_are_not_linked(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (data / "images" / "view_000.png").rename(tmp_path / "outside.png")
    change_transforms(data, lambda meta: meta["frames"][0].update(file_path="../outside.png"))
    line = expect_error(monkeypatch, capsys, data, "--out", tmp_path / "out", "--max-features", 300)
    assert "outside its own folder" in line


def test_full_disk_is_said_with_the_file_that_does_not_fit(tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(28, "No space left")

    target = tmp_path / "images_2" / "view.jpg"
    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(CacheError, match=r"images_2/view\.jpg: cannot be written \(No space left"):
        save_image(Image.new("RGB", (8, 8)), target)
    assert list(target.parent.iterdir()) == []
