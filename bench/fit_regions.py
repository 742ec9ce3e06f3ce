"""Fit the judge of the segmenter ``regions`` on generated scenes, and measure it on others.

    python bench/fit_regions.py --train desk kitchen toys --test tabletop [--write]

Regions of training views are merged while every pair that is judged is noted, together with
whether both lie in the same true small, part and whole segment. The first round merges by
plain contrast, later rounds by the judge itself, so that it learns from the trees it will see.
The last line is one JSON object: best and levelled mIoU of single views on the test scenes.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from hiersplat.cache import encode_arrays, write_atomically
from hiersplat.label_maps import read_label_map
from hiersplat.levels import Level
from hiersplat.segmentation import region_merging
from hiersplat.segmentation.images import read_image
from hiersplat.segmentation.region_merging import Likeness, merge_regions
from hiersplat.segmentation.regions import RegionsConfig, base_regions

SCENES = Path(__file__).parent.parent / "scenes"
MIN_AREA_SHARE = 0.001
PURITY = 0.7


class FittingView:
    """A view, its basins, and how many pixels of every true segment each of them holds."""

    def __init__(self, image, truth, config):
        basins, self.regions = base_regions(image, config)
        self.num_regions = len(self.regions.measures)
        self.counts = []
        for labels in truth:
            ids, inverse = np.unique(labels, return_inverse=True)
            joint = basins.reshape(-1) * len(ids) + inverse.reshape(-1)
            counts = np.bincount(joint, minlength=self.num_regions * len(ids))
            self.counts.append((ids, counts.reshape(self.num_regions, len(ids)).astype(np.float64)))


def load_views(scene, every, config, crops, generator):
    """Views of a scene, whole or as random crops of 60 to 100 % of each side."""
    images = sorted((SCENES / scene / "images").glob("*.png"))[::every]
    for path in images:
        image = read_image(path)
        truth = read_label_map(SCENES / scene / "labels" / path.name)
        if crops:
            share = 0.6 + 0.4 * generator.random()
            height, width = (np.array(image.shape[:2]) * share).astype(int)
            top = generator.integers(0, image.shape[0] - height + 1)
            left = generator.integers(0, image.shape[1] - width + 1)
            image = np.ascontiguousarray(image[top : top + height, left : left + width])
            truth = truth[:, top : top + height, left : left + width]
        yield FittingView(image, truth, config)


def by_contrast(features):
    """Judge pairs by contrast, colour, enclosure and size, before anything is fitted."""
    small, large = np.exp(features[:, 7]), np.exp(features[:, 8])
    unlike = (np.expm1(features[:, 0]) / 20 + features[:, 2] + 0.3 * features[:, 3]) * np.sqrt(
        small * large / (small + large)
    )
    unlike = unlike * np.maximum(features[:, 9], 1e-3) ** -0.7
    unlike = unlike * (1 + 5 * np.abs(features[:, 11] - features[:, 12]))
    return np.repeat((1 - unlike / 100)[:, None], 3, axis=1)


def note_pairs(view, likeness):
    """Merge a view and return the features of every pair, its truth, and where that is clear."""
    counts = [
        np.concatenate([counts, np.zeros((view.num_regions - 1, counts.shape[1]))])
        for _, counts in view.counts
    ]
    noted = []
    parents, _ = merge_regions(view.regions, likeness, lambda *pairs: noted.append(pairs))
    for node in range(len(parents) - 1):
        for level in counts:
            level[parents[node]] += level[node]
    features = np.concatenate([pairs[2] for pairs in noted])
    first = np.concatenate([pairs[0] for pairs in noted])
    second = np.concatenate([np.full(len(pairs[0]), pairs[1]) for pairs in noted])
    same, clear = [], []
    for level in counts:
        purity = level.max(axis=1) / level.sum(axis=1)
        main = level.argmax(axis=1)
        same.append(main[first] == main[second])
        clear.append(np.minimum(purity[first], purity[second]) > PURITY)
    return features, np.stack(same, 1), np.stack(clear, 1)


def fit(features, same, clear, hidden, epochs, seed):
    """Fit a perceptron by cross entropy; pairs of large regions count more, by the fourth root."""
    import torch

    torch.manual_seed(seed)
    mean, scale = features.mean(0), features.std(0) + 1e-6
    inputs = torch.tensor(np.clip((features - mean) / scale, -5, 5), dtype=torch.float32)
    targets = torch.tensor(same, dtype=torch.float32)
    weights = torch.tensor(np.exp(features[:, 7:8]) ** 0.25 * clear, dtype=torch.float32)
    weights /= weights.mean()
    sizes = [inputs.shape[1], *hidden, 3]
    layers = [torch.nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    stack = []
    for layer in layers[:-1]:
        stack += [layer, torch.nn.ReLU()]
    model = torch.nn.Sequential(*stack, layers[-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=1e-3)
    batch = 2048
    num_batches = (len(inputs) + batch - 1) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 6e-3, total_steps=epochs * num_batches
    )
    loss_of = torch.nn.BCEWithLogitsLoss(reduction="none")
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(batch):
            loss = (loss_of(model(inputs[rows]), targets[rows]) * weights[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return Likeness(
        mean,
        scale,
        tuple(layer.weight.detach().numpy().T.astype(np.float64) for layer in layers),
        tuple(layer.bias.detach().numpy().astype(np.float64) for layer in layers),
    )


def measure(view, likeness, cuts):
    """Best and levelled mIoU of a view, and the number of segments, per level."""
    parents, heights = merge_regions(view.regions, likeness)
    areas = np.zeros(len(parents))
    areas[: view.num_regions] = view.regions.measures[:, 0]
    above = heights[parents]
    above[-1] = np.inf
    for node in range(len(parents) - 1):
        areas[parents[node]] += areas[node]
    rows = []
    for level, (ids, counts) in zip(Level, view.counts, strict=True):
        counts = np.concatenate([counts, np.zeros((view.num_regions - 1, counts.shape[1]))])
        for node in range(len(parents) - 1):
            counts[parents[node]] += counts[node]
        asked = (ids >= 0) & (counts[-1] >= MIN_AREA_SHARE * counts[-1].sum())
        shared = counts[:, asked]
        iou = shared / (areas[:, None] + shared[-1] - shared)
        rows.append([iou.max(0).mean()])
        for cut in cuts:
            chosen = (heights[:, level] <= cut) & (above[:, level] > cut)
            ours = chosen & (areas >= MIN_AREA_SHARE * areas[-1])
            matched = iou[chosen][iou[chosen] > 0.5]
            quality = matched.sum() / ((ours.sum() + asked.sum()) / 2)
            rows[-1] += [iou[chosen].max(0).mean(), quality, ours.sum()]
    return rows


def main():
    """Fit, store where that is asked for, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", nargs="+", default=["desk", "kitchen", "toys"])
    parser.add_argument("--test", nargs="+", default=["tabletop"])
    parser.add_argument("--every", type=int, default=3, help="use every n-th view")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--hidden", type=int, nargs="+", default=[32, 32])
    parser.add_argument("--write", action="store_true", help="store it in the package")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    views = []
    for scene in arguments.train:
        for crops in (False, True):
            num_regions = int(generator.integers(180, 350)) if crops else 250
            config = RegionsConfig(num_regions=num_regions)
            views += load_views(scene, arguments.every, config, crops, generator)
    likeness, noted = by_contrast, []
    for step in range(arguments.rounds):
        for view in views:
            noted.append(note_pairs(view, likeness))
        pairs = [np.concatenate(column) for column in zip(*noted, strict=True)]
        likeness = fit(*pairs, arguments.hidden, arguments.epochs, step)
        print(f"round {step + 1}: {len(pairs[0])} pairs of {len(views)} views", flush=True)
    if arguments.write:
        target = Path(region_merging.__file__).parent / region_merging.LIKENESS_FILE
        write_atomically(target, encode_arrays(likeness.to_arrays()))
        print(f"written to {target}")
    cuts = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    figures = {}
    for scene in arguments.test:
        rows = [
            measure(view, likeness, cuts)
            for view in load_views(scene, 4, RegionsConfig(), False, generator)
        ]
        means = np.mean(rows, axis=0)
        for level, values in zip(Level, means, strict=True):
            print(f"{scene} {level.title}: best node {values[0]:.3f}; cut: mIoU / PQ / segments")
            print(
                "  "
                + "  ".join(
                    f"{cut}: {miou:.3f} / {quality:.3f} / {count:.0f}"
                    for cut, (miou, quality, count) in zip(
                        cuts, values[1:].reshape(-1, 3), strict=True
                    )
                )
            )
        default = RegionsConfig()
        heights = (default.small_height, default.part_height, default.whole_height)
        figures[scene] = {
            level.title: [
                round(float(means[level][0]), 3),
                round(float(means[level][1 + 3 * cuts.index(heights[level])]), 3),
            ]
            for level in Level
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
