import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hiersplat.cache import CacheError
from hiersplat.gaussians.cameras import Camera
from hiersplat.hierarchy import run as run_module
from hiersplat.hierarchy.run import RunView, load_run, load_splats, load_views, save_hierarchy
from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.levels import Level

NUM_GAUSSIANS = 5


def make_tree(num_gaussians: int = NUM_GAUSSIANS) -> SceneTree:
    nodes = (
        Node(0, Level.WHOLE, -1),
        Node(1, Level.PART, 0),
        Node(2, Level.SMALL, 1),
        Node(3, Level.SMALL, 1),
    )
    small = np.array([2, 3, -1, 2, 3] * num_gaussians)[:num_gaussians]
    rest = [np.where(small < 0, -1, parent) for parent in (1, 0)]
    return SceneTree(nodes, np.stack([small, *rest]).astype(np.int32))


def make_views() -> list[RunView]:
    K = torch.tensor([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]])
    viewmat = torch.eye(4)
    viewmat[2, 3] = 3.0
    return [
        RunView(Camera("a", viewmat, K, 16, 12), "train", image=Path("images/a.png")),
        RunView(Camera("b", viewmat, K, 16, 12), "eval", labels=Path("/data/labels/b.png")),
    ]


def write_checkpoint(run: Path, step: int = 29, scale: float = 1.0) -> Path:
    """A checkpoint as nerfstudio's trainer writes it, numpy learning rates included."""
    shapes = {
        "means": (3,),
        "scales": (3,),
        "quats": (4,),
        "features_dc": (3,),
        "features_rest": (15, 3),
        "opacities": (1,),
    }
    pipeline = {
        f"_model.gauss_params.{name}": torch.full((NUM_GAUSSIANS, *shape), scale)
        for name, shape in shapes.items()
    }
    learning_rate = np.float64(1e-3)
    content = {
        "step": step,
        "pipeline": pipeline,
        "optimizers": {"means": {"state": {}, "param_groups": [{"lr": learning_rate}]}},
        "schedulers": {"means": {"_last_lr": [learning_rate]}},
        "scalers": {},
    }
    path = run / "nerfstudio_models" / f"step-{step:09d}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    write_checkpoint(run)
    (run / "config.yml").write_text("!!python/object:never.read {}\n")
    save_hierarchy(run / "hierarchy", make_tree(), make_views())
    return run


@pytest.mark.parametrize("inside", ["", "config.yml", "hierarchy"])
def test_run_is_found_by_folder_config_or_hierarchy(run_folder: Path, inside: str):
    run = load_run(run_folder / inside)
    assert run.path == run_folder
    assert len(run.splats) == NUM_GAUSSIANS
    assert run.splats.sh.shape == (NUM_GAUSSIANS, 16, 3)
    assert run.tree.nodes == make_tree().nodes
    assert [view.name for view in run.views_of("eval")] == ["b"]


def test_views_survive_the_way_to_disk_and_back(run_folder: Path):
    before, after = make_views(), load_run(run_folder).views
    for left, right in zip(before, after, strict=True):
        assert torch.equal(left.camera.viewmat, right.camera.viewmat)
        assert torch.equal(left.camera.K, right.camera.K)
        assert (left.name, left.split) == (right.name, right.split)
    assert after[0].image is not None
    assert after[0].image.is_absolute()
    assert after[1].labels == Path("/data/labels/b.png")
    assert after[1].pyramid is None


def test_the_last_checkpoint_counts(run_folder: Path):
    write_checkpoint(run_folder, step=1000, scale=7.0)
    assert float(load_splats(run_folder).means[0, 0]) == 7.0


def test_opengl_poses_are_understood(run_folder: Path):
    path = run_folder / "hierarchy" / "views.json"
    table = json.loads(path.read_text())
    del table["views"][0]["viewmat"]
    # A camera at z = 3 that looks along -Z, as OpenGL's do.
    table["views"][0]["camera_to_world"] = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 3]]
    path.write_text(json.dumps(table))
    viewmat = load_views(path)[0].camera.viewmat
    assert (viewmat @ torch.tensor([0.0, 0, 0, 1])).tolist() == [0, 0, 3, 1]


def test_missing_run_is_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match="no such run"):
        load_run(tmp_path / "nowhere")


def test_folder_that_is_no_run_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="not a finished run"):
        load_run(tmp_path)
    (tmp_path / "scene.ply").write_text("ply")
    with pytest.raises(ValueError, match="not a run"):
        load_run(tmp_path / "scene.ply")


def test_run_without_hierarchy_says_how_to_get_one(run_folder: Path):
    shutil.rmtree(run_folder / "hierarchy")
    with pytest.raises(ValueError, match="no hierarchy.*geometry"):
        load_run(run_folder)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_spoiled_checkpoint_is_named(run_folder: Path, content: bytes):
    path = write_checkpoint(run_folder)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.name}: spoiled"):
        load_run(run_folder)


def test_checkpoint_cut_short_is_spoiled(run_folder: Path):
    path = write_checkpoint(run_folder)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=rf"{path.name}: spoiled"):
        load_run(run_folder)


def test_checkpoint_that_would_run_code_is_refused(run_folder: Path):
    path = write_checkpoint(run_folder)
    torch.save({"pipeline": shutil.rmtree}, path)
    with pytest.raises(ValueError, match="spoiled"):
        load_run(run_folder)


def test_checkpoint_of_another_method_is_named(run_folder: Path):
    path = write_checkpoint(run_folder)
    torch.save({"pipeline": {"_model.field.weight": torch.zeros(3)}}, path)
    with pytest.raises(ValueError, match="no Gaussians"):
        load_run(run_folder)


def test_run_without_checkpoint_is_named(run_folder: Path):
    for path in (run_folder / "nerfstudio_models").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no checkpoint"):
        load_run(run_folder)


def test_tree_of_other_gaussians_is_refused(run_folder: Path):
    save_hierarchy(run_folder / "hierarchy", make_tree(4), make_views())
    with pytest.raises(ValueError, match="4 Gaussians, the checkpoint holds 5"):
        load_run(run_folder)


@pytest.mark.parametrize("name", ["tree.json", "tree.npz", "views.json"])
def test_missing_or_spoiled_file_of_the_hierarchy_is_named(run_folder: Path, name: str):
    (run_folder / "hierarchy" / name).write_text("spoiled")
    with pytest.raises(ValueError, match=r"hierarchy/(tree|views)\.json"):
        load_run(run_folder)
    (run_folder / "hierarchy" / name).unlink()
    with pytest.raises(ValueError, match="hierarchy"):
        load_run(run_folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("split", "test"), ("K", [[1, 0], [0, 1]]), ("width", 0), ("viewmat", "x"), ("name", None)],
)
def test_view_that_cannot_be_read_is_named(run_folder: Path, key: str, value: object):
    path = run_folder / "hierarchy" / "views.json"
    table = json.loads(path.read_text())
    if value is None:
        del table["views"][1][key]
    else:
        table["views"][1][key] = value
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"views\.json: view 1"):
        load_run(run_folder)


def test_saving_replaces_the_hierarchy_as_a_whole(run_folder: Path):
    (run_folder / "hierarchy" / "old.txt").write_text("from before")
    save_hierarchy(run_folder / "hierarchy", make_tree(), make_views()[:1])
    assert len(load_run(run_folder).views) == 1
    assert {path.name for path in run_folder.iterdir()} == {
        "config.yml",
        "hierarchy",
        "nerfstudio_models",
    }
    assert not (run_folder / "hierarchy" / "old.txt").exists()


def test_interrupted_saving_leaves_the_old_hierarchy(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def full_disk(view: RunView):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "_view_to_json", full_disk)
    with pytest.raises(CacheError, match="No space left"):
        save_hierarchy(run_folder / "hierarchy", make_tree(), make_views()[:1])
    assert len(load_run(run_folder).views) == 2
    assert len(list(run_folder.iterdir())) == 3


def test_views_with_the_same_name_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="'a'"):
        save_hierarchy(tmp_path / "hierarchy", make_tree(), [make_views()[0]] * 2)
