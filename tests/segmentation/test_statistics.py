import numpy as np
import pytest

from hiersplat.levels import Level
from hiersplat.segmentation.masks import cut_into_atoms, edges_of_dense, make_record
from hiersplat.segmentation.proposals import MaskProposals
from hiersplat.segmentation.pyramid import PyramidConfig, build_pyramid
from hiersplat.segmentation.statistics import (
    LevelStatistics,
    PyramidStatistics,
    advise,
    measure_pyramids,
    part_mask_fractions,
)

SHAPE = (40, 50)


def box(top, left, bottom, right):
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


def pyramid_of(*masks):
    records = [
        make_record(edges_of_dense(mask), SHAPE, 1 - 0.01 * i, 1.0) for i, mask in enumerate(masks)
    ]
    return build_pyramid(MaskProposals(records), SHAPE, PyramidConfig())


def test_found_and_inherited_masks_are_counted_apart():
    statistics = measure_pyramids(
        [pyramid_of(box(0, 0, 40, 25), box(0, 0, 20, 25)), pyramid_of(box(0, 0, 40, 25))]
    )
    small, part, whole = statistics.levels
    assert statistics.num_views == 2
    assert (whole.found, part.found, small.found) == (2, 1, 0)
    assert (whole.inherited, part.inherited, small.inherited) == (0, 2, 3)
    assert (whole.share, part.share, small.share) == pytest.approx((2 / 3, 1 / 3, 0))
    assert statistics.coverage == pytest.approx(0.5)
    assert part.coverage == pytest.approx(0.125)
    assert whole.mean_area == pytest.approx(0.5)


def test_scales_are_sides_of_squares_and_spread_is_their_ratio():
    statistics = measure_pyramids([pyramid_of(box(0, 0, 40, 10), box(0, 20, 10, 30))])
    low, middle, high = statistics.levels[Level.WHOLE].scales
    sides = np.sqrt([0.05, 0.2])
    assert (low, middle, high) == pytest.approx(np.percentile(sides, (10, 50, 90)))
    assert statistics.levels[Level.WHOLE].spread == pytest.approx(high / low)


def test_part_mask_fractions_are_those_of_the_masks_themselves():
    masks = [box(0, 0, 40, 25), box(0, 0, 20, 25), box(2, 2, 6, 6), box(0, 30, 30, 50)]
    shared = cut_into_atoms([edges_of_dense(mask) for mask in masks], SHAPE).intersections()
    assert part_mask_fractions(shared, 2000) == (0.5, 0.25)
    statistics = measure_pyramids([pyramid_of(*masks)])
    assert (statistics.nested_fraction, statistics.tiny_fraction) == (0.5, 0.25)


def test_slightly_smaller_mask_inside_another_is_no_part_mask():
    masks = [box(0, 0, 40, 25), box(0, 0, 40, 15)]
    shared = cut_into_atoms([edges_of_dense(mask) for mask in masks], SHAPE).intersections()
    assert part_mask_fractions(shared, 2000) == (0.0, 0.0)


def test_views_without_masks_count_as_views():
    statistics = measure_pyramids([pyramid_of(), pyramid_of(box(0, 0, 40, 50))])
    assert statistics.num_views == 2
    assert statistics.coverage == pytest.approx(0.5)


def test_no_view_is_an_error():
    with pytest.raises(ValueError, match="no pyramid"):
        measure_pyramids([])


def shares(small, part, whole):
    levels = [
        LevelStatistics(round(100 * share), 0, share, 0.0, 0.0, (0.0, 0.0, 0.0))
        for share in (small, part, whole)
    ]
    return PyramidStatistics(1, (levels[0], levels[1], levels[2]), 1.0, 0.0, 0.0)


def test_balanced_levels_need_no_advice():
    assert advise(shares(0.6, 0.3, 0.1)) == []


@pytest.mark.parametrize(
    ("levels", "findings"),
    [
        ((0.1, 0.05, 0.85), ["wholes are 85%"]),
        ((0.9, 0.08, 0.02), ["small masks are 90%"]),
        ((0.05, 0.9, 0.05), ["parts are 90%"]),
        ((0.5, 0.04, 0.46), ["parts are 4%"]),
        ((0.0, 0.0, 1.0), ["wholes are 100%", "parts are 0%"]),
        ((0.0, 0.0, 0.0), ["no mask was found"]),
    ],
)
def test_advice_names_finding_setting_and_cost(levels, findings):
    advice = advise(shares(*levels))
    assert [one.finding.startswith(text) for one, text in zip(advice, findings, strict=True)]
    for one, text in zip(advice, findings, strict=True):
        assert one.finding.startswith(text)
        assert one.setting
        assert one.cost
