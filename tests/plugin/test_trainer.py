"""Checkpoints are whole, and what ends a run early is said in one line."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from nerfstudio.engine.trainer import Trainer
from nerfstudio.pipelines.base_pipeline import VanillaPipeline

from hiersplat.plugin import trainer as trainer_module
from hiersplat.plugin.config import hiersplat_quickstart
from hiersplat.plugin.pipeline import HiersplatPipeline
from hiersplat.plugin.trainer import HiersplatTrainer, HiersplatTrainerConfig


@pytest.fixture
def trainer(tmp_path: Path) -> HiersplatTrainer:
    """A trainer at step 7 of 20 whose model is one linear layer."""
    config = HiersplatTrainerConfig(
        method_name="m", output_dir=tmp_path, experiment_name="scene", timestamp="run"
    )
    config.max_num_iterations = 20
    made = HiersplatTrainer(config)
    made.base_dir.mkdir(parents=True)
    made.pipeline = torch.nn.Linear(2, 3)
    made.optimizers = SimpleNamespace(optimizers={}, schedulers={})
    made.callbacks = []
    made.step = 7
    return made


def test_every_method_trains_with_it():
    assert hiersplat_quickstart.config._target is HiersplatTrainer


def test_newest_checkpoint_replaces_the_one_before_and_leaves_nothing_else(trainer):
    for step in (3, 5):
        trainer.save_checkpoint(step)
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-000000005.ckpt"]
    assert [path.name for path in trainer.base_dir.iterdir()] == ["nerfstudio_models"]
    state = torch.load(trainer._path(5), weights_only=True)
    assert set(state) == {"step", "pipeline", "optimizers", "schedulers", "scalers"}
    assert torch.equal(state["pipeline"]["weight"], trainer.pipeline.weight)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("failed")])
def test_full_disk_keeps_the_checkpoint_before_and_names_the_file(trainer, monkeypatch, error):
    trainer.save_checkpoint(3)

    def fill_the_disk(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(trainer_module.torch, "save", fill_the_disk)
    with pytest.raises(SystemExit, match=r"step-000000005\.ckpt: cannot be written"):
        trainer.save_checkpoint(5)
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-000000003.ckpt"]
    assert [path.name for path in trainer.base_dir.iterdir()] == ["nerfstudio_models"]


def test_run_whose_folder_cannot_be_made_names_it(tmp_path: Path):
    (tmp_path / "outputs").touch()
    config = HiersplatTrainerConfig(
        method_name="m", output_dir=tmp_path / "outputs", experiment_name="scene", timestamp="run"
    )
    with pytest.raises(SystemExit, match="outputs/scene/m/run: cannot be written"):
        config.save_config()


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_interrupted_training_says_how_to_go_on(trainer, monkeypatch, capsys):
    monkeypatch.setattr(Trainer, "train", interrupt)
    with pytest.raises(SystemExit) as ended:
        trainer.train()
    assert ended.value.code == 130
    assert "interrupted at step 7; there is no checkpoint yet" in capsys.readouterr().err
    trainer.save_checkpoint(5)
    with pytest.raises(SystemExit):
        trainer.train()
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    # Steps 0 to 5 of 20 are done.
    assert f"--load-dir {trainer.checkpoint_dir} --max-num-iterations 14" in line


def test_interrupted_preparation_says_that_views_are_cached(trainer, monkeypatch, capsys):
    monkeypatch.setattr(Trainer, "setup", interrupt)
    with pytest.raises(SystemExit) as ended:
        trainer.setup()
    assert ended.value.code == 130
    assert "run the same command to go on" in capsys.readouterr().err


def test_ending_the_viewer_of_a_finished_run_is_no_error(trainer, monkeypatch):
    trainer.save_checkpoint(7)
    trainer.training_state = "completed"
    monkeypatch.setattr(Trainer, "train", interrupt)
    trainer.train()


def test_checkpoint_that_is_not_there_is_named_before_views_are_prepared(trainer, tmp_path):
    trainer.config.load_dir = tmp_path / "nowhere"
    with pytest.raises(SystemExit, match="nowhere: no such folder"):
        trainer.setup()
    trainer.config.load_dir = tmp_path
    with pytest.raises(SystemExit, match="no checkpoint there"):
        trainer.setup()
    trainer.config.load_dir, trainer.config.load_checkpoint = None, tmp_path / "a.ckpt"
    with pytest.raises(SystemExit, match=r"a\.ckpt: no such checkpoint"):
        trainer.setup()


def test_newest_checkpoint_is_found_among_other_files(trainer, monkeypatch):
    trainer.config.save_only_latest_checkpoint = False
    for step in (10, 9):
        trainer.save_checkpoint(step)
    (trainer.checkpoint_dir / ".notes").touch()
    trainer.config.load_dir = trainer.checkpoint_dir
    monkeypatch.setattr(Trainer, "setup", lambda *arguments: None)
    trainer.setup()
    assert trainer.config.load_step == 10


def test_spoiled_checkpoint_is_named(trainer):
    trainer.save_checkpoint(5)
    whole = trainer._path(5).read_bytes()
    trainer.config.load_dir, trainer.config.load_step = trainer.checkpoint_dir, 5
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        trainer._path(5).write_bytes(content)
        with pytest.raises(SystemExit, match=r"nerfstudio_models: the checkpoint is spoiled"):
            trainer._load_checkpoint()


def test_geometry_that_is_not_there_is_named_before_views_are_prepared(tmp_path):
    config = deepcopy(hiersplat_quickstart.config.pipeline)
    config.model.geometry = tmp_path / "gone.ply"
    with pytest.raises(SystemExit, match=r"gone\.ply: no such run or \.ply"):
        HiersplatPipeline(config, "cpu")


def test_finished_run_does_not_ask_for_the_geometry_it_started_from(tmp_path, monkeypatch):
    config = deepcopy(hiersplat_quickstart.config.pipeline)
    config.model.geometry = tmp_path / "gone.ply"
    given = []
    monkeypatch.setattr(
        VanillaPipeline, "__init__", lambda self, config, *rest, **more: given.append(config)
    )
    HiersplatPipeline(config, "cpu", test_mode="test")
    assert given[0].model.geometry is None
