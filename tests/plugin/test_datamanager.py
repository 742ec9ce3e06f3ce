"""What the datamanager makes of a data set before anything is trained."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image

from hiersplat.plugin.datamanager import HiersplatDataManager, HiersplatDataManagerConfig
from hiersplat.segmentation.segmenter import SegmentationConfig
from hiersplat.semantics.config import FeaturesConfig

SIZE, ANGLE, DISTANCE, RADIUS = 48, 0.7, 4.0, 0.5


def pose_at(azimuth: float, elevation: float) -> np.ndarray:
    """A camera-to-world matrix that looks at the origin."""
    back = np.array(
        [
            math.cos(azimuth) * math.cos(elevation),
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
        ]
    )
    right = np.cross([0, 0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, DISTANCE * back], axis=1)
    return pose


def write_ball(folder: Path, cut_out: bool) -> Path:
    """A NeRF-synthetic data set of a ball at the origin: in every view a disc in the middle."""
    focal = 0.5 * SIZE / math.tan(0.5 * ANGLE)
    disc = focal * RADIUS / math.sqrt(DISTANCE**2 - RADIUS**2)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2
    image = np.zeros((SIZE, SIZE, 4), np.uint8)
    image[np.hypot(x, y) <= disc] = (200, 40, 40, 255)
    if not cut_out:
        image[..., 3] = 255
    for split, count in (("train", 12), ("val", 2)):
        (folder / split).mkdir(parents=True)
        frames = []
        for place in range(count):
            Image.fromarray(image).save(folder / split / f"{place}.png")
            pose = pose_at(2 * math.pi * place / count, 0.5 * math.sin(2.0 * place))
            frames.append({"file_path": f"./{split}/{place}", "transform_matrix": pose.tolist()})
        content = {"camera_angle_x": ANGLE, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder


def datamanager(data: Path) -> HiersplatDataManager:
    config = HiersplatDataManagerConfig(
        data=data,
        dataparser=BlenderDataParserConfig(data=data),
        cache_images_type="uint8",
        segmentation=SegmentationConfig(segmenter="regions"),
        features=FeaturesConfig(features="none"),
    )
    return config.setup(device="cpu", test_mode="val")


def test_views_that_are_cut_out_give_points_to_start_from(tmp_path):
    manager = datamanager(write_ball(tmp_path / "ball", cut_out=True))
    metadata = manager.train_dataparser_outputs.metadata
    distances = metadata["points3D_xyz"].norm(dim=1)
    assert len(distances) > 500
    # From twelve views a hull is a little larger than its ball.
    assert distances.min() > RADIUS - 0.08
    assert distances.median() < RADIUS + 0.12
    assert metadata["points3D_rgb"].float().mean(dim=0).tolist() == pytest.approx(
        [200, 40, 40], abs=25
    )


def test_views_with_a_background_give_none(tmp_path):
    manager = datamanager(write_ball(tmp_path / "ball", cut_out=False))
    assert "points3D_xyz" not in manager.train_dataparser_outputs.metadata


def test_an_image_of_another_size_ends_in_one_line(tmp_path, capsys):
    data = write_ball(tmp_path / "ball", cut_out=True)
    Image.new("RGBA", (SIZE, SIZE - 8)).save(data / "val" / "1.png")
    with pytest.raises(SystemExit) as ended:
        datamanager(data)
    assert ended.value.code == 2
    assert "val/1.png: is 48 x 40 pixels" in capsys.readouterr().err
