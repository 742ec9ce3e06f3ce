"""Our generator against sam2's own: same weights, image and settings, record by record."""

import numpy as np
import pytest
import torch
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

from hiersplat.segmentation import build_sam_generator
from hiersplat.segmentation.sam2_model import random_model

SIZE = 256
LOOSE = {
    "points_per_side": 3,
    "stability_score_offset": 0.05,
    "box_nms_thresh": 1.0,
    "crop_nms_thresh": 1.0,
}


@pytest.fixture(scope="module")
def model():
    """A tiny SAM 2 at a quarter of the resolution; nothing in it is left at a neutral value."""
    made = random_model("tiny", seed=1, image_size=SIZE)
    generator = torch.Generator().manual_seed(2)
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return made


def official(model, image, **settings):
    """Masks of sam2's generator; its predictor knows the sizes of 1024-pixel features only."""
    generator = SAM2AutomaticMaskGenerator(model, **settings)
    generator.predictor._bb_feat_sizes = [(SIZE // 2**k, SIZE // 2**k) for k in (2, 3, 4)]
    return generator.generate(image)


def picture(height, width, seed):
    """Random rectangles and discs on a gradient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.stack([x / width, y / height, (x + y) / (width + height)], -1) * 200
    for _ in range(6):
        centre_y, centre_x = rng.integers(0, height), rng.integers(0, width)
        radius = rng.integers(1, max(2, min(height, width) // 3))
        near = np.hypot(y - centre_y, x - centre_x) if rng.random() < 0.5 else abs(x - centre_x)
        image[near < radius] = rng.integers(0, 256, 3)
    return image.astype(np.uint8)


IMAGES = {
    "square": picture(120, 120, 0),
    "wide": picture(90, 210, 1),
    "tall": picture(260, 100, 2),
    "larger than the model": picture(300, 400, 3),
    "tiny": picture(9, 13, 4),
    "one pixel": picture(1, 1, 5),
    "noise": np.random.default_rng(6).integers(0, 256, (128, 160, 3), dtype=np.uint8),
}


def best_iou(masks, others):
    """IoU of each mask with the best of the others."""
    first = np.stack([m["segmentation"].ravel() for m in masks]).astype(np.float64)
    second = np.stack([m["segmentation"].ravel() for m in others]).astype(np.float64)
    common = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1)[None] - common
    return np.where(union > 0, common / np.maximum(union, 1), 1.0).max(1)


def assert_agree(ours, theirs, least_iou=0.99):
    assert abs(len(ours) - len(theirs)) <= 0.01 * len(theirs)
    assert best_iou(ours, theirs).mean() >= least_iou
    assert best_iou(theirs, ours).mean() >= least_iou


def assert_same(ours, theirs):
    """Records agree one by one, in order, with types."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for key in mine:
            assert type(mine[key]) is type(other[key]), key
        assert mine["segmentation"].dtype == other["segmentation"].dtype
        assert mine["segmentation"].shape == other["segmentation"].shape
        assert np.mean(mine["segmentation"] != other["segmentation"]) < 1e-3
        for key in ("bbox", "crop_box", "point_coords"):
            np.testing.assert_allclose(mine[key], other[key], rtol=1e-6)
        for key in ("predicted_iou", "stability_score"):
            np.testing.assert_allclose(mine[key], other[key], atol=1e-3)
        assert abs(mine["area"] - other["area"]) <= 1e-3 * mine["segmentation"].size


def thresholds(model, image, **settings):
    """Thresholds in gaps of the scores that let about a third of the candidates survive."""
    loose = settings | {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    records = build_sam_generator(model=model, precision="float32", **loose).generate(image)
    iou = gap([r["predicted_iou"] for r in records], 0.5)
    passing = [r["stability_score"] for r in records if r["predicted_iou"] > iou]
    return {"pred_iou_thresh": iou, "stability_score_thresh": gap(passing, 0.33)}


def gap(values, quantile):
    """Middle of the widest gap near a quantile, so that rounding decides nothing."""
    ordered = np.sort(np.clip(values, 0, 1))
    centre = int(quantile * (len(ordered) - 1))
    low, high = max(0, centre - 3), min(len(ordered), centre + 5)
    near = ordered[low:high]
    if len(near) < 2:
        return 0.0
    place = int(np.argmax(np.diff(near)))
    return float((near[place] + near[place + 1]) / 2)


@pytest.mark.parametrize("name", IMAGES)
def test_records_are_the_official_ones(model, name):
    image = IMAGES[name]
    settings = LOOSE | thresholds(model, image, **LOOSE)
    theirs = official(model, image, **settings)
    ours = build_sam_generator(model=model, precision="float32", **settings).generate(image)
    assert theirs
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", ["square", "larger than the model"])
def test_default_precision_agrees(model, name):
    image = IMAGES[name]
    settings = LOOSE | thresholds(model, image, **LOOSE)
    ours = build_sam_generator(model=model, **settings).generate(image)
    assert_agree(ours, official(model, image, **settings))


@pytest.mark.parametrize("name", ["larger than the model", "tiny"])
def test_records_of_crops_are_the_official_ones(model, name):
    # A high threshold leaves small masks, which end away from the edges of a crop.
    settings = LOOSE | {"points_per_side": 2, "crop_n_layers": 1, "mask_threshold": 0.45}
    settings |= {"stability_score_thresh": 0.0, "pred_iou_thresh": 0.0}
    image = IMAGES[name]
    theirs = official(model, image, **settings)
    ours = build_sam_generator(model=model, precision="float32", **settings).generate(image)
    assert len({tuple(record["crop_box"]) for record in theirs}) > 1
    assert_same(ours, theirs)


def test_duplicates_go_as_in_the_official_generator(model):
    image = IMAGES["larger than the model"]
    settings = {
        "points_per_side": 4,
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.0,
        "stability_score_offset": 0.05,
        "mask_threshold": 0.5,
        "box_nms_thresh": 0.7,
    }
    theirs = official(model, image, **settings)
    ours = build_sam_generator(model=model, precision="float32", **settings).generate(image)
    kept_all = build_sam_generator(model=model, **settings | {"box_nms_thresh": 1.0})
    assert 2 < len(theirs) < len(kept_all.generate(image))
    assert_same(ours, theirs)


@pytest.mark.filterwarnings("ignore:.*Skipping the post-processing")
@pytest.mark.parametrize("found_by", ["nobody", "a stand-in for the extension"])
def test_small_regions_are_treated_as_in_the_official_generator(model, monkeypatch, found_by):
    if found_by != "nobody":
        monkeypatch.setattr("sam2.utils.misc.get_connected_components", components)
    image = IMAGES["square"]
    settings = LOOSE | {"min_mask_region_area": 20}
    settings |= thresholds(model, image, **settings)
    theirs = official(model, image, **settings)
    ours = build_sam_generator(model=model, precision="float32", **settings).generate(image)
    assert_same(ours, theirs)
    if found_by != "nobody":
        settings["small_regions"] = "opencv"
        ours = build_sam_generator(model=model, precision="float32", **settings).generate(image)
        assert_same(ours, theirs)


def components(masks):
    """8-connected components as sam2's CUDA extension returns them."""
    import cv2

    labels, areas = (
        torch.zeros_like(masks, dtype=torch.int),
        torch.zeros_like(masks, dtype=torch.int),
    )
    for row, mask in enumerate(masks[:, 0].numpy().astype(np.uint8)):
        _, found, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        labels[row, 0] = torch.from_numpy(found)
        areas[row, 0] = torch.from_numpy(np.where(found > 0, stats[found, 4], 0))
    return labels, areas


def test_nothing_survives_gives_an_empty_list(model):
    settings = {"points_per_side": 2, "pred_iou_thresh": 1.0}
    assert build_sam_generator(model=model, **settings).generate(IMAGES["square"]) == []
    settings = {"points_per_side": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 1.0}
    settings["crop_n_layers"] = 1
    assert build_sam_generator(model=model, **settings).generate(IMAGES["wide"]) == []


def test_the_batch_changes_nothing(model):
    settings = LOOSE | {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    image = IMAGES["square"]
    one = build_sam_generator(model=model, points_per_batch=1, **settings).generate(image)
    many = build_sam_generator(model=model, points_per_batch=64, **settings).generate(image)
    assert_same(one, many)


def test_code_is_the_mask_as_runs(model):
    from sam2.utils.amg import rle_to_mask

    settings = LOOSE | {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    generator = build_sam_generator(model=model, **settings)
    dense = generator.generate(IMAGES["wide"])
    coded = generator.generate(IMAGES["wide"], output_mode="uncompressed_rle")
    assert len(dense) == len(coded) == 27
    for mask, code in zip(dense, coded, strict=True):
        assert np.array_equal(mask["segmentation"], rle_to_mask(code["segmentation"]))
        assert mask["area"] == sum(code["segmentation"]["counts"][1::2])


def test_full_resolution_agrees(shared_data):
    import cv2

    image = cv2.imread(str(sorted((shared_data / "chair").rglob("*.png"))[0]))[..., ::-1].copy()
    made = random_model("tiny")
    settings = LOOSE | {"points_per_side": 2, "stability_score_thresh": 0.0, "pred_iou_thresh": 0.0}
    theirs = SAM2AutomaticMaskGenerator(made, **settings).generate(image)
    ours = build_sam_generator(model=made, **settings).generate(image)
    assert_agree(ours, theirs)
