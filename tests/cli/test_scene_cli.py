"""The program hiersplat-scene: what it prints, how it ends."""

import sys
from pathlib import Path

import pytest

from hiersplat.cli import scene as program

SCENE = """\
name: box
objects:
  - {name: box, parts: [{name: box, shapes: [{kind: box}]}]}
cameras: [{views: 3, held_out: 1}]
image: {width: 16, height: 16}
points: 20
"""


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "box.yaml"
    path.write_text(SCENE)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["hiersplat-scene", *map(str, arguments)])
    try:
        program.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_scene_is_rendered_beside_its_file_and_the_next_step_is_told(scene, monkeypatch, capsys):
    assert run(monkeypatch, scene) == 0
    assert (scene.parent / "box" / "transforms.json").exists()
    printed = capsys.readouterr().out
    assert "2 training and 1 held-out views of 16 x 16" in printed
    assert "ns-train hiersplat-quickstart --data" in printed


def test_out_seed_and_size_are_followed(scene, tmp_path, monkeypatch, capsys):
    out = tmp_path / "elsewhere"
    assert run(monkeypatch, scene, "--out", out, "--seed", 3, "--width", 20, "--height", 12) == 0
    assert "20 x 12" in capsys.readouterr().out
    assert '"seed": 3' in (out / "transforms.json").read_text()


def test_mistake_in_the_scene_ends_in_one_line_and_status_2(scene, monkeypatch, capsys):
    scene.write_text(SCENE.replace("views: 3", "views: many"))
    assert run(monkeypatch, scene) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "box.yaml:4: cameras[0].views: expected a whole number, got 'many'" in error
    assert not (scene.parent / "box").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "1"], "width must be in"),
        (["--seed", "-4"], "seed must not be negative"),
    ],
)
def test_impossible_settings_end_in_one_line_and_status_2(
    arguments, message, scene, monkeypatch, capsys
):
    assert run(monkeypatch, scene, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_missing_scene_is_named(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path / "nowhere.yaml") == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_help_teaches_by_example(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    assert "hiersplat-scene scenes/tabletop.yaml" in capsys.readouterr().out
