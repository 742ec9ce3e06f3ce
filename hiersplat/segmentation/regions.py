"""The segmenter that needs no downloaded weights: a hierarchy of watersheds, merged by likeness.

The gradient of the image in Lab is flooded and cut into a few hundred basins, which follow
the edges closely; then neighbours are merged, the most alike first
(:mod:`~hiersplat.segmentation.region_merging`). Every node of that tree is a proposal, and
three cuts through it, one for each level, are its levels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from hiersplat.levels import Level
from hiersplat.segmentation.masks import Edges, edges_per_label, make_record, merge_runs
from hiersplat.segmentation.proposals import MaskProposals, Record, View
from hiersplat.segmentation.region_features import Regions, measure_regions
from hiersplat.segmentation.region_merging import fitted_likeness, merge_regions


@dataclass
class RegionsConfig:
    """Watershed regions; no weights, a fraction of a second an image on one core."""

    num_regions: int = 250
    """Basins an image starts from. More follow finer details; time grows with it."""
    max_side: int = 512
    """Larger images are segmented at this many pixels a side, and outlines scaled up. Time grows
    with its square."""
    min_area: float = 2e-4
    """Regions below this share of the image are not proposed."""
    small_height: float = 0.2
    """Regions that lie in one small detail less likely than 1 minus this are kept apart, in
    [0, 1]. Lower gives more and smaller details."""
    part_height: float = 0.4
    """As small_height, for parts."""
    whole_height: float = 0.6
    """As small_height, for wholes."""

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            ValueError: Naming the setting, its value and the allowed range.
        """
        if self.num_regions < 1:
            raise ValueError(f"regions.num_regions is {self.num_regions}; it must be at least 1")
        if self.max_side < 16:
            raise ValueError(f"regions.max_side is {self.max_side}; it must be at least 16")
        if not 0 <= self.min_area < 1:
            raise ValueError(f"regions.min_area is {self.min_area}; it must be in [0, 1)")
        heights = (self.small_height, self.part_height, self.whole_height)
        if not 0 <= heights[0] <= heights[1] <= heights[2] <= 1:
            raise ValueError(
                f"regions.small_height, part_height and whole_height are {heights}; "
                "they must be in [0, 1] and must not fall"
            )


@dataclass(frozen=True)
class RegionTree:
    """The regions of an image and the order in which they were merged."""

    regions: Int[np.ndarray, "height width"]
    """Region of every pixel."""
    parents: Int[np.ndarray, " num_nodes"]
    """Parent of every node; the regions come first, the last node is the whole image."""
    heights: Float[np.ndarray, "num_nodes 3"]
    """How unlikely what was merged last in a node lies in one small, part, whole; 0 for regions."""

    def node_edges(self) -> list[Edges]:
        """Return the pixels of every node; a region that scaling lost has none."""
        edges = edges_per_label(self.regions)
        empty = np.empty(0, np.int64)
        runs = [
            [edges.get(node, empty).reshape(-1, 2)] if node in edges else []
            for node in range(len(self.parents))
        ]
        masks = []
        for node, parent in enumerate(self.parents):
            own = np.concatenate(runs[node]) if runs[node] else empty.reshape(-1, 2)
            own = own[np.argsort(own[:, 0])]
            mask = merge_runs(own[:, 0], own[:, 1])
            masks.append(mask)
            if parent != node and mask.size:
                runs[parent].append(mask.reshape(-1, 2))
        return masks


class RegionsSegmenter:
    """Proposes the nodes of a merge tree of watershed regions.

    ``predicted_iou`` of a record is the probability that what was merged in it belongs together,
    and ``stability_score`` is its persistence, the share of its parent's height over which it
    stays as it is: 1 - height / parent's height; both at the level of the record, or for
    wholes where it has none.
    """

    def __init__(self, config: RegionsConfig):
        config.check()
        self.config = config

    def propose(self, view: View) -> MaskProposals:
        """Return every node of the merge tree; those that a cut selects have a level.

        A node that several cuts select has the coarsest of their levels: nothing finer was
        found in it.
        """
        shape = (view.image.shape[0], view.image.shape[1])
        tree = region_tree(view.image, self.config)
        above = tree.heights[tree.parents]
        above[-1] = np.inf
        records: list[Record] = []
        levels: list[Level | None] = []
        for node, edges in enumerate(tree.node_edges()):
            area = (edges[1::2] - edges[0::2]).sum()
            if area == 0 or area < self.config.min_area * shape[0] * shape[1]:
                continue
            level = self._level(tree.heights[node], above[node])
            column = Level.WHOLE if level is None else level
            low, high = tree.heights[node, column], above[node, column]
            persistence = 1 - low / high if high > 0 else 0.0
            records.append(make_record(edges, shape, 1 - low, persistence))
            levels.append(level)
        return MaskProposals(records, levels)

    def _level(self, low: np.ndarray, high: np.ndarray) -> Level | None:
        """Coarsest level whose cut passes between a node's height and its parent's."""
        cuts = (self.config.small_height, self.config.part_height, self.config.whole_height)
        selected = [level for level in Level if low[level] <= cuts[level] < high[level]]
        return max(selected, default=None)


def base_regions(
    image: UInt8[np.ndarray, "height width 3"], config: RegionsConfig
) -> tuple[Int[np.ndarray, "height width"], Regions]:
    """Cut an image, scaled down where it is large, into basins and measure them."""
    import cv2

    height, width = image.shape[:2]
    scale = min(1.0, config.max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    basins = watershed_regions(lab, config.num_regions)
    return basins, measure_regions(basins, small, lab)


def region_tree(image: UInt8[np.ndarray, "height width 3"], config: RegionsConfig) -> RegionTree:
    """Cut an image into regions and merge them, the most alike first."""
    basins, measured = base_regions(image, config)
    parents, heights = merge_regions(measured, fitted_likeness())
    height, width = image.shape[:2]
    rows = (np.arange(height) * basins.shape[0]) // height
    columns = (np.arange(width) * basins.shape[1]) // width
    return RegionTree(basins[rows[:, None], columns], parents, heights)


def watershed_regions(
    lab: Float[np.ndarray, "height width 3"], num_regions: int
) -> Int[np.ndarray, "height width"]:
    """Flood the gradient of an image and keep the most voluminous basins.

    Returns:
        The basin of every pixel, contiguous from 0; at most about ``num_regions`` of them.
    """
    import higra

    height, width = lab.shape[:2]
    if height * width == 1:
        return np.zeros((1, 1), np.int64)
    grid = higra.get_4_adjacency_graph((height, width))
    sources, targets = grid.edge_list()
    pixels = lab.reshape(-1, 3)
    gradient = np.linalg.norm(pixels[sources] - pixels[targets], axis=1).astype(np.float64)
    tree, altitudes = higra.watershed_hierarchy_by_volume(grid, gradient)
    explorer = higra.HorizontalCutExplorer(tree, altitudes)  # pyright: ignore[reportAttributeAccessIssue]
    cut = explorer.horizontal_cut_from_num_regions(min(num_regions, height * width))
    _, regions = np.unique(cut.labelisation_leaves(tree), return_inverse=True)
    return regions.reshape(height, width).astype(np.int64)
