"""``hiersplat-checkpoints`` as a user runs it."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def run(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "hiersplat.cli.checkpoints", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ
            | {
                "HF_HUB_OFFLINE": "1",
                "HF_HUB_CACHE": str(tmp_path / "hub"),
                "HIERSPLAT_CHECKPOINTS": str(tmp_path),
                "COLUMNS": "200",
            },
        )

    return run


def test_list_names_every_file_and_where_it_is(run, tmp_path):
    (tmp_path / "sam2.1_hiera_tiny.pt").touch()
    done = run("list")
    assert done.returncode == 0, done.stderr
    for size in ("tiny", "small", "base_plus", "large"):
        assert f"sam2.1_hiera_{size}.pt" in done.stdout
    assert "898 MB" in done.stdout
    assert done.stdout.count("no ") >= 7


def test_where_prints_the_path_alone(run, tmp_path):
    (tmp_path / "sam2_hiera_small.pt").touch()
    done = run("where", "small", "--version", "2")
    assert done.stdout.strip() == str(tmp_path / "sam2_hiera_small.pt")


@pytest.mark.parametrize("action", ["where", "fetch"])
def test_absent_weights_end_in_one_line_that_says_what_to_do(run, action):
    done = run(action, "base_plus")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    for part in ("sam2.1_hiera_base_plus.pt", "hiersplat-checkpoints fetch", "huggingface.co"):
        assert part in done.stderr


def test_wrong_words_are_refused(run):
    assert run("where").returncode == 2
    assert run("where", "huge").returncode == 2
    assert run("list", "tiny").returncode == 2
    assert run("--help").returncode == 0
