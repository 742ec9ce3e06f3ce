from pathlib import Path

import pytest

from hiersplat import commands
from hiersplat.commands import command


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of an environment in the present folder, which the shell does not find."""
    path = tmp_path / "env" / "bin" / "say"
    path.parent.mkdir(parents=True)
    path.touch(mode=0o755)
    monkeypatch.setattr(commands.sys, "executable", str(path.with_name("python")))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    return path


def test_program_that_the_shell_does_not_find_is_called_by_its_path(program, monkeypatch):
    assert command("say") == "env/bin/say"
    far = program.parents[2] / "a" / "b" / "c" / "d" / "e" / "f" / "g" / "h" / "i"
    far.mkdir(parents=True)
    monkeypatch.chdir(far)
    assert (far / command("say")).resolve() == program


def test_program_that_the_shell_finds_is_called_by_its_name(program, monkeypatch):
    monkeypatch.setenv("PATH", str(program.parent))
    assert command("say") == "say"


def test_program_of_the_same_name_elsewhere_is_not_meant(program, monkeypatch):
    other = program.parents[2] / "elsewhere" / "say"
    other.parent.mkdir()
    other.touch(mode=0o755)
    assert command("say") == "env/bin/say"


def test_unknown_program_is_called_by_its_name(program):
    assert command("sing") == "sing"
