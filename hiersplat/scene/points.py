"""Points for data sets without: features matched by pycolmap, triangulated with the given poses.

Poses and intrinsics of the data set are taken as they are, so the points lie in the frame of its
``transforms.json`` and nerfstudio turns and scales them together with the cameras.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from hiersplat.scene.posed_images import Intrinsics, PosedImage, read_rgb

if TYPE_CHECKING:
    import pycolmap

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass
class PointsConfig:
    """How points are found."""

    max_image_size: int = 960
    """Longer side of the images in which features are sought, in pixels. Time grows with its
    square; finer points than the Gaussians of a short training gain nothing."""
    max_features: int = 4096
    """Features an image. Matching time grows with its square."""
    neighbours: int = 30
    """Views each view is matched with: those that stand near and look the same way. Up to this
    many views all pairs are matched; beyond, time grows with views times neighbours."""
    max_reprojection_error: float = 2.0
    """Points that miss their features by more than this many pixels are dropped."""

    def check(self) -> None:
        """Refuse settings that cannot give points.

        Raises:
            ValueError: If a setting is out of its range.
        """
        for name, least in (("max_image_size", 64), ("max_features", 64), ("neighbours", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not self.max_reprojection_error > 0:
            raise ValueError(
                f"max_reprojection_error is {self.max_reprojection_error}; it must be positive"
            )


@dataclass(frozen=True)
class SparsePoints:
    """Triangulated points in the frame of the poses."""

    positions: Float[np.ndarray, "num_points 3"]
    colors: UInt8[np.ndarray, "num_points 3"]
    errors: Float[np.ndarray, " num_points"]
    """Mean distance to the features that made the point, in pixels of the reduced images."""

    def __len__(self) -> int:
        return len(self.positions)


def triangulate(
    images: Sequence[PosedImage], config: PointsConfig, progress: Progress | None = None
) -> SparsePoints:
    """Find points seen in at least three images.

    Raises:
        ValueError: If a setting is out of its range, there are fewer than three images, one
            cannot be read, or no point is found.
    """
    import pycolmap

    config.check()
    if len(images) < 3:
        where = f"{images[0].path.parent}: " if images else ""
        raise ValueError(f"{where}{len(images)} posed images; points need at least three")
    report = progress or (lambda stage, done, total: None)
    pycolmap.logging.minloglevel = 2  # Errors only: it logs every image.
    with tempfile.TemporaryDirectory(prefix="hiersplat-points-") as folder:
        work = Path(folder)
        (work / "images").mkdir()
        small = []
        for place, image in enumerate(images):
            report("reduce images", place, len(images))
            small.append(_write_reduced(image, work / "images" / _name(place), config))
        _extract(work, small, config, report)
        _match(work, small, config, report)
        report("triangulate", 0, 1)
        model = _triangulate(pycolmap, work, small)
        report("triangulate", 1, 1)
    points = _kept_points(model, config.max_reprojection_error)
    if not len(points):
        raise ValueError(
            f"no points: the poses of the {len(images)} images do not fit their content, "
            "or the images show too little texture"
        )
    return points


def nearest_views(
    camera_to_worlds: Float[np.ndarray, "num_views 4 4"], neighbours: int
) -> Int[np.ndarray, "num_pairs 2"]:
    """Pair every view with those that stand near it and look the same way.

    Returns:
        Pairs of view indices, the smaller first, in ascending order.
    """
    centres = camera_to_worlds[:, :3, 3]
    directions = -camera_to_worlds[:, :3, 2]  # OpenGL looks along -Z.
    distances = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    # Distances in units of the spread of the views; directions differ by 0 to 2.
    spread = max(float(np.linalg.norm(centres - centres.mean(axis=0), axis=1).mean()), 1e-12)
    cost = distances / spread + 1 - directions @ directions.T
    np.fill_diagonal(cost, np.inf)
    count = min(neighbours, len(centres) - 1)
    nearest = np.argsort(cost, axis=1, kind="stable")[:, :count]
    pairs = np.stack([np.repeat(np.arange(len(centres)), count), nearest.reshape(-1)], axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _name(place: int) -> str:
    return f"{place:06d}.png"


def _write_reduced(image: PosedImage, target: Path, config: PointsConfig) -> PosedImage:
    pixels = read_rgb(image.path)
    given = image.intrinsics
    if pixels.size != (given.width, given.height):
        raise ValueError(
            f"{image.path}: {pixels.width} x {pixels.height} pixels, but transforms.json says "
            f"{given.width} x {given.height}"
        )
    factor = min(1.0, config.max_image_size / max(pixels.size))
    width, height = (max(round(side * factor), 1) for side in pixels.size)
    if factor < 1:
        pixels = pixels.resize((width, height), 4)  # 4: mean over the box of each pixel.
    pixels.save(target, compress_level=1)
    return replace(image, path=target, intrinsics=given.scaled(width, height))


def _extract(
    work: Path, images: Sequence[PosedImage], config: PointsConfig, report: Progress
) -> None:
    import pycolmap

    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = os.cpu_count() or 1
    options.sift.max_num_features = config.max_features
    done = 0
    # In small groups, so that progress shows and Ctrl-C is heard.
    for group in _groups((image.path.name for image in images), 4):
        report("find features", done, len(images))
        pycolmap.extract_features(
            work / "database.db",
            work / "images",
            group,
            camera_mode=pycolmap.CameraMode.PER_IMAGE,
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )
        done += len(group)
    with pycolmap.Database.open(work / "database.db") as database:
        for image in images:
            stored = database.read_image_with_name(image.path.name)
            assert stored is not None, "every image was just written to the database"
            database.update_camera(_colmap_camera(image.intrinsics, stored.camera_id))


def _colmap_camera(intrinsics: Intrinsics, camera_id: int) -> "pycolmap.Camera":
    import pycolmap

    return pycolmap.Camera(
        model=intrinsics.model,
        width=intrinsics.width,
        height=intrinsics.height,
        params=list(intrinsics.params),
        camera_id=camera_id,
        has_prior_focal_length=True,
    )


def _match(
    work: Path, images: Sequence[PosedImage], config: PointsConfig, report: Progress
) -> None:
    import pycolmap

    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = os.cpu_count() or 1
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = work / "pairs.txt"
    pairs = nearest_views(np.stack([image.camera_to_world for image in images]), config.neighbours)
    done = 0
    for group in _groups(pairs.tolist(), 64):
        report("match pairs of views", done, len(pairs))
        lines = [f"{_name(first)} {_name(second)}\n" for first, second in group]
        (work / "pairs.txt").write_text("".join(lines))
        pycolmap.match_image_pairs(
            work / "database.db",
            matching_options=options,
            pairing_options=pairing,
            verification_options=verification,
            device=pycolmap.Device.cpu,
        )
        done += len(group)


def _triangulate(pycolmap: Any, work: Path, images: Sequence[PosedImage]) -> Any:
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(work / "database.db") as database:
        for image in images:
            stored = database.read_image_with_name(image.path.name)
            model.add_camera_with_trivial_rig(database.read_camera(stored.camera_id))
            # OpenGL looks along -Z with +Y up, COLMAP along +Z with +Y down.
            world_to_camera = np.linalg.inv(image.camera_to_world @ np.diag([1.0, -1, -1, 1]))
            pose = pycolmap.Rigid3d(world_to_camera[:3])
            entry = pycolmap.Image(
                name=stored.name, camera_id=stored.camera_id, image_id=stored.image_id
            )
            model.add_image_with_trivial_frame(entry, pose)
    (work / "model").mkdir()
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = 0
    return pycolmap.triangulate_points(
        model, work / "database.db", work / "images", work / "model", options=options
    )


def _kept_points(model: Any, max_error: float) -> SparsePoints:
    kept = [point for point in model.points3D.values() if point.error <= max_error]
    return SparsePoints(
        positions=np.array([point.xyz for point in kept], np.float64).reshape(-1, 3),
        colors=np.array([point.color for point in kept], np.uint8).reshape(-1, 3),
        errors=np.array([point.error for point in kept], np.float64),
    )


def _groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
