import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hiersplat import preprocess
from hiersplat.levels import Level
from hiersplat.preprocess import prepare_views
from hiersplat.segmentation.segmenter import SegmentationConfig, View
from hiersplat.semantics.config import FeaturesConfig

NO_FEATURES = FeaturesConfig(features="none")
LABELS = SegmentationConfig(segmenter="labels")


def view(name: str, shift: int = 0) -> View:
    """Two wholes side by side, the left one of two parts."""
    whole = np.zeros((16, 16), np.int32)
    whole[:, 8:] = 1
    part = whole + (np.arange(16) < 8)[:, None] * (whole == 0) * 2
    labels = np.roll(np.stack([part, part, whole]), shift, axis=2)
    image = (labels.transpose(1, 2, 0) * 60 + 40).astype(np.uint8)
    return View(name=name, image=image, labels=labels)


class CountingViews(Sequence[View]):
    def __init__(self, views: list[View]) -> None:
        self.views = views
        self.loaded = 0

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index):
        self.loaded += 1
        return self.views[index]


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the views that were really segmented."""
    names: list[str] = []
    build = preprocess.build_segmenter

    def counting(config, device):
        segmenter = build(config, device)

        class Counting:
            def propose(self, view: View):
                names.append(view.name)
                return segmenter.propose(view)

        return Counting()

    monkeypatch.setattr(preprocess, "build_segmenter", counting)
    return names


def test_a_view_is_segmented_once_for_the_same_settings(tmp_path: Path, segmented: list[str]):
    views = [view("a"), view("b", 3)]
    prepared = prepare_views(views, LABELS, NO_FEATURES, tmp_path)
    again = prepare_views(views, LABELS, NO_FEATURES, tmp_path)
    assert segmented == ["a", "b"]
    for index in range(2):
        np.testing.assert_array_equal(prepared.pyramid(index).labels, again.pyramid(index).labels)
        assert prepared.pyramid(index).num_masks(Level.WHOLE) == 2


def test_other_settings_or_pixels_are_segmented_anew(tmp_path: Path, segmented: list[str]):
    prepare_views([view("a")], LABELS, NO_FEATURES, tmp_path)
    regions = SegmentationConfig(segmenter="regions")
    prepare_views([view("a")], regions, NO_FEATURES, tmp_path)
    changed = replace(view("a"), image=view("a").image + 1)
    prepare_views([changed], LABELS, NO_FEATURES, tmp_path)
    assert segmented == ["a", "a", "a"]


def test_settings_of_a_segmenter_that_is_not_used_change_nothing(
    tmp_path: Path, segmented: list[str]
):
    prepare_views([view("a")], LABELS, NO_FEATURES, tmp_path)
    other = SegmentationConfig(segmenter="labels")
    other.sam2 = replace(other.sam2, points_per_side=7)
    prepare_views([view("a")], other, NO_FEATURES, tmp_path)
    assert segmented == ["a"]


def test_only_the_spoiled_view_is_made_again(tmp_path: Path, segmented: list[str], caplog):
    views = [view("a"), view("b")]
    prepared = prepare_views(views, LABELS, NO_FEATURES, tmp_path)
    prepared.pyramid_path(1).write_bytes(b"spoiled")
    with caplog.at_level(logging.WARNING):
        again = prepare_views(views, LABELS, NO_FEATURES, tmp_path)
    assert segmented == ["a", "b", "b"]
    assert "spoiled" in caplog.text
    assert again.pyramid(1).num_masks(Level.WHOLE) == 2


def test_an_interrupted_run_keeps_what_it_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmented: list[str]
):
    views = [view("a"), view("b"), view("c")]
    store = preprocess.ViewCache.store

    def interrupted(self, name, image_hash, arrays):
        if name == "b":
            raise KeyboardInterrupt
        return store(self, name, image_hash, arrays)

    monkeypatch.setattr(preprocess.ViewCache, "store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_views(views, LABELS, NO_FEATURES, tmp_path)
    monkeypatch.setattr(preprocess.ViewCache, "store", store)
    prepare_views(views, LABELS, NO_FEATURES, tmp_path)
    assert segmented == ["a", "b", "b", "c"]


def test_no_views_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="no views"):
        prepare_views([], LABELS, NO_FEATURES, tmp_path)


def test_a_pyramid_taken_away_is_named(tmp_path: Path):
    prepared = prepare_views([view("a")], LABELS, NO_FEATURES, tmp_path)
    prepared.pyramid_path(0).unlink()
    with pytest.raises(ValueError, match="start the run again"):
        prepared.pyramid(0)


def test_views_are_loaded_one_at_a_time_and_not_kept(tmp_path: Path):
    views = CountingViews([view("a"), view("b")])
    prepare_views(views, LABELS, NO_FEATURES, tmp_path)
    # Once for the hash, once to be segmented.
    assert views.loaded == 4
