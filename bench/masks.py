"""SAM 2 masks: our generator beside sam2's own and SAM 1, their memory, and mask NMS.

    python bench/masks.py [--points-per-side 16] [--rounds 1] [--sam1 short|full|no]

A 1080p picture; seeded random weights with thresholds that let about a third of the candidates
survive, and trained weights as well where they are found. Runs of the two generators alternate.
The image encoders (ours multiplies in bfloat16 where the CPU can) are timed apart, so that figures
for the default grid of 32 x 32 can be had from a smaller one: encoder + 1024 points.
``--points-per-side 32`` times the default grid itself. Seconds of CPU, over all threads, are
given beside wall time because other programs disturb them less; under load, set
OMP_NUM_THREADS=1, since threads that wait for each other count as busy. With random weights every
mask spans the picture, so boxes cannot tell them apart and box NMS is off (threshold 1). The last
line is one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from hiersplat.segmentation import build_sam_generator
from hiersplat.segmentation.checkpoints import checkpoint_info, find_checkpoint
from hiersplat.segmentation.masks import cut_into_atoms, edges_of_dense
from hiersplat.segmentation.sam2_decoder import product_type
from hiersplat.segmentation.sam2_model import encode_image, load_model, random_model

SHAPE = (1080, 1920)
FULL_GRID = 32 * 32
PEAKS = ("model", "encoder", "ours", "official")
"""Processes whose peak memory is taken: each does what the one before does, or more."""
LOOSE = {"stability_score_offset": 0.05, "box_nms_thresh": 1.0}


def picture(seed=0):
    """Gradient with discs; made with little memory, since peaks are compared."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    image = np.empty((*SHAPE, 3), np.uint8)
    image[..., 0] = 200 * x / SHAPE[1]
    image[..., 1] = 200 * y / SHAPE[0]
    for row in range(SHAPE[0]):
        image[row, :, 2] = 200 * (x[0] + row) / sum(SHAPE)
    for _ in range(40):
        centre = rng.integers(0, SHAPE[1]), rng.integers(0, SHAPE[0])
        radius = int(rng.integers(20, 200))
        top, left = max(0, centre[1] - radius), max(0, centre[0] - radius)
        part = np.s_[top : centre[1] + radius + 1, left : centre[0] + radius + 1]
        near = np.hypot(x[:, part[1]] - centre[0], y[part[0]] - centre[1]) < radius
        image[part][near] = rng.integers(0, 256, 3)
    return image


def seconds(work):
    """Wall seconds of a call, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def both_seconds(work):
    """Wall seconds and seconds of CPU over all threads of a call, and what it returned."""
    start = time.process_time()
    wall, result = seconds(work)
    return np.array([wall, time.process_time() - start]), result


def third_surviving(model, image):
    """Thresholds at which half pass on predicted IoU, and two thirds of those on stability."""
    loose = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 4}
    records = build_sam_generator(model=model, **LOOSE, **loose).generate(image, "uncompressed_rle")
    iou = np.array([record["predicted_iou"] for record in records])
    stability = np.array([record["stability_score"] for record in records])
    least = float(np.quantile(iou, 0.5))
    passing = float(np.quantile(stability[iou > least], 0.33))
    return {"pred_iou_thresh": least, "stability_score_thresh": passing}


def agreement(ours, theirs):
    """Mean IoU of each mask with its best counterpart from the same point, both ways."""

    def one_way(first, second):
        by_point = {}
        for record in second:
            by_point.setdefault(tuple(record["point_coords"][0]), []).append(record)
        best = []
        for record in first:
            mask = record["segmentation"]
            others = by_point.get(tuple(record["point_coords"][0]), [])
            ious = [iou(mask, other["segmentation"]) for other in others]
            best.append(max(ious, default=0.0))
        return float(np.mean(best)) if best else 1.0

    return min(one_way(ours, theirs), one_way(theirs, ours))


def iou(first, second):
    """IoU of two dense masks."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def official_generator(model, settings):
    """sam2's own generator."""
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    return SAM2AutomaticMaskGenerator(model, **settings)


def compare(size, image, points_per_side, rounds):
    """Time both generators in turn; return a row of figures."""
    found = find_checkpoint(checkpoint_info(size))
    model = load_model(checkpoint_info(size), found, "cpu") if found else random_model(size)
    settings = {"points_per_side": points_per_side}
    settings |= {} if found else LOOSE | third_surviving(model, image)
    ours = build_sam_generator(model=model, **settings)
    theirs = official_generator(model, settings | {"points_per_batch": 64})
    encoding, fast_encoding, our_times, their_times = [], [], [], []
    kind = product_type("auto", model.device)
    our_records = their_records = []
    for _ in range(rounds):
        encoding.append(both_seconds(lambda: encode_image(model, image))[0])
        fast_encoding.append(both_seconds(lambda: encode_image(model, image, kind))[0])
        elapsed, our_records = both_seconds(lambda: ours.generate(image))
        our_times.append(elapsed)
        elapsed, their_records = both_seconds(lambda: theirs.generate(image))
        their_times.append(elapsed)
    encoder, fast_encoder, ours_total, theirs_total = (
        np.median(times, axis=0) for times in (encoding, fast_encoding, our_times, their_times)
    )
    points = points_per_side**2
    ours_point, theirs_point = (
        (ours_total - fast_encoder) / points,
        (theirs_total - encoder) / points,
    )
    full_ours, full_theirs = (
        fast_encoder + FULL_GRID * ours_point,
        encoder + FULL_GRID * theirs_point,
    )
    return {
        "size": size,
        "weights": "trained" if found else "random",
        "ours_encoder_s": fast_encoder[0],
        "official_encoder_s": encoder[0],
        "cpu_s_encoder_ours": fast_encoder[1],
        "cpu_s_encoder_official": encoder[1],
        "ours_ms_a_point": 1e3 * ours_point[0],
        "official_ms_a_point": 1e3 * theirs_point[0],
        "ours_s": ours_total[0],
        "official_s": theirs_total[0],
        "measured_speedup": theirs_total[0] / ours_total[0],
        "point_speedup": theirs_point[0] / ours_point[0],
        "full_ours_s": full_ours[0],
        "full_ours_cpu_s": full_ours[1],
        "speedup_at_32": full_theirs[0] / full_ours[0],
        "cpu_ms_a_point_ours": 1e3 * ours_point[1],
        "cpu_ms_a_point_official": 1e3 * theirs_point[1],
        "speedup_at_32_in_cpu_s": full_theirs[1] / full_ours[1],
        "survivors": len(their_records) / (3 * points),
        "agreement_iou": agreement(our_records, their_records),
        "count_ratio": len(our_records) / max(1, len(their_records)),
    }


def peak_memory(which):
    """Peak resident bytes of a process that makes one batch of 64 points at 1080p."""
    command = [sys.executable, __file__, "--memory-of", which]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def print_memory(which):
    """Load the model, encode, or run one generator in this process; print its peak memory."""
    image, model = picture(), random_model("tiny")
    # Fixed, so that no other generator runs here before; a third of the candidates survives.
    settings = LOOSE | {"points_per_side": 8, "pred_iou_thresh": 0.51}
    settings["stability_score_thresh"] = 0.6
    if which == "model":
        pass
    elif which == "ours":
        build_sam_generator(model=model, **settings).generate(image)
    elif which == "official":
        official_generator(model, settings | {"points_per_batch": 64}).generate(image)
    else:
        encode_image(model, image)
    # Not ru_maxrss, which a child process takes over from its parent.
    status = Path("/proc/self/status").read_text()
    print(1024 * int(status.split("VmHWM:")[1].split()[0]))


def nested_masks(count, seed=1):
    """Discs of many sizes as dense masks, with scores."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    masks = np.stack(
        [
            np.hypot(x - rng.integers(SHAPE[1]), y - rng.integers(SHAPE[0])) < rng.integers(15, 300)
            for _ in range(count)
        ]
    )
    return masks, rng.random(count).astype(np.float32)


def loop_nms(masks, scores):
    """Mask NMS as LangSplat writes it: dense IoU pair by pair; returns what is kept."""
    order = torch.argsort(scores, descending=True)
    masks = masks[order]
    areas = masks.sum((1, 2), dtype=torch.float32)
    overlap, inner = torch.zeros(2, len(masks), len(masks))
    for i in range(len(masks)):
        for j in range(i + 1, len(masks)):
            common = torch.sum(torch.logical_and(masks[i], masks[j]), dtype=torch.float32)
            union = torch.sum(torch.logical_or(masks[i], masks[j]), dtype=torch.float32)
            overlap[i, j] = common / union
            first, second = common / areas[i], common / areas[j]
            if first < 0.5 and second >= 0.85:
                inner[i, j] = 1 - first * second
            if first >= 0.85 and second < 0.5:
                inner[j, i] = 1 - first * second
    kept = (overlap.max(0).values <= 0.8) & (inner.max(0).values <= 0.5)
    return sorted(order[kept].tolist())


def product_nms(edges, scores):
    """The same rule from one matrix product over the pieces that the masks cut the image into."""
    order = np.argsort(-scores, kind="stable")
    common = cut_into_atoms([edges[k] for k in order], SHAPE).intersections()
    areas = np.diag(common)
    first, second = common / areas[:, None], common / areas[None]
    overlap = np.triu(common / (areas[:, None] + areas[None] - common), 1)
    inner = np.where((first < 0.5) & (second >= 0.85), 1 - first * second, 0)
    np.fill_diagonal(inner, 0)
    return sorted(order[(overlap.max(0) <= 0.8) & (inner.max(0) <= 0.5)].tolist())


def compare_nms(count):
    """Speed-up of the matrix product over the loop, and whether both keep the same."""
    masks, scores = nested_masks(count)
    edges = [edges_of_dense(mask) for mask in masks]
    fast = statistics.median(seconds(lambda: product_nms(edges, scores))[0] for _ in range(5))
    slow, kept = seconds(lambda: loop_nms(torch.from_numpy(masks), torch.from_numpy(scores)))
    return slow / fast, slow, fast, kept == product_nms(edges, scores)


def sam1_seconds(points_per_side, image):
    """Wall and CPU seconds of transformers' mask-generation pipeline, SAM ViT-H, random weights."""
    from transformers import SamConfig, SamImageProcessor, SamModel, pipeline

    config = SamConfig(
        vision_config={
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "global_attn_indexes": [7, 15, 23, 31],
            "mlp_dim": 5120,
        }
    )
    torch.manual_seed(0)
    # The processor is the class that belongs to the architecture, not a file to be fetched.
    generate = pipeline(
        "mask-generation", model=SamModel(config).eval(), image_processor=SamImageProcessor()
    )
    from PIL import Image

    pixels = Image.fromarray(image)
    settings = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.99, "points_per_batch": 64}
    settings["stability_score_offset"] = 1
    times = {}
    for side in sorted({2, *points_per_side}):
        times[side] = both_seconds(lambda: generate(pixels, points_per_crop=side, **settings))[0]  # noqa: B023
    return times


def compare_sam1(mode, image, ours_at_32):
    """Seconds (wall, CPU) of SAM 1 at 8 x 8 and 32 x 32 points and the two ratios to ours.

    32 x 32 follows from 2 x 2 and 8 x 8 unless the mode is full.
    """
    times = sam1_seconds((8, 32) if mode == "full" else (8,), image)
    each = (times[8] - times[2]) / (64 - 4)
    at_32 = times.get(32, times[8] + (FULL_GRID - 64) * each)
    return times[8], at_32, ours_at_32 / times[8], at_32 / ours_at_32


def main():
    """Measure, print tables, and one JSON object as the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--points-per-side", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "large"])
    parser.add_argument("--nms-masks", type=int, default=100)
    parser.add_argument("--sam1", choices=["short", "full", "no"], default="short")
    parser.add_argument("--memory-of", choices=PEAKS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.memory_of:
        print_memory(arguments.memory_of)
        return
    image = picture()
    rows = {}
    for size in arguments.sizes:
        row = compare(size, image, arguments.points_per_side, arguments.rounds)
        rows[size] = row
        print(f"SAM 2.1 {size}, {row['weights']} weights, 1080p:")
        for name, value in row.items():
            if not isinstance(value, str):
                print(f"  {name:22} {value:10.4g}")
    peaks = {which: peak_memory(which) for which in PEAKS}
    print("peak memory, 64 points:", {name: f"{peak / 1e9:.2f} GB" for name, peak in peaks.items()})
    nms, slow, fast, same = compare_nms(arguments.nms_masks)
    print(
        f"NMS of {arguments.nms_masks} masks: loop {slow:.2f} s, "
        f"product {1e3 * fast:.1f} ms, same: {same}"
    )
    sam1 = {"sam2_32_over_sam1_8": None, "sam1_32_over_sam2_32": None}
    if arguments.sam1 != "no" and "large" in rows:
        ours = np.array([rows["large"]["full_ours_s"], rows["large"]["full_ours_cpu_s"]])
        at_8, at_32, ratio_8, ratio_32 = compare_sam1(arguments.sam1, image, ours)
        how = "measured" if arguments.sam1 == "full" else "from 2 x 2 and 8 x 8"
        print(
            f"SAM 1 ViT-H: 8 x 8 {at_8[0]:.1f} s, 32 x 32 {at_32[0]:.1f} s ({how}); "
            f"in seconds of CPU {at_8[1]:.1f} and {at_32[1]:.1f}"
        )
        sam1 = {
            "sam2_32_over_sam1_8": float(ratio_8[0]),
            "sam1_32_over_sam2_32": float(ratio_32[0]),
            "sam2_32_over_sam1_8_in_cpu_s": float(ratio_8[1]),
            "sam1_32_over_sam2_32_in_cpu_s": float(ratio_32[1]),
        }
    figures = {
        "cpu_speedup_tiny": rows.get("tiny", {}).get("speedup_at_32"),
        "cpu_speedup_large": rows.get("large", {}).get("speedup_at_32"),
        **{
            f"cpu_speedup_{size}_in_cpu_s": row["speedup_at_32_in_cpu_s"]
            for size, row in rows.items()
        },
        "agreement_iou": min(row["agreement_iou"] for row in rows.values()),
        "count_ratio": min(
            (row["count_ratio"] for row in rows.values()), key=lambda r: -abs(r - 1)
        ),
        "peak_memory_ratio": peaks["ours"] / peaks["official"],
        "peak_memory_ratio_above_model": (peaks["ours"] - peaks["model"])
        / (peaks["official"] - peaks["model"]),
        "nms_speedup": nms,
        **sam1,
        "points_per_side": arguments.points_per_side,
    }
    print(
        json.dumps(
            {name: round(v, 4) if isinstance(v, float) else v for name, v in figures.items()}
        )
    )


if __name__ == "__main__":
    main()
