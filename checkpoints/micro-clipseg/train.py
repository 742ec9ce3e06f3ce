"""Train the micro CLIPSeg from nothing: render scenes, cut crops, train, measure, write.

Run from the project's folder, on one core for about an hour and a half:

    python checkpoints/micro-clipseg/train.py --out checkpoints/micro-clipseg

Everything follows from the seeds; scenes are rendered once and kept in ``--pool-folder``.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tyro
from rich.progress import track

from hiersplat.cache import encode_arrays, read_arrays, write_atomically
from hiersplat.levels import Level
from hiersplat.scene.build import build_scene
from hiersplat.scene.cameras import scene_cameras
from hiersplat.scene.colours import COLOURS
from hiersplat.scene.dataset import describe_names
from hiersplat.scene.random_scene import random_scene
from hiersplat.scene.render import SceneRenderer
from hiersplat.scene.spec import ImageSpec, SceneSpec, load_scene
from hiersplat.semantics.captions import GENERIC_WORDS, segments_of
from hiersplat.semantics.micro_data import SceneSample, ViewPool, cut_crops
from hiersplat.semantics.micro_model import MICRO_SIZES, new_clipseg, save_clipseg, train_tokenizer
from hiersplat.semantics.micro_training import MicroTrainer, MicroTrainingConfig
from scenes import colour_word, mixed_scene

SCENES = ("tabletop", "desk", "kitchen", "toys")
NOTE = "micro-clipseg knows only the project's generated scenes, not photographs"
_SIZE = 224
_SCENES = Path(__file__).resolve().parent.parent.parent / "scenes"
_DEFAULTS = MicroTrainingConfig()


def render_scene(spec: SceneSpec) -> dict[str, np.ndarray]:
    """Render all views of a scene as arrays, its names as JSON among them."""
    built = build_scene(spec)
    renderer = SceneRenderer(built)
    views = [renderer.render(camera) for camera in scene_cameras(spec)]
    names = json.dumps(describe_names(built)).encode()
    return {
        "images": np.stack([view.image for view in views]),
        "labels": np.stack([view.labels for view in views]).astype(np.int16),
        "names": np.frombuffer(names, np.uint8),
    }


def sample_from(arrays: dict[str, np.ndarray]) -> SceneSample:
    """Give the segments of a rendered scene their nouns, colours and materials."""
    names = json.loads(arrays["names"].tobytes())
    labels = arrays["labels"].astype(np.int32)
    small = labels[:, Level.SMALL]
    areas = np.bincount(small[small >= 0], minlength=len(names[Level.SMALL.title]))
    segments = segments_of(names, COLOURS, colour_word, areas)
    return SceneSample(arrays["images"], labels, tuple(segments))


def pool(folder: Path, mixed: range, drawn: range, views: int) -> Iterator[SceneSample]:
    """Yield scenes by their seeds, rendering what the folder does not hold yet.

    Args:
        folder: Where rendered scenes are kept.
        mixed: Seeds of scenes mixed from the declared ones.
        drawn: Seeds of scenes drawn from families of things.
        views: Views of each.
    """
    specs = [load_scene(_SCENES / f"{name}.yaml") for name in SCENES]
    image = ImageSpec(width=_SIZE, height=_SIZE, field_of_view=42)
    makers = {
        "mixed": lambda seed: mixed_scene(specs, seed, views, _SIZE),
        "drawn": lambda seed: random_scene(seed, views=views, held_out=0, image=image),
    }
    chosen = [("mixed", seed) for seed in mixed] + [("drawn", seed) for seed in drawn]
    for kind, seed in track(chosen, description="scenes"):
        path = folder / f"{kind}-{seed:06d}.npz"
        if not path.is_file():
            write_atomically(path, encode_arrays(render_scene(makers[kind](seed))))
        yield sample_from(read_arrays(path))


def words_of(specs: Iterable[SceneSpec]) -> set[str]:
    """Return every word that scenes name things, materials and colours by."""
    words = {"a", "the", *GENERIC_WORDS, *COLOURS}
    for spec in specs:
        names = [spec.ground.name]
        for thing in spec.objects:
            names.append(thing.name)
            for part in thing.parts:
                names += [part.name, *(detail.name for detail in part.details)]
        names += [material.substance or name for name, material in spec.materials.items()]
        words.update(word for name in names for word in name.split())
    return words


def main(
    out: Path,
    pool_folder: Path = Path("outputs/micro-clipseg-pool"),
    mixed: int = 120,
    drawn: int = 300,
    views: int = 4,
    config: MicroTrainingConfig = _DEFAULTS,
) -> None:
    """Train the micro model and write its folder.

    Args:
        out: Folder to write: weights, tokenizer, settings, hiersplat.json.
        pool_folder: Where rendered scenes are kept.
        mixed: Training scenes mixed from the declared ones.
        drawn: Training scenes drawn from families of things.
        views: Views of each.
        config: Training settings.
    """
    import torch

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    samples = list(pool(pool_folder, range(mixed), range(drawn), views))
    declared = [load_scene(_SCENES / f"{name}.yaml") for name in SCENES]
    words = words_of([*declared, *(random_scene(seed) for seed in range(300))])
    crops = cut_crops(samples, MICRO_SIZES["image_size"], np.random.default_rng(config.seed))
    view_pool = ViewPool(samples, MICRO_SIZES["view_size"])
    logging.info(
        "%d crops, %d views, %d words", len(crops.segments), len(view_pool.images), len(words)
    )
    tokenizer = train_tokenizer(words)
    trainer = MicroTrainer(new_clipseg(tokenizer), tokenizer, crops, view_pool, config)

    def write(step: int) -> None:
        data = {"mixed": mixed, "drawn": drawn, "views": views, "crops": len(crops.segments)}
        trained = {**asdict(config), "steps": step}
        card = {"note": NOTE, "words": sorted(words), "data": data, "training": trained}
        save_clipseg(out, trainer.mean, tokenizer, MICRO_SIZES["view_size"], card)

    history = trainer.run(on_log=lambda step: write(step) if step % 200 == 0 else None)
    write(int(history[-1]["step"]) if history else 0)
    write_atomically(out / "history.json", json.dumps(history, indent=1).encode())


if __name__ == "__main__":
    tyro.cli(main)
