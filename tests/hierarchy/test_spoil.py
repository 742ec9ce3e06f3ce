import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.levels import UNLABELLED, Level


def load_bench(name):
    path = Path(__file__).parents[2] / "bench" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


spoiling = load_bench("spoil")


def desk(size: int = 24) -> np.ndarray:
    """Two wholes side by side; the left one has two parts, of which the upper has two smalls."""
    labels = np.zeros((3, size, size), np.int32)
    labels[:, :, size // 2 :] = np.array([3, 2, 1])[:, None, None]
    labels[0, size // 2 :, : size // 2] = 2
    labels[1, size // 2 :, : size // 2] = 1
    labels[0, : size // 2, : size // 4] = 1
    labels[:, 0, :] = UNLABELLED
    return labels


@st.composite
def nested_labels(draw) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    small = rng.integers(0, draw(st.integers(1, 8)), (12, 12)).repeat(2, 0).repeat(2, 1)
    part_of = rng.integers(0, 4, 8)
    whole_of = rng.integers(0, 2, 4)
    labels = np.stack([small, part_of[small], whole_of[part_of[small]]]).astype(np.int32)
    labels[:, rng.random(small.shape) < 0.1] = UNLABELLED
    return labels


@settings(max_examples=60)
@given(nested_labels(), st.floats(0, 1), st.integers(0, 50))
def test_what_is_left_is_always_a_nested_pyramid(labels, share, seed):
    spoilt = spoiling.spoil(labels, share, seed)
    labelled = labels[0] != UNLABELLED
    assert np.array_equal(spoilt.labels != UNLABELLED, np.broadcast_to(labelled, labels.shape))
    for level in Level:
        ids = np.unique(spoilt.labels[level][labelled])
        assert np.array_equal(ids, np.arange(len(spoilt.inherited[level])))
    small = spoilt.labels[0][labelled]
    assert np.array_equal(spoilt.parents[0][small], spoilt.labels[1][labelled])
    assert np.array_equal(spoilt.parents[1][spoilt.labels[1][labelled]], spoilt.labels[2][labelled])


@given(nested_labels(), st.floats(0, 1), st.integers(0, 50))
@settings(max_examples=20)
def test_spoiling_is_repeated_exactly_by_its_seed(labels, share, seed):
    first, second = (spoiling.spoil(labels, share, seed) for _ in range(2))
    assert np.array_equal(first.labels, second.labels)
    assert first.done == second.done


def test_a_third_of_all_masks_is_spoiled_and_the_input_stays():
    labels = desk()
    before = labels.copy()
    spoilt = spoiling.spoil(labels, 1 / 3, seed=3)
    assert sum(spoilt.done.values()) == round((4 + 3 + 2) / 3)
    assert np.array_equal(labels, before)


def test_nothing_is_spoiled_at_share_zero():
    spoilt = spoiling.nested(desk())
    assert np.array_equal(spoilt.labels, desk())
    assert not any(flags.any() for flags in spoilt.inherited)
    assert spoilt.parents[0].tolist() == [0, 0, 1, 2]
    assert spoilt.parents[1].tolist() == [0, 0, 1]


def apply(operation: str, level: Level, mask_id: int, seed: int = 0):
    spoiler = spoiling._Spoiler(desk(), np.random.default_rng(seed))
    assert getattr(spoiler, operation)(level, mask_id)
    return spoiler.result({})


def test_dropped_small_falls_to_the_inherited_rest_of_its_part():
    spoilt = apply("drop", Level.SMALL, 1)
    inside = desk()[0] == 1
    rest = np.unique(spoilt.labels[0][inside])
    assert len(rest) == 1
    assert spoilt.inherited[0][rest[0]]
    assert np.array_equal(spoilt.labels[1], desk()[1])


def test_two_dropped_smalls_of_a_part_are_one_rest():
    spoiler = spoiling._Spoiler(desk(), np.random.default_rng(0))
    spoiler.drop(Level.SMALL, 0)
    spoiler.drop(Level.SMALL, 1)
    spoilt = spoiler.result({})
    assert len(np.unique(spoilt.labels[0][desk()[1] == 0])) == 1


def test_dropped_whole_leaves_its_parts_as_wholes():
    spoilt = apply("drop", Level.WHOLE, 0)
    assert len(np.unique(spoilt.labels[2][desk()[2] == 0])) == 2
    assert spoilt.inherited[1].sum() == 2
    assert np.array_equal(spoilt.labels[0], desk()[0])


def test_merged_mask_joins_a_neighbour_inside_the_same_parent():
    spoilt = apply("merge", Level.SMALL, 1)
    assert len(np.unique(spoilt.labels[0][desk()[1] == 0])) == 1
    assert len(np.unique(spoilt.labels[0][desk()[1] != 0])) == 3  # two others and the void
    assert not spoilt.inherited[0].any()


def test_merge_without_a_neighbour_is_counted_as_a_drop():
    spoiler = spoiling._Spoiler(desk(), np.random.default_rng(0))
    assert not spoiler.merge(Level.SMALL, 3)
    assert spoiler.result({}).inherited[0].sum() == 1


def test_split_mask_is_cut_with_everything_inside():
    spoilt = apply("split", Level.WHOLE, 1)
    right = desk()[2] == 1
    for level in Level:
        assert len(np.unique(spoilt.labels[level][right])) == 2
        assert len(np.unique(spoilt.labels[level])) == len(np.unique(desk()[level])) + 1


def test_small_moved_up_is_a_part_of_its_own():
    spoilt = apply("move", Level.SMALL, 1)
    inside = desk()[0] == 1
    part = np.unique(spoilt.labels[1][inside])
    assert len(part) == 1
    assert np.array_equal(spoilt.labels[1] == part[0], inside)
    assert np.array_equal(spoilt.labels[2], desk()[2])


def test_whole_moved_down_is_a_part_of_its_neighbour():
    spoilt = apply("move", Level.WHOLE, 0)
    left = desk()[2] == 0
    assert len(np.unique(spoilt.labels[2])) == 2  # one whole and the void
    assert len(np.unique(spoilt.labels[1][left])) == 1
    assert len(np.unique(spoilt.labels[0][left])) == 2


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_share_outside_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match=str(share)):
        spoiling.spoil(desk(), share)
