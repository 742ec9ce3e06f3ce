import json
import sys

import numpy as np
import pytest
from PIL import Image

from hiersplat.cache import read_arrays
from hiersplat.cli import demo
from hiersplat.levels import Level
from hiersplat.segmentation.masks import dense_of, edges_of
from hiersplat.segmentation.pyramid import MaskPyramid


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the program; returns its exit status, what it printed and its errors."""

    def run_demo(*arguments):
        monkeypatch.setattr(sys, "argv", ["hiersplat-demo", *map(str, arguments)])
        status = 0
        try:
            demo.main()
        except SystemExit as end:
            status = end.code or 0
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_demo


@pytest.fixture
def picture(tmp_path):
    def save(image, name="picture.png"):
        path = tmp_path / name
        image.save(path)
        return path

    return save


def scene(width=60, height=40, mode="RGB"):
    image = np.full((height, width, 3), (150, 110, 70), np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = (30, 60, 190)
    return Image.fromarray(image).convert(mode)


def test_demo_writes_panel_records_and_pyramid(run, picture, tmp_path):
    path = picture(scene())
    status, printed, _ = run(path, "--segmenter", "regions", "--out", tmp_path / "out")
    assert status == 0
    assert "masks found per level" in printed
    for level in Level:
        assert level.title in printed
    panel = Image.open(tmp_path / "out" / "picture-panel.png")
    assert panel.width > 1000
    pyramid = MaskPyramid.from_arrays(read_arrays(tmp_path / "out" / "picture-pyramid.npz"))
    assert pyramid.labels.shape == (3, 40, 60)
    content = json.loads((tmp_path / "out" / "picture-records.json").read_text())
    assert content["settings"]["segmenter"] == "regions"
    for record in content["records"]:
        mask = dense_of(edges_of(record["segmentation"], (40, 60)), (40, 60))
        assert mask.sum() == record["area"]


def test_demo_reads_the_settings_of_training(run, picture, tmp_path):
    settings = tmp_path / "mine.yaml"
    settings.write_text("segmenter: regions\nregions: {num_regions: 7}\n")
    status, _, _ = run(picture(scene()), "--config", settings, "--out", tmp_path / "out")
    assert status == 0
    content = json.loads((tmp_path / "out" / "picture-records.json").read_text())
    assert content["settings"]["regions"]["num_regions"] == 7
    assert len(content["records"]) <= 13


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("grey.png", scene(mode="L")),
        ("alpha.png", scene(mode="RGBA")),
        ("deep.png", Image.fromarray(np.full((20, 30), 40000, np.uint16))),
        ("one.png", scene(1, 1)),
        ("wide.png", scene(20000, 8)),
        ("photo.jpg", scene()),
    ],
)
def test_images_of_all_kinds_work(run, picture, tmp_path, name, image):
    status, printed, errors = run(
        picture(image, name), "--segmenter", "regions", "--out", tmp_path / "out"
    )
    assert status == 0, errors
    assert "whole" in printed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.png", b"no image at all", "is not an image"),
        ("empty.png", b"", "is not an image"),
        ("nowhere.png", None, "there is no such image"),
    ],
)
def test_what_is_no_image_gets_one_line_and_status_2(run, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    status, printed, errors = run(tmp_path / name, "--segmenter", "regions")
    assert (status, printed) == (2, "")
    assert len(errors.strip().splitlines()) == 1
    assert name in errors
    assert message in errors


def test_truncated_and_huge_images_get_one_line(run, picture, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3)).astype(np.uint8)
    cut = picture(Image.fromarray(noise), "cut.png")
    cut.write_bytes(cut.read_bytes()[:3000])
    huge = picture(Image.new("1", (20000, 20000)), "huge.png")
    for path, message in ((cut, "cut off"), (huge, "scale it down")):
        status, _, errors = run(path, "--segmenter", "regions")
        assert status == 2
        assert len(errors.strip().splitlines()) == 1
        assert f"{path}: " in errors
        assert message in errors


def test_unknown_keys_in_the_settings_are_named(run, picture, tmp_path):
    settings = tmp_path / "mine.yaml"
    settings.write_text("segmentr: regions\n")
    status, _, errors = run(picture(scene()), "--config", settings)
    assert status == 2
    assert "mine.yaml: unknown key 'segmentr'" in errors


def test_results_that_cannot_be_written_are_named(run, picture, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, _, errors = run(
        picture(scene()), "--segmenter", "regions", "--out", tmp_path / "file" / "out"
    )
    assert status == 2
    assert "cannot be written" in errors


def test_help_explains_segmenters_and_presets(run):
    status, printed, _ = run("--help")
    assert status == 0
    for word in ("IMAGE", "--segmenter", "quickstart", "hiersplat-demo photo.jpg"):
        assert word in printed


@pytest.mark.slow
def test_one_random_sam_walks_the_whole_way(run, picture, tmp_path):
    """The demo takes SAM 2 from a checkpoint file as training does."""
    from hiersplat.segmentation.sam2_model import random_model, save_checkpoint

    weights = tmp_path / "random.pt"
    save_checkpoint(random_model("tiny", seed=0), weights)
    settings = tmp_path / "tiny.yaml"
    settings.write_text(
        f"sam2: {{model_size: tiny, checkpoint: {weights}, points_per_side: 2, "
        "pred_iou_thresh: 0.0, stability_score_thresh: 0.0}\n"
    )
    status, printed, errors = run(
        picture(scene()), "--config", settings, "--device", "cpu", "--out", tmp_path / "out"
    )
    assert status == 0, errors
    assert "masks found per level" in printed
