"""The viewer's panel: choose a level, click a node, go to its parent or children.

nerfstudio shows the elements that it finds as plain attributes of modules, ordered by
attribute name. The panel knows no model: it is told the tree, and asks a function it was given
what a click meets.
"""

from collections.abc import Callable

import numpy as np
import torch
from nerfstudio.viewer.viewer_elements import (
    ViewerButton,
    ViewerClick,
    ViewerControl,
    ViewerDropdown,
    ViewerNumber,
)
from torch import Tensor, nn

from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import UNLABELLED, Level
from hiersplat.plugin.note import ViewerNote

DIMMED = 0.25
"""Brightness of everything but the chosen node."""
NO_NODE = UNLABELLED


class HierarchyPanel(nn.Module):
    """Widgets for walking the tree, and the state they choose."""

    def __init__(self, pick: Callable[[Tensor, Tensor], int | None]) -> None:
        """Make the widgets.

        Args:
            pick: Returns the Gaussian that a ray (origin, direction) meets.
        """
        super().__init__()
        self._pick = pick
        self._tree: SceneTree | None = None
        titles = [level.title for level in Level]
        self.a_level = ViewerDropdown(
            "Level", Level.PART.title, titles, cb_hook=lambda _: self._level_changed()
        )
        self.b_node = ViewerNumber("Node", NO_NODE, cb_hook=lambda _: self._describe())
        self.c_click = ViewerButton("Click a node", cb_hook=lambda _: self._wait_for_click())
        self.d_parent = ViewerButton("Go to parent", cb_hook=lambda _: self._go_to_parent())
        self.e_child = ViewerButton("Go to largest child", cb_hook=lambda _: self._go_to_child())
        self.f_sibling = ViewerButton("Next sibling", cb_hook=lambda _: self._go_to_sibling())
        self.g_clear = ViewerButton("Show all nodes", cb_hook=lambda _: self.select(NO_NODE))
        self.h_about = ViewerNote("About", "the hierarchy is not built yet")
        self.control = ViewerControl()

    @property
    def level(self) -> Level:
        """The chosen level."""
        return Level.parse(self.a_level.value)

    @property
    def node(self) -> int | None:
        """Id of the chosen node; ``None`` where all are shown."""
        node = int(self.b_node.value)
        known = self._tree is not None and any(node == one.id for one in self._tree.nodes)
        return node if known else None

    def show_tree(self, tree: SceneTree | None) -> None:
        """Take the tree to walk."""
        self._tree = tree
        self._describe()

    def gaussian_colors(self, palette: Tensor) -> Tensor:
        """Colours (N, 3) of the chosen level; all but the chosen node dimmed.

        Args:
            palette: (N, 9), RGB of every Gaussian's small, part and whole node.
        """
        colors = palette.reshape(len(palette), len(Level), 3)
        node = self.node
        if self._tree is None or node is None:
            return colors[:, self.level]
        level = self._tree.node(node).level
        chosen = torch.from_numpy(self._tree.gaussians_of(node)).to(palette.device)
        # Inside the chosen node its children are told apart.
        inside = colors[:, level.finer if level.finer is not None else level]
        return torch.where(chosen[:, None], inside, DIMMED * colors[:, level])

    def select(self, node: int) -> None:
        """Choose a node, and its level; ``NO_NODE`` shows all."""
        self.b_node.value = node
        if self._tree is not None and node != NO_NODE:
            self.a_level.value = self._tree.node(node).level.title
        self._describe()

    def _level_changed(self) -> None:
        tree, node = self._tree, self.node
        if tree is not None and node is not None and tree.node(node).level != self.level:
            self.b_node.value = NO_NODE
        self._describe()

    def _describe(self) -> None:
        tree, node = self._tree, self.node
        if tree is None:
            text = "the hierarchy is not built yet"
        elif node is None:
            count = len(tree.level_ids(self.level))
            text = f"{count} {self.level.title} nodes, shown by the output type level_selected"
        else:
            one, count = tree.node(node), len(tree.children(node))
            inside = ""
            if one.level.finer is not None:
                inside = f"{count} {one.level.finer.title} node{'s' * (count != 1)} inside, "
            text = (
                f"{one.name or one.level.title} {node}: {inside}{one.num_gaussians:,} Gaussians, "
                f"views agree to {one.agreement:.0%}"
            )
        self.h_about.value = text

    def _wait_for_click(self) -> None:
        self.h_about.value = "click into the picture"

        def clicked(click: ViewerClick) -> None:
            self.control.unregister_pointer_cb()
            self.select_at(torch.tensor(click.origin), torch.tensor(click.direction))

        self.control.register_pointer_cb("click", clicked)

    def select_at(self, origin: Tensor, direction: Tensor) -> None:
        """Choose the node of the chosen level that a ray meets."""
        gaussian = self._pick(origin.float(), direction.float())
        if self._tree is None or gaussian is None:
            self.select(NO_NODE)
            return
        self.select(int(self._tree.node_ids[self.level, gaussian]))

    def _go_to_parent(self) -> None:
        node = self.node
        if node is not None and self._tree is not None:
            parent = self._tree.parent(node)
            if parent is not None:
                self.select(parent)

    def _go_to_child(self) -> None:
        node = self.node
        if node is None or self._tree is None:
            return
        tree, children = self._tree, self._tree.children(node)
        if children:
            self.select(max(children, key=lambda child: tree.node(child).num_gaussians))

    def _go_to_sibling(self) -> None:
        node = self.node
        if node is None or self._tree is None:
            return
        parent = self._tree.parent(node)
        family = (
            self._tree.children(parent)
            if parent is not None
            else tuple(int(one) for one in self._tree.level_ids(Level.WHOLE))
        )
        self.select(int(np.roll(family, -1)[family.index(node)]))
