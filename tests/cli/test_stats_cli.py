import os
import pickle
import sys

import numpy as np
import pytest

from hiersplat.cache import encode_arrays
from hiersplat.cli import stats
from hiersplat.segmentation.masks import edges_of_dense, make_record
from hiersplat.segmentation.proposals import MaskProposals
from hiersplat.segmentation.pyramid import PyramidConfig, build_pyramid

SHAPE = (40, 50)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the program; returns its exit status, what it printed and its errors."""

    def run_stats(*arguments):
        monkeypatch.setattr(sys, "argv", ["hiersplat-stats", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        status = 0
        try:
            stats.main()
        except SystemExit as end:
            status = end.code or 0
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_stats


def box(top, left, bottom, right):
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


def store(folder, *views):
    folder.mkdir(parents=True, exist_ok=True)
    for index, masks in enumerate(views):
        records = [make_record(edges_of_dense(mask), SHAPE, 1.0, 1.0) for mask in masks]
        pyramid = build_pyramid(MaskProposals(records), SHAPE, PyramidConfig())
        (folder / f"view_{index}-0.npz").write_bytes(encode_arrays(pyramid.to_arrays()))
    return folder


NESTED = [box(0, 0, 40, 25), box(0, 0, 20, 25), box(2, 2, 9, 9)]
FLAT = [box(0, 0, 40, 25), box(0, 26, 20, 50)]


def test_masks_per_level_are_counted(run, tmp_path):
    folder = store(tmp_path / "pyramids-0a", NESTED, NESTED)
    status, printed, _ = run(folder)
    assert status == 0
    assert "2 (33.3%)" in printed
    assert "try" not in printed


def test_a_root_with_one_cache_is_found(run, tmp_path):
    store(tmp_path / "scene" / ".hiersplat" / "pyramids-0a", NESTED)
    assert run(tmp_path / "scene")[0] == 0


def test_two_caches_stand_side_by_side(run, tmp_path):
    first = store(tmp_path / "a" / "pyramids-0a", NESTED)
    second = store(tmp_path / "b" / "pyramids-0b", FLAT)
    status, printed, _ = run(first, second)
    assert status == 0
    line = next(line for line in printed.splitlines() if "whole: found" in line)
    assert "1 (33.3%)" in line
    assert "2 (100.0%)" in line


def test_a_level_that_holds_everything_gets_advice(run, tmp_path):
    _, printed, _ = run(store(tmp_path / "pyramids-0a", FLAT))
    assert "wholes are 100%" in printed
    assert "points_per_side" in printed
    assert "cost: " in printed


def test_sam_pickles_are_read(run, tmp_path):
    records = [{"segmentation": mask, "predicted_iou": 0.9} for mask in NESTED]
    path = tmp_path / "sam_cache_0.pkl"
    path.write_bytes(pickle.dumps({"a": records, "b": records}))
    for argument in (path, tmp_path):
        status, printed, errors = run(argument)
        assert status == 0, errors
        assert "2 (33.3%)" in printed


class Attack:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_calls_the_system_is_refused_with_one_line(run, tmp_path):
    path = tmp_path / "sam_cache_0.pkl"
    path.write_bytes(pickle.dumps([{"segmentation": Attack(f"touch {tmp_path}/trace")}]))
    status, printed, errors = run(path)
    assert (status, printed) == (2, "")
    assert len(errors.strip().splitlines()) == 1
    assert "sam_cache_0.pkl: refused" in errors
    assert not (tmp_path / "trace").exists()


def test_a_spoiled_file_is_said_and_not_counted(run, tmp_path):
    folder = store(tmp_path / "pyramids-0a", NESTED, NESTED)
    (folder / "view_1-0.npz").write_bytes(b"spoiled")
    status, printed, errors = run(folder)
    assert status == 0
    assert "view_1-0.npz" in errors
    assert "1 (33.3%)" in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [([{"segmentation": 3}], "not SAM's"), (["text"], "no lists of SAM records")],
)
def test_records_of_another_kind_are_named(run, tmp_path, content, message):
    path = tmp_path / "sam_cache_0.pkl"
    path.write_bytes(pickle.dumps(content))
    status, _, errors = run(path)
    assert status == 2
    assert f"{path}: " in errors
    assert message in errors


def test_missing_empty_and_ambiguous_caches_are_named(run, tmp_path):
    status, _, errors = run(tmp_path / "nowhere")
    assert status == 2
    assert "nowhere: there is no such cache" in errors
    status, _, errors = run(tmp_path)
    assert status == 2
    assert "holds no cached pyramids" in errors
    store(tmp_path / "pyramids-0a", NESTED)
    store(tmp_path / "pyramids-0b", NESTED)
    status, _, errors = run(tmp_path)
    assert status == 2
    assert "pyramids-0a, pyramids-0b" in errors


def test_all_files_spoiled_is_an_error(run, tmp_path):
    folder = store(tmp_path / "pyramids-0a", NESTED)
    (folder / "view_0-0.npz").write_bytes(b"spoiled")
    status, _, errors = run(folder)
    assert status == 2
    assert "there is no pyramid to measure" in errors
