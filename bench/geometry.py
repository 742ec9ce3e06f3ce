"""Train the colours and geometry of a generated scene, once, and keep them beside the scene.

The recipe is splatfacto's, shortened: start from the scene's points, L1 and SSIM, gsplat's
default densification. The benchmarks judge what is built on top, so all of them share one result.
"""

import hashlib
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from scene_data import TruthScene
from scipy.spatial import KDTree

from hiersplat.gaussians.rasterization import rasterization
from hiersplat.gaussians.splats import Splats

_VERSION = 1
"""Changes whenever the same settings would train other splats."""
_SH_C0 = 0.28209479177387814
_RATES = {
    "means": 1.6e-4,
    "scales": 5e-3,
    "quats": 1e-3,
    "opacities": 5e-2,
    "sh0": 2.5e-3,
    "shN": 2.5e-3 / 20,
}


@dataclass(frozen=True)
class GeometryConfig:
    """How long and how finely to train."""

    steps: int = 4000
    sh_degree: int = 1
    seed: int = 0


def trained_splats(scene: TruthScene, config: GeometryConfig | None = None) -> Splats:
    """Return the scene's trained splats, from its ``.hiersplat`` folder if they are there."""
    config = config or GeometryConfig()
    pixels = b"".join(view.image.tobytes() for view in scene.train)
    key = hashlib.sha256(f"{_VERSION} {config!r}".encode() + pixels).hexdigest()[:16]
    path = scene.folder / ".hiersplat" / f"geometry-{key}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            splats = Splats(**{name: torch.from_numpy(stored[name]) for name in stored.files})
    else:
        splats = train(scene, config)
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **{name: value.numpy() for name, value in vars(splats).items()})
    return without_sky(splats, scene)


def without_sky(splats: Splats, scene: TruthScene) -> Splats:
    """Leave out Gaussians outside the scene: beyond the box of its points, or close to a camera.

    They only paint the sky of the training views, and right before a held-out camera they hide
    the scene. Close is nearer than 0.7 times the distance of any point to any training camera.
    """
    points = torch.from_numpy(_points(scene)[0])
    low, high = points.min(dim=0).values, points.max(dim=0).values
    slack = 0.05 * (high - low).max()
    kept = ((splats.means >= low - slack) & (splats.means <= high + slack)).all(dim=1)
    eyes = torch.stack([torch.linalg.inv(view.camera.viewmat)[:3, 3] for view in scene.train])
    kept &= torch.cdist(splats.means, eyes).amin(dim=1) > 0.7 * torch.cdist(points, eyes).min()
    return Splats(**{name: value[kept] for name, value in vars(splats).items()})


def train(scene: TruthScene, config: GeometryConfig) -> Splats:
    """Train splats on the training views."""
    from gsplat.strategy import DefaultStrategy

    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    params, extent = _initial(scene, config)
    optimizers = {
        name: torch.optim.Adam(
            [params[name]], lr=rate * (extent if name == "means" else 1.0), eps=1e-15
        )
        for name, rate in _RATES.items()
    }
    every = max(50, config.steps // 20)
    strategy = DefaultStrategy(
        refine_start_iter=every,
        refine_stop_iter=int(0.7 * config.steps),
        refine_every=every,
        reset_every=10 * config.steps,
        grow_grad2d=4e-4,
        verbose=False,
    )
    state = strategy.initialize_state(scene_scale=extent)
    images = [torch.from_numpy(view.image.copy()).float() / 255 for view in scene.train]
    decay = 0.01 ** (1 / config.steps)
    started = time.perf_counter()
    for step in range(config.steps):
        index = int(rng.integers(len(images)))
        camera, image = scene.train[index].camera, images[index]
        rendered, _, info = rasterization(
            params["means"],
            params["quats"],
            params["scales"].exp(),
            params["opacities"].sigmoid(),
            torch.cat([params["sh0"], params["shN"]], dim=1),
            camera.viewmat[None],
            camera.K[None],
            camera.width,
            camera.height,
            sh_degree=config.sh_degree,
            packed=False,
        )
        strategy.step_pre_backward(params, optimizers, state, step, info)
        loss = 0.8 * (rendered[0] - image).abs().mean() + 0.2 * (1 - _ssim(rendered[0], image))
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        optimizers["means"].param_groups[0]["lr"] *= decay
        strategy.step_post_backward(params, optimizers, state, step, info, packed=False)
        if step % 200 == 0 or step == config.steps - 1:
            print(
                f"{scene.name}: step {step}, loss {loss.item():.4f}, "
                f"{len(params['means'])} Gaussians, {time.perf_counter() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    values = {name: value.detach() for name, value in params.items()}
    return Splats(
        values["means"],
        values["quats"],
        values["scales"],
        values["opacities"],
        torch.cat([values["sh0"], values["shN"]], dim=1).contiguous(),
    )


def psnr(scene: TruthScene, splats: Splats) -> float:
    """Mean peak signal-to-noise ratio over the held-out views."""
    ratios = []
    for view in scene.held_out:
        with torch.no_grad():
            rendered, _, _ = rasterization(
                splats.means,
                splats.quats,
                splats.scales,
                splats.opacities,
                splats.sh,
                view.camera.viewmat[None],
                view.camera.K[None],
                view.camera.width,
                view.camera.height,
                sh_degree=splats.sh_degree,
            )
        truth = torch.from_numpy(view.image.copy()).float() / 255
        ratios.append(-10 * float((rendered[0].clamp(0, 1) - truth).square().mean().log10()))
    return float(np.mean(ratios))


def _points(scene: TruthScene) -> tuple[np.ndarray, np.ndarray]:
    """Positions and colours in [0, 1] of the points that came with the scene."""
    from plyfile import PlyData

    points = PlyData.read(str(scene.folder / "points.ply"))["vertex"]
    means = np.stack([points[axis] for axis in "xyz"], axis=1).astype(np.float32)
    colours = np.stack([points[name] for name in ("red", "green", "blue")], axis=1) / 255.0
    return means, colours


def _initial(scene: TruthScene, config: GeometryConfig) -> tuple[dict, float]:
    means, colours = _points(scene)
    distances = np.asarray(KDTree(means).query(means, k=4)[0])[:, 1:].mean(axis=1)
    count, bases = len(means), (config.sh_degree + 1) ** 2
    eyes = np.stack([np.linalg.inv(view.camera.viewmat.numpy())[:3, 3] for view in scene.train])
    extent = float(np.linalg.norm(eyes - eyes.mean(axis=0), axis=1).max())
    start = {
        "means": torch.from_numpy(means),
        "scales": torch.from_numpy(np.log(distances.clip(1e-4))).float()[:, None].repeat(1, 3),
        "quats": torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        "opacities": torch.full((count,), float(np.log(0.1 / 0.9))),
        "sh0": torch.from_numpy((colours - 0.5) / _SH_C0).float()[:, None],
        "shN": torch.zeros(count, bases - 1, 3),
    }
    return {name: torch.nn.Parameter(value.contiguous()) for name, value in start.items()}, extent


def _ssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Structural similarity over 11 x 11 windows, by two passes of a 1D Gaussian."""
    taps = torch.exp(-0.5 * (torch.arange(11) - 5.0).square() / 1.5**2)
    taps = (taps / taps.sum()).repeat(15, 1, 1)
    x, y = first.permute(2, 0, 1), second.permute(2, 0, 1)
    stack = torch.cat([x, y, x * x, y * y, x * y])[None]
    stack = torch.nn.functional.conv2d(stack, taps[..., None], groups=15)
    stack = torch.nn.functional.conv2d(stack, taps[:, :, None], groups=15)
    mx, my, xx, yy, xy = stack[0].chunk(5)
    numerator = (2 * mx * my + 0.01**2) * (2 * (xy - mx * my) + 0.03**2)
    denominator = (mx**2 + my**2 + 0.01**2) * (xx - mx**2 + yy - my**2 + 0.03**2)
    return (numerator / denominator).mean()
