from pathlib import Path

import pytest

from hiersplat.segmentation.labels import LabelsSegmenter
from hiersplat.segmentation.regions import RegionsSegmenter
from hiersplat.segmentation.segmenter import (
    SegmentationConfig,
    build_segmenter,
    load_segmentation_config,
)

PRESETS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def write(tmp_path):
    def write_settings(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return path

    return write_settings


@pytest.mark.parametrize(
    ("name", "size", "points"),
    [("speed", "small", 16), ("quality", "large", 32), ("coverage", "large", 64)],
)
def test_presets_name_the_size_and_the_points(name, size, points):
    settings = load_segmentation_config(PRESETS / f"{name}.yaml")
    assert (settings.segmenter, settings.sam2.model_size) == ("sam2", size)
    assert settings.sam2.points_per_side == points


def test_quality_is_the_default():
    assert load_segmentation_config(PRESETS / "quality.yaml") == SegmentationConfig()


def test_quickstart_needs_no_weights():
    assert load_segmentation_config(PRESETS / "quickstart.yaml").segmenter == "regions"


def test_a_bare_name_is_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_segmentation_config(Path("speed")).sam2.points_per_side == 16


def test_what_is_not_given_keeps_its_default(write):
    settings = load_segmentation_config(write("pyramid: {containment: 0.8}"))
    assert settings.pyramid.containment == 0.8
    assert settings.segmenter == "sam2"


def test_an_empty_file_means_the_defaults(write):
    assert load_segmentation_config(write("# nothing\n")) == SegmentationConfig()


def test_paths_and_whole_numbers_are_converted(write):
    settings = load_segmentation_config(
        write("sam2: {checkpoint: weights/a.pt, pred_iou_thresh: 1}\npyramid: {min_area: 0}")
    )
    assert settings.sam2.checkpoint == Path("weights/a.pt")
    assert isinstance(settings.sam2.pred_iou_thresh, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("segmentr: sam2", r"settings.yaml: unknown key 'segmentr'; expected one of segmenter"),
        ("sam2: {points: 3}", r"settings.yaml: sam2: unknown key 'points'"),
        ("segmenter: sam3", r"segmenter is 'sam3'; expected one of sam2, regions, labels"),
        ("sam2: {points_per_side: many}", r"sam2: points_per_side is 'many'; expected int"),
        ("sam2: {points_per_side: true}", r"points_per_side is True; expected int"),
        ("sam2: {points_per_side: 0}", r"sam2: points_per_side 0 is outside its range"),
        ("pyramid: {containment: 3}", r"settings.yaml: pyramid: .*containment is 3"),
        ("regions: {part_height: 9}", r"settings.yaml: regions: .*part_height"),
        ("- a\n- b", r"settings.yaml: expected keys and values"),
        ("regions: 3", r"settings.yaml: regions: expected keys and values"),
        ("a: [", r"settings.yaml: not YAML"),
    ],
)
def test_settings_that_do_not_fit_name_file_and_key(write, text, message):
    with pytest.raises(ValueError, match=message):
        load_segmentation_config(write(text))


def test_missing_settings_are_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_segmentation_config(Path("nowhere.yaml"))


def test_unknown_preset_names_those_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="speed"):
        load_segmentation_config(Path("fastest"))


def test_the_settings_choose_the_segmenter():
    assert isinstance(build_segmenter(SegmentationConfig("labels"), "cpu"), LabelsSegmenter)
    assert isinstance(build_segmenter(SegmentationConfig("regions"), "cpu"), RegionsSegmenter)
    with pytest.raises(ValueError, match="unknown segmenter"):
        build_segmenter(SegmentationConfig("other"), "cpu")  # pyright: ignore
