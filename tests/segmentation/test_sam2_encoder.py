"""The image encoder window by window against the official one; boxes against torchvision's NMS."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiersplat.segmentation.sam2_boxes import without_duplicates
from hiersplat.segmentation.sam2_encoder import encoded
from hiersplat.segmentation.sam2_model import encode_image, random_model


@pytest.fixture(scope="module")
def models():
    """Windows of tiny hang over the edge, those of large do not; nothing is at a neutral value."""
    made = {size: random_model(size, image_size=128) for size in ("tiny", "large")}
    generator = torch.Generator().manual_seed(3)
    for model in made.values():
        for parameter in model.parameters():
            if parameter.ndim == 1 or parameter.ndim == 4:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


@torch.inference_mode()
@pytest.mark.parametrize("size", ["tiny", "large"])
def test_features_are_those_of_the_official_encoder(models, size):
    model = models[size]
    pixels = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(4))
    fine, middle, embedding = model.forward_image(pixels)["backbone_fpn"]
    expected = embedding, fine, middle
    for found, official in zip(encoded(model, pixels, torch.float32), expected, strict=True):
        assert found.dtype == torch.float32
        assert float((found - official).abs().max() / official.std()) < 1e-4
    for found, official in zip(encoded(model, pixels, torch.bfloat16), expected, strict=True):
        assert found.dtype == torch.float32
        assert 1e-5 < float((found - official).std() / official.std()) < 0.03


def test_images_are_resized_as_by_the_official_predictor(models):
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    model = models["tiny"]
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(32, 32), (16, 16), (8, 8)]
    rng = np.random.default_rng(5)
    for shape in [(200, 90, 3), (128, 128, 3), (1, 1, 3), (30, 300, 3)]:
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        predictor.set_image(image)
        found = encode_image(model, image)
        torch.testing.assert_close(
            found.embedding, predictor._features["image_embed"], atol=1e-4, rtol=1e-4
        )
        for ours, theirs in zip(found.high_res, predictor._features["high_res_feats"], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@given(st.integers(0, 60), st.floats(0, 1), st.integers(1, 30), st.integers(0, 999))
def test_duplicates_are_those_of_torchvision(count, max_iou, size, seed):
    from torchvision.ops import nms

    rng = np.random.default_rng(seed)
    # Few places and few scores, so that there are equal boxes, equal scores and empty boxes.
    corners = np.sort(rng.integers(0, size + 1, (count, 2, 2)), axis=1).reshape(-1, 4)
    scores = (rng.integers(0, 8, count) / 8).astype(np.float32)
    expected = nms(torch.as_tensor(corners, dtype=torch.float32), torch.as_tensor(scores), max_iou)
    assert without_duplicates(corners, scores, max_iou).tolist() == expected.tolist()


def test_torchvision_is_not_needed():
    """Its import takes more memory than an image's features do."""
    import subprocess
    import sys

    program = (
        "import sys, numpy as np; from hiersplat.segmentation import build_sam_generator;"
        "from hiersplat.segmentation.sam2_model import random_model;"
        "model = random_model('tiny', image_size=64);"
        "g = build_sam_generator(model=model, points_per_side=1, pred_iou_thresh=0.0,"
        "stability_score_thresh=0.0); g.generate(np.zeros((9, 9, 3), np.uint8));"
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
