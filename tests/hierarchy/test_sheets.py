import numpy as np

from hiersplat.hierarchy.sheets import _nodes_picture
from hiersplat.segmentation.panels import draw_contours, overlay


def test_nodes_with_room_are_numbered_inside_and_others_are_not():
    nodes = np.full((128, 128), 3, np.int32)
    nodes[:, 64:] = -1
    nodes[10:14, 100:104] = 7
    image = np.full((128, 128, 3), 120, np.uint8)
    plain = draw_contours(overlay(image, nodes, 0.6), nodes)
    changed = (_nodes_picture(image, nodes) != plain).any(axis=-1)
    assert changed[:, :64].any()
    assert not changed[:, 64:].any()


def test_number_lies_on_a_node_whose_middle_does_not():
    rows, columns = np.mgrid[:128, :128]
    ring = np.abs(np.hypot(rows - 64, columns - 64) - 45) < 15
    nodes = np.where(ring, 5, -1).astype(np.int32)
    image = np.full((128, 128, 3), 120, np.uint8)
    plain = draw_contours(overlay(image, nodes, 0.6), nodes)
    changed = (_nodes_picture(image, nodes) != plain).any(axis=-1)
    assert changed.any()
    assert (changed & ring).sum() > 0.9 * changed.sum()
