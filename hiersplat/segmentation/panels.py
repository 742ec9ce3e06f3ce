"""Pictures of label maps: stable colours, contours, and titled grids.

Images are ``(height, width, 3)`` uint8 RGB. The colour of an id never depends on the other
ids, so pictures of different views, levels and runs can be compared by eye.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from hiersplat.levels import Level
from hiersplat.segmentation.pyramid import MaskPyramid

Picture = UInt8[np.ndarray, "height width 3"]

_VOID_COLOR = (24, 24, 24)
_GOLDEN_RATIO = 0.618033988749895
_PALETTE_SIZE = 4096


def _palette() -> UInt8[np.ndarray, "num_colors 3"]:
    """Colours whose neighbours in the list lie far apart on the circle of hues."""
    colors = []
    for index in range(_PALETTE_SIZE):
        hue = (0.11 + index * _GOLDEN_RATIO) % 1
        saturation = (0.62, 0.85, 0.45)[index % 3]
        value = (0.95, 0.72, 0.85, 0.55)[(index // 3) % 4]
        colors.append(colorsys.hsv_to_rgb(hue, saturation, value))
    return (np.array(colors) * 255).round().astype(np.uint8)


_PALETTE = _palette()


def color_labels(labels: Int[np.ndarray, "height width"]) -> Picture:
    """Colour every label; pixels below 0 (unlabelled) are nearly black."""
    picture = _PALETTE[labels % _PALETTE_SIZE]
    picture[labels < 0] = _VOID_COLOR
    return picture


def contours(labels: Int[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Return the pixels whose right or lower neighbour has another label."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    edges[:-1] |= labels[1:] != labels[:-1]
    return edges


def draw_contours(
    image: Picture,
    labels: Int[np.ndarray, "height width"],
    color: tuple[int, int, int] = (255, 255, 255),
    width: int = 1,
) -> Picture:
    """Return the image with the outlines of a label map drawn over it, ``width`` pixels wide."""
    picture = image.copy()
    edges = contours(labels)
    for _ in range(width - 1):
        edges[1:] |= edges[:-1]
        edges[:, 1:] |= edges[:, :-1]
    picture[edges] = color
    return picture


def overlay(image: Picture, labels: Int[np.ndarray, "height width"], opacity: float) -> Picture:
    """Tint the image with the colours of its labels; unlabelled pixels stay as they are."""
    tinted = image + (color_labels(labels).astype(np.float32) - image) * opacity
    return np.where(labels[..., None] < 0, image, tinted.round().astype(np.uint8))


def fit(picture: Picture, width: int, height: int, smooth: bool = True) -> Picture:
    """Scale a picture to lie centred in a box, white around it; label colours want no smoothing."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    method = Image.Resampling.BOX if smooth and scale < 1 else Image.Resampling.NEAREST
    scaled = np.asarray(Image.fromarray(picture).resize(size, method))
    box = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    box[top : top + size[1], left : left + size[0]] = scaled
    return box


def picture_grid(
    rows: Sequence[Sequence[tuple[str, Picture]]],
    title: str = "",
    cell_width: int = 320,
    smooth: bool = True,
) -> Picture:
    """Lay out titled pictures in rows.

    Args:
        rows: Pairs of a title and a picture; rows may differ in length, pictures in size.
        title: Line above everything.
        cell_width: Width of every cell in pixels; the first picture gives the height.
        smooth: Whether pictures that are scaled down are averaged.

    Raises:
        ValueError: If there is no picture.
    """
    first = next((picture for row in rows for _, picture in row), None)
    if first is None:
        raise ValueError("a grid needs at least one picture")
    gap, line = 8, max(16, cell_width // 16)
    # Very flat or tall pictures get a cell of bounded height.
    ratio = min(max(first.shape[0] / first.shape[1], 0.1), 2.0)
    cell_height = max(1, round(cell_width * ratio))
    columns = max(len(row) for row in rows)
    head = 2 * line if title else gap
    sheet = Image.new(
        "RGB",
        (gap + columns * (cell_width + gap), head + len(rows) * (cell_height + line + gap)),
        (255, 255, 255),
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=round(line * 0.72))
    if title:
        large = ImageFont.load_default(size=line)
        draw.text((gap, line * 0.4), title, fill=(0, 0, 0), font=large)
    for row_index, row in enumerate(rows):
        top = head + row_index * (cell_height + line + gap)
        for column, (caption, picture) in enumerate(row):
            left = gap + column * (cell_width + gap)
            draw.text((left, top), caption, fill=(40, 40, 40), font=font)
            box = fit(picture, cell_width, cell_height, smooth)
            sheet.paste(Image.fromarray(box), (left, top + line))
    return np.asarray(sheet).copy()


def pyramid_panel(image: Picture, pyramid: MaskPyramid, title: str = "") -> Picture:
    """Show a view and its pyramid: the image, the three levels, and their outlines on the image."""
    # Draw at the size of a cell, so that outlines of one pixel stay visible in large images.
    step = max(1, round(max(image.shape[:2]) / 640))
    image, labels = image[::step, ::step], pyramid.labels[:, ::step, ::step]
    top: list[tuple[str, Picture]] = [("image", image)]
    outlined = image
    for level, color in zip(Level, ((90, 200, 255), (255, 200, 0), (255, 40, 40)), strict=True):
        outlined = draw_contours(outlined, labels[level], color, 1 if level < Level.WHOLE else 2)
    bottom: list[tuple[str, Picture]] = [("outlines: small, part, whole", outlined)]
    for level in reversed(Level):
        found = int((~pyramid.inherited[level]).sum())
        top.append((f"{level.title}: {found} found", color_labels(labels[level])))
        tinted = draw_contours(overlay(image, labels[level], 0.45), labels[level])
        bottom.append((f"{level.title} on the image", tinted))
    return picture_grid([top, bottom], title)
