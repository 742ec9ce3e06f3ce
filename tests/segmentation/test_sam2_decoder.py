"""The reorganised decoder against the official one, and compiled loops against plain torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiersplat.segmentation.sam2_decoder import PointDecoder
from hiersplat.segmentation.sam2_kernels import (
    softmax_over_tokens_,
    upscaled_masks,
    upscaled_masks_,
)
from hiersplat.segmentation.sam2_model import ImageFeatures, random_model
from hiersplat.segmentation.sam2_postprocess import dense_of_edges, measure_masks, rle_of_edges
from hiersplat.segmentation.sam2_shared import SharedTerms


@pytest.fixture(scope="module")
def model():
    made = random_model("tiny", image_size=128)
    generator = torch.Generator().manual_seed(3)
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(4)
    sizes = [(1, 256, 8, 8), (1, 32, 32, 32), (1, 64, 16, 16)]
    embedding, fine, middle = (torch.randn(size, generator=generator) for size in sizes)
    return ImageFeatures(embedding + 2, (0.3 * fine, 0.3 * middle))


def test_tokens_and_masks_are_those_of_the_official_decoder(model, features):
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(5)) * 128
    labels = torch.ones(5, 1, dtype=torch.int)
    with torch.inference_mode():
        sparse, dense = model.sam_prompt_encoder((points[:, None], labels), None, None)
        masks, iou, *_ = model.sam_mask_decoder(
            image_embeddings=features.embedding,
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=True,
            high_res_features=list(features.high_res),
        )
    decoder = PointDecoder(model, features)
    found = decoder.decode(points, min_iou=0.0)
    assert found.prompts.tolist() == [prompt for prompt in range(5) for _ in range(3)]
    torch.testing.assert_close(found.predicted_iou, iou.flatten(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.logits, masks.flatten(0, 1), atol=2e-5, rtol=1e-5)

    ordered = iou.flatten().sort().values
    least = float(ordered[7] + ordered[8]) / 2
    some = decoder.decode(points, min_iou=least)
    assert some.prompts.tolist() == (iou > least).nonzero()[:, 0].tolist()
    torch.testing.assert_close(some.logits, masks[iou > least], atol=2e-5, rtol=1e-5)
    assert len(decoder.decode(points, min_iou=1.0).logits) == 0


def test_products_in_bfloat16_change_tokens_and_masks_a_little(model, features):
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(7)) * 128
    exact = PointDecoder(model, features).decode(points, min_iou=0.0)
    lower = PointDecoder(model, features, torch.bfloat16).decode(points, min_iou=0.0)
    assert lower.logits.dtype == lower.predicted_iou.dtype == torch.float32
    assert 0 < float((lower.predicted_iou - exact.predicted_iou).abs().max()) < 2e-3
    error = (lower.logits - exact.logits).flatten(1).std(dim=1)
    assert float((error / exact.logits.flatten(1).std(dim=1)).max()) < 0.02


@torch.inference_mode()
@pytest.mark.parametrize("num_masks", [1, 2, 3])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_compiled_upscaling_is_the_plain_one(model, features, num_masks, kind):
    shared = SharedTerms(model, features, kind)
    generator = torch.Generator().manual_seed(6)
    folded = 0.2 * torch.randn(256, 128, generator=generator)
    # Rows of a state have mean zero over the channels of a sub-position.
    folded = (folded.view(4, 64, 128) - folded.view(4, 64, 128).mean(1, keepdim=True)).view(
        256, 128
    )
    attention = torch.rand(128, 64, generator=generator)
    scale, offset_scale = torch.rand(2, 64, generator=generator)
    hyper = torch.randn(num_masks, 32, generator=generator)
    arguments = shared, folded, attention, scale, offset_scale, hyper
    plain = upscaled_masks_(*arguments)
    tolerance = 1e-4 if kind == torch.float32 else 0.02 * float(plain.std())
    torch.testing.assert_close(upscaled_masks(*arguments), plain, atol=tolerance, rtol=tolerance)


@given(st.integers(1, 700), st.integers(1, 3), st.floats(0.1, 60), st.integers(0, 99))
def test_compiled_softmax_is_torchs(positions, heads, spread, seed):
    scores = spread * torch.randn(
        8 * heads, positions, generator=torch.Generator().manual_seed(seed)
    )
    expected = torch.softmax(scores.view(heads, 8, -1), dim=1).view(8 * heads, -1)
    softmax_over_tokens_(scores, 8)
    torch.testing.assert_close(scores, expected, atol=2e-6, rtol=2e-5)


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.sampled_from([0.0, 0.3, -5.0, 5.0]),
    st.integers(0, 99),
)
def test_masks_are_measured_as_if_upsampled(source, size, corner, threshold, seed):
    logits = torch.randn(2, *source, generator=torch.Generator().manual_seed(seed))
    top, left = corner
    box = np.array([left, top, left + size[1], top + size[0]])
    shape = (top + size[0] + 2, left + size[1] + 1)
    found = measure_masks(logits, box, shape[0], threshold, 0.5, min_stability=0.0)
    full = torch.nn.functional.interpolate(logits[None], size, mode="bilinear")[0]
    assert found.rows.tolist() == [0, 1]
    for row in range(2):
        expected = np.zeros(shape, bool)
        expected[top : top + size[0], left : left + size[1]] = (full[row] > threshold).numpy()
        mask = dense_of_edges(found.edges[row], shape)
        near = np.zeros(shape, bool)
        near[top : top + size[0], left : left + size[1]] = (full[row] - threshold).abs() < 1e-5
        assert not (mask != expected)[~near].any()
        inner, outer = (full[row] > threshold + 0.5).sum(), (full[row] > threshold - 0.5).sum()
        np.testing.assert_allclose(found.stability[row], inner / outer, atol=2 / max(1, outer))
        ys, xs = np.nonzero(mask)
        box_of_mask = [xs.min(), ys.min(), xs.max(), ys.max()] if len(xs) else [left, top] * 2
        assert found.boxes[row].tolist() == box_of_mask


def test_edges_as_code_match_sams():
    from sam2.utils.amg import mask_to_rle_pytorch

    rng = np.random.default_rng(0)
    for density in (0.0, 0.3, 1.0):
        mask = rng.random((7, 5)) < density
        flat = np.concatenate([[False], mask.T.ravel(), [False]])
        edges = np.flatnonzero(flat[1:] != flat[:-1])
        assert (
            rle_of_edges(edges, mask.shape) == mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0]
        )
        assert np.array_equal(dense_of_edges(edges, mask.shape), mask)
