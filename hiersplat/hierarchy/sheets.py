"""Picture sheets of an inspection: where the views' masks and the tree agree, and where not."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int8, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt, find_objects

from hiersplat.hierarchy.consistency import AGREES, DISAGREES
from hiersplat.hierarchy.evidence import Evidence, masks_as_nodes
from hiersplat.hierarchy.inspection import Inspection
from hiersplat.hierarchy.overlap import compact, overlap
from hiersplat.levels import UNLABELLED, Level
from hiersplat.segmentation.panels import color_labels, draw_contours, overlay, picture_grid

_GREEN, _RED = (40, 170, 70), (215, 45, 40)
_OUTLINE, _MASK_OUTLINE = (255, 255, 255), (255, 190, 0)
_CELL = 260

Picture = UInt8[np.ndarray, "height width 3"]


def level_sheet(inspection: Inspection, level: Level, max_views: int = 8) -> Picture:
    """One row a view: rendering, nodes, the view's own masks, and agreement at one level."""
    chosen = _views_to_show(inspection, level, max_views)
    rows = []
    for place in chosen:
        view = inspection.views[place]
        share = inspection.pixel_agreement(place, level)
        text = "nothing to compare" if np.isnan(share) else f"{share:.0%} of pixels agree"
        nodes = view.rendered[level]
        masks = masks_as_nodes(view.masks[level], nodes)
        rows.append(
            [
                (view.name, view.image),
                ("nodes, numbered as for --node", _nodes_picture(view.image, nodes)),
                ("masks, in their node's colour", _masks_picture(view.masks[level], masks)),
                (text, _paint(view.image, inspection.agreements[place][level])),
            ]
        )
    count = f"{len(chosen)} of {len(inspection.views)} views, the worst first"
    title = f"{level.title}: {count}; green agrees, red does not, grey has no mask"
    return picture_grid(rows, title, _CELL)


def node_sheet(inspection: Inspection, node_id: int, max_views: int = 8) -> Picture:
    """One row a view that judges a node, worst first: the node and the mask that fits it best.

    Raises:
        ValueError: If there is no such node, or no view judges it.
    """
    node = inspection.report.node(node_id)
    if not node.views:
        raise ValueError(f"node {node_id}: no view shows it under a mask, so there is no picture")
    places = {view.name: place for place, view in enumerate(inspection.views)}
    rows = []
    for name, iou in node.views[:max_views]:
        place = places[name]
        view = inspection.views[place]
        own = (view.rendered[node.level] == node_id).astype(np.int32) - 1
        mask = _best_mask(view, node.level, node_id).astype(np.int32) - 1
        outlined = draw_contours(view.image, own, _OUTLINE, 2)
        both = draw_contours(draw_contours(view.image, mask, _MASK_OUTLINE, 2), own, _OUTLINE)
        agreement = np.where((own < 0) & (mask < 0), -1, (own == mask).astype(np.int8))
        rows.append(
            [
                (name, view.image),
                ("node", outlined),
                ("best mask (orange)", both),
                (f"IoU {iou:.2f}", _paint(view.image, agreement)),
            ]
        )
    count = f"{len(rows)} of {len(node.views)} views, the worst first"
    title = f"node {node_id} ({node.level.title}): {count}; green is in both, red in one only"
    return picture_grid(rows, title, _CELL)


def _views_to_show(inspection: Inspection, level: Level, max_views: int) -> list[int]:
    """Choose the worst views and, for a fair picture, as many spread over the rest."""
    shares = [inspection.pixel_agreement(i, level) for i in range(len(inspection.views))]
    order = np.argsort(np.nan_to_num(shares, nan=2.0), kind="stable").tolist()
    if len(order) <= max_views:
        return order
    worst = order[: max_views - max_views // 2]
    rest = order[len(worst) :]
    steps = np.linspace(0, len(rest) - 1, max_views // 2).round().astype(int)
    return worst + [rest[step] for step in steps]


def _best_mask(view: Evidence, level: Level, node_id: int) -> np.ndarray:
    masks = view.masks[level]
    shared = overlap(np.where(masks < 0, UNLABELLED, view.rendered[level]), masks)
    row = int(np.searchsorted(shared.truth_ids, node_id))
    return masks == shared.predicted_ids[shared.iou[row].argmax()]


def _nodes_picture(image: Picture, nodes: Int[np.ndarray, "height width"]) -> Picture:
    """Nodes in their colours, with their ids wherever there is room for one."""
    picture = Image.fromarray(draw_contours(overlay(image, nodes, 0.6), nodes))
    draw = ImageDraw.Draw(picture)
    size = max(9, round(0.045 * nodes.shape[1]))  # cells of a sheet have one width
    font = ImageFont.load_default(size=size)
    ids, places = compact(nodes)
    for place, box in enumerate(find_objects(places + 1)):
        # Deepest inside the node: the middle of its box may be outside it.
        depth = np.asarray(distance_transform_edt(np.pad(places[box] == place, 1)))
        if depth.max() >= 0.4 * size:
            row, column = np.unravel_index(depth.argmax(), depth.shape)
            where = (int(box[1].start + column - 1), int(box[0].start + row - 1))
            number = str(ids[place])
            draw.text(where, number, _OUTLINE, font, "mm", stroke_width=1, stroke_fill=(0, 0, 0))
    return np.array(picture)


def _masks_picture(masks: np.ndarray, named: np.ndarray) -> Picture:
    # Outlines keep masks apart that lie on the same node.
    return draw_contours(color_labels(named), masks, _OUTLINE)


def _paint(image: Picture, agreement: Int8[np.ndarray, "height width"]) -> Picture:
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    for value, color in ((AGREES, _GREEN), (DISAGREES, _RED)):
        chosen = agreement == value
        grey[chosen] = 0.35 * grey[chosen] + 0.65 * np.array(color)
    return grey.round().astype(np.uint8)


def node_colors(node_ids: Int[np.ndarray, " num"] | Sequence[int]) -> UInt8[np.ndarray, "num 3"]:
    """Colour of nodes as in the sheets, so that clouds and pictures can be compared."""
    return color_labels(np.asarray(node_ids, np.int64)[None])[0]
