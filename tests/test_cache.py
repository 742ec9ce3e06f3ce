import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hiersplat.cache import (
    CacheError,
    ViewCache,
    array_hash,
    encode_arrays,
    read_arrays,
    settings_hash,
    write_atomically,
)


@dataclass
class Settings:
    points: int = 32
    folder: Path | None = None


@pytest.fixture
def cache(tmp_path: Path) -> ViewCache:
    return ViewCache.at(tmp_path, "pyramids", Settings(), version=1)


def test_stored_arrays_come_back(cache: ViewCache):
    stored = {"a": np.arange(6).reshape(2, 3), "b": np.zeros(0, np.float16)}
    cache.store("view", "0123", stored)
    loaded = cache.load("view", "0123")
    assert loaded is not None
    for name, array in stored.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_a_view_that_was_never_stored_is_not_there(cache: ViewCache):
    assert cache.load("view", "0123") is None


def test_other_settings_another_version_or_other_pixels_are_another_file(tmp_path: Path):
    first = ViewCache.at(tmp_path, "pyramids", Settings(), 1).path("view", "0")
    assert ViewCache.at(tmp_path, "pyramids", Settings(points=16), 1).path("view", "0") != first
    assert ViewCache.at(tmp_path, "pyramids", Settings(), 2).path("view", "0") != first
    assert ViewCache.at(tmp_path, "pyramids", Settings(), 1).path("view", "1") != first


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_spoiled_file_is_noticed_and_said(cache: ViewCache, caplog, place: float):
    path = cache.store("view", "0", {"a": np.random.default_rng(0).integers(0, 9, 4000)})
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0xFF
    path.write_bytes(content)
    loaded = cache.load("view", "0")
    # A flipped bit in an unused header field changes nothing; everywhere else it is noticed.
    if loaded is None:
        assert str(path) in caplog.text
    else:
        np.testing.assert_array_equal(loaded["a"], np.random.default_rng(0).integers(0, 9, 4000))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half a zip"])
def test_a_truncated_file_is_made_again(cache: ViewCache, caplog, content: bytes):
    path = cache.store("view", "0", {"a": np.arange(9)})
    path.write_bytes(content)
    assert cache.load("view", "0") is None
    assert "made again" in caplog.text


def test_pickled_objects_are_refused(tmp_path: Path):
    path = tmp_path / "objects.npz"
    np.savez(path, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match="spoiled or not a cache file"):
        read_arrays(path)


def test_a_view_name_cannot_leave_the_folder(cache: ViewCache):
    assert cache.path("../../etc/passwd", "0").parent == cache.folder


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(CacheError, match="cannot be written"):
        write_atomically(blocker / "below.npz", b"x")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "view.npz"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match="No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["view.npz"]


def test_a_kill_at_any_moment_leaves_whole_files_only(tmp_path: Path):
    program = (
        "import sys, numpy as np; from pathlib import Path; from hiersplat.cache import ViewCache\n"
        "cache = ViewCache.at(Path(sys.argv[1]), 'pyramids', {'a': 1}, 1)\n"
        "for i in range(10000): cache.store(f'v{i}', '0', {'a': np.full(20000, i)}); print(i)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 20:
            break
    time.sleep(0.003)
    process.send_signal(signal.SIGKILL)
    process.wait()
    files = sorted(tmp_path.glob("pyramids-*/v*.npz"))
    assert len(files) >= 20
    for file in files:
        assert len(np.unique(read_arrays(file)["a"])) == 1


@given(arrays(np.int32, array_shapes(max_dims=3, max_side=5)))
def test_every_array_has_its_own_hash(array):
    assert array_hash(array) == array_hash(array.copy())
    changed = array.copy()
    changed.flat[0] ^= 1
    assert array_hash(changed) != array_hash(array)
    assert array_hash(array.astype(np.int64)) != array_hash(array)


@given(st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9), max_size=3))
def test_settings_hash_ignores_order_and_sees_every_value(settings):
    backwards = dict(reversed(settings.items()))
    assert settings_hash(settings, 1) == settings_hash(backwards, 1)
    for name in settings:
        assert settings_hash({**settings, name: 99}, 1) != settings_hash(settings, 1)


def test_settings_that_have_no_plain_form_are_refused():
    with pytest.raises(TypeError, match="cannot be part of a cache key"):
        settings_hash({"model": object()}, 1)


def test_encoding_is_stable():
    arrays_ = {"a": np.arange(5), "b": np.ones((2, 2), np.float32)}
    assert encode_arrays(arrays_) == encode_arrays(arrays_)
