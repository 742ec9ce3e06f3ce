"""Views to cached pyramids and features: the only caller of segmentation and semantics together.

A view is segmented once for the same pixels and settings; afterwards everything is read
from the cache, one view at a time, so the masks of a scene are never all in memory.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hiersplat.cache import ViewCache, array_hash, write_atomically
from hiersplat.segmentation.pyramid import PYRAMID_VERSION, MaskPyramid, build_pyramid
from hiersplat.segmentation.segmenter import SegmentationConfig, View, build_segmenter
from hiersplat.semantics.config import FEATURES_VERSION, FeaturesConfig
from hiersplat.semantics.view_features import ViewFeatures
from hiersplat.semantics.weights import features_cache_settings

logger = logging.getLogger(__name__)


class _ViewsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.2f} views/s", style="progress.data.speed")


def view_progress(console: Console | None = None) -> Progress:
    """Return a progress bar that shows views done, views a second and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _ViewsPerSecond(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


@dataclass(frozen=True)
class PreparedViews:
    """Pyramids and features of the views of a scene, read from the cache on demand."""

    names: tuple[str, ...]
    hashes: tuple[str, ...]
    pyramid_cache: ViewCache
    feature_cache: ViewCache | None
    """``None`` where training goes without features."""

    def __len__(self) -> int:
        return len(self.names)

    def pyramid_path(self, index: int) -> Path:
        """Path of the cache file with the pyramid of one view."""
        return self.pyramid_cache.path(self.names[index], self.hashes[index])

    def pyramid(self, index: int) -> MaskPyramid:
        """Read the pyramid of one view.

        Raises:
            ValueError: If the file was taken away or spoiled since it was made.
        """
        arrays = self.pyramid_cache.load(self.names[index], self.hashes[index])
        if arrays is None:
            raise ValueError(f"{self.pyramid_path(index)}: gone or spoiled; start the run again")
        return MaskPyramid.from_arrays(arrays)

    def features(self, index: int) -> ViewFeatures | None:
        """Read the features of one view; ``None`` where there are no features."""
        if self.feature_cache is None:
            return None
        arrays = self.feature_cache.load(self.names[index], self.hashes[index])
        if arrays is None:
            path = self.feature_cache.path(self.names[index], self.hashes[index])
            raise ValueError(f"{path}: gone or spoiled; start the run again")
        return ViewFeatures.from_arrays(arrays)


def segmentation_settings(config: SegmentationConfig) -> dict:
    """Return what of the configuration makes a pyramid: the chosen segmenter's settings only."""
    chosen = getattr(config, config.segmenter, None)
    return {
        "segmenter": config.segmenter,
        "settings": asdict(chosen) if chosen is not None else {},
        "pyramid": asdict(config.pyramid),
    }


def _view_hash(view: View, config: SegmentationConfig) -> str:
    # Only the segmenter that reads truth depends on it; masks of the others follow from pixels.
    if config.segmenter == "labels" and view.labels is not None:
        both = array_hash(view.image) + array_hash(view.labels)
        return hashlib.sha256(both.encode()).hexdigest()[:16]
    return array_hash(view.image)


def prepare_views(
    views: Sequence[View],
    segmentation: SegmentationConfig,
    features: FeaturesConfig,
    cache_root: Path,
    device: str = "cpu",
    console: Console | None = None,
) -> PreparedViews:
    """Segment the views that are not in the cache yet, then encode those without features.

    The segmenter and the encoder are built only when a view needs them, so a run whose
    cache is complete needs no weights.

    Args:
        views: The views; each is asked for when its turn comes and may be loaded lazily.
        segmentation: How to segment.
        features: Which semantic features to attach; ``features="none"`` attaches none.
        cache_root: Folder for the cache files; made where missing.
        device: Where the models run.
        console: Where the progress is shown.

    Raises:
        ValueError: If there are no views, or a view cannot be segmented.
        CacheError: If the cache cannot be written.
    """
    if len(views) == 0:
        raise ValueError("there are no views to segment")
    settings = segmentation_settings(segmentation)
    pyramids = ViewCache.at(cache_root, "pyramids", settings, PYRAMID_VERSION)
    with_features = features.features != "none"
    names, hashes, missing = [], [], []
    for index in range(len(views)):
        view = views[index]
        names.append(view.name)
        hashes.append(_view_hash(view, segmentation))
        if pyramids.load(names[-1], hashes[-1]) is None:
            missing.append(index)
    if missing:
        _write_settings(pyramids.folder, settings)
        segmenter = build_segmenter(segmentation, device)
        with view_progress(console) as progress:
            task = progress.add_task(f"segmenting ({segmentation.segmenter})", total=len(missing))
            for index in missing:
                view = views[index]
                pyramid = build_pyramid(
                    segmenter.propose(view), view.image.shape[:2], segmentation.pyramid
                )
                pyramids.store(names[index], hashes[index], pyramid.to_arrays())
                progress.advance(task)
    feature_cache = None
    if with_features:
        # Embeddings are of masks, so other masks mean other features.
        made_by = {
            "features": features_cache_settings(features),
            "masks": settings,
            "masks_version": PYRAMID_VERSION,
        }
        feature_cache = ViewCache.at(cache_root, "features", made_by, FEATURES_VERSION)
    prepared = PreparedViews(tuple(names), tuple(hashes), pyramids, feature_cache)
    if feature_cache is not None:
        _encode_missing(views, prepared, feature_cache, features, device, console)
    logger.info("%d views are ready, %d of them newly segmented", len(views), len(missing))
    return prepared


def _encode_missing(
    views: Sequence[View],
    prepared: PreparedViews,
    cache: ViewCache,
    config: FeaturesConfig,
    device: str,
    console: Console | None,
) -> None:
    missing = [
        index
        for index in range(len(views))
        if cache.load(prepared.names[index], prepared.hashes[index]) is None
    ]
    if not missing:
        return
    from hiersplat.semantics.clipseg import ClipSegEncoder
    from hiersplat.semantics.view_features import compute_view_features

    encoder = ClipSegEncoder(config, device)
    with view_progress(console) as progress:
        task = progress.add_task("encoding (CLIPSeg)", total=len(missing))
        for index in missing:
            encoded = compute_view_features(encoder, views[index].image, prepared.pyramid(index))
            cache.store(prepared.names[index], prepared.hashes[index], encoded.to_arrays())
            progress.advance(task)


def _write_settings(folder: Path, settings: dict) -> None:
    # For people who look into the folder; the programs go by its name alone.
    text = json.dumps(settings, indent=2, sort_keys=True, default=str)
    write_atomically(folder / "settings.json", text.encode())
