"""A finished run on disk: Gaussians, scene tree and views, read without nerfstudio.

What a run's folder holds::

    config.yml                               nerfstudio's, never read here
    nerfstudio_models/step-XXXXXXXXX.ckpt    nerfstudio's checkpoints; the last one counts
    hierarchy/tree.json, tree.npz            the scene tree and the node ids of every Gaussian
    hierarchy/views.json                     cameras, and where a view's image, masks, truth lie

Cameras and Gaussians share the frame the run was trained in.
"""

import json
import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hiersplat.cache import CacheError
from hiersplat.gaussians.cameras import Camera, viewmat_from_camera_to_world
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.tree import SceneTree

HIERARCHY_FOLDER = "hierarchy"
"""Folder of a run that holds its hierarchy."""
_CHECKPOINTS_FOLDER = "nerfstudio_models"
_PARAMETERS = ("means", "scales", "quats", "features_dc", "features_rest", "opacities")

Split = Literal["train", "eval"]


@dataclass(frozen=True)
class RunView:
    """One view of a run and where its files lie."""

    camera: Camera
    """Camera in the frame of the Gaussians; its name is the view's, unique within a run."""
    split: Split
    """Whether the view was trained on (``train``) or held out (``eval``)."""
    image: Path | None = None
    """The photograph, not necessarily undistorted or of the camera's size."""
    pyramid: Path | None = None
    """The cached mask pyramid, at the camera's size."""
    labels: Path | None = None
    """The label map with the truth, at the camera's size, where the data set has one."""

    @property
    def name(self) -> str:
        """Name of the view."""
        return self.camera.name


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    """Folder of the run."""
    splats: Splats
    """Colours and geometry, on the CPU."""
    tree: SceneTree
    """The hierarchy."""
    views: tuple[RunView, ...]
    """Views trained on and held out, in the order they were saved."""

    def views_of(self, split: Split) -> tuple[RunView, ...]:
        """Views of one split."""
        return tuple(view for view in self.views if view.split == split)


def load_run(path: Path) -> Run:
    """Read a finished run.

    Args:
        path: The run's folder, its ``config.yml`` or its ``hierarchy`` folder.

    Raises:
        ValueError: If there is no run, it has no hierarchy, a file is spoiled, or the parts do
            not fit together. The message names the file.
    """
    folder = _run_folder(path)
    hierarchy = folder / HIERARCHY_FOLDER
    if not (hierarchy / "tree.json").is_file():
        raise ValueError(
            f"{folder}: the run has no hierarchy ({HIERARCHY_FOLDER}/tree.json); train with a "
            "hiersplat method to the end, or build one with --pipeline.model.geometry"
        )
    splats = load_splats(folder)
    try:
        tree = SceneTree.load(hierarchy / "tree.json")
    except OSError as error:
        raise ValueError(f"{error.filename or error}: cannot be read; train again") from error
    if tree.num_gaussians != len(splats):
        raise ValueError(
            f"{hierarchy}: the tree labels {tree.num_gaussians} Gaussians, the checkpoint holds "
            f"{len(splats)}; the run was trained on after its hierarchy was built"
        )
    return Run(folder, splats, tree, load_views(hierarchy / "views.json"))


def _run_folder(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path}: no such run; expected the folder that holds config.yml")
    if path.is_file() and path.name != "config.yml":
        raise ValueError(f"{path}: not a run; expected its folder, config.yml or hierarchy folder")
    is_inside = path.is_file() or path.name in (HIERARCHY_FOLDER, _CHECKPOINTS_FOLDER)
    folder = path.absolute().parent if is_inside else path
    if not (folder / _CHECKPOINTS_FOLDER).is_dir():
        raise ValueError(
            f"{folder}: not a finished run (no {_CHECKPOINTS_FOLDER} folder); "
            "expected the folder that holds config.yml"
        )
    return folder


def load_splats(folder: Path) -> Splats:
    """Read the Gaussians of the last checkpoint in a run's folder; splatfacto's runs work too.

    Raises:
        ValueError: If there is no checkpoint, or it is spoiled or of another method.
    """
    checkpoints = sorted((folder / _CHECKPOINTS_FOLDER).glob("step-*.ckpt"))
    if not checkpoints:
        raise ValueError(f"{folder / _CHECKPOINTS_FOLDER}: no checkpoint (step-*.ckpt) in it")
    path = checkpoints[-1]  # Steps are padded with zeros, so names sort by step.
    state = _read_checkpoint(path).get("pipeline", {})
    try:
        params = {name: state[f"_model.gauss_params.{name}"].float() for name in _PARAMETERS}
        return Splats(
            means=params["means"].clone(),
            quats=params["quats"].clone(),
            log_scales=params["scales"].clone(),
            logit_opacities=params["opacities"].reshape(-1).clone(),
            sh=torch.cat((params["features_dc"][:, None], params["features_rest"]), dim=1),
        )
    except (KeyError, AttributeError, TypeError, RuntimeError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: holds no Gaussians as splatfacto saves them ({error})") from None


def allow_numpy_scalars() -> None:
    """Let torch's safe unpickler pass numpy's scalars, and nothing that could run code.

    nerfstudio's optimizers save learning rates as numpy floats. This holds for the process:
    torch's own context manager takes away on leaving what others had allowed before.
    """
    from numpy._core.multiarray import scalar

    allowed = [scalar, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
    torch.serialization.add_safe_globals(allowed)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    allow_numpy_scalars()
    try:
        # Mapped into memory, so that the optimizers' moments are not read.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ValueError(f"{path}: spoiled or not a checkpoint ({reason})") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: spoiled or not a checkpoint (holds {type(state).__name__})")
    return state


def save_hierarchy(folder: Path, tree: SceneTree, views: Sequence[RunView]) -> None:
    """Write tree and views as a run's ``hierarchy`` folder, whole or not at all.

    Args:
        folder: The ``hierarchy`` folder itself; what it held before is replaced.
        tree: The hierarchy.
        views: Views with their cameras in the frame of the Gaussians.

    Raises:
        CacheError: If the disk is full or the folder cannot be written.
        ValueError: If two views have the same name.
    """
    names = [view.name for view in views]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ValueError(f"two views are called {min(doubled)!r}; names must be unique in a run")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    before = folder.with_name(f".{folder.name}.{os.getpid()}.before")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        tree.save(partial / "tree.json")
        table = [_view_to_json(view) for view in views]
        (partial / "views.json").write_text(json.dumps({"views": table}, indent=1))
        if folder.exists():
            folder.rename(before)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if before.exists() and not folder.exists():
            before.rename(folder)
        raise CacheError(
            f"{folder}: the hierarchy cannot be written ({error.strerror or error}); "
            "free some space or choose another folder"
        ) from error
    shutil.rmtree(before, ignore_errors=True)


def _view_to_json(view: RunView) -> dict[str, Any]:
    camera = view.camera
    paths = {
        name: None if path is None else str(path.absolute())
        for name, path in (
            ("image", view.image),
            ("pyramid", view.pyramid),
            ("labels", view.labels),
        )
    }
    return {
        "name": camera.name,
        "split": view.split,
        "viewmat": camera.viewmat.tolist(),
        "K": camera.K.tolist(),
        "width": camera.width,
        "height": camera.height,
        **paths,
    }


def load_views(path: Path) -> tuple[RunView, ...]:
    """Read a run's ``views.json``.

    A view has ``viewmat`` (4 x 4, OpenCV) or ``camera_to_world`` (3 or 4 rows, OpenGL).

    Raises:
        ValueError: If the file is missing, spoiled, or a view lacks something.
    """
    try:
        table = json.loads(path.read_text())
        entries = table["views"]
        if not isinstance(entries, list):
            raise TypeError("'views' is no list")
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; the hierarchy was not saved whole") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: spoiled or not a list of views ({error})") from None
    return tuple(_view_from_json(path, place, entry) for place, entry in enumerate(entries))


def _view_from_json(path: Path, place: int, entry: Any) -> RunView:
    try:
        if entry["split"] not in get_args(Split):
            raise ValueError(f"split {entry['split']!r} is neither 'train' nor 'eval'")
        viewmat = _matrix(entry["viewmat"]) if "viewmat" in entry else None
        if viewmat is None:
            viewmat = viewmat_from_camera_to_world(_matrix(entry["camera_to_world"]))
        camera = Camera(
            name=str(entry["name"]),
            viewmat=viewmat,
            K=_matrix(entry["K"]),
            width=int(entry["width"]),
            height=int(entry["height"]),
        )
        files = {
            name: Path(entry[name]) if entry.get(name) else None
            for name in ("image", "pyramid", "labels")
        }
        return RunView(camera, entry["split"], **files)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: view {place}: {reason}") from None


def _matrix(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)
