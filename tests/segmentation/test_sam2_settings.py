"""Settings, bad input and memory of the SAM 2 generator; nothing here runs a real model."""

import dataclasses
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

from hiersplat.segmentation import Sam2Config, build_sam_generator
from hiersplat.segmentation.sam2_memory import (
    free_memory,
    in_batches,
    is_out_of_memory,
    planned_batch,
)
from hiersplat.segmentation.sam2_model import random_model
from hiersplat.segmentation.sam2_workers import spreading


def test_defaults_are_those_of_the_project():
    config = Sam2Config()
    assert (config.model_size, config.version) == ("large", "2.1")
    assert (config.points_per_side, config.points_per_batch) == (32, 64)
    assert (config.pred_iou_thresh, config.stability_score_thresh) == (0.7, 0.92)
    assert config.box_nms_thresh == 0.7
    config.check()


def test_importing_the_settings_imports_no_model_library():
    code = (
        "import hiersplat.segmentation, sys; print({'torch', 'sam2', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("points_per_side", 0, "from 1"),
        ("points_per_side", 2.5, "from 1"),
        ("points_per_side", True, "from 1"),
        ("points_per_batch", 0, "from 1"),
        ("pred_iou_thresh", 1.5, "[0, 1]"),
        ("pred_iou_thresh", -0.1, "[0, 1]"),
        ("stability_score_thresh", float("nan"), "[0, 1]"),
        ("box_nms_thresh", "0.7", "[0, 1]"),
        ("crop_nms_thresh", 2, "[0, 1]"),
        ("crop_n_layers", -1, "from 0"),
        ("crop_overlap_ratio", 1.0, "[0, 1]"),
        ("min_mask_region_area", -5, "from 0"),
        ("stability_score_offset", 0.0, "inf"),
        ("model_size", "huge", "base_plus"),
        ("version", "3", "2.1"),
        ("small_regions", "magic", "opencv"),
        ("precision", "float8", "float32"),
    ],
)
def test_value_out_of_range_is_named_with_the_range(name, value, allowed):
    with pytest.raises(ValueError, match=name) as caught:
        build_sam_generator(**{name: value})
    assert repr(value) in str(caught.value)
    assert allowed in str(caught.value)


def test_more_layers_of_crops_than_points_are_refused():
    with pytest.raises(ValueError, match="crop_n_points_downscale_factor 8"):
        build_sam_generator(points_per_side=4, crop_n_layers=1, crop_n_points_downscale_factor=8)


def test_unknown_keyword_is_refused():
    with pytest.raises(ValueError, match="point_per_side") as caught:
        build_sam_generator(point_per_side=3)
    assert "points_per_side" in str(caught.value)


def test_every_setting_has_help():
    import inspect

    source = inspect.getsource(Sam2Config)
    for field in dataclasses.fields(Sam2Config):
        declared = source.index(f"\n    {field.name}:")
        assert source[declared:].split("\n", 2)[2].lstrip().startswith('"""'), field.name


@pytest.fixture(scope="module")
def generator():
    return build_sam_generator(model=random_model("tiny", image_size=128), points_per_side=1)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((8, 8, 3), np.float32),
        [[0, 0, 0]],
    ],
)
def test_what_is_no_rgb_image_of_bytes_is_refused(generator, image):
    with pytest.raises(ValueError, match="image (is|has)"):
        generator.generate(image)


def test_unknown_output_is_refused(generator):
    with pytest.raises(ValueError, match="coco"):
        generator.generate(np.zeros((8, 8, 3), np.uint8), output_mode="coco")


def test_a_very_wide_image_works(generator):
    assert isinstance(generator.generate(np.zeros((4, 20_000, 3), np.uint8)), list)


def points(count):
    return np.arange(2.0 * count, dtype=np.float32).reshape(-1, 2)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on_where_it_failed(error, caplog):
    seen = []

    def work(batch):
        if len(batch) > 4:
            raise error
        seen.append(batch)
        return len(batch)

    with caplog.at_level(logging.WARNING):
        assert sum(in_batches(work, points(20), size=16)) == 20
    np.testing.assert_array_equal(np.concatenate(seen), points(20))
    assert len([record for record in caplog.records if "memory" in record.message]) == 1


@pytest.mark.parametrize(("free", "size"), [(None, 64), (10**9, 50), (10**4, 1), (10**12, 64)])
def test_a_batch_is_planned_from_half_of_the_free_memory(monkeypatch, caplog, free, size):
    monkeypatch.setattr("hiersplat.segmentation.sam2_memory.free_memory", lambda device: free)
    with caplog.at_level(logging.INFO):
        assert planned_batch(64, 10**7, torch.device("cpu")) == size
    assert bool(caplog.records) == (size < 64)


def test_free_memory_is_that_of_this_machine():
    import psutil

    free = free_memory(torch.device("cpu"))
    assert free is None or 0 < free <= psutil.virtual_memory().total


def test_batches_before_the_failure_are_not_done_again():
    sizes = []

    def work(batch):
        if batch[0, 0] > 10 and len(batch) > 2:
            raise MemoryError
        sizes.append(len(batch))

    in_batches(work, points(16), size=8)
    assert sizes == [8, 2, 2, 2, 2]


def test_a_single_point_that_does_not_fit_names_three_ways_out():
    def work(batch):
        raise MemoryError

    with pytest.raises(MemoryError, match="model_size.*points_per_batch.*points_per_side"):
        in_batches(work, points(5), size=4)


def test_other_errors_pass():
    def work(batch):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        in_batches(work, points(5), size=4)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_workers_keep_the_order_and_give_torch_its_threads_back():
    before = torch.get_num_threads()
    with spreading(torch.device("cpu")) as spread:
        parts = spread(lambda chunk: chunk.copy(), points(37))
    np.testing.assert_array_equal(np.concatenate(parts), points(37))
    assert torch.get_num_threads() == before
    with pytest.raises(MemoryError), spreading(torch.device("cpu")) as spread:
        spread(_fail, points(3))
    assert torch.get_num_threads() == before


def _fail(chunk):
    raise MemoryError
