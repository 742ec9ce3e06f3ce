"""The encoder's behaviour on a random tiny model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersplat.semantics.clipseg import ClipSegEncoder
from hiersplat.semantics.config import FeaturesConfig


def test_mask_embeddings_are_unit_vectors_and_a_mask_without_pixels_gets_zeros(
    tiny_encoder, image, labels
):
    embeddings = tiny_encoder.mask_embeddings(image, labels, 5)
    assert embeddings.shape == (5, 24)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), [1, 1, 1, 0, 1], atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(batch_size=st.integers(1, 9))
def test_results_do_not_depend_on_the_batch_size(tiny_folder, tiny_encoder, batch_size):
    image = np.random.default_rng(3).integers(0, 256, (30, 30, 3), np.uint8)
    labels = np.arange(900, dtype=np.int32).reshape(30, 30) // 150
    texts = ["red mug", "a mug", "the blue knob", "knob", "drawer"]
    other = ClipSegEncoder(FeaturesConfig(checkpoint=str(tiny_folder), batch_size=batch_size))
    for mine, theirs in (
        (other.text_embeddings(texts), tiny_encoder.text_embeddings(texts)),
        (other.mask_embeddings(image, labels, 6), tiny_encoder.mask_embeddings(image, labels, 6)),
        (other.relevancy_maps(image, texts), tiny_encoder.relevancy_maps(image, texts)),
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_relevancy_maps_have_the_size_of_the_image_and_lie_between_0_and_1(tiny_encoder, image):
    maps = tiny_encoder.relevancy_maps(image, ["red mug", "knob", "handle"])
    assert maps.shape == (3, 40, 56)
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_a_text_decoded_from_kept_features_gives_the_same_map(tiny_encoder, image):
    dense, summary = tiny_encoder.encode_view(image)
    maps = tiny_encoder.decode_relevancy(dense, summary, ["red mug"], (40, 56))
    np.testing.assert_array_equal(maps, tiny_encoder.relevancy_maps(image, ["red mug"]))


def test_no_texts_give_no_rows(tiny_encoder, image):
    assert tiny_encoder.text_embeddings([]).shape == (0, 24)
    assert tiny_encoder.relevancy_maps(image, []).shape == (0, 40, 56)
    assert tiny_encoder.image_embeddings([]).shape == (0, 24)


def test_longer_texts_in_a_batch_do_not_change_a_short_one(tiny_encoder):
    alone = tiny_encoder.text_embeddings(["mug"])
    padded = tiny_encoder.text_embeddings(["mug", "the red handle a blue mug"])
    np.testing.assert_allclose(alone[0], padded[0], atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_what_is_no_rgb_image_is_refused(tiny_encoder, shape):
    with pytest.raises(ValueError, match="uint8 RGB"):
        tiny_encoder.dense_features(np.zeros(shape, np.uint8))


def test_a_float_image_is_refused(tiny_encoder):
    with pytest.raises(ValueError, match="float64"):
        tiny_encoder.dense_features(np.zeros((4, 4, 3)))


def test_labels_of_another_size_are_refused(tiny_encoder, image):
    with pytest.raises(ValueError, match="labels are"):
        tiny_encoder.mask_embeddings(image, np.zeros((4, 4), np.int32), 1)


def test_half_precision_stays_close(tiny_folder, tiny_encoder, image):
    config = FeaturesConfig(checkpoint=str(tiny_folder), dtype="bfloat16")
    half = ClipSegEncoder(config).text_embeddings(["red mug"])
    assert half.dtype == np.float32
    assert float(half[0] @ tiny_encoder.text_embeddings(["red mug"])[0]) > 0.99


@pytest.mark.parametrize(
    "settings", [{"crop_context": -1}, {"crop_background": 2}, {"batch_size": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        FeaturesConfig(**settings)
