"""A random CLIPSeg of tiny size, loaded the way a real one is, and a small view with masks."""

from pathlib import Path

import numpy as np
import pytest

from hiersplat.semantics.clipseg import ClipSegEncoder
from hiersplat.semantics.config import FeaturesConfig
from hiersplat.semantics.micro_model import write_random_clipseg

WORDS = ["a", "the", "red", "green", "blue", "mug", "handle", "brass", "knob", "drawer"]
WORDS += ["object", "things", "stuff", "texture"]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_clipseg(tmp_path_factory.mktemp("weights") / "tiny-clipseg", WORDS)


@pytest.fixture(scope="session")
def tiny_encoder(tiny_folder: Path) -> ClipSegEncoder:
    return ClipSegEncoder(FeaturesConfig(checkpoint=str(tiny_folder), batch_size=4), "cpu")


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    """Masks 0, 1, 2 and 4 of different sizes; mask 3 has no pixels."""
    labels = np.full((40, 56), -1, np.int32)
    labels[2:12, 3:30] = 0
    labels[15:39, 20:25] = 1
    labels[20, 50] = 2
    labels[30:40, 30:56] = 4
    return labels
