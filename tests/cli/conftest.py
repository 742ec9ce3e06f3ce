"""A small finished run: two towers of coloured blocks, seen by five cameras, without nerfstudio."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hiersplat.cache import encode_arrays, write_atomically
from hiersplat.gaussians.cameras import Camera, viewmat_from_camera_to_world
from hiersplat.gaussians.lifting import render_ids
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.overlap import compact, parents_of_labels
from hiersplat.hierarchy.run import RunView, load_run, save_hierarchy
from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.label_maps import write_label_map
from hiersplat.levels import Level
from hiersplat.segmentation.pyramid import MaskPyramid

SIZE = 48
NUM_TRAIN = 4


def blocks() -> tuple[Splats, SceneTree]:
    """Two wholes (0, 1) of two parts (2-5) of two smalls each (6-13): blocks of Gaussians."""
    nodes = [Node(i, Level.WHOLE, -1) for i in range(2)]
    nodes += [Node(2 + i, Level.PART, i // 2) for i in range(4)]
    nodes += [Node(6 + i, Level.SMALL, 2 + i // 2, name=f"block {i}") for i in range(8)]
    grid = (np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3) - 1.5) / 8
    means, small, colors = [], [], []
    for block in range(8):
        whole, height = block // 4, block % 4
        centre = np.array([whole * 1.4 - 0.7, 0.0, height * 0.5 - 0.75])
        means.append(centre + grid)
        small.append(np.full(len(grid), 6 + block))
        colors.append(np.tile([0.3 + 0.2 * height, 0.2 + 0.6 * whole, 0.5], (len(grid), 1)))
    positions = torch.tensor(np.concatenate(means), dtype=torch.float32)
    count = len(positions)
    # Colour = 0.5 + 0.282 times the first coefficient.
    sh = (torch.tensor(np.concatenate(colors), dtype=torch.float32) - 0.5) / 0.28209479
    splats = Splats(
        means=positions,
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        log_scales=torch.full((count, 3), 0.07).log(),
        logit_opacities=torch.full((count,), 3.0),
        sh=sh[:, None],
    )
    ids = np.concatenate(small)
    tree = SceneTree(tuple(nodes), np.stack([ids, 2 + (ids - 6) // 2, (ids - 6) // 4]))
    return splats, tree.with_node_ids(ids, positions.numpy())


def camera_on_arc(index: int, name: str) -> Camera:
    """A camera three units away that looks at the origin."""
    angle = -0.5 + 0.25 * index
    position = np.array([4 * np.sin(angle), -4 * np.cos(angle), 0.6])
    back = position / np.linalg.norm(position)
    right = np.cross([0, 0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.stack([right, np.cross(back, right), back, position], axis=1)
    viewmat = viewmat_from_camera_to_world(torch.tensor(pose, dtype=torch.float32))
    K = torch.tensor([[60.0, 0, SIZE / 2], [0, 60.0, SIZE / 2], [0, 0, 1]])
    return Camera(name, viewmat, K, SIZE, SIZE)


def pyramid_of(labels: np.ndarray) -> MaskPyramid:
    """A pyramid with the given labels, renamed to be contiguous."""
    places = np.stack([compact(labels[level])[1] for level in Level]).astype(np.int32)
    small, part = parents_of_labels(places)
    counts = [int(places[level].max()) + 1 for level in Level]
    return MaskPyramid(
        places,
        (small.astype(np.int32), part.astype(np.int32)),
        tuple(np.zeros(count, bool) for count in counts),  # pyright: ignore[reportArgumentType]
        tuple(np.ones(count, np.float32) for count in counts),  # pyright: ignore[reportArgumentType]
    )


def nested(rendered: np.ndarray) -> np.ndarray:
    """Rendered ids whose parts and wholes follow from the smalls, as masks must be."""
    small = rendered[Level.SMALL]
    part = np.where(small < 0, -1, 2 + (small - 6) // 2)
    return np.stack([small, part, np.where(small < 0, -1, (small - 6) // 4)])


def write_run(run: Path, spoil: Callable[[int, np.ndarray], np.ndarray] | None = None) -> Path:
    """Write the run; ``spoil`` may change the masks of a view before they are cached."""
    splats, tree = blocks()
    params = {
        "means": splats.means,
        "scales": splats.log_scales,
        "quats": splats.quats,
        "features_dc": splats.sh[:, 0],
        "features_rest": torch.zeros(len(splats), 0, 3),
        "opacities": splats.logit_opacities[:, None],
    }
    (run / "nerfstudio_models").mkdir(parents=True)
    torch.save(
        {
            "step": 9,
            "pipeline": {f"_model.gauss_params.{name}": value for name, value in params.items()},
            "schedulers": {"means": {"_last_lr": [np.float64(1e-3)]}},
        },
        run / "nerfstudio_models" / "step-000000009.ckpt",
    )
    (run / "config.yml").write_text("!!python/object:never.read {}\n")
    views = []
    for index in range(NUM_TRAIN + 1):
        name = f"view_{index}"
        camera = camera_on_arc(index, name)
        labels = nested(render_ids(splats, camera, tree.node_ids))
        truth = run / "labels" / f"{name}.png"
        write_label_map(truth, labels)
        pyramid = None
        if index < NUM_TRAIN:
            pyramid = run / "cache" / f"{name}.npz"
            masks = labels if spoil is None else spoil(index, labels.copy())
            write_atomically(pyramid, encode_arrays(pyramid_of(masks).to_arrays()))
        split = "train" if index < NUM_TRAIN else "eval"
        views.append(RunView(camera, split, pyramid=pyramid, labels=truth))
    save_hierarchy(run / "hierarchy", tree, views)
    load_run(run)  # What the tests start from is a run.
    return run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run whose masks agree with its tree."""
    return write_run(tmp_path / "run")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run whose masks are spoiled view by view."""
    return lambda spoil: write_run(tmp_path / "run", spoil)
