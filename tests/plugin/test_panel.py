import numpy as np
import pytest
import torch

from hiersplat.hierarchy.tree import Node, SceneTree
from hiersplat.levels import UNLABELLED, Level
from hiersplat.plugin.palette import UNLABELLED_COLOR, level_palette
from hiersplat.plugin.viewer import DIMMED, HierarchyPanel


@pytest.fixture
def tree() -> SceneTree:
    """Whole 0 of parts 1 (smalls 3, 4) and 2 (small 5); the last Gaussian is unlabelled."""
    nodes = [
        Node(0, Level.WHOLE, UNLABELLED, num_gaussians=4),
        Node(1, Level.PART, 0, num_gaussians=3),
        Node(2, Level.PART, 0, num_gaussians=1),
        Node(3, Level.SMALL, 1, num_gaussians=1),
        Node(4, Level.SMALL, 1, num_gaussians=2),
        Node(5, Level.SMALL, 2, num_gaussians=1),
    ]
    ids = np.array([[3, 4, 4, 5, -1], [1, 1, 1, 2, -1], [0, 0, 0, 0, -1]], np.int32)
    return SceneTree(tuple(nodes), ids)


@pytest.fixture
def panel(tree: SceneTree) -> HierarchyPanel:
    panel = HierarchyPanel(lambda origin, direction: None if direction[2] < 0 else 3)
    panel.show_tree(tree)
    return panel


def test_colours_are_the_same_within_a_node_and_differ_between_nodes(tree: SceneTree):
    palette = level_palette(tree).reshape(-1, 3, 3)
    small, part, whole = (palette[:, level] for level in Level)
    np.testing.assert_array_equal(small[1], small[2])
    assert (small[0] != small[1]).any()
    assert (part[0] != part[3]).any()
    np.testing.assert_array_equal(whole[0], whole[3])
    np.testing.assert_array_equal(palette[4], UNLABELLED_COLOR)


def test_the_chosen_level_is_shown(panel: HierarchyPanel, tree: SceneTree):
    palette = torch.from_numpy(level_palette(tree))
    for level in Level:
        panel.a_level.value = level.title
        expected = palette.reshape(-1, 3, 3)[:, level]
        torch.testing.assert_close(panel.gaussian_colors(palette), expected)


def test_a_click_chooses_the_node_of_the_level(panel: HierarchyPanel):
    panel.a_level.value = "part"
    panel.select_at(torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    assert panel.node == 2
    assert panel.h_about.value.startswith("part 2: 1 small node inside, 1 Gaussians")
    panel.select(1)
    assert "2 small nodes inside" in panel.h_about.value
    panel.select(3)
    assert "inside" not in panel.h_about.value


def test_a_click_into_nothing_shows_all_nodes(panel: HierarchyPanel):
    panel.select(2)
    panel.select_at(torch.zeros(3), torch.tensor([0.0, 0.0, -1.0]))
    assert panel.node is None


def test_the_tree_is_walked_up_down_and_across(panel: HierarchyPanel):
    panel.select(3)
    assert panel.level is Level.SMALL
    panel._go_to_parent()
    assert (panel.node, panel.level) == (1, Level.PART)
    panel._go_to_sibling()
    assert panel.node == 2
    panel._go_to_sibling()
    assert panel.node == 1
    panel._go_to_child()
    assert panel.node == 4
    panel._go_to_child()
    assert panel.node == 4
    panel.select(0)
    panel._go_to_parent()
    assert panel.node == 0
    panel._go_to_sibling()
    assert panel.node == 0


def test_all_but_the_chosen_node_is_dimmed(panel: HierarchyPanel, tree: SceneTree):
    palette = torch.from_numpy(level_palette(tree))
    panel.select(1)
    shown = panel.gaussian_colors(palette)
    levels = palette.reshape(-1, 3, 3)
    torch.testing.assert_close(shown[:3], levels[:3, Level.SMALL])
    torch.testing.assert_close(shown[3:], DIMMED * levels[3:, Level.PART])


def test_a_node_that_does_not_exist_shows_all(panel: HierarchyPanel):
    panel.b_node.value = 77
    assert panel.node is None


def test_without_a_tree_the_panel_says_so():
    panel = HierarchyPanel(lambda origin, direction: 0)
    panel.show_tree(None)
    panel._go_to_parent()
    panel._go_to_child()
    panel._go_to_sibling()
    panel.select_at(torch.zeros(3), torch.ones(3))
    assert "not built" in panel.h_about.value
