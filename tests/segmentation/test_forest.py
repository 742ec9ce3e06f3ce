import numpy as np

from hiersplat.levels import Level
from hiersplat.segmentation.forest import (
    assign_levels,
    containment_forest,
    given_forest,
    without_duplicates,
)


def shared_of(*masks):
    flat = np.array(masks, float)
    return flat @ flat.T


def runs(*bounds, length=30):
    return [[low <= i < high for i in range(length)] for low, high in bounds]


def test_smallest_container_is_the_parent():
    shared = shared_of(*runs((0, 30), (0, 20), (2, 10), (12, 18)))
    assert containment_forest(shared, 0.9).tolist() == [-1, 0, 1, 1]


def test_overlap_below_the_share_is_no_containment():
    shared = shared_of(*runs((0, 20), (15, 25)))
    assert containment_forest(shared, 0.9).tolist() == [-1, -1]
    assert containment_forest(shared, 0.5).tolist() == [-1, 0]


def test_masks_of_equal_size_do_not_contain_one_another():
    shared = shared_of(*runs((0, 10), (0, 10)))
    assert containment_forest(shared, 0.9).tolist() == [-1, -1]


def test_the_best_scored_of_duplicates_stays():
    shared = shared_of(*runs((0, 20), (0, 19), (25, 30)))
    assert without_duplicates(shared, np.array([0.8, 0.9, 0.7]), 0.85).tolist() == [1, 2]


def test_parent_of_a_given_level_holds_the_majority():
    shared = shared_of(*runs((0, 20), (20, 30), (18, 28)))
    level, parent = given_forest(shared, np.array([Level.WHOLE, Level.WHOLE, Level.PART]))
    assert parent.tolist() == [-1, -1, 1]
    assert level.tolist() == [Level.WHOLE, Level.WHOLE, Level.PART]


def test_the_lower_scored_of_two_alike_masks_makes_room():
    areas = np.array([100.0, 60.0, 55.0, 10.0])
    parent = np.array([-1, 0, 1, 2])
    level, links = assign_levels(parent, areas, np.array([0.9, 0.5, 0.9, 0.9]))
    assert level.tolist() == [Level.WHOLE, -1, Level.PART, Level.SMALL]
    assert links.tolist() == [-1, -1, 0, 2]


def test_a_root_never_makes_room():
    areas = np.array([100.0, 95.0, 50.0, 10.0])
    level, links = assign_levels(np.array([-1, 0, 1, 2]), areas, np.array([0.1, 0.9, 0.9, 0.9]))
    assert level.tolist() == [Level.WHOLE, -1, Level.PART, Level.SMALL]
    assert links.tolist() == [-1, -1, 0, 2]


def test_short_branches_beside_a_long_one_stay_as_they_are():
    areas = np.array([100.0, 50.0, 40.0, 39.0, 10.0])
    parent = np.array([-1, 0, 0, 1, 3])
    level, _ = assign_levels(parent, areas, np.ones(5))
    assert level.tolist() == [Level.WHOLE, Level.PART, Level.PART, -1, Level.SMALL]
