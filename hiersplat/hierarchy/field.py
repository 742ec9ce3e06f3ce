"""Nested per-Gaussian features: a level is a prefix of the dimensions.

A feature is an address. Its first block says which whole, the next which part of that whole, the
last which small of that part, and the prefix up to a level's block is the feature of that level.
A longer prefix can only be farther away, so affinity at a finer level never exceeds affinity at a
coarser one: containment holds by construction, whatever training does to the numbers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.rasterization import rasterization
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.tree import SceneTree
from hiersplat.levels import UNLABELLED, Level


@dataclass
class HierarchyFieldConfig:
    """Sizes of the nested features, and how near counts as the same."""

    whole_dims: int = 8
    """Dimensions that tell wholes apart. With half as many, blends of two wholes on an edge pass
    near the address of a third, and scenes of a dozen wholes lose at every level."""
    part_dims: int = 16
    """Dimensions up to and including parts; each adds 4 bytes to every Gaussian."""
    small_dims: int = 24
    """Dimensions in all. Time of a training step grows with them."""
    radius: float = 0.5
    """Distance at which affinity falls to one half; nodes start at least about 1 apart."""

    def __post_init__(self):
        """Check that every level has dimensions of its own."""
        if not 2 <= self.whole_dims < self.part_dims < self.small_dims:
            raise ValueError(
                "dimensions must grow from whole (at least 2) to part to small, not "
                f"{self.whole_dims}, {self.part_dims}, {self.small_dims}"
            )
        if self.radius <= 0:
            raise ValueError(f"radius must be above 0, not {self.radius}")

    def dims(self, level: Level) -> int:
        """Length of the prefix that is the feature of a level."""
        return {
            Level.SMALL: self.small_dims,
            Level.PART: self.part_dims,
            Level.WHOLE: self.whole_dims,
        }[level]

    def block(self, level: Level) -> slice:
        """Dimensions in which nodes of a level differ from their siblings."""
        start = self.dims(level.coarser) if level.coarser is not None else 0
        return slice(start, self.dims(level))


def node_codes(tree: SceneTree, config: HierarchyFieldConfig) -> Float[Tensor, "num_nodes dims"]:
    """Addresses of all nodes, in the order of ``tree.nodes``; dimensions of finer levels are 0.

    Siblings get unit vectors in their level's block that lie as far apart as can be.
    """
    codes = torch.zeros(len(tree), config.small_dims)
    row_of = {node.id: row for row, node in enumerate(tree.nodes)}
    families: list[tuple[Level, Tensor, tuple[int, ...]]] = []
    wholes = tuple(tree.level_ids(Level.WHOLE).tolist())
    families.append((Level.WHOLE, torch.zeros(config.small_dims), wholes))
    while families:
        level, address, siblings = families.pop()
        block = config.block(level)
        directions = spread_directions(len(siblings), block.stop - block.start)
        for direction, node_id in zip(directions, siblings, strict=True):
            code = address.clone()
            code[block] = direction
            codes[row_of[node_id]] = code
            children = tree.children(node_id)
            if level.finer is not None and children:
                families.append((level.finer, code, children))
    return codes


def spread_directions(count: int, dims: int, steps: int = 200) -> Float[Tensor, "count dims"]:
    """Unit vectors that repel one another; the same for the same count and dimensions."""
    generator = torch.Generator().manual_seed(count)
    directions = torch.randn(count, dims, generator=generator)
    directions = torch.nn.functional.normalize(directions, dim=1)
    if count <= 1:
        return directions
    for step in range(steps):
        squared = torch.cdist(directions, directions).square().clamp(min=1e-4)
        weights = squared.pow(-3).fill_diagonal_(0)
        force = (weights[:, :, None] * (directions[:, None] - directions[None, :])).sum(dim=1)
        force = torch.nn.functional.normalize(force, dim=1)
        pace = 0.2 * (1 - step / steps)
        directions = torch.nn.functional.normalize(directions + pace * force, dim=1)
    return directions


def initial_features(
    tree: SceneTree, config: HierarchyFieldConfig
) -> Float[Tensor, "num_gaussians dims"]:
    """Give every Gaussian the address of its small node; 0 where it belongs to none."""
    rows = torch.from_numpy(tree.labels(Level.SMALL)).long()
    codes = level_codes(tree, config)[Level.SMALL]
    codes = torch.cat([codes, codes.new_zeros(1, config.small_dims)])  # UNLABELLED finds the last
    return codes[rows]


def level_codes(
    tree: SceneTree, config: HierarchyFieldConfig
) -> tuple[Float[Tensor, "num_small d0"], Float[Tensor, "num_part d1"], Float[Tensor, "n d2"]]:
    """Addresses of the nodes of each level, in the order of ``tree.labels``, no longer than it."""
    codes = node_codes(tree, config)
    rows = [[row for row, node in enumerate(tree.nodes) if node.level == level] for level in Level]
    small, part, whole = (codes[rows[level], : config.dims(level)] for level in Level)
    return small, part, whole


def affinity(
    features: Float[Tensor, "*batch dims"],
    query: Float[Tensor, " dims"],
    level: Level,
    config: HierarchyFieldConfig,
) -> Float[Tensor, "*batch"]:
    """How far features are of the same node as a query, in [0, 1]; 1 where they are equal.

    Args:
        features: Features of Gaussians, or of pixels divided by their accumulation.
        query: A clicked feature, or a node's address.
        level: Level that decides; at a finer level the result is never larger.
        config: Sizes and radius.
    """
    dims = config.dims(level)
    squared = (features[..., :dims] - query[:dims]).square().sum(dim=-1)
    return torch.exp2(-squared / config.radius**2)


def assign(
    features: Float[Tensor, "num_gaussians dims"],
    tree: SceneTree,
    means: Float[np.ndarray, "num_gaussians 3"],
    config: HierarchyFieldConfig,
    neighbours: int = 8,
) -> Int[np.ndarray, "3 num_gaussians"]:
    """Give every Gaussian the small node with the nearest address; parents follow.

    Only its own node and the nodes of its nearest neighbours are candidates, so that a feature
    that drifted cannot send a Gaussian to the other end of the scene. Gaussians without a node
    stay without.

    Raises:
        ValueError: If features, tree and means are of different numbers of Gaussians.
    """
    if not len(features) == tree.num_gaussians == len(means):
        raise ValueError(
            f"{len(features)} features and {len(means)} means do not fit a tree of "
            f"{tree.num_gaussians} Gaussians"
        )
    own = tree.labels(Level.SMALL)
    labelled = np.flatnonzero(own != UNLABELLED)
    if not labelled.size:
        return tree.node_ids.copy()
    count = min(neighbours, len(labelled))
    _, nearest = KDTree(means[labelled]).query(means[labelled], k=count)
    candidates = own[labelled[np.asarray(nearest).reshape(-1, count)]]  # (labelled, count)
    candidates = torch.from_numpy(np.concatenate([own[labelled, None], candidates], axis=1)).long()
    codes = level_codes(tree, config)[Level.SMALL]
    values = features.detach().cpu()[torch.from_numpy(labelled)]
    squared = (values[:, None] - codes[candidates]).square().sum(dim=-1)
    # Of equal candidates the first wins: the Gaussian's own node.
    chosen = candidates.gather(1, squared.argmin(dim=1, keepdim=True))[:, 0].numpy()
    small_ids = np.full(len(own), UNLABELLED, np.int32)
    small_ids[labelled] = tree.level_ids(Level.SMALL)[chosen]
    return tree.lineage(small_ids)


def pixel_nodes(
    rendered: Float[Tensor, "height width dims"],
    accumulation: Float[Tensor, "height width 1"],
    tree: SceneTree,
    config: HierarchyFieldConfig,
    min_accumulation: float = 0.5,
) -> Int[np.ndarray, "3 height width"]:
    """Give every pixel of a rendered view the small node with the nearest address.

    A pixel on an edge is a blend of addresses and falls to the nearer one; this is finer than
    rendering one id per Gaussian, because training can shift the blend. Parts and wholes follow.

    Args:
        rendered: Features blended over the pixels.
        accumulation: How far Gaussians cover each pixel; below ``min_accumulation`` a pixel stays
            ``UNLABELLED``.
        tree: The nodes.
        config: Sizes of the levels.
        min_accumulation: Least coverage of a labelled pixel.
    """
    small_ids = tree.level_ids(Level.SMALL)
    height, width = rendered.shape[:2]
    found = np.full(height * width, UNLABELLED, np.int32)
    covered = accumulation.detach().flatten() >= min_accumulation
    if len(small_ids) and covered.any():
        codes = level_codes(tree, config)[Level.SMALL].to(rendered.device)
        values = rendered.detach().flatten(0, 1)[covered]
        values = values / accumulation.detach().flatten()[covered, None]
        nearest = torch.cat(
            [torch.cdist(part, codes).argmin(dim=1) for part in values.split(1 << 16)]
        )
        found[covered.cpu().numpy()] = small_ids[nearest.cpu().numpy()]
    return tree.lineage(found).reshape(3, height, width)


def render_features(
    splats: Splats, camera: Camera, features: Float[Tensor, "num_gaussians dims"]
) -> tuple[Float[Tensor, "height width dims"], Float[Tensor, "height width 1"]]:
    """Blend features over a view, geometry detached; return them with the accumulation."""
    camera = camera.to(splats.means.device)
    rendered, alpha, _ = rasterization(
        splats.means.detach(),
        splats.quats.detach(),
        splats.scales.detach(),
        splats.opacities.detach(),
        features,
        camera.viewmat[None],
        camera.K[None],
        camera.width,
        camera.height,
        packed=False,
    )
    return rendered[0], alpha[0]


@torch.no_grad()
def render_nodes(
    splats: Splats,
    camera: Camera,
    features: Float[Tensor, "num_gaussians dims"],
    tree: SceneTree,
    config: HierarchyFieldConfig,
) -> Int[np.ndarray, "3 height width"]:
    """Render the nodes that the features say, as :func:`pixel_nodes` reads them."""
    rendered, accumulation = render_features(splats, camera, features)
    return pixel_nodes(rendered, accumulation, tree, config)
