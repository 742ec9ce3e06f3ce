import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.cache import encode_arrays
from hiersplat.levels import UNLABELLED, Level
from hiersplat.segmentation.masks import edges_of_dense, make_record
from hiersplat.segmentation.proposals import MaskProposals
from hiersplat.segmentation.pyramid import MaskPyramid, PyramidConfig, build_pyramid

SHAPE = (24, 32)


def record(mask, score=1.0):
    return make_record(edges_of_dense(mask), mask.shape, score, 1.0)


def box(top, left, bottom, right, shape=SHAPE):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def pyramid_of(*masks, levels=None, shape=SHAPE, **config):
    """A pyramid of masks whose scores fall from first to last."""
    records = [record(mask, 1 - 0.01 * index) for index, mask in enumerate(masks)]
    return build_pyramid(MaskProposals(records, levels), shape, PyramidConfig(**config))


def mask_of(pyramid, level, inside):
    """The mask of a level that holds a pixel."""
    return pyramid.labels[level] == pyramid.labels[level][inside]


@st.composite
def proposals(draw):
    """Boxes and ellipses of any size, with distinct scores, with or without levels."""
    count = draw(st.integers(0, 12))
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    records, levels = [], []
    for index in range(count):
        top, left = draw(st.integers(0, 20)), draw(st.integers(0, 28))
        height, width = draw(st.integers(1, 24)), draw(st.integers(1, 32))
        if draw(st.booleans()):
            mask = box(top, left, top + height, left + width)
        else:
            middle = (top + height / 2, left + width / 2)
            far = ((rows - middle[0]) / height) ** 2 + ((columns - middle[1]) / width) ** 2
            mask = far <= 0.25
        if not mask.any():
            continue
        records.append(record(mask, 0.5 + 0.01 * index))
        levels.append(draw(st.sampled_from([*Level, None])))
    return MaskProposals(records, levels if draw(st.booleans()) else None)


def assert_same_up_to_numbering(first, second):
    """Two pyramids have the same masks, links, flags and scores, whatever their numbers."""
    for level in Level:
        a, b = first.labels[level], second.labels[level]
        np.testing.assert_array_equal(a == UNLABELLED, b == UNLABELLED)
        pairs = np.unique(np.stack([a[a >= 0], b[b >= 0]]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
        np.testing.assert_array_equal(
            first.inherited[level][pairs[0]], second.inherited[level][pairs[1]]
        )
        np.testing.assert_array_equal(first.scores[level][pairs[0]], second.scores[level][pairs[1]])


@given(proposals())
def test_labels_nest_and_are_contiguous(given_proposals):
    pyramid = build_pyramid(given_proposals, SHAPE, PyramidConfig())
    labelled = pyramid.labels[0] != UNLABELLED
    for level in Level:
        labels = pyramid.labels[level]
        np.testing.assert_array_equal(labels != UNLABELLED, labelled)
        np.testing.assert_array_equal(
            np.unique(labels[labelled]), np.arange(pyramid.num_masks(level))
        )
        assert len(pyramid.scores[level]) == pyramid.num_masks(level)
        if level.coarser is not None:
            parents = pyramid.parents[level]
            np.testing.assert_array_equal(
                parents[labels[labelled]], pyramid.labels[level.coarser][labelled]
            )


@given(proposals())
def test_inherited_masks_have_no_score_and_found_ones_have(given_proposals):
    pyramid = build_pyramid(given_proposals, SHAPE, PyramidConfig())
    for level in Level:
        np.testing.assert_array_equal(pyramid.scores[level] == 0, pyramid.inherited[level])
    assert not pyramid.inherited[Level.WHOLE].any()


@given(proposals(), st.randoms(use_true_random=False))
def test_order_of_records_changes_nothing(given_proposals, random):
    order = list(range(len(given_proposals.records)))
    random.shuffle(order)
    levels = given_proposals.levels
    shuffled = MaskProposals(
        [given_proposals.records[i] for i in order],
        None if levels is None else [levels[i] for i in order],
    )
    first = build_pyramid(given_proposals, SHAPE, PyramidConfig())
    second = build_pyramid(shuffled, SHAPE, PyramidConfig())
    np.testing.assert_array_equal(first.labels, second.labels)
    for level in Level:
        np.testing.assert_array_equal(first.scores[level], second.scores[level])


@given(proposals(), st.sampled_from([np.s_[:, ::-1], np.s_[::-1], np.s_[::-1, ::-1]]))
def test_mirrored_masks_give_the_mirrored_pyramid(given_proposals, mirror):
    from hiersplat.segmentation.masks import dense_of, edges_of

    mirrored = MaskProposals(
        [
            record(dense_of(edges_of(r["segmentation"], SHAPE), SHAPE)[mirror], r["predicted_iou"])
            for r in given_proposals.records
        ],
        given_proposals.levels,
    )
    first = build_pyramid(given_proposals, SHAPE, PyramidConfig())
    second = build_pyramid(mirrored, SHAPE, PyramidConfig())
    assert_same_up_to_numbering(
        MaskPyramid(
            np.stack([labels[mirror] for labels in first.labels]),
            first.parents,
            first.inherited,
            first.scores,
        ),
        second,
    )


@given(proposals())
def test_arrays_give_the_pyramid_back(given_proposals):
    pyramid = build_pyramid(given_proposals, SHAPE, PyramidConfig())
    again = MaskPyramid.from_arrays(pyramid.to_arrays())
    np.testing.assert_array_equal(again.labels, pyramid.labels)
    for level in Level:
        np.testing.assert_array_equal(again.inherited[level], pyramid.inherited[level])
        np.testing.assert_array_equal(again.scores[level], pyramid.scores[level])
    for mine, other in zip(again.parents, pyramid.parents, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_no_masks_leave_everything_unlabelled():
    pyramid = pyramid_of()
    assert (pyramid.labels == UNLABELLED).all()
    assert [pyramid.num_masks(level) for level in Level] == [0, 0, 0]


def test_chain_of_three_becomes_whole_part_and_small():
    whole, part, small = box(0, 0, 20, 20), box(2, 2, 14, 14), box(4, 4, 9, 9)
    pyramid = pyramid_of(small, whole, part)
    np.testing.assert_array_equal(mask_of(pyramid, Level.WHOLE, (5, 5)), whole)
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (5, 5)), part)
    np.testing.assert_array_equal(mask_of(pyramid, Level.SMALL, (5, 5)), small)
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (0, 0)), whole & ~part)
    assert [int((~flags).sum()) for flags in pyramid.inherited] == [1, 1, 1]


def test_lone_mask_is_a_whole_with_an_inherited_part_and_detail():
    pyramid = pyramid_of(box(3, 3, 9, 9))
    assert [pyramid.num_masks(level) for level in Level] == [1, 1, 1]
    assert [bool(flags[0]) for flags in pyramid.inherited] == [True, True, False]


def test_mask_inside_a_lone_mask_is_a_part():
    pyramid = pyramid_of(box(0, 0, 20, 20), box(2, 2, 9, 9))
    assert [int((~flags).sum()) for flags in pyramid.inherited] == [0, 1, 1]


def test_in_a_long_chain_the_masks_closest_in_size_make_room():
    chain = [box(0, 0, side, side) for side in (24, 22, 12, 11, 5)]
    pyramid = pyramid_of(*chain, duplicate_iou=0.95)
    np.testing.assert_array_equal(mask_of(pyramid, Level.WHOLE, (0, 0)), chain[0])
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (0, 0)), chain[2])
    np.testing.assert_array_equal(mask_of(pyramid, Level.SMALL, (0, 0)), chain[4])
    assert [int((~flags).sum()) for flags in pyramid.inherited] == [1, 1, 1]


def test_near_duplicates_collapse_to_the_better_scored_mask():
    better, worse = box(0, 0, 20, 20), box(0, 0, 20, 21)
    pyramid = pyramid_of(better, worse)
    np.testing.assert_array_equal(pyramid.labels[Level.WHOLE] >= 0, better)
    assert [int((~flags).sum()) for flags in pyramid.inherited] == [0, 0, 1]


def test_mask_that_bleeds_over_an_outline_still_belongs_to_its_container():
    whole, part = box(0, 0, 20, 20), box(2, 10, 12, 21)
    pyramid = pyramid_of(whole, part)
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (5, 20)), part)
    np.testing.assert_array_equal(mask_of(pyramid, Level.WHOLE, (5, 20)), whole | part)


def test_a_whole_keeps_its_pixels_from_a_part_that_bleeds_into_it():
    left, right, part = box(0, 0, 20, 12), box(0, 12, 20, 24), box(4, 2, 14, 13)
    pyramid = pyramid_of(left, right, part)
    np.testing.assert_array_equal(mask_of(pyramid, Level.WHOLE, (0, 20)), right)
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (5, 5)), part & left)


def test_of_overlapping_masks_the_smaller_one_is_on_top():
    large, small = box(0, 0, 20, 14), box(4, 10, 12, 22)
    pyramid = pyramid_of(large, small)
    np.testing.assert_array_equal(mask_of(pyramid, Level.WHOLE, (5, 12)), small)


def test_a_sliver_between_parts_goes_to_the_part_it_borders_most():
    whole, left, right = box(0, 0, 20, 30), box(0, 0, 20, 14), box(0, 15, 12, 30)
    corner = box(12, 15, 20, 30)
    pyramid = pyramid_of(whole, left, right, corner)
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (5, 5)), box(0, 0, 20, 15))
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (5, 20)), right)
    assert not pyramid.inherited[Level.PART].any()


def test_a_large_rest_stays_apart():
    whole, part = box(0, 0, 20, 30), box(0, 0, 20, 25)
    pyramid = pyramid_of(whole, part)
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (5, 5)), part)


def test_slivers_stay_apart_where_that_is_asked_for():
    whole, part = box(0, 0, 20, 30), box(0, 0, 19, 30)
    pyramid = pyramid_of(whole, part, duplicate_iou=0.99, max_sliver=0.0)
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (5, 5)), part)
    pyramid = pyramid_of(whole, part, duplicate_iou=0.99)
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (5, 5)), whole)


def test_specks_are_ignored():
    pyramid = pyramid_of(box(0, 0, 20, 20), box(2, 2, 3, 3), min_area=0.01)
    assert [pyramid.num_masks(level) for level in Level] == [1, 1, 1]


def test_given_levels_are_kept():
    masks = [box(0, 0, 20, 20), box(0, 0, 20, 20), box(3, 3, 8, 8)]
    pyramid = pyramid_of(*masks, levels=[Level.WHOLE, Level.PART, Level.SMALL])
    assert [int((~flags).sum()) for flags in pyramid.inherited] == [1, 1, 1]
    np.testing.assert_array_equal(mask_of(pyramid, Level.SMALL, (5, 5)), masks[2])


def test_detail_without_a_part_lies_in_the_rest_of_its_whole():
    whole, part, small = box(0, 0, 20, 20), box(0, 0, 20, 8), box(3, 12, 8, 17)
    pyramid = pyramid_of(whole, part, small, levels=[Level.WHOLE, Level.PART, Level.SMALL])
    np.testing.assert_array_equal(mask_of(pyramid, Level.PART, (5, 14)), whole & ~part)
    np.testing.assert_array_equal(mask_of(pyramid, Level.SMALL, (5, 14)), small)
    assert pyramid.inherited[Level.PART][pyramid.labels[Level.PART][5, 14]]


def test_part_without_a_whole_becomes_a_whole():
    pyramid = pyramid_of(box(0, 0, 8, 8), levels=[Level.PART])
    assert [bool(flags[0]) for flags in pyramid.inherited] == [True, True, False]


def test_record_without_a_level_is_left_out():
    pyramid = pyramid_of(box(0, 0, 8, 8), box(0, 0, 20, 20), levels=[Level.WHOLE, None])
    np.testing.assert_array_equal(pyramid.labels[Level.WHOLE] >= 0, box(0, 0, 8, 8))


def test_levels_must_be_as_many_as_the_masks():
    with pytest.raises(ValueError, match="1 masks come with 2 levels"):
        pyramid_of(box(0, 0, 8, 8), levels=[Level.PART, Level.WHOLE])


def test_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        pyramid_of(box(0, 0, 8, 8), shape=(9, 9))


@pytest.mark.parametrize(
    "setting", [{"duplicate_iou": 1.2}, {"containment": 0.2}, {"min_area": -0.1}]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        PyramidConfig(**setting)


def test_a_large_view_with_300_masks_takes_little_space():
    shape = (1080, 1920)
    generator = np.random.default_rng(0)
    records = []
    for index in range(300):
        size = int(20 + 380 * generator.random() ** 3)
        rows, columns = np.mgrid[-size : size + 1, -size : size + 1].astype(np.float32)
        angle = np.arctan2(rows, columns)
        lobes = generator.integers(2, 9)
        wobble = 0.8 + 0.2 * np.cos(angle * lobes) + 0.02 * np.cos(40 * angle)
        blob = np.hypot(rows, columns) < size * wobble
        mask = np.zeros((shape[0] + 2 * size + 1, shape[1] + 2 * size + 1), bool)
        top, left = (generator.random(2) * shape).astype(int)
        mask[top : top + 2 * size + 1, left : left + 2 * size + 1] = blob
        records.append(
            record(mask[size : size + shape[0], size : size + shape[1]], 0.7 + index / 1e3)
        )
    pyramid = build_pyramid(MaskProposals(records), shape, PyramidConfig())
    assert sum(pyramid.num_masks(level) for level in Level) > 250
    assert len(encode_arrays(pyramid.to_arrays())) <= 300_000


def _arrays():
    return pyramid_of(box(0, 0, 20, 20), box(2, 2, 9, 9)).to_arrays()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: arrays.pop("small_parents"),
        lambda arrays: arrays.update(small_png=np.frombuffer(b"no picture", np.uint8)),
        lambda arrays: arrays.update(small_png=np.zeros(0, np.uint8)),
        lambda arrays: arrays.update(small_parents=arrays["small_parents"] + 9),
        lambda arrays: arrays.update(part_scores=arrays["part_scores"][:1]),
        lambda arrays: arrays.update(small_inherited=arrays["small_inherited"][:1]),
        lambda arrays: arrays.update(part_parents=arrays["part_parents"].astype(float)),
    ],
)
def test_arrays_that_contradict_one_another_are_refused(spoil):
    arrays = _arrays()
    spoil(arrays)
    with pytest.raises(ValueError, match="no mask pyramid"):
        MaskPyramid.from_arrays(arrays)


@settings(max_examples=20)
@given(proposals(), st.integers(0, 2**31))
def test_relabelled_pyramids_describe_the_same_masks(given_proposals, seed):
    """Labels are names only: the stored form of renumbered smalls is the same pyramid."""
    pyramid = build_pyramid(given_proposals, SHAPE, PyramidConfig())
    order = np.random.default_rng(seed).permutation(pyramid.num_masks(Level.SMALL))
    labels = pyramid.labels.copy()
    labels[0] = np.append(order, UNLABELLED)[labels[0]]
    back = np.argsort(order)
    renumbered = MaskPyramid(
        labels.astype(np.int32),
        (pyramid.parents[0][back], pyramid.parents[1]),
        (pyramid.inherited[0][back], *pyramid.inherited[1:]),
        (pyramid.scores[0][back], *pyramid.scores[1:]),
    )
    again = MaskPyramid.from_arrays(renumbered.to_arrays())
    assert_same_up_to_numbering(again, pyramid)
