"""A generated scene as the benchmarks use it: views with their cameras, pictures and truth."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image

from hiersplat.gaussians.cameras import Camera, viewmat_from_camera_to_world
from hiersplat.label_maps import label_map_path, read_label_map


@dataclass(frozen=True)
class TruthView:
    """One view with its camera, picture and true ids."""

    name: str
    image: UInt8[np.ndarray, "height width 3"]
    labels: Int[np.ndarray, "3 height width"]
    camera: Camera


@dataclass(frozen=True)
class TruthScene:
    """Training and held-out views of a generated scene."""

    name: str
    folder: Path
    train: list[TruthView]
    held_out: list[TruthView]

    @property
    def views(self) -> list[TruthView]:
        """All views, training views first."""
        return self.train + self.held_out


def load_scene(folder: Path) -> TruthScene:
    """Read a data set that ``hiersplat-scene`` has written."""
    table = json.loads((folder / "transforms.json").read_text())
    intrinsics = torch.tensor(
        [[table["fl_x"], 0, table["cx"]], [0, table["fl_y"], table["cy"]], [0, 0, 1]]
    ).float()
    held_out = set(table["test_filenames"])
    views: tuple[list[TruthView], list[TruthView]] = ([], [])
    for frame in sorted(table["frames"], key=lambda frame: frame["file_path"]):
        path = folder / frame["file_path"]
        image = np.asarray(Image.open(path).convert("RGB"))
        pose = torch.tensor(frame["transform_matrix"]).float()
        camera = Camera(
            path.stem, viewmat_from_camera_to_world(pose), intrinsics, table["w"], table["h"]
        )
        view = TruthView(path.stem, image, read_label_map(label_map_path(folder, path)), camera)
        views[frame["file_path"] in held_out].append(view)
    return TruthScene(folder.name, folder, *views)
