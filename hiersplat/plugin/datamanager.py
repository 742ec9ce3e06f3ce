"""The datamanager: nerfstudio's full-image one, with a pyramid and features for every view."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.full_images_datamanager import (
    FullImageDatamanager,
    FullImageDatamanagerConfig,
)
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from hiersplat.gaussians.cameras import Camera, viewmat_from_camera_to_world
from hiersplat.label_maps import label_map_path, read_label_map
from hiersplat.plugin.checks import (
    check_blender,
    check_exists,
    check_images,
    check_sizes,
    check_transforms,
    check_views,
)
from hiersplat.plugin.errors import one_line_errors
from hiersplat.preprocess import PreparedViews, prepare_views
from hiersplat.segmentation.pyramid import MaskPyramid
from hiersplat.segmentation.segmenter import SegmentationConfig, View
from hiersplat.semantics.config import FeaturesConfig
from hiersplat.semantics.view_features import ViewFeatures

Split = Literal["train", "eval"]
MAX_HULL_POINTS = 12000
"""Points taken from silhouettes; densification adds Gaussians where more are needed."""


@dataclass
class HiersplatDataManagerConfig(FullImageDatamanagerConfig):
    """Full images, segmented into small, part and whole once and then read from a cache."""

    _target: type = field(default_factory=lambda: HiersplatDataManager)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    """How every training view is segmented; with SAM 2 the longest step of all."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """Which semantic features supervise training; they are what queries in words need."""
    cache_dir: Path | None = None
    """Folder for pyramids and features; none: `.hiersplat` in the data set's own folder.
    About 10 kB a view of 256 x 256 for masks."""


class HiersplatDataManager(FullImageDatamanager[InputDataset]):
    """Full images with ``batch["pyramid"]`` and, where there are any, CLIPSeg features."""

    config: HiersplatDataManagerConfig

    def __init__(self, config: HiersplatDataManagerConfig, *args: Any, **kwargs: Any) -> None:
        with one_line_errors():
            data = config.data if config.data is not None else config.dataparser.data
            checked: list[Path] = []
            if isinstance(config.dataparser, NerfstudioDataParserConfig):
                images = check_transforms(data)
                if config.dataparser.downscale_factor in (None, 1):
                    # Before nerfstudio opens one to learn its size.
                    check_images(checked := images)
            elif isinstance(config.dataparser, BlenderDataParserConfig):
                check_blender(data, config.dataparser.ply_path)
            else:
                check_exists(data)
            super().__init__(config, *args, **kwargs)
            outputs = self.train_dataparser_outputs
            check_views(data, outputs.image_filenames, outputs.cameras.camera_to_worlds)
            for dataset in (self.train_dataset, self.eval_dataset):
                check_images(sorted(set(dataset.image_filenames) - set(checked)))
                checked += dataset.image_filenames
                check_sizes(dataset.image_filenames, dataset._dataparser_outputs.cameras)
            if outputs.alpha_color is not None:
                # Transparency is kept: over a background that changes with every step nothing
                # can be painted in its colour. Held-out views are judged over the one given.
                self.train_dataset.metadata["background_color"] = outputs.alpha_color
                for dataset in (self.train_dataset, self.eval_dataset):
                    dataset._dataparser_outputs.alpha_color = None
            self.seconds: dict[str, float] = {}
            """Seconds of every stage that is over."""
            self._prepared: PreparedViews | None = None
            if self.test_mode == "val":
                self._prepared = self._prepare()
                if "points3D_xyz" not in outputs.metadata:
                    outputs.metadata.update(self._hull_points())
        self._pyramid_labels = lru_cache(maxsize=64)(self._read_pyramid_labels)
        self._features = lru_cache(maxsize=64)(self._read_features)

    @property
    def data(self) -> Path:
        """Folder of the data set."""
        path = Path(self.get_datapath())
        return path.parent if path.suffix == ".json" else path

    @property
    def prepared(self) -> PreparedViews:
        """Pyramids and features of the training views, made on first use."""
        if self._prepared is None:
            with one_line_errors():
                self._prepared = self._prepare()
        return self._prepared

    def _prepare(self) -> PreparedViews:
        root = self.config.cache_dir or self.data / ".hiersplat"
        if self.config.features.features == "none":
            CONSOLE.log(
                "Training without semantic features (features: none): the hierarchy is built, "
                "but it cannot be asked in words."
            )
        if not os.access(root if root.exists() else self.data, os.W_OK):
            raise ValueError(
                f"{root}: cannot be written; choose a folder with "
                "--pipeline.datamanager.cache-dir DIR"
            )
        began = time.perf_counter()
        prepared = prepare_views(
            _Views(self, "train"),
            self.config.segmentation,
            self.config.features,
            root,
            device=str(self.device),
            console=CONSOLE,
        )
        self.seconds["masks and features"] = time.perf_counter() - began
        return prepared

    def _hull_points(self) -> dict[str, Tensor]:
        """Find points to start from where the views are cut out; nothing elsewhere."""
        from hiersplat.gaussians.hull import silhouette_hull

        images = [one["image"] for one in self.cached_train]
        if any(image.shape[2] != 4 or image.dtype != torch.uint8 for image in images):
            return {}
        cameras = (self.camera("train", index) for index in range(len(images)))
        views = [
            (camera, image.cpu().numpy()) for camera, image in zip(cameras, images, strict=True)
        ]
        box = self.train_dataset.scene_box.aabb.double().numpy()
        found = silhouette_hull(views, box[0], box[1], MAX_HULL_POINTS)
        if found is None:
            return {}
        CONSOLE.log(
            f"No points to start from: {len(found[0])} on the surface of the hull that the "
            "transparent views leave."
        )
        return {
            "points3D_xyz": torch.from_numpy(found[0]),
            "points3D_rgb": torch.from_numpy(found[1]),
        }

    def pyramid(self, index: int) -> MaskPyramid:
        """Read the pyramid of a training view."""
        return self.prepared.pyramid(index)

    def camera(self, split: Split, index: int) -> Camera:
        """Return the camera of a view as it is trained on: scaled and without distortion."""
        # Reading the images is what undistorts them and corrects the intrinsics.
        _ = self.cached_train if split == "train" else self.cached_eval
        cameras = self.dataset(split).cameras[index : index + 1]
        return camera_from_nerfstudio(cameras, self.view_name(split, index))

    def dataset(self, split: Split) -> InputDataset:
        """Return the images of a split."""
        return self.train_dataset if split == "train" else self.eval_dataset

    def view_name(self, split: Split, index: int) -> str:
        """Name of a view: its image's stem, after its folder where two splits share names."""
        path = self.dataset(split).image_filenames[index]
        return f"{path.parent.name}_{path.stem}" if path.stem in self._shared_stems else path.stem

    @cached_property
    def _shared_stems(self) -> set[str]:
        train, held_out = (
            {path.stem for path in self.dataset(split).image_filenames}
            for split in ("train", "eval")
        )
        return train & held_out

    def truth_path(self, split: Split, index: int) -> Path | None:
        """Path of a view's exact labels; ``None`` where the data set has none."""
        path = label_map_path(self.data, self.dataset(split).image_filenames[index])
        return path if path.is_file() else None

    def truth(self, split: Split, index: int) -> np.ndarray | None:
        """Read a view's exact labels (3, H, W) at the size of its image."""
        path = self.truth_path(split, index)
        if path is None:
            return None
        labels = read_label_map(path)
        cached = (self.cached_train if split == "train" else self.cached_eval)[index]
        height, width = cached["image"].shape[:2]
        if labels.shape[1:] == (height, width):
            return labels
        # Ids cannot be mixed, so the nearest pixel is taken.
        rows = (np.arange(height) + 0.5) * labels.shape[1] / height
        columns = (np.arange(width) + 0.5) * labels.shape[2] / width
        return np.ascontiguousarray(labels[:, rows.astype(int)][:, :, columns.astype(int)])

    def image(self, split: Split, index: int) -> np.ndarray:
        """Return a view as uint8 RGB (H, W, 3); transparency is laid over white."""
        cached = (self.cached_train if split == "train" else self.cached_eval)[index]["image"]
        if cached.dtype != torch.uint8:
            cached = (cached * 255).round().to(torch.uint8)
        image = cached.cpu().numpy()
        if image.shape[2] == 4:
            alpha = image[..., 3:].astype(np.float32) / 255
            image = (image[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
        return np.ascontiguousarray(image)

    def features(self, index: int) -> ViewFeatures | None:
        """Return the features of a training view; ``None`` where there are none."""
        return self._features(index)

    def _read_features(self, index: int) -> ViewFeatures | None:
        return self.prepared.features(index)

    def _read_pyramid_labels(self, index: int) -> Tensor:
        return torch.from_numpy(self.pyramid(index).labels)

    def next_train(self, step: int) -> tuple[Cameras, dict]:
        """Return the next camera and its batch with ``pyramid`` (3, H, W) and features."""
        camera, batch = super().next_train(step)
        index = batch["image_idx"]
        batch["pyramid"] = self._pyramid_labels(index).to(self.device)
        features = self.features(index)
        if features is not None:
            batch["dense_features"] = torch.from_numpy(features.dense).to(self.device)
            batch["mask_embeddings"] = [
                torch.from_numpy(level).to(self.device) for level in features.embeddings
            ]
        return camera, batch

    def _with_truth(self, batch: dict) -> dict:
        truth = self.truth("eval", batch["image_idx"])
        if truth is not None:
            batch["truth"] = truth
            batch["view"] = self.camera("eval", batch["image_idx"])
        return batch

    @property
    def fixed_indices_eval_dataloader(self) -> list[tuple[Cameras, dict]]:
        """Held-out cameras and batches, with ``truth`` labels where the data set has them."""
        return [
            (camera, self._with_truth(b)) for camera, b in super().fixed_indices_eval_dataloader
        ]

    def next_eval_image(self, step: int) -> tuple[Cameras, dict]:
        """Return one held-out camera and its batch."""
        camera, batch = super().next_eval_image(step)
        return camera, self._with_truth(batch)


class _Views(Sequence[View]):
    """The views of a split, each loaded when it is asked for."""

    def __init__(self, datamanager: HiersplatDataManager, split: Split) -> None:
        self._datamanager = datamanager
        self._split: Split = split

    def __len__(self) -> int:
        return len(self._datamanager.dataset(self._split))

    def __getitem__(self, index: int) -> View:  # type: ignore[override]
        manager, split = self._datamanager, self._split
        needs_truth = manager.config.segmentation.segmenter == "labels"
        return View(
            name=manager.view_name(split, index),
            image=manager.image(split, index),
            labels=manager.truth(split, index) if needs_truth else None,
        )


def camera_from_nerfstudio(cameras: Cameras, name: str = "") -> Camera:
    """Convert one nerfstudio camera (batch of one, OpenGL) to ours (OpenCV, world to camera)."""
    camera_to_world = cameras.camera_to_worlds.reshape(3, 4).detach().cpu()
    return Camera(
        name=name,
        viewmat=viewmat_from_camera_to_world(camera_to_world),
        K=cameras.get_intrinsics_matrices().reshape(3, 3).detach().cpu(),
        width=int(cameras.width.item()),
        height=int(cameras.height.item()),
    )
