"""Our encoder against transformers itself, at the published sizes, with random weights."""

import numpy as np
import pytest
import torch

from hiersplat.semantics.clipseg import ClipSegEncoder
from hiersplat.semantics.config import FeaturesConfig
from hiersplat.semantics.micro_model import save_clipseg, train_tokenizer

TEXTS = ["a red mug", "the handle"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    tokenizer = train_tokenizer(["a", "the", "red", "mug", "handle"], max_tokens=77)
    # The configuration of CIDAS/clipseg-rd64-refined, but for the ids of the special tokens.
    config = CLIPSegConfig(
        text_config={
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={"patch_size": 16},
        use_complex_transposed_convolution=True,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clipseg") / "real-architecture"
    save_clipseg(folder, CLIPSegForImageSegmentation(config), tokenizer, view_size=352)
    return ClipSegEncoder(FeaturesConfig(checkpoint=str(folder), batch_size=2), "cpu")


@pytest.fixture(scope="module")
def view():
    return np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def official(encoder, view):
    """What transformers' own forward gives for the view and both texts."""
    inputs = encoder.processor(text=TEXTS, images=[view] * 2, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return encoder.model(**inputs, output_hidden_states=True)


def test_published_sizes_give_the_published_shapes(encoder, view):
    dense, summary = encoder.encode_view(view)
    assert dense.shape == (22, 22, 192)
    assert summary.shape == (192,)
    assert dense.dtype == np.float32
    assert (encoder.dense_dim, encoder.embedding_dim) == (192, 512)


def test_dense_features_are_the_reduced_activations_of_transformers(encoder, view, official):
    states = official.vision_model_output.hidden_states
    with torch.inference_mode():
        expected = [
            reduce(states[layer + 1])[0, 1:]
            for reduce, layer in zip(encoder.model.decoder.reduces, (9, 6, 3), strict=True)
        ]
    dense = encoder.dense_features(view).reshape(484, 192)
    np.testing.assert_allclose(dense, torch.cat(expected, dim=-1).numpy(), atol=2e-5)


def test_relevancy_is_the_sigmoid_of_the_logits_of_transformers(encoder, view, official):
    logits = torch.nn.functional.interpolate(official.logits[:, None], (120, 160), mode="bilinear")
    maps = encoder.relevancy_maps(view, TEXTS)
    np.testing.assert_allclose(maps, logits[:, 0].sigmoid().numpy(), atol=1e-5)


def test_text_embeddings_are_the_unit_conditions_of_transformers(encoder, official):
    expected = torch.nn.functional.normalize(official.conditional_embeddings, dim=-1)
    np.testing.assert_allclose(encoder.text_embeddings(TEXTS), expected.numpy(), atol=1e-6)


def test_image_embeddings_are_the_unit_features_of_transformers(encoder, view):
    pixels = encoder.processor.image_processor(
        images=[view], size={"height": 224, "width": 224}, return_tensors="pt"
    )["pixel_values"]
    with torch.inference_mode():
        features = encoder.model.clip.get_image_features(pixels).pooler_output
    expected = torch.nn.functional.normalize(features, dim=-1).numpy()
    np.testing.assert_allclose(encoder.image_embeddings([view]), expected, atol=1e-6)


def test_mask_embeddings_do_not_depend_on_the_batch(encoder, view):
    labels = np.full((120, 160), -1, np.int32)
    for label in range(3):
        labels[30 * label : 30 * label + 25, 20 : 60 + 30 * label] = label
    together = encoder.mask_embeddings(view, labels, 3)
    for label in range(3):
        alone = encoder.mask_embeddings(view, np.where(labels == label, 0, -1), 1)
        np.testing.assert_allclose(together[label], alone[0], atol=1e-5)
