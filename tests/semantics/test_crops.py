import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.semantics.crops import mask_crops


def test_mask_is_kept_surroundings_are_dimmed_and_outside_gets_the_dimmed_mean():
    image = np.full((4, 4, 3), 100, np.uint8)
    labels = np.full((4, 4), -1, np.int32)
    labels[0, 0:2] = 0
    ((label, crop),) = mask_crops(image, labels, context=0.5, background=0.5)
    assert label == 0
    assert crop.shape == (4, 4, 3)
    # The box is 1 x 2 pixels: a square of side 4 around it reaches two rows above the image.
    assert (crop[1:, 1:][:, :, 0] >= 50).all()
    assert (crop == 100).sum() == 2 * 3


def test_a_background_of_one_without_context_is_the_plain_box():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    labels = np.full((9, 9), -1, np.int32)
    labels[2:5, 3:6] = 0
    ((_, crop),) = mask_crops(image, labels, context=0.0, background=1.0)
    np.testing.assert_array_equal(crop, image[2:5, 3:6])


def test_labels_without_pixels_are_passed_over():
    labels = np.array([[0, 2]], np.int32)
    crops = mask_crops(np.zeros((1, 2, 3), np.uint8), labels, 0.1, 0.3)
    assert [label for label, _ in crops] == [0, 2]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    context=st.floats(0, 2),
    background=st.floats(0, 1),
)
def test_every_pixel_of_a_mask_is_in_its_square_crop(seed, context, background):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 20, 2)
    image = np.full((height, width, 3), 255, np.uint8)
    labels = rng.integers(-1, 3, (height, width)).astype(np.int32)
    for label, crop in mask_crops(image, labels, context, min(background, 0.99)):
        assert crop.shape[0] == crop.shape[1]
        assert (crop == 255).all(axis=-1).sum() == (labels == label).sum()
