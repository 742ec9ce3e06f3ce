"""The viewer's panel for questions in words: ask, see the heat, go to the best node."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.viewer.viewer_elements import ViewerButton, ViewerDropdown, ViewerText
from torch import Tensor, nn

from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import Level
from hiersplat.plugin.note import ViewerNote
from hiersplat.plugin.viewer import HierarchyPanel
from hiersplat.semantics.query import QueryConfig, Ranking

Search = Callable[[str, Level | None, int | None], Ranking]
"""Ranks nodes by a text, of one level if given, below one node if given."""
WHERE = ("the chosen level", "all levels", "the chosen node")


class QueryPanel(nn.Module):
    """Widgets for a text query, and its answer until the next one.

    The answer is shown by the output ``relevancy``, from 0 to 1.
    """

    def __init__(self, search: Search, tree_panel: HierarchyPanel, note: Callable[[], str]) -> None:
        """Make the widgets.

        Args:
            search: Answers a text; its errors are shown as the answer.
            tree_panel: Where level and node are chosen, and the best node is shown.
            note: What must be said beside every answer.
        """
        super().__init__()
        self._search = search
        # In a tuple, or torch would adopt the panel and the viewer list its widgets twice.
        self._tree_panel = (tree_panel,)
        self._note = note
        self._ranking: Ranking | None = None
        self.a_text = ViewerText(
            "Text", "", hint="What to look for, as in: the red mug. Choose the output: relevancy"
        )
        self.b_where = ViewerDropdown("Look in", WHERE[0], list(WHERE))
        self.c_find = ViewerButton("Find", cb_hook=lambda _: self.find())
        self.d_best = ViewerButton("Select best", cb_hook=lambda _: self.select_best())
        self.e_forget = ViewerButton("Forget", cb_hook=lambda _: self.forget())
        self.f_answer = ViewerNote("Answer", "type a text, then Find")

    def find(self) -> None:
        """Ask what stands in the text box, and say what was found."""
        panel = self._tree_panel[0]
        level = panel.level if self.b_where.value == WHERE[0] else None
        within = panel.node if self.b_where.value == WHERE[2] else None
        self._ranking = None
        if self.b_where.value == WHERE[2] and within is None:
            self.f_answer.value = "no node is chosen; click one, or look elsewhere"
            return
        self.f_answer.value = "looking ..."
        try:
            ranking = self._search(self.a_text.value, level, within)
        except (ValueError, FileNotFoundError) as error:
            self.f_answer.value = str(error)
            return
        if not len(ranking.node_ids):
            self.f_answer.value = "there is no node to choose from"
            return
        self._ranking = ranking
        self.f_answer.value = self._describe(ranking)

    def _describe(self, ranking: Ranking) -> str:
        threshold = QueryConfig().threshold
        found, best = len(ranking.above(threshold)), float(ranking.relevancy[0])
        verdict = f"{found} found above {threshold}" if found else "nothing found"
        parts = [f"best: node {ranking.best}, relevancy {best:.2f}; {verdict}", self._note()]
        return "; ".join(part for part in parts if part)

    def select_best(self) -> None:
        """Choose the best node of the last answer in the tree's panel."""
        if self._ranking is not None:
            self._tree_panel[0].select(self._ranking.best)

    def forget(self) -> None:
        """Take the last answer away."""
        self._ranking = None
        self.f_answer.value = "type a text, then Find"

    def gaussian_relevancy(self, tree: SceneTree) -> Float[Tensor, "num_gaussians 1"]:
        """Relevancy of every Gaussian's node in the last answer; 0 without one.

        A Gaussian takes the best of its three nodes that were asked about.
        """
        if self._ranking is None:
            return torch.zeros(tree.num_gaussians, 1)
        values = np.max([self._ranking.of_ids(ids) for ids in tree.node_ids], axis=0)
        return torch.from_numpy(values.astype(np.float32))[:, None]
