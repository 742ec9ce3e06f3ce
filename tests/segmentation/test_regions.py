import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hiersplat.levels import UNLABELLED, Level
from hiersplat.segmentation.masks import dense_of, edges_of
from hiersplat.segmentation.proposals import View
from hiersplat.segmentation.pyramid import PyramidConfig, build_pyramid
from hiersplat.segmentation.region_features import NUM_FEATURES, measure_regions, pair_features
from hiersplat.segmentation.region_merging import Likeness, fitted_likeness, merge_regions
from hiersplat.segmentation.regions import RegionsConfig, RegionsSegmenter, region_tree


def propose(image, **config):
    return RegionsSegmenter(RegionsConfig(**config)).propose(View("view", image))


def masks_of(proposals, shape):
    return [dense_of(edges_of(r["segmentation"], shape), shape) for r in proposals.records]


def scene():
    """A brown table with a red mug that has a darker band, and a blue book."""
    image = np.full((96, 128, 3), (150, 110, 70), np.uint8)
    image[20:70, 20:60] = (190, 30, 40)
    image[40:52, 20:60] = (140, 20, 30)
    image[50:80, 84:116] = (40, 60, 180)
    noise = np.random.default_rng(0).integers(-3, 4, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def test_every_flat_thing_of_a_simple_scene_is_proposed():
    image = scene()
    masks = masks_of(propose(image), image.shape[:2])
    for truth in (
        np.s_[20:70, 20:60],
        np.s_[40:52, 20:60],
        np.s_[50:80, 84:116],
    ):
        wanted = np.zeros(image.shape[:2], bool)
        wanted[truth] = True
        ious = [(mask & wanted).sum() / (mask | wanted).sum() for mask in masks]
        assert max(ious) > 0.95


def test_things_stand_out_from_the_table_and_details_from_things():
    image = scene()
    pyramid = build_pyramid(propose(image), image.shape[:2], PyramidConfig())
    whole, small = pyramid.labels[Level.WHOLE], pyramid.labels[Level.SMALL]
    assert whole[30, 30] == whole[60, 30]
    assert len({whole[5, 5], whole[30, 30], whole[60, 100]}) == 3
    assert small[30, 30] != small[45, 30]


def test_proposals_nest_or_are_disjoint():
    image = scene()
    masks = masks_of(propose(image, num_regions=40), image.shape[:2])
    for first in masks:
        for second in masks:
            shared = (first & second).sum()
            assert shared in (0, min(first.sum(), second.sum()))


def test_records_say_how_long_a_region_persists():
    proposals = propose(scene())
    scores = [record["stability_score"] for record in proposals.records]
    assert all(0 <= score <= 1 for score in scores)
    assert all(0 <= record["predicted_iou"] <= 1 for record in proposals.records)
    assert max(scores) > 0.5


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))))
def test_any_image_gets_a_pyramid_that_covers_it(image):
    pyramid = build_pyramid(propose(image, min_area=0.0), image.shape[:2], PyramidConfig())
    assert (pyramid.labels != UNLABELLED).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 2000)])
def test_odd_shapes_are_segmented_at_a_bounded_size(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    proposals = propose(image, max_side=64, min_area=0.0)
    pyramid = build_pyramid(proposals, shape, PyramidConfig())
    assert pyramid.labels.shape == (3, *shape)
    assert (pyramid.labels != UNLABELLED).all()


def test_large_images_keep_their_outlines_in_place():
    image = np.full((400, 600, 3), 200, np.uint8)
    image[100:300, 150:450] = (20, 60, 160)
    wanted = np.zeros((400, 600), bool)
    wanted[100:300, 150:450] = True
    masks = masks_of(propose(image, max_side=120), (400, 600))
    assert max((mask & wanted).sum() / (mask | wanted).sum() for mask in masks) > 0.97


def test_heights_grow_from_child_to_parent_and_fall_from_small_to_whole():
    tree = region_tree(scene(), RegionsConfig(num_regions=60))
    assert (tree.heights[tree.parents] >= tree.heights).all()
    assert (np.diff(tree.heights, axis=1) <= 0).all()
    assert (tree.parents[:-1] > np.arange(len(tree.parents) - 1)).all()
    assert tree.parents[-1] == len(tree.parents) - 1


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted))
def test_cuts_at_any_heights_nest(heights):
    image = scene()[::2, ::2]
    names = ("small_height", "part_height", "whole_height")
    proposals = propose(
        image, num_regions=30, min_area=0.0, **dict(zip(names, heights, strict=True))
    )
    pyramid = build_pyramid(proposals, image.shape[:2], PyramidConfig())
    assert (pyramid.labels != UNLABELLED).all()
    masks = masks_of(proposals, image.shape[:2])
    for mask, level in zip(masks, proposals.levels, strict=True):
        if level is not None:
            # What was chosen at a level is one segment there, cut by nothing coarser.
            assert len(np.unique(pyramid.labels[level][mask])) == 1


def grey_stripes(*values, widths=(3, 5, 4), height=6):
    lightness = np.repeat(np.array(values, np.uint8), widths)[None].repeat(height, axis=0)
    image = np.repeat(lightness[..., None], 3, axis=2)
    lab = np.zeros(image.shape, np.float32)
    lab[..., 0] = lightness / 2.55
    return np.repeat(np.arange(len(values)), widths)[None].repeat(height, axis=0), image, lab


def test_measures_add_up():
    regions = np.array([[0, 0, 1], [0, 2, 1]])
    lab = np.zeros((2, 3, 3), np.float32)
    lab[:, 2, 0] = 10
    measured = measure_regions(regions, np.zeros((2, 3, 3), np.uint8), lab)
    areas, perimeters, outer = measured.measures[:, :3].T
    assert areas.tolist() == [3, 2, 1]
    assert outer.tolist() == [5, 4, 1]
    assert perimeters.tolist() == [8, 6, 4]
    assert {pair: length for pair, (length, _) in measured.borders.items()} == {
        (0, 1): 1,
        (0, 2): 2,
        (1, 2): 1,
    }
    assert measured.borders[0, 1][1] == pytest.approx(10)
    np.testing.assert_allclose(measured.measures[:, 3], [0, 20, 0])
    np.testing.assert_allclose(measured.measures[:, 27:].sum(1), areas, rtol=1e-5)
    np.testing.assert_allclose(measured.measures[:, 14:27].sum(1), areas)


def features_of(regions, image, lab, swap=False):
    measured = measure_regions(regions, image, lab)
    pairs = sorted(measured.borders)
    first, second = np.array(pairs).T
    borders = np.array([measured.borders[pair] for pair in pairs])
    if swap:
        first, second = second, first
    unlikeness = np.array([first, second]) / 10
    return pair_features(
        measured.measures[first],
        measured.measures[second],
        borders[:, 0],
        borders[:, 1],
        np.ones(len(pairs)),
        unlikeness,
        regions.size,
    )


def test_features_do_not_depend_on_which_region_comes_first():
    stripes = grey_stripes(0, 90, 100)
    np.testing.assert_allclose(features_of(*stripes), features_of(*stripes, swap=True))
    assert features_of(*stripes).shape == (2, NUM_FEATURES)


def test_features_of_a_mirrored_image_are_the_same():
    regions, image, lab = grey_stripes(0, 90, 100)
    mirrored = features_of(regions[::-1], image[::-1], lab[::-1])
    np.testing.assert_allclose(features_of(regions, image, lab), mirrored, atol=1e-6)


def test_the_most_alike_neighbours_merge_first():
    regions, image, lab = grey_stripes(0, 10, 200)

    def by_contrast(features):
        return np.exp(-features[:, :1]) * np.ones(3)

    parents, heights = merge_regions(measure_regions(regions, image, lab), by_contrast)
    assert parents.tolist() == [3, 3, 4, 4, 4]
    assert (heights[3] < heights[4]).all()
    assert (heights[:3] == 0).all()


def test_every_pair_that_is_judged_can_be_observed():
    regions, image, lab = grey_stripes(0, 10, 200)
    seen = []

    def alike(features):
        return np.full((len(features), 3), 0.5)

    merge_regions(
        measure_regions(regions, image, lab),
        alike,
        lambda others, node, features: seen.extend((int(other), node) for other in others),
    )
    assert sorted(seen)[:2] == [(0, 1), (1, 2)]
    assert len(seen) == 3


def test_a_network_gives_itself_back(tmp_path):
    from hiersplat.cache import encode_arrays

    likeness = fitted_likeness()
    path = tmp_path / "likeness.npz"
    path.write_bytes(encode_arrays(likeness.to_arrays()))
    features = np.random.default_rng(0).normal(size=(5, NUM_FEATURES))
    np.testing.assert_allclose(Likeness.read(path)(features), likeness(features))
    assert likeness(features).shape == (5, 3)


def test_a_file_without_a_network_is_named(tmp_path):
    path = tmp_path / "likeness.npz"
    np.savez(path, weights_0=np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"likeness\.npz: holds no network"):
        Likeness.read(path)


@pytest.mark.parametrize(
    "setting",
    [
        {"num_regions": 0},
        {"max_side": 2},
        {"min_area": 1.5},
        {"small_height": -1.0},
        {"part_height": 0.9},
        {"whole_height": 1.5},
    ],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        RegionsSegmenter(RegionsConfig(**setting))
