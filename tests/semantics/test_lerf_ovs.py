"""A made-up scene in the format of LERF-OVS, judged by both protocols."""

import json

import numpy as np
import pytest

from hiersplat.semantics.lerf_ovs import (
    answer_from_maps,
    answer_from_silhouette,
    judge_maps,
    judge_silhouettes,
    read_frames,
)

HEIGHT, WIDTH = 90, 120


def thing(category, left, top, right, bottom):
    return {
        "category": category,
        "segmentation": [[left, top], [right, top], [right, bottom], [left, bottom]],
        "bbox": [left, top, right, bottom],
    }


@pytest.fixture
def scene(tmp_path):
    objects = [thing("waldo", 10, 10, 49, 49), thing("egg", 80, 10, 99, 29)]
    objects.append(thing("egg", 80, 60, 99, 79))
    for number in (1, 2):
        content = {
            "info": {"name": f"frame_0000{number}.jpg", "width": WIDTH, "height": HEIGHT},
            "objects": objects if number == 1 else objects[:1],
        }
        (tmp_path / f"frame_0000{number}.json").write_text(json.dumps(content))
    (tmp_path / "frame_00001.jpg").write_bytes(b"the image is not read")
    return tmp_path


def truth(frames, text, frame=0):
    return frames[frame].targets[text].mask


def test_polygons_of_a_category_are_joined_and_boxes_kept(scene):
    frames = read_frames(scene)
    assert [frame.name for frame in frames] == ["frame_00001.jpg", "frame_00002.jpg"]
    assert frames[0].size == (HEIGHT, WIDTH)
    egg = frames[0].targets["egg"]
    assert egg.mask.sum() == 2 * 20 * 20
    assert egg.boxes.shape == (2, 4)
    assert egg.holds(70, 90)
    assert egg.holds(10, 80)
    assert not egg.holds(45, 90)


def test_true_maps_reach_the_top_by_langsplats_protocol(scene):
    frames = read_frames(scene)
    maps = {
        (frame.name, text): np.stack([0.1 * target.mask, target.mask * 1.0, 0.2 * target.mask])
        for frame in frames
        for text, target in frame.targets.items()
    }
    figures = judge_maps(frames, maps)
    assert figures.queries == 3
    assert figures.localization == 1
    assert figures.miou > 0.9
    assert figures.accuracy_50 == 1


def test_the_level_with_the_largest_relevancy_is_taken(scene):
    waldo = truth(read_frames(scene), "waldo")
    answer = answer_from_maps(np.stack([waldo * 0.3, waldo * 0.8, waldo * 0.5]))
    assert answer.level == 1
    assert waldo[answer.peak]


def test_specks_do_not_survive_the_majority():
    relevancy = np.zeros((1, HEIGHT, WIDTH))
    relevancy[0, 20:60, 20:60] = 1
    relevancy[0, 80, 100] = 1
    mask = answer_from_maps(relevancy).mask
    assert mask[40, 40]
    assert not mask[80, 100]


def test_a_missing_answer_counts_0_in_both_protocols(scene):
    frames = read_frames(scene)
    waldo = truth(frames, "waldo")
    figures = judge_maps(frames, {("frame_00001.jpg", "waldo"): waldo[None] * 1.0})
    assert figures.localization == pytest.approx(1 / 3)
    assert figures.accuracy_25 == pytest.approx(1 / 3)
    figures = judge_silhouettes(frames, {("frame_00001.jpg", "waldo"): waldo * 1.0})
    assert figures.miou == pytest.approx(1 / 3)
    assert np.isnan(figures.localization)


def test_true_silhouettes_reach_exactly_1_by_opengaussians_protocol(scene):
    frames = read_frames(scene)
    silhouettes = {
        (frame.name, text): target.mask * 0.95
        for frame in frames
        for text, target in frame.targets.items()
    }
    figures = judge_silhouettes(frames, silhouettes)
    assert (figures.miou, figures.accuracy_25, figures.accuracy_50) == (1, 1, 1)


def test_faint_coverage_is_no_silhouette():
    accumulation = np.array([[0.69, 0.7, 0.71, 0.0, 1.0]])
    assert answer_from_silhouette(accumulation).tolist() == [[False, False, True, False, True]]


def test_accuracy_is_strict(scene):
    frames = read_frames(scene)[1:]
    half = truth(frames, "waldo").copy()
    half[30:] = False
    figures = judge_silhouettes(frames, {("frame_00002.jpg", "waldo"): half * 1.0})
    assert figures.miou == 0.5
    assert figures.accuracy_50 == 0
    assert figures.accuracy_25 == 1


def test_maps_of_another_size_are_refused(scene):
    frames = read_frames(scene)
    with pytest.raises(ValueError, match="frame_00001"):
        judge_maps(frames, {("frame_00001.jpg", "waldo"): np.zeros((1, 3, 3))})
    with pytest.raises(ValueError, match="frame_00001"):
        judge_silhouettes(frames, {("frame_00001.jpg", "waldo"): np.zeros((3, 3))})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not labels"),
        ("[]", "not labels"),
        ("{}", "no 'info'"),
        ('{"info": {"name": "a", "width": 0, "height": 4}, "objects": []}', "not positive"),
        (
            '{"info": {"name": "a", "width": 4, "height": 4}, "objects": '
            '[{"category": "x", "segmentation": [[1, 2]], "bbox": [0, 0, 1, 1]}]}',
            "no polygon",
        ),
        (
            '{"info": {"name": "a", "width": 4, "height": 4}, "objects": '
            '[{"category": "x", "segmentation": [[1, 2], [2, 3], [3, 1]], "bbox": [0]}]}',
            "not labels",
        ),
    ],
)
def test_what_is_not_in_the_format_is_named(tmp_path, content, said):
    (tmp_path / "frame_00001.json").write_text(content)
    with pytest.raises(ValueError, match=said) as caught:
        read_frames(tmp_path)
    assert "frame_00001.json" in str(caught.value)


def test_absent_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_frames(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no labels"):
        read_frames(tmp_path)


def test_labels_that_ask_for_nothing_are_no_benchmark():
    with pytest.raises(ValueError, match="ask for nothing"):
        judge_maps([], {})
