"""What is measured on regions and on the borders of pairs, to tell whether they belong together.

Everything measured on a region is additive, so that the measures of a merged region are the sum
of two rows. What :func:`pair_features` makes of them is symmetric in the two regions (unless they
are equally large), and does not change when the image is mirrored.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

NUM_COLORS = 24
"""Colours of the palette that an image's colour histograms count."""
NUM_FEATURES = 25
"""Length of the description of a pair."""
_COLOR_SOFTNESS = 8.0
"""A pixel counts for palette colours about this far from its own (Lab units)."""
_TEXTURE_LEVELS = (1.0, 3.0, 8.0)
"""Bounds of weak, middle and strong gradients of lightness (Lab units a pixel)."""
_NUM_ORIENTATIONS = 4
_NUM_TEXTURES = 1 + len(_TEXTURE_LEVELS) * _NUM_ORIENTATIONS

# Columns of the measures.
AREA, PERIMETER, OUTER = 0, 1, 2
_LAB, _HUE, _STRENGTH = slice(3, 6), slice(6, 8), 8
_LAB_SQUARES, _PLACE, _COLORS = slice(9, 12), slice(12, 14), 14


@dataclass(frozen=True)
class Regions:
    """The regions of an image and what was measured on them."""

    measures: Float[np.ndarray, "num_regions num_measures"]
    """Additive measures: pixels; pixel edges to other regions and to the outside of the image;
    pixel edges to the outside; sums over pixels of Lab, of the logarithms of two colour ratios
    (which shading leaves as they are), of the gradient of lightness, of squared Lab and of the
    place; histograms of textures and of colours."""
    borders: dict[tuple[int, int], tuple[float, float]]
    """Length of the border of two neighbours and the sum of Lab differences across it."""


def measure_regions(
    regions: Int[np.ndarray, "height width"],
    image: UInt8[np.ndarray, "height width 3"],
    lab: Float[np.ndarray, "height width 3"],
) -> Regions:
    """Measure the regions of an image.

    Args:
        regions: Region of every pixel, contiguous from 0.
        image: The image, RGB.
        lab: The image in Lab.
    """
    height, width = regions.shape
    num_regions = int(regions.max()) + 1
    flat = regions.reshape(-1)
    areas = np.bincount(flat, minlength=num_regions).astype(float)
    rim = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    outer = np.bincount(rim, minlength=num_regions).astype(float)
    borders = _measure_borders(regions, lab, num_regions)
    perimeters = outer.copy()
    for (first, second), (length, _) in borders.items():
        perimeters[first] += length
        perimeters[second] += length

    right, down = _gradient(lab[..., 0])
    rows, columns = np.mgrid[:height, :width]
    pixels = lab.reshape(-1, 3).astype(np.float64)
    sums = _sum_rows(
        np.concatenate(
            [
                pixels,
                _color_ratios(image),
                np.hypot(right, down).reshape(-1, 1),
                pixels**2,
                (rows / height).reshape(-1, 1),
                (columns / width).reshape(-1, 1),
            ],
            axis=1,
        ),
        flat,
        num_regions,
    )
    textures = np.zeros((num_regions, _NUM_TEXTURES))
    np.add.at(textures, (flat, _texture_bins(right, down).reshape(-1)), 1.0)
    colors = _sum_rows(_soft_colors(pixels, sums[:, :3] / areas[:, None]), flat, num_regions)
    shape = np.stack([areas, perimeters, outer], axis=1)
    return Regions(np.concatenate([shape, sums, textures, colors], axis=1), borders)


def _sum_rows(rows: np.ndarray, flat: np.ndarray, num_regions: int) -> np.ndarray:
    return np.stack([np.bincount(flat, column, num_regions) for column in rows.T], axis=1)


def _color_ratios(image: np.ndarray) -> Float[np.ndarray, "num_pixels 2"]:
    """Logarithms of red and green against the geometric mean, in linear light."""
    light = np.log((np.maximum(image.reshape(-1, 3), 4) / 255.0) ** 2.2)
    return (light - light.mean(axis=1, keepdims=True))[:, :2]


def _soft_colors(
    pixels: Float[np.ndarray, "num_pixels 3"], means: Float[np.ndarray, "num_regions 3"]
) -> Float[np.ndarray, "num_pixels num_colors"]:
    """Share of every pixel in the colours of a palette made of the regions' mean colours."""
    from scipy.cluster.vq import kmeans2

    num_colors = min(NUM_COLORS, len(np.unique(means.round(3), axis=0)))
    palette, _ = kmeans2(means, num_colors, minit="++", rng=np.random.default_rng(0))
    pixels, palette = pixels.astype(np.float32), palette.astype(np.float32)
    distances = (pixels**2).sum(1)[:, None] - 2 * pixels @ palette.T + (palette**2).sum(1)[None]
    distances -= distances.min(axis=1, keepdims=True)
    shares = np.exp(-distances / (2 * _COLOR_SOFTNESS**2))
    return shares / shares.sum(axis=1, keepdims=True)


def _gradient(
    lightness: Float[np.ndarray, "height width"],
) -> tuple[Float[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    padded = np.pad(lightness, 1, mode="edge")
    return (
        (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2,
        (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2,
    )


def _texture_bins(
    right: Float[np.ndarray, "height width"], down: Float[np.ndarray, "height width"]
) -> Int[np.ndarray, "height width"]:
    """Bin every pixel by the strength and orientation of its gradient; flat ones share bin 0.

    The orientations of a mirrored gradient are the bins in another order, which changes no
    distance between two histograms.
    """
    angle = (np.arctan2(down, right) % np.pi) / np.pi
    orientation = np.minimum((angle * _NUM_ORIENTATIONS).astype(int), _NUM_ORIENTATIONS - 1)
    strength = np.digitize(np.hypot(right, down), _TEXTURE_LEVELS)
    return np.where(strength == 0, 0, 1 + (strength - 1) * _NUM_ORIENTATIONS + orientation)


def _measure_borders(
    regions: np.ndarray, lab: np.ndarray, num_regions: int
) -> dict[tuple[int, int], tuple[float, float]]:
    keys, steps = [], []
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        first, second = regions[here], regions[there]
        differ = first != second
        low = np.minimum(first, second)[differ].astype(np.int64)
        keys.append(low * num_regions + np.maximum(first, second)[differ])
        steps.append(np.linalg.norm(lab[here][differ] - lab[there][differ], axis=-1))
    pairs, pair = np.unique(np.concatenate(keys), return_inverse=True)
    lengths = np.bincount(pair, minlength=len(pairs))
    sums = np.bincount(pair, np.concatenate(steps), len(pairs))
    return {
        (int(key // num_regions), int(key % num_regions)): (float(length), float(total))
        for key, length, total in zip(pairs, lengths, sums, strict=True)
    }


def pair_features(
    first: Float[np.ndarray, "num_pairs num_measures"],
    second: Float[np.ndarray, "num_pairs num_measures"],
    lengths: Float[np.ndarray, " num_pairs"],
    steps: Float[np.ndarray, " num_pairs"],
    inner_contrast: Float[np.ndarray, " num_pairs"],
    unlikeness: Float[np.ndarray, "2 num_pairs"],
    num_pixels: float,
) -> Float[np.ndarray, "num_pairs {NUM_FEATURES}"]:
    """Describe pairs of neighbouring regions.

    Args:
        first: Measures of one region of every pair.
        second: Measures of the other.
        lengths: Length of their common border, in pixel edges.
        steps: Sum of Lab differences across it.
        inner_contrast: Largest contrast across which either of the two was merged before.
        unlikeness: How unlike what was merged before was, in the one and in the other.
        num_pixels: Pixels of the image.
    """
    areas = np.stack([first[:, AREA], second[:, AREA]])
    # Whatever is not symmetric is told of the smaller region first.
    swap = areas[0] > areas[1]
    small, large = (
        np.where(swap[:, None], second, first),
        np.where(swap[:, None], first, second),
    )
    small_area, large_area = small[:, AREA], large[:, AREA]
    small_mean, large_mean = small / small_area[:, None], large / large_area[:, None]
    difference = np.abs(small_mean - large_mean)
    texture_end = _COLORS + _NUM_TEXTURES
    small_rim, large_rim = small[:, PERIMETER], large[:, PERIMETER]
    rim = small_rim + large_rim - 2 * lengths
    # A square has 16, longer and more ragged outlines more.
    outlines = np.stack([small_rim**2 / small_area, large_rim**2 / large_area])
    outline = rim**2 / (small_area + large_area)
    contrast = steps / lengths
    small_texture, large_texture = small_mean[:, _STRENGTH], large_mean[:, _STRENGTH]
    lab, hue, place = difference[:, _LAB], difference[:, _HUE], difference[:, _PLACE]
    return np.stack(
        [
            np.log1p(contrast),
            np.log1p(inner_contrast),
            _distance(small_mean[:, texture_end:], large_mean[:, texture_end:]),
            _distance(small_mean[:, _COLORS:texture_end], large_mean[:, _COLORS:texture_end]),
            np.log1p(lab[:, 0]),
            np.log1p(np.hypot(lab[:, 1], lab[:, 2])),
            np.log1p(10 * np.hypot(hue[:, 0], hue[:, 1])),
            np.log(small_area / num_pixels),
            np.log(large_area / num_pixels),
            lengths / small_rim,
            lengths / large_rim,
            small[:, OUTER] / small_rim,
            large[:, OUTER] / large_rim,
            np.log1p(_spread(small_mean)),
            np.log1p(_spread(large_mean)),
            np.log(np.maximum(outline, 1e-3) / outlines.min(axis=0)),
            np.log(np.maximum(outline, 1e-3)),
            np.log1p(small_texture),
            np.log1p(large_texture),
            np.log1p(contrast / (1 + small_texture)),
            np.log1p(contrast / (1 + large_texture)),
            np.hypot(place[:, 0], place[:, 1]),
            np.log(lengths / np.sqrt(num_pixels)),
            unlikeness.min(axis=0),
            unlikeness.max(axis=0),
        ],
        axis=1,
    )


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Chi-squared distance of histograms that sum to 1, in [0, 1]."""
    return ((first - second) ** 2 / (first + second + 1e-9)).sum(axis=1) / 2


def _spread(mean: np.ndarray) -> np.ndarray:
    """Mean standard deviation of the three channels of Lab."""
    return np.sqrt(np.maximum(mean[:, _LAB_SQUARES] - mean[:, _LAB] ** 2, 0)).mean(axis=1)
