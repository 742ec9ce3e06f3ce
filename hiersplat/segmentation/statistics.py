"""What a set of pyramids looks like: masks per level, coverage, sizes, and what to change.

Areas and coverage are shares of the image; the scale of a mask is the square root of its
share, the side of a square of its size. Inherited masks only stand in for what was found at
another level, so every figure but coverage counts found masks alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from hiersplat.levels import UNLABELLED, Level
from hiersplat.segmentation.pyramid import MaskPyramid

CROWDED_SHARE = 0.8
"""A level that holds more of the masks than this makes the other two useless."""
SPARSE_PART_SHARE = 0.05
"""Below this share of parts there is hardly a step between wholes and details."""


@dataclass(frozen=True)
class LevelStatistics:
    """The masks of one level over all views."""

    found: int
    """Masks that the segmenter found."""
    inherited: int
    """Masks that stand in where nothing finer was found."""
    share: float
    """Found masks of this level among those of all levels; 0 where there are none."""
    coverage: float
    """Mean share of a view's pixels that lie in found masks of this level."""
    mean_area: float
    """Mean area of the found masks."""
    scales: tuple[float, float, float]
    """10th, 50th and 90th percentile of the scale of the found masks."""

    @property
    def spread(self) -> float:
        """How many times larger large masks are than small ones: 90th over 10th percentile."""
        return self.scales[2] / self.scales[0] if self.scales[0] > 0 else 0.0


@dataclass(frozen=True)
class PyramidStatistics:
    """All levels over all views."""

    num_views: int
    """Views counted."""
    levels: tuple[LevelStatistics, LevelStatistics, LevelStatistics]
    """Small, part, whole."""
    coverage: float
    """Mean share of a view's pixels that are labelled at all."""
    nested_fraction: float
    """Part mask fraction, first form: found masks that lie (> 90 %) in another found mask of at
    least twice their area."""
    tiny_fraction: float
    """Part mask fraction, second form: found masks below 1 % of the image."""


@dataclass(frozen=True)
class Advice:
    """What looks wrong, and which setting would change it at what price."""

    finding: str
    setting: str
    cost: str


def part_mask_fractions(
    shared: Float[np.ndarray, "num_masks num_masks"], num_pixels: int
) -> tuple[float, float]:
    """Return both forms of the part mask fraction of the masks of one view.

    Args:
        shared: Pixels shared by every two masks; the diagonal holds the areas.
        num_pixels: Pixels of the image.

    Returns:
        The share of masks of which more than 90 % lie in another mask of at least twice the
        area, and the share of masks smaller than 1 % of the image; 0 without masks.

    Example:
        >>> part_mask_fractions(np.array([[100.0, 10.0], [10.0, 10.0]]), 1000)
        (0.5, 0.0)
    """
    areas = np.diag(shared)
    if areas.size == 0:
        return 0.0, 0.0
    inside = shared > 0.9 * areas[None]  # [container, contained]
    inside &= areas[:, None] >= 2 * areas[None]
    np.fill_diagonal(inside, False)
    return float(inside.any(axis=0).mean()), float((areas < 0.01 * num_pixels).mean())


def _found_masks(
    pyramid: MaskPyramid,
) -> tuple[list[Int[np.ndarray, " num_masks"]], Float[np.ndarray, "num_found num_found"]]:
    """Areas of the masks of every level, and the overlaps of the found ones."""
    smalls = pyramid.labels[Level.SMALL]
    small_areas = np.bincount(
        smalls[smalls != UNLABELLED], minlength=pyramid.num_masks(Level.SMALL)
    )
    # Which small masks every mask of every level is made of.
    to_part = pyramid.parents[0]
    to_whole = pyramid.parents[1][to_part]
    areas, rows = [], []
    for level, owner in zip(Level, (np.arange(len(to_part)), to_part, to_whole), strict=True):
        num_masks = pyramid.num_masks(level)
        areas.append(np.bincount(owner, small_areas, num_masks).astype(np.int64))
        made_of: Bool[np.ndarray, "num_masks num_small"] = np.arange(num_masks)[:, None] == owner
        rows.append(made_of[~pyramid.inherited[level]])
    stacked = np.concatenate(rows).astype(np.float64)
    return areas, (stacked * small_areas) @ stacked.T


def measure_pyramids(pyramids: Iterable[MaskPyramid]) -> PyramidStatistics:
    """Count and measure the masks of a set of views; one pyramid is held at a time.

    Raises:
        ValueError: If there is no view.
    """
    areas: dict[Level, list[np.ndarray]] = {level: [] for level in Level}
    inherited = dict.fromkeys(Level, 0)
    covered: list[list[float]] = []
    nested = tiny = 0.0
    num_found = 0
    for pyramid in pyramids:
        num_pixels = pyramid.labels[0].size
        view_areas, shared = _found_masks(pyramid)
        row = [float((pyramid.labels[0] != UNLABELLED).mean())]
        for level in Level:
            flags = pyramid.inherited[level]
            areas[level].append(view_areas[level][~flags] / num_pixels)
            inherited[level] += int(flags.sum())
            row.append(float(view_areas[level][~flags].sum() / num_pixels))
        covered.append(row)
        fractions = part_mask_fractions(shared, num_pixels)
        nested += fractions[0] * len(shared)
        tiny += fractions[1] * len(shared)
        num_found += len(shared)
    if not covered:
        raise ValueError("there is no pyramid to measure")
    coverage = np.mean(covered, axis=0)
    levels = []
    for level in Level:
        level_areas = np.concatenate(areas[level])
        found = level_areas.size
        scales = np.percentile(np.sqrt(level_areas), (10, 50, 90)) if found else np.zeros(3)
        levels.append(
            LevelStatistics(
                found=found,
                inherited=inherited[level],
                share=found / num_found if num_found else 0.0,
                coverage=float(coverage[1 + level]),
                mean_area=float(level_areas.mean()) if found else 0.0,
                scales=(float(scales[0]), float(scales[1]), float(scales[2])),
            )
        )
    return PyramidStatistics(
        num_views=len(covered),
        levels=(levels[0], levels[1], levels[2]),
        coverage=float(coverage[0]),
        nested_fraction=nested / num_found if num_found else 0.0,
        tiny_fraction=tiny / num_found if num_found else 0.0,
    )


def advise(statistics: PyramidStatistics) -> list[Advice]:
    """Say which setting to move where one level holds nearly everything or parts are missing."""
    small, part, whole = (level.share for level in statistics.levels)
    if small + part + whole == 0:
        return [
            Advice(
                "no mask was found in any view",
                "sam2: lower pred_iou_thresh to 0.5 and stability_score_thresh to 0.85; "
                "regions: lower min_area",
                "more masks that are wrong; the time of an image stays the same",
            )
        ]
    advice = []
    if whole > CROWDED_SHARE:
        advice.append(
            Advice(
                f"wholes are {whole:.0%} of the masks: hardly anything lies inside another mask",
                "sam2: raise points_per_side (32 to 64); regions: raise num_regions (x 2)",
                "sam2: four times the decoding time of an image; regions: about 0.1 s an image",
            )
        )
    if small > CROWDED_SHARE:
        advice.append(
            Advice(
                f"small masks are {small:.0%} of the masks: details without what they belong to",
                "raise pyramid.min_area (x 4); sam2: lower points_per_side (32 to 16)",
                "details below the new size are lost; a quarter of the decoding time",
            )
        )
    if part > CROWDED_SHARE:
        advice.append(
            Advice(
                f"parts are {part:.0%} of the masks: no details inside them",
                "sam2: raise crop_n_layers to 1; pyramid: lower min_area (/ 4)",
                "about five times the time of an image; more specks among the small masks",
            )
        )
    if part < SPARSE_PART_SHARE:
        advice.append(
            Advice(
                f"parts are {part:.0%} of the masks: wholes are hardly divided",
                "lower pyramid.containment (0.9 to 0.8); sam2: raise points_per_side (32 to 64)",
                "masks that only overlap may be nested; four times the decoding time of an image",
            )
        )
    return advice
