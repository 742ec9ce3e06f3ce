"""Shared fixtures: the data beside the project, threads, and runtime checks of array shapes."""

import os
from pathlib import Path

import pytest

# The machines that run the tests have few cores; OpenMP pools that outnumber them crawl.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Folder with the photographs and renders that lie beside the project."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the data sets in {SHARED}, which are not here")
    return SHARED
