"""The CLIPSeg that the project has trained: small, labelled for what it is, and of use."""

import json
from pathlib import Path

import numpy as np
import pytest

from hiersplat.levels import Level
from hiersplat.scene.build import build_scene
from hiersplat.scene.cameras import scene_cameras
from hiersplat.scene.dataset import describe_names
from hiersplat.scene.random_scene import random_scene
from hiersplat.scene.render import SceneRenderer
from hiersplat.semantics.clipseg import ClipSegEncoder
from hiersplat.semantics.config import MICRO_CHECKPOINT, FeaturesConfig
from hiersplat.semantics.query import QueryConfig, relevancy

FOLDER = Path(__file__).parents[2] / "checkpoints" / MICRO_CHECKPOINT
UNSEEN = (100_101, 100_102)
"""Seeds of scenes; training drew from seeds below 100,000."""


@pytest.fixture(scope="module")
def encoder() -> ClipSegEncoder:
    return ClipSegEncoder(FeaturesConfig(checkpoint=MICRO_CHECKPOINT), "cpu")


@pytest.fixture(scope="module", params=UNSEEN)
def view(request) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Image, whole labels and names of one view of an unseen scene."""
    spec = random_scene(request.param, views=1, held_out=0)
    built = build_scene(spec)
    rendered = SceneRenderer(built).render(scene_cameras(spec)[0])
    return rendered.image, rendered.labels[Level.WHOLE], describe_names(built)["whole"]


def test_it_is_small_and_says_what_it_knows(encoder: ClipSegEncoder):
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 10e6
    assert "generated scenes" in encoder.note
    card = json.loads((FOLDER / "hiersplat.json").read_text())
    assert card["training"]["seed"] == 0
    assert {"mug", "red", "brass", "knob"} <= set(card["words"])


def test_it_names_most_things_of_scenes_it_has_never_seen(encoder: ClipSegEncoder, view):
    image, labels, names = view
    shown = [int(key) for key in names if (labels == int(key)).sum() > 200]
    embeddings = encoder.mask_embeddings(image, labels, max(shown) + 1)[shown]
    negatives = encoder.text_embeddings(QueryConfig().negatives)
    texts = encoder.text_embeddings([names[str(key)] for key in shown])
    scores = np.stack([relevancy(embeddings, text, negatives) for text in texts])
    right = scores.argmax(axis=1) == np.arange(len(shown))
    assert len(shown) >= 5
    assert right.mean() >= 0.6


def test_it_finds_pixels_of_things_without_masks(encoder: ClipSegEncoder, view):
    image, labels, names = view
    shown = [int(key) for key in names if (labels == int(key)).sum() > 400]
    maps = encoder.relevancy_maps(image, [names[str(key)] for key in shown])
    inside = [heat[labels == key].mean() for heat, key in zip(maps, shown, strict=True)]
    outside = [heat[labels != key].mean() for heat, key in zip(maps, shown, strict=True)]
    assert np.mean(np.array(inside) > 2 * np.array(outside)) >= 0.6
