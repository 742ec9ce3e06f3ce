"""What the scene tree is compared with: lifting without association, and the usual recipe.

Both get the same splats and the same masks as our own hierarchy, and both return one id per
Gaussian and level, so all are rendered and judged by the same code.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.spatial import KDTree

from hiersplat.gaussians.cameras import Camera
from hiersplat.gaussians.lifting import render_channels
from hiersplat.gaussians.splats import Splats
from hiersplat.hierarchy.view_masks import ViewMasks, dominant_masks
from hiersplat.levels import UNLABELLED, Level
from hiersplat.segmentation.pyramid import MaskPyramid


def majority_vote(views: Sequence[ViewMasks]) -> Int[np.ndarray, "3 num_gaussians"]:
    """Give ids to masks in the order of the views, and to each Gaussian the id it got most.

    A mask takes the id that most of the weight under it already votes for, if that is more than
    half of what has been seen before; otherwise a new one. Levels know nothing of each other.
    """
    count = views[0].num_gaussians
    node_ids = np.full((3, count), UNLABELLED, np.int32)
    for level in Level:
        votes = csr_matrix((count, 0), dtype=np.float32)
        for view in views:
            weights = view.level_weights(level)
            held, _ = dominant_masks(votes)
            shared = csr_matrix(weights.T @ _onehot(held, votes.shape[1])).toarray()
            known = shared.sum(axis=1)
            columns = np.empty(view.num_masks(level), np.int64)
            fresh = votes.shape[1]
            for mask in range(len(columns)):
                best = int(shared[mask].argmax()) if shared.shape[1] else 0
                if known[mask] > 0 and shared[mask, best] > 0.5 * known[mask]:
                    columns[mask] = best
                else:
                    columns[mask], fresh = fresh, fresh + 1
            ones = np.ones(len(columns), np.float32)
            move = csr_matrix((ones, (np.arange(len(columns)), columns)), (len(columns), fresh))
            votes.resize(count, fresh)
            votes = csr_matrix(votes + weights @ move)
        node_ids[level], _ = dominant_masks(votes)
    return node_ids


def _onehot(ids: np.ndarray, num_ids: int) -> csr_matrix:
    rows = np.flatnonzero(ids != UNLABELLED)
    ones = np.ones(len(rows), np.float32)
    return csr_matrix((ones, (rows, ids[rows])), shape=(len(ids), num_ids))


def contrastive(
    splats: Splats,
    cameras: Sequence[Camera],
    pyramids: Sequence[MaskPyramid],
    steps: int,
    dims: int = 16,
    pixels: int = 2048,
    margin: float = 1.0,
    min_cluster_size: int = 10,
    seed: int = 0,
) -> Int[np.ndarray, "3 num_gaussians"]:
    """Train a flat feature per level by contrast on rendered pixels, then cluster by HDBSCAN.

    All three levels are trained in one pass over the rasterizer (their channels are stacked), so
    the recipe pays for projection and sorting once. Pixels of one mask are pulled to its mean;
    means of different masks are pushed ``margin`` apart, as in OmniSeg3D and its relatives.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    features = torch.nn.Parameter(0.1 * torch.randn(len(splats), 3 * dims))
    optimizer = torch.optim.Adam([features], lr=2.5e-2)
    labels = [torch.from_numpy(pyramid.labels.reshape(3, -1)).long() for pyramid in pyramids]
    for _ in range(steps):
        index = int(rng.integers(len(cameras)))
        camera, own = cameras[index], labels[index]
        image, alpha = render_channels(splats, camera, features)
        labelled = torch.nonzero((own[0] != UNLABELLED) & (alpha.flatten() > 0.5))[:, 0]
        if not len(labelled):
            continue
        drawn = labelled[torch.randint(len(labelled), (pixels,))]
        values = image.flatten(0, 1)[drawn] / alpha.flatten()[drawn, None].detach()
        loss = sum(
            _contrast(values[:, level * dims : (level + 1) * dims], own[level, drawn], margin)
            for level in Level
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    node_ids = np.full((3, len(splats)), UNLABELLED, np.int32)
    learnt = features.detach().numpy()
    for level in Level:
        values = learnt[:, level * dims : (level + 1) * dims]
        node_ids[level] = clustered(values, min_cluster_size)
    return node_ids


def clustered(
    values: Float[np.ndarray, "num_gaussians dims"], min_cluster_size: int, most: int = 16_000
) -> Int[np.ndarray, " num_gaussians"]:
    """Cluster features by HDBSCAN; noise and what was not drawn take the nearest clustered one's.

    HDBSCAN's time grows with the square of the number of Gaussians, so at most ``most`` are
    drawn. That number, the smallest cluster and the choice of clusters (by excess of mass, not
    by a cut at one distance) are the best of those tried on ``tabletop``, by its own figures.
    """
    from sklearn.cluster import HDBSCAN

    sample = np.random.default_rng(0).permutation(len(values))[:most]
    found = HDBSCAN(min_cluster_size=min_cluster_size, copy=True).fit_predict(values[sample])
    firm = found >= 0
    if not firm.any():
        return np.zeros(len(values), np.int32)
    _, nearest = KDTree(values[sample[firm]]).query(values)
    return found[firm][nearest].astype(np.int32)


def _contrast(values: torch.Tensor, own: torch.Tensor, margin: float) -> torch.Tensor:
    masks, place, counts = torch.unique(own, return_inverse=True, return_counts=True)
    sums = values.new_zeros(len(masks), values.shape[1]).index_add(0, place, values)
    means = sums / counts[:, None]
    pull = ((values - means[place]).square().sum(dim=1) / counts[place]).sum() / len(masks)
    if len(masks) < 2:
        return pull
    first, second = torch.triu_indices(len(masks), len(masks), offset=1)
    distances = ((means[first] - means[second]).square().sum(dim=1) + 1e-8).sqrt()
    return pull + (margin - distances).clamp(min=0).square().mean()
