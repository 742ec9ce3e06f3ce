"""The demo's ``--prompt``, with a random CLIPSeg in place of one that knows things."""

import sys

import numpy as np
import pytest
from PIL import Image

from hiersplat.cli.demo import main
from hiersplat.cli.prompt import blend_heat
from hiersplat.semantics.micro_model import write_random_clipseg


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    words = ["the", "red", "mug", "object", "things", "stuff", "texture"]
    return write_random_clipseg(tmp_path_factory.mktemp("weights") / "clipseg", words)


@pytest.fixture
def demo(monkeypatch, capsys, tmp_path):
    image = np.full((40, 60, 3), 200, np.uint8)
    image[10:30, 10:25] = (200, 30, 30)
    image[10:30, 35:50] = (30, 30, 200)
    Image.fromarray(image).save(tmp_path / "scene.png")

    def run(*arguments):
        fixed = ["hiersplat-demo", tmp_path / "scene.png", "--segmenter", "regions"]
        argv = [*fixed, "--out", tmp_path / "out", *arguments]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in argv])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run


def test_a_prompt_adds_a_picture_and_a_table(demo, weights, tmp_path):
    status, out, _ = demo("--prompt", "the red mug", "--clipseg", weights)
    assert status == 0
    assert '"the red mug"' in out
    picture = np.asarray(Image.open(tmp_path / "out" / "scene-prompt.png"))
    assert picture.shape[1] > 3 * 320
    assert (tmp_path / "out" / "scene-panel.png").is_file()


@pytest.mark.parametrize(("text", "said"), [("", "empty"), ("дом", "does not know")])
def test_a_bad_prompt_ends_the_program_before_the_long_work(demo, weights, tmp_path, text, said):
    status, _, err = demo("--prompt", text, "--clipseg", weights)
    assert status == 2
    assert said in err
    assert not (tmp_path / "out").exists()


def test_absent_clipseg_weights_are_named(demo, tmp_path):
    status, _, err = demo("--prompt", "mug", "--clipseg", tmp_path / "none")
    assert status == 2
    assert "no such folder" in err


def test_heat_runs_from_blue_to_red():
    heat = blend_heat(np.zeros((1, 2, 3), np.uint8), np.array([[0.1, 0.95]]))
    assert heat[0, 0, 2] > heat[0, 0, 0]
    assert heat[0, 1, 0] > heat[0, 1, 2]
