import numpy as np
import pytest

from hiersplat.segmentation.masks import edges_of_dense, make_record
from hiersplat.segmentation.panels import (
    color_labels,
    contours,
    draw_contours,
    fit,
    overlay,
    picture_grid,
    pyramid_panel,
)
from hiersplat.segmentation.proposals import MaskProposals
from hiersplat.segmentation.pyramid import PyramidConfig, build_pyramid


def test_color_of_an_id_does_not_depend_on_the_others():
    first = color_labels(np.array([[3, 7]]))
    second = color_labels(np.array([[9, 3]]))
    np.testing.assert_array_equal(first[0, 0], second[0, 1])


def test_a_hundred_ids_have_a_hundred_colors():
    colors = color_labels(np.arange(100)[None])[0]
    assert len(np.unique(colors, axis=0)) == 100


def test_unlabelled_pixels_are_nearly_black():
    assert color_labels(np.array([[-1]])).max() < 40


def test_contours_are_where_labels_change():
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 1]])
    expected = [[False, True, False], [True, True, False], [False, True, False]]
    np.testing.assert_array_equal(contours(labels), expected)


def test_drawing_leaves_the_image_as_it_was():
    image = np.zeros((3, 3, 3), np.uint8)
    labels = np.array([[0, 0, 1]] * 3)
    drawn = draw_contours(image, labels, (9, 8, 7))
    assert image.max() == 0
    assert drawn[0, 1].tolist() == [9, 8, 7]
    assert (drawn[:, 0] == 0).all()


def test_overlay_keeps_unlabelled_pixels():
    image = np.full((1, 2, 3), 100, np.uint8)
    tinted = overlay(image, np.array([[-1, 4]]), 0.5)
    assert tinted[0, 0].tolist() == [100, 100, 100]
    assert tinted[0, 1].tolist() != [100, 100, 100]


def test_pictures_keep_their_ratio_in_a_box():
    box = fit(np.zeros((10, 40, 3), np.uint8), 20, 20)
    assert box.shape == (20, 20, 3)
    assert (box[:7] == 255).all()
    assert (box[8:12] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (5, 900), (900, 5)])
def test_a_panel_of_any_shape_is_a_sheet_of_bounded_size(shape):
    mask = np.zeros(shape, bool)
    mask[: shape[0] // 2 + 1] = True
    records = [make_record(edges_of_dense(mask), shape, 1.0, 1.0)]
    pyramid = build_pyramid(MaskProposals(records), shape, PyramidConfig())
    panel = pyramid_panel(np.full((*shape, 3), 128, np.uint8), pyramid, "a title")
    assert panel.dtype == np.uint8
    assert panel.shape[1] == 8 + 4 * 328
    assert panel.shape[0] < 2000


def test_rows_of_different_length_share_a_grid():
    picture = np.zeros((4, 8, 3), np.uint8)
    sheet = picture_grid([[("a", picture), ("b", picture)], [("c", picture)]], cell_width=64)
    assert sheet.shape[1] == 8 + 2 * 72


def test_a_grid_without_pictures_is_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        picture_grid([[]])
