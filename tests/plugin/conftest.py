"""A small data set and a finished run on it, made once by the programs a user calls."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SCENE = Path(__file__).parents[2] / "scenes" / "tabletop.yaml"
BIN = Path(sys.executable).parent


Completed = subprocess.CompletedProcess[str]
RunProgram = Callable[..., Completed]


def _run_program(*words: object, cwd: Path, timeout: int = 800) -> Completed:
    """Run a program of this environment without a network, a terminal or extra variables."""
    name, *arguments = (str(word) for word in words)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TORCH")}
    # What any machine without a way out looks like.
    environment |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        [str(BIN / name), *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _must_succeed(result: Completed) -> str:
    """Return what a program printed; show all of it where it failed."""
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-6000:]
    return output


@pytest.fixture(scope="session")
def run_program() -> RunProgram:
    """Call a program: name and arguments, ``cwd`` and ``timeout`` in seconds."""
    return _run_program


@pytest.fixture(scope="session")
def must_succeed() -> Callable[[Completed], str]:
    """Return what a program printed, or fail with it."""
    return _must_succeed


@dataclass(frozen=True)
class FinishedRun:
    """Folder of a run, of its data set, and what training printed."""

    folder: Path
    data: Path
    home: Path
    output: str

    @property
    def config(self) -> Path:
        return self.folder / "config.yml"


@pytest.fixture(scope="session")
def tiny_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tabletop at 64 x 64 pixels."""
    data = tmp_path_factory.mktemp("data") / "tabletop"
    _must_succeed(
        _run_program(
            "hiersplat-scene", SCENE, "--out", data, "--width", 64, "--height", 64, cwd=data.parent
        )
    )
    return data


FEATURES = (
    *("--pipeline.datamanager.features.features", "clipseg"),
    *("--pipeline.datamanager.features.checkpoint", "micro-clipseg"),
)
"""The CLIPSeg that comes with the project."""


@pytest.fixture(scope="session")
def finished_run(tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run of 400 steps on the tiny scene with its true labels and CLIPSeg features."""
    home = tmp_path_factory.mktemp("runs")
    output = _must_succeed(
        _run_program(
            *("ns-train", "hiersplat-quickstart", "--data", tiny_scene),
            *("--max-num-iterations", 400, "--timestamp", "run"),
            *("--pipeline.model.num-downscales", 0),
            *("--pipeline.datamanager.segmentation.segmenter", "labels"),
            *FEATURES,
            cwd=home,
        )
    )
    folder = home / "outputs" / tiny_scene.name / "hiersplat-quickstart" / "run"
    return FinishedRun(folder, tiny_scene, home, output)


@pytest.fixture
def copied_scene(tiny_scene: Path, tmp_path: Path) -> Path:
    """A copy of the tiny scene that a test may spoil."""
    return Path(shutil.copytree(tiny_scene, tmp_path / "scene"))


@pytest.fixture
def four_views(copied_scene: Path) -> Path:
    """The tiny scene with four training views and one held out, for what is slow on each."""
    path = copied_scene / "transforms.json"
    meta = json.loads(path.read_text())
    train, held_out = meta["train_filenames"][::6], meta["test_filenames"][:1]
    meta |= {"train_filenames": train, "val_filenames": held_out, "test_filenames": held_out}
    meta["frames"] = [one for one in meta["frames"] if one["file_path"] in train + held_out]
    path.write_text(json.dumps(meta))
    return copied_scene
