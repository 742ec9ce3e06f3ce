from types import SimpleNamespace

import numpy as np
import pytest

from hiersplat.cache import ViewCache
from hiersplat.levels import Level
from hiersplat.semantics.view_features import ViewFeatures, compute_view_features


@pytest.fixture
def pyramid():
    """Two wholes; the second has one part and one small that fill it."""
    labels = np.full((3, 40, 56), -1, np.int32)
    labels[Level.WHOLE, 5:30, 5:30] = 0
    labels[Level.WHOLE, 32:40, 40:56] = 1
    labels[Level.PART, 5:30, 5:20] = 0
    labels[Level.PART, 5:30, 20:30] = 1
    labels[Level.PART, 32:40, 40:56] = 2
    labels[Level.SMALL, 5:10, 5:20] = 0
    labels[Level.SMALL, 10:30, 5:20] = 1
    labels[Level.SMALL, 5:30, 20:30] = 2
    labels[Level.SMALL, 32:40, 40:56] = 3
    counts = (4, 3, 2)
    return SimpleNamespace(labels=labels, num_masks=lambda level: counts[level])


def test_every_mask_gets_the_embedding_it_gets_by_itself(tiny_encoder, image, pyramid):
    features = compute_view_features(tiny_encoder, image, pyramid)
    for level in Level:
        expected = tiny_encoder.mask_embeddings(
            image, pyramid.labels[level], pyramid.num_masks(level)
        )
        np.testing.assert_allclose(features.embeddings[level], expected, atol=2e-3)


def test_a_mask_that_fills_its_parent_is_not_embedded_twice(
    tiny_encoder, image, pyramid, monkeypatch
):
    seen = []
    embed = tiny_encoder.image_embeddings
    monkeypatch.setattr(
        tiny_encoder, "image_embeddings", lambda crops: (seen.append(len(crops)), embed(crops))[1]
    )
    compute_view_features(tiny_encoder, image, pyramid)
    # Of nine masks, part 2, small 2 and small 3 repeat the mask above them.
    assert sum(seen) == 6


def test_features_survive_the_cache(tiny_encoder, image, pyramid, tmp_path):
    features = compute_view_features(tiny_encoder, image, pyramid)
    cache = ViewCache.at(tmp_path, "features", {}, 1)
    cache.store("view", "0", features.to_arrays())
    arrays = cache.load("view", "0")
    assert arrays is not None
    again = ViewFeatures.from_arrays(arrays)
    np.testing.assert_array_equal(again.dense, features.dense)
    np.testing.assert_array_equal(again.summary, features.summary)
    for level in Level:
        np.testing.assert_array_equal(again.embeddings[level], features.embeddings[level])
        assert again.embeddings[level].dtype == np.float16


def test_a_view_without_masks_has_dense_features_only(tiny_encoder, image):
    nothing = SimpleNamespace(labels=np.full((3, 40, 56), -1, np.int32), num_masks=lambda level: 0)
    features = compute_view_features(tiny_encoder, image, nothing)
    assert [len(table) for table in features.embeddings] == [0, 0, 0]
    assert np.isfinite(features.dense).all()


def test_arrays_of_something_else_are_refused(tiny_encoder, image, pyramid):
    arrays = compute_view_features(tiny_encoder, image, pyramid).to_arrays()
    with pytest.raises(ValueError, match="summary"):
        ViewFeatures.from_arrays({k: v for k, v in arrays.items() if k != "summary"})
    with pytest.raises(ValueError, match="shapes disagree"):
        ViewFeatures.from_arrays(arrays | {"summary": np.zeros(3, np.float16)})
