"""Measure the CPU's rasterizer: milliseconds, speed-up over the slow twin, share of the limit.

Run as ``make bench-raster``. Scenes are random Gaussians in front of a 256 x 256 camera; their size
is the same however many there are; gsplat would list about 3.6 tiles for each, the load that the
first prototype was measured with (64 ms forward, 88 ms backward for 10,000 on 2 cores).

A *pair* is one pixel and one Gaussian whose alpha the kernels compute (whole blocks of 4 x 4
pixels; pairs that turn out empty count, since they cost the same). The *limit* is a bare compiled
loop of exactly the arithmetic that one block needs, forward or backward, on numbers that never
leave the first cache: no lists, no stop, no image, no sums per Gaussian.

``share_of_limit`` is the speed of the kernels that evaluate pairs, both directions together, as a
share of that loop's; ``share_of_limit_whole_call`` counts everything between Gaussians and pixels
and back as if it were pairs: projection, harmonics, sorting, lists, autograd. Both compare seconds
of CPU over all threads, which other programs on the machine disturb least. ``pairs_per_second`` and
milliseconds are wall time of whole calls. Rounds take turns with the loop; the best ones count.
"""

import json
import os
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from rich.console import Console
from rich.table import Table

from hiersplat.gaussians import cpu_blending
from hiersplat.gaussians.lanes import (
    any_lane,
    choose,
    exp2,
    fused,
    lane_column,
    lane_row,
    load,
    magnitude,
    smaller,
    spread,
    store,
)
from hiersplat.gaussians.rasterization import rasterization
from hiersplat.gaussians.reference import rasterization_
from hiersplat.gaussians.workers import num_workers, side_by_side

SIZE = 256
ROUNDS = 15
_ALPHA_MIN, _ALPHA_MAX, _STOP = np.float32(1 / 255), np.float32(0.999), np.float32(1e-4)
_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_RESIDENT = 16
"""Blocks and Gaussians that the limit keeps in the first cache."""


def make_scene(count: int, channels: int) -> list[torch.Tensor]:
    """Random Gaussians that fill the view; three channels are harmonics of degree 3."""
    random = torch.Generator().manual_seed(0)
    focal = 1.2 * SIZE
    depth = 2 + 4 * torch.rand(count, generator=random)
    xy = (torch.rand(count, 2, generator=random) - 0.5) * SIZE / focal * depth[:, None]
    pixels = 1.7
    scales = torch.exp(0.4 * torch.randn(count, 3, generator=random))
    colors = (
        torch.randn(count, 16, 3, generator=random) * 0.2
        if channels == 3
        else torch.rand(count, channels, generator=random)
    )
    parts = [
        torch.cat([xy, depth[:, None]], dim=1),
        torch.randn(count, 4, generator=random),
        scales * (pixels * depth / focal)[:, None],
        torch.rand(count, generator=random),
        colors,
    ]
    return [part.requires_grad_() for part in parts]


def render(parts: list[torch.Tensor], engine: Callable = rasterization, **options: object):
    """Render a scene with the bench's one camera."""
    focal = 1.2 * SIZE
    K = torch.tensor([[[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1.0]]])
    degree = 3 if parts[4].ndim == 3 else None
    return engine(*parts, torch.eye(4)[None], K, SIZE, SIZE, sh_degree=degree, **options)


@njit(nogil=True, cache=True, error_model="numpy")
def bare_forward(num_blocks, channels, records, colors, scratch):
    """Do the arithmetic of blending blocks forward, and nothing else."""
    stride = (2 + channels) * 16
    for i in range(num_blocks):
        at = (i % _RESIDENT) * 8
        o = ((i // _RESIDENT) % _RESIDENT) * stride
        dx = records[at] - lane_column()
        dy = records[at + 1] - lane_row()
        power = fused(
            dx, fused(records[at + 2], dx, records[at + 3] * dy), records[at + 4] * dy * dy
        )
        alpha = smaller(records[at + 5] * exp2(power), _ALPHA_MAX)
        light = load(scratch, o)
        weight = light * alpha
        after = light - weight
        blended = (alpha >= _ALPHA_MIN) & (after > _STOP)
        stopped = (alpha >= _ALPHA_MIN) & (after <= _STOP)
        weight = choose(blended, weight, _ZERO)
        light = choose(stopped, _ZERO - magnitude(light), light - weight)
        store(scratch, o, light)
        store(scratch, o + 16, choose(blended, np.float32(i), load(scratch, o + 16)))
        for channel in range(channels):
            p = o + 32 + channel * 16
            color = colors[(i % _RESIDENT) * channels + channel]
            store(scratch, p, fused(weight, color, load(scratch, p)))


@njit(nogil=True, cache=True, error_model="numpy")
def bare_backward(num_blocks, channels, records, colors, scratch, out):
    """Do the arithmetic of blending blocks backward, and nothing else."""
    stride = (3 + channels) * 16
    sums = _RESIDENT * stride
    m0 = mx = my = mxx = mxy = myy = spread(_ZERO)
    for i in range(num_blocks):
        at = (i % _RESIDENT) * 8
        o = ((i // _RESIDENT) % _RESIDENT) * stride
        dx = records[at] - lane_column()
        dy = records[at + 1] - lane_row()
        power = fused(
            dx, fused(records[at + 2], dx, records[at + 3] * dy), records[at + 4] * dy * dy
        )
        free = records[at + 5] * exp2(power)
        alpha = smaller(free, _ALPHA_MAX)
        blended = (alpha >= _ALPHA_MIN) & (load(scratch, o + 16) >= np.float32(i))
        alpha = choose(blended, alpha, _ZERO)
        inverse = _ONE / (_ONE - alpha)
        light = load(scratch, o) * inverse
        store(scratch, o, light)
        weight = alpha * light
        shade = spread(_ZERO)
        for channel in range(channels):
            grad = load(scratch, o + 48 + channel * 16)
            shade = fused(grad, colors[(i % _RESIDENT) * channels + channel], shade)
            p = sums + channel * 16
            store(scratch, p, fused(weight, grad, load(scratch, p)))
        behind = load(scratch, o + 32)
        grad_alpha = shade * light - behind * inverse
        store(scratch, o + 32, fused(weight, shade, behind))
        m = choose(free <= _ALPHA_MAX, alpha * grad_alpha, _ZERO)
        m0 = m0 + m
        tx = m * dx
        ty = m * dy
        mx = mx + tx
        my = my + ty
        mxx = fused(tx, dx, mxx)
        mxy = fused(tx, dy, mxy)
        myy = fused(ty, dy, myy)
    store(out, 0, m0 + mx + my + mxx + mxy + myy)
    return any_lane(m0 > _ZERO)


def limit_calls(pairs: int, channels: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return calls that do the bare arithmetic for so many pairs, shared by all workers."""
    random = np.random.default_rng(0)
    records = random.random(_RESIDENT * 8, dtype=np.float32)
    records[2::8] *= -0.1
    records[3::8] *= 0.01
    records[4::8] *= -0.1
    records[5::8] = 0.05
    colors = random.random(_RESIDENT * channels, dtype=np.float32)
    shares = num_workers()
    blocks = pairs // 16 // shares

    def forward() -> None:
        def work() -> None:
            bare_forward(
                blocks, channels, records, colors,
                np.ones(_RESIDENT * (2 + channels) * 16, np.float32),
            )  # fmt: skip

        side_by_side(work)

    def backward() -> None:
        def work() -> None:
            # Last places of 0 keep transmittance where it is; the arithmetic is the same.
            scratch = np.zeros((_RESIDENT * (3 + channels) + channels) * 16, np.float32)
            bare_backward(blocks, channels, records, colors, scratch, np.empty(16, np.float32))

        side_by_side(work)

    return forward, backward


def clocks() -> np.ndarray:
    """Wall clock and CPU clock of the whole process, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


class Blending:
    """CPU time spent in the blending kernels, told apart by wrapping their launcher."""

    def __enter__(self) -> "Blending":
        """Start to listen."""
        self.spent: dict[str, list[float]] = {"blend_forward": [], "blend_backward": []}
        self.launch = cpu_blending.side_by_side

        def launch(kernel: Callable, *arguments: object) -> list:
            start = clocks()
            result = self.launch(kernel, *arguments)
            self.spent[kernel.__name__].append((clocks() - start)[1])
            return result

        cpu_blending.side_by_side = launch
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        cpu_blending.side_by_side = self.launch


def measure(count: int, channels: int) -> dict[str, float]:
    """Measure one scene; forward, backward and limit take turns."""
    parts = make_scene(count, channels)
    image, _, info = render(parts, packed=False)
    pairs = image.grad_fn.pairs
    pull = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    bare_forward_call, bare_backward_call = limit_calls(pairs, channels)
    image.backward(pull)
    bare_forward_call()
    bare_backward_call()
    rows = []
    with Blending() as kernels:
        for _ in range(ROUNDS):
            for part in parts:
                part.grad = None
            times = [clocks()]
            image, _, _ = render(parts, packed=False)
            times.append(clocks())
            image.backward(pull)
            times.append(clocks())
            bare_forward_call()
            times.append(clocks())
            bare_backward_call()
            times.append(clocks())
            rows.append(np.diff(times, axis=0))
    wall, processor = np.moveaxis(np.array(rows), -1, 0)
    forward, backward = wall.min(0)[:2]
    busy = processor.min(0)
    blend = sum(min(spent) for spent in kernels.spent.values())
    return {
        "gaussians": count,
        "channels": channels,
        "intersections": int(info["tiles_per_gauss"].sum()),
        "pairs": pairs,
        "forward": 1e3 * forward,
        "backward": 1e3 * backward,
        "share": (busy[2] + busy[3]) / (busy[0] + busy[1]),
        "share_blending": (busy[2] + busy[3]) / blend,
        "limit": 1e3 * float(busy[2] + busy[3]),
        "pairs_per_second": 2 * pairs / (forward + backward),
    }


def twin_milliseconds(count: int) -> float:
    """Time the slow twin, forward and backward, on a band of rows, and scale to the image."""
    parts = [part.detach().clone().requires_grad_() for part in make_scene(count, 3)]
    rows = 8
    focal = 1.2 * SIZE
    K = torch.tensor([[[focal, 0, SIZE / 2], [0, focal, rows / 2], [0, 0, 1.0]]])

    def run() -> None:
        image, _, _ = rasterization_(
            *parts, torch.eye(4)[None], K, SIZE, rows, sh_degree=3, rows_at_once=rows
        )
        image.sum().backward()

    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start) * SIZE / rows


def main() -> None:
    """Print a table and, as the last line, one JSON object."""
    console = Console()
    start = time.perf_counter()
    render(make_scene(100, 3), packed=False)[0].sum().backward()
    first = time.perf_counter() - start
    table = Table(
        box=None, title=f"{SIZE} x {SIZE}, {num_workers()} threads, {platform.processor() or 'CPU'}"
    )
    for name in ("Gaussians", "chan.", "tiles", "Mpairs", "fwd ms", "bwd ms", "Mpairs/s", "share",
                 "whole"):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    results = {}
    for count in (5_000, 10_000, 20_000, 100_000):
        for channels in (3, 16):
            r = results[count, channels] = measure(count, channels)
            table.add_row(
                f"{count:,}", str(channels), f"{r['intersections']:,}", f"{r['pairs'] / 1e6:.2f}",
                f"{r['forward']:.1f}", f"{r['backward']:.1f}",
                f"{r['pairs_per_second'] / 1e6:.0f}", f"{r['share_blending']:.2f}",
                f"{r['share']:.2f}",
            )  # fmt: skip
    console.print(table)
    console.print(
        "share: of the limit, kernels that evaluate pairs; whole: of the limit, whole calls."
    )
    if os.getloadavg()[0] > 1.5 * num_workers():
        console.print(
            f"The machine is busy (load {os.getloadavg()[0]:.0f}): milliseconds are too high."
        )
    key = results[20_000, 3]
    twin = twin_milliseconds(20_000)
    ours = key["forward"] + key["backward"]
    console.print(
        f"First call {first:.1f} s (compiles where nothing is cached). The slow twin would need "
        f"{twin / 1e3:.0f} s for 20,000 Gaussians, measured on {8} rows. The prototype needed "
        f"64 ms forward and 88 ms backward for 10,000; this is "
        f"{64 / results[10_000, 3]['forward']:.0f} and {88 / results[10_000, 3]['backward']:.0f} "
        "times as fast, if the machine is the same."
    )
    print(
        json.dumps(
            {
                "ms_forward_20k": round(key["forward"], 2),
                "ms_backward_20k": round(key["backward"], 2),
                "speedup_over_twin_20k": round(twin / ours, 1),
                "pairs_per_second": round(key["pairs_per_second"]),
                "share_of_limit": round(key["share_blending"], 3),
                "share_of_limit_whole_call": round(key["share"], 3),
                "ms_forward_10k": round(results[10_000, 3]["forward"], 2),
                "ms_backward_10k": round(results[10_000, 3]["backward"], 2),
                "first_call_seconds": round(first, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
