"""How far the views' own masks agree with the scene tree: per level, node, view and pixel.

In every view the rendered nodes are compared with the view's masks of the same level. A node and
a mask *match* if each is the other's best by IoU; pixels of matched pairs agree, other pixels
with a node and a mask disagree, and pixels without a mask say nothing.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int, Int8

from hiersplat.hierarchy.overlap import (
    Overlap,
    compact,
    overlap_of_compact,
    require_same_shape,
)
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import UNLABELLED, Level

MIN_NODE_PIXELS = 16
"""A node with fewer rendered pixels does not count as seen in a view."""
_COVERED = 0.8
"""From this share on, a mask covers a node (merges), or a node contains a mask (splits)."""
_MAIN_PART = 0.2
"""Share of a node from which on a mask is one of its main parts (splits)."""
_MAJORITY = 0.5

AGREES, DISAGREES, SILENT = 1, 0, -1
"""What a pixel of an agreement map says."""


@dataclass(frozen=True)
class NodeAgreement:
    """What the views say about one node."""

    node_id: int
    level: Level
    agreement: float
    """Mean over views of the IoU with the best mask, on labelled pixels; NaN without views."""
    coverage: float
    """Share of its pixels over all views that lie in some mask."""
    views: tuple[tuple[str, float], ...]
    """Views whose masks say something about it, and their IoU, worst first."""


@dataclass(frozen=True)
class Suggestion:
    """Nodes that most views draw as one, or a node that most views draw as several."""

    kind: Literal["merge", "split"]
    level: Level
    nodes: tuple[int, ...]
    votes: int
    """Views that say so."""
    num_views: int
    """Views that see the nodes together."""


@dataclass(frozen=True)
class LevelAgreement:
    """What the views say about one level."""

    level: Level
    num_nodes: int
    agreement: float
    """Mean over nodes that are seen of their agreement."""
    pixel_agreement: float
    """Share of pixels with a node and a mask whose node and mask match."""
    coverage: float
    """Share of pixels with a node that lie in some mask."""
    worst_views: tuple[tuple[str, float], ...]
    """Views and their share of agreeing pixels, worst first."""


@dataclass(frozen=True)
class ConsistencyReport:
    """Agreement of all views with the tree."""

    levels: tuple[LevelAgreement, ...]
    """Small, part, whole."""
    nodes: tuple[NodeAgreement, ...]
    """All nodes, by id."""
    suggestions: tuple[Suggestion, ...]
    """Likely merges and splits, the clearest first."""

    def node(self, node_id: int) -> NodeAgreement:
        """Return what is known about one node.

        Raises:
            ValueError: If there is no such node.
        """
        for node in self.nodes:
            if node.node_id == node_id:
                return node
        raise ValueError(f"the tree has no node {node_id}")


@dataclass(frozen=True)
class _Sight:
    """One node in one view."""

    view: int
    iou: float | None
    """With the best mask, over labelled pixels; ``None`` where masks say too little about it."""
    num_pixels: int
    num_labelled: int
    is_split: bool


class ConsistencyMeter:
    """Gather agreement view by view; maps are let go of, only tables are kept."""

    def __init__(self, tree: SceneTree) -> None:
        """Start without views."""
        self._tree = tree
        self._views: list[str] = []
        self._sights: dict[int, list[_Sight]] = defaultdict(list)
        self._merges: dict[tuple[Level, int, int], int] = defaultdict(int)
        # Per view: agreeing, judged, and rendered pixels of every level.
        self._pixels: list[np.ndarray] = []

    def update(
        self,
        view_name: str,
        rendered: Int[np.ndarray, "3 height width"],
        masks: Int[np.ndarray, "3 height width"],
    ) -> Int8[np.ndarray, "3 height width"]:
        """Add one view.

        Args:
            view_name: For the report.
            rendered: Node ids of every pixel, rendered from the tree.
            masks: The view's own labels.

        Returns:
            What every pixel says at every level: ``AGREES``, ``DISAGREES`` or ``SILENT``.

        Raises:
            ValueError: If the maps differ in shape.
        """
        require_same_shape(masks, rendered)
        agreement = np.full(rendered.shape, SILENT, np.int8)
        pixels = np.zeros((len(Level), 3), np.int64)
        for level in Level:
            agreement[level] = self._update_level(level, rendered[level], masks[level])
            judged = agreement[level] != SILENT
            agreeing = int((agreement[level] == AGREES).sum())
            pixels[level] = agreeing, judged.sum(), (rendered[level] != UNLABELLED).sum()
        self._views.append(view_name)
        self._pixels.append(pixels)
        return agreement

    def _update_level(self, level: Level, rendered: np.ndarray, masks: np.ndarray) -> np.ndarray:
        nodes, labels = compact(rendered), compact(masks)
        node_ids, places = nodes
        num_pixels = np.bincount(places[places >= 0], minlength=len(node_ids))
        mask_areas = np.bincount(labels[1][labels[1] >= 0], minlength=len(labels[0]))
        judged = (places >= 0) & (labels[1] >= 0)
        # Pixels without a mask lower the coverage of a node, not its agreement.
        places = np.where(judged, places, UNLABELLED)
        shared = overlap_of_compact((node_ids, places), labels)
        matches = _mutual_matches(shared)  # (num_nodes,): place of the mask, or -1.
        agreement = np.full(rendered.shape, SILENT, np.int8)
        agreement[judged] = matches[places[judged]] == labels[1][judged]
        labelled = shared.counts.sum(axis=1)
        share_of_node = shared.counts / np.maximum(labelled, 1)[:, None]
        share_of_mask = shared.counts / np.maximum(mask_areas, 1)[None]
        main_parts = (share_of_node >= _MAIN_PART) & (share_of_mask >= _COVERED)
        best = shared.iou.max(axis=1, initial=0.0)
        for row in np.flatnonzero(num_pixels >= MIN_NODE_PIXELS):
            sight = _Sight(
                view=len(self._views),
                iou=float(best[row]) if labelled[row] >= MIN_NODE_PIXELS else None,
                num_pixels=int(num_pixels[row]),
                num_labelled=int(labelled[row]),
                is_split=labelled[row] >= MIN_NODE_PIXELS and int(main_parts[row].sum()) >= 2,
            )
            self._sights[int(node_ids[row])].append(sight)
        is_judged = labelled >= MIN_NODE_PIXELS
        is_covered = (share_of_node >= _COVERED) & is_judged[:, None]
        for column in np.flatnonzero(is_covered.sum(axis=0) >= 2):
            ids = node_ids[is_covered[:, column]].tolist()
            for i, first in enumerate(ids):
                for second in ids[i + 1 :]:
                    self._merges[level, first, second] += 1
        return agreement

    def compute(self) -> ConsistencyReport:
        """Return the report over all views added so far.

        Raises:
            ValueError: If no view was added.
        """
        if not self._views:
            raise ValueError("no view has masks, so there is nothing the tree could agree with")
        nodes = tuple(self._node(node.id, node.level) for node in self._tree.nodes)
        pixels = np.stack(self._pixels).astype(np.float64)  # (num_views, levels, 3)
        levels = []
        for level in Level:
            known = [n.agreement for n in nodes if n.level == level and n.views]
            agreeing, judged, rendered = pixels[:, level].sum(axis=0)
            shares = [
                (name, row[0] / row[1])
                for name, row in zip(self._views, pixels[:, level], strict=True)
                if row[1]
            ]
            levels.append(
                LevelAgreement(
                    level=level,
                    num_nodes=len(self._tree.level_ids(level)),
                    agreement=float(np.mean(known)) if known else float("nan"),
                    pixel_agreement=agreeing / judged if judged else float("nan"),
                    coverage=judged / rendered if rendered else float("nan"),
                    worst_views=tuple(sorted(shares, key=lambda share: share[1])),
                )
            )
        suggestions = (*self._likely_merges(), *self._likely_splits())
        ordered = sorted(suggestions, key=lambda s: (-s.votes / s.num_views, -s.votes, s.nodes))
        return ConsistencyReport(tuple(levels), nodes, tuple(ordered))

    def _node(self, node_id: int, level: Level) -> NodeAgreement:
        sights = self._sights.get(node_id, [])
        if not sights:
            return NodeAgreement(node_id, level, float("nan"), float("nan"), ())
        views = [(self._views[s.view], s.iou) for s in sights if s.iou is not None]
        return NodeAgreement(
            node_id=node_id,
            level=level,
            agreement=float(np.mean([iou for _, iou in views])) if views else float("nan"),
            coverage=sum(s.num_labelled for s in sights) / sum(s.num_pixels for s in sights),
            views=tuple(sorted(views, key=lambda view: view[1])),
        )

    def _likely_merges(self) -> Iterable[Suggestion]:
        views_of = {
            node: {s.view for s in sights if s.iou is not None}
            for node, sights in self._sights.items()
        }
        for (level, first, second), votes in self._merges.items():
            together = len(views_of[first] & views_of[second])
            if votes >= 2 and votes > _MAJORITY * together:
                yield Suggestion("merge", level, (first, second), votes, together)

    def _likely_splits(self) -> Iterable[Suggestion]:
        for node_id, sights in self._sights.items():
            votes = sum(s.is_split for s in sights)
            judging = sum(s.iou is not None for s in sights)
            if votes >= 2 and votes > _MAJORITY * judging:
                level = self._tree.node(node_id).level
                yield Suggestion("split", level, (node_id,), votes, judging)


def _mutual_matches(shared: Overlap) -> Int[np.ndarray, " num_nodes"]:
    """Place of the mask that is a node's best and has the node as its best; -1 without."""
    matches = np.full(len(shared.truth_ids), UNLABELLED, np.int64)
    if shared.counts.size:
        iou = shared.iou
        masks = iou.argmax(axis=1)
        is_mutual = iou.argmax(axis=0)[masks] == np.arange(len(masks))
        is_mutual &= iou.max(axis=1) > 0
        matches[is_mutual] = masks[is_mutual]
    return matches
