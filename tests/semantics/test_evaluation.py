import numpy as np
import pytest

from hiersplat.semantics.evaluation import (
    QueryScore,
    best_node_overlap,
    best_overlap,
    innermost,
    intersection_over_union,
    is_inside,
    summarise_scores,
)


def box(top, bottom, left, right, size=10):
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_overlap_of_known_boxes():
    assert intersection_over_union(box(0, 2, 0, 2), box(0, 2, 1, 3)) == pytest.approx(1 / 3)
    assert intersection_over_union(box(0, 2, 0, 2), box(5, 6, 5, 6)) == 0


def test_what_is_missing_counts_0():
    nothing = np.zeros((10, 10), bool)
    assert intersection_over_union(nothing, box(0, 2, 0, 2)) == 0
    assert intersection_over_union(nothing, nothing) == 0
    assert best_overlap(box(0, 1, 0, 1), []) == 0
    assert summarise_scores([])["queries"] == 0


def test_one_of_several_and_all_of_them_are_right_answers():
    knobs = [box(0, 2, 0, 2), box(4, 6, 4, 6)]
    assert best_overlap(knobs[1], knobs) == 1
    assert best_overlap(knobs[0] | knobs[1], knobs) == 1
    assert best_overlap(box(0, 10, 0, 10), knobs) == pytest.approx(0.08)


def test_the_oracle_takes_the_best_node_of_any_level():
    nodes = np.full((2, 10, 10), -1)
    nodes[0][box(0, 4, 0, 4)] = 7
    nodes[1][box(0, 4, 0, 8)] = 3
    assert best_node_overlap(nodes, [box(0, 4, 0, 4)]) == 1
    assert best_node_overlap(nodes, [box(0, 4, 0, 6)]) == pytest.approx(0.75)
    assert best_node_overlap(nodes, [box(6, 8, 0, 4)]) == 0


def test_the_innermost_pixel_lies_in_the_thick_of_a_mask():
    mask = box(2, 9, 2, 9) | box(0, 1, 0, 10)
    place = innermost(mask)
    assert place is not None
    assert abs(place[0] - 5) <= 1
    assert abs(place[1] - 5) <= 1
    assert is_inside(place, [box(4, 7, 4, 7)])
    assert not is_inside(place, [box(0, 1, 0, 10)])
    assert innermost(np.zeros((4, 4), bool)) is None
    assert not is_inside(None, [mask])


def test_means_keep_finding_and_naming_apart():
    scores = [QueryScore("a", 0.9, 0.5, True), QueryScore("b", 0.7, 0.7, False)]
    figures = summarise_scores(scores)
    assert figures["oracle_miou"] == pytest.approx(0.8)
    assert figures["text_miou"] == pytest.approx(0.6)
    assert figures["naming_gap"] == pytest.approx(0.2)
    assert figures["localization"] == 0.5
