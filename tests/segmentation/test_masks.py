import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hiersplat.segmentation.masks import (
    area_of,
    bounding_box,
    cut_into_atoms,
    dense_of,
    edges_of,
    edges_of_dense,
    edges_per_label,
    make_record,
    rle_of,
)

dense_masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))


def mask_stacks(draw):
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    count = draw(st.integers(0, 5))
    return draw(arrays(bool, (count, height, width)))


@given(dense_masks)
def test_edges_give_the_mask_back(mask):
    edges = edges_of_dense(mask)
    np.testing.assert_array_equal(dense_of(edges, mask.shape), mask)
    assert area_of(edges) == mask.sum()


@given(dense_masks, st.booleans())
def test_run_length_codes_give_the_edges_back(mask, compress):
    edges = edges_of_dense(mask)
    code = rle_of(edges, mask.shape, compress=compress)
    np.testing.assert_array_equal(edges_of(code, mask.shape), edges)


@given(dense_masks)
def test_codes_are_those_of_sam_and_coco(mask):
    import torch
    from pycocotools import mask as coco
    from sam2.utils.amg import mask_to_rle_pytorch

    edges = edges_of_dense(mask)
    assert rle_of(edges, mask.shape) == mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0]
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle_of(edges, mask.shape, compress=True)["counts"] == packed["counts"].decode()
    np.testing.assert_array_equal(edges_of(packed, mask.shape), edges)


@given(dense_masks.filter(lambda mask: mask.any()))
def test_bounding_box_is_sams(mask):
    import torch
    from sam2.utils.amg import batched_mask_to_box, box_xyxy_to_xywh

    expected = box_xyxy_to_xywh(batched_mask_to_box(torch.from_numpy(mask)[None])[0]).tolist()
    assert bounding_box(edges_of_dense(mask), mask.shape) == expected


def test_empty_runs_in_a_code_are_skipped():
    code = {"size": [1, 6], "counts": [1, 0, 1, 2, 0, 1, 1]}
    expected = [[False, False, True, True, True, False]]
    np.testing.assert_array_equal(dense_of(edges_of(code, (1, 6)), (1, 6)), expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (np.zeros((3, 4), bool), "does not fit"),
        ({"size": [3, 4], "counts": [12]}, "does not fit"),
        ({"size": [4, 4], "counts": [3, 4]}, "does not fill"),
        ({"size": [4, 4], "counts": [20, -4]}, "does not fill"),
    ],
)
def test_mask_that_does_not_fit_the_image_is_refused(segmentation, message):
    with pytest.raises(ValueError, match=message):
        edges_of(segmentation, (4, 4))


@given(st.data())
def test_atoms_know_the_masks_of_every_pixel(data):
    masks = mask_stacks(data.draw)
    shape = masks.shape[1:]
    atoms = cut_into_atoms([edges_of_dense(mask) for mask in masks], shape)
    covered = masks.any(axis=0)
    np.testing.assert_array_equal(atoms.of_pixel >= 0, covered)
    np.testing.assert_array_equal(atoms.member[atoms.of_pixel[covered]], masks[:, covered].T)
    np.testing.assert_array_equal(
        np.bincount(atoms.of_pixel[covered], minlength=len(atoms.areas)), atoms.areas
    )
    assert len(np.unique(atoms.member, axis=0)) == len(atoms.areas)


@given(st.data())
def test_intersections_match_dense_masks(data):
    masks = mask_stacks(data.draw)
    atoms = cut_into_atoms([edges_of_dense(mask) for mask in masks], masks.shape[1:])
    flat = masks.reshape(len(masks), masks[0].size if len(masks) else 0).astype(float)
    np.testing.assert_array_equal(atoms.intersections(), flat @ flat.T)


@given(
    arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(-1, 4))
)
def test_every_label_gets_its_edges(labels):
    edges = edges_per_label(labels)
    assert sorted(edges) == sorted(set(labels[labels >= 0].tolist()))
    for label, mask in edges.items():
        np.testing.assert_array_equal(dense_of(mask, labels.shape), labels == label)


def test_record_has_sams_keys_and_a_point_inside():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:6] = True
    record = make_record(edges_of_dense(mask), mask.shape, 0.9, 0.8)
    assert list(record) == [
        "segmentation",
        "area",
        "bbox",
        "predicted_iou",
        "point_coords",
        "stability_score",
        "crop_box",
    ]
    x, y = record["point_coords"][0]
    assert mask[int(y), int(x)]
    assert record["area"] == 8
    assert record["crop_box"] == [0, 0, 6, 5]
