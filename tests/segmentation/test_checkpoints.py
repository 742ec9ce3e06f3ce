"""Where weights come from, and what is said about files that are none."""

import os
import zipfile

import numpy as np
import pytest
import torch

from hiersplat.segmentation import Sam2Config, build_sam_generator
from hiersplat.segmentation.checkpoints import (
    all_checkpoints,
    checkpoint_info,
    find_checkpoint,
    read_checkpoint,
    resolve_checkpoint,
)
from hiersplat.segmentation.proposals import View
from hiersplat.segmentation.sam2 import Sam2Segmenter
from hiersplat.segmentation.sam2_model import build_model, load_model, random_model, save_checkpoint

TINY = checkpoint_info("tiny")


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A machine without weights and without a network."""
    monkeypatch.delenv("HIERSPLAT_CHECKPOINTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / TINY.file_name
    assert save_checkpoint(random_model("tiny", seed=7), path) == TINY
    return path


def test_names_are_those_of_the_official_release():
    from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES

    ours = {info.repository: (info.config_name, info.file_name) for info in all_checkpoints()}
    assert ours == HF_MODEL_ID_TO_FILENAMES


def test_unknown_size_and_version_are_refused():
    with pytest.raises(ValueError, match="model_size 'huge' is not one of tiny"):
        checkpoint_info("huge")
    with pytest.raises(ValueError, match="version '1' is not one of 2.1"):
        checkpoint_info("tiny", "1")


def test_missing_weights_name_file_folder_command_and_address(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        build_sam_generator("large")
    message = str(caught.value)
    assert "sam2.1_hiera_large.pt" in message
    assert str(tmp_path / "checkpoints") in message
    assert "hiersplat-checkpoints fetch large" in message
    assert "https://huggingface.co/facebook/sam2.1-hiera-large/resolve/main/" in message
    assert "\n" not in message


def test_a_failing_download_says_why(monkeypatch):
    def refuse(*_):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(FileNotFoundError, match="no route to host.*put it into"):
        resolve_checkpoint(TINY)


def test_the_folder_comes_before_the_cache(tmp_path, monkeypatch):
    assert find_checkpoint(TINY) is None
    snapshot = tmp_path / "hub/models--facebook--sam2.1-hiera-tiny/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("abc")
    (snapshot / TINY.file_name).write_bytes(b"x")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repository, name: str(snapshot / name),
    )
    assert find_checkpoint(TINY) == snapshot / TINY.file_name
    local = tmp_path / "checkpoints" / TINY.file_name
    local.parent.mkdir()
    local.write_bytes(b"x")
    assert find_checkpoint(TINY) == local
    monkeypatch.setenv("HIERSPLAT_CHECKPOINTS", str(tmp_path / "elsewhere"))
    assert find_checkpoint(TINY) == snapshot / TINY.file_name


def test_a_file_chosen_by_hand_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*gone.pt"):
        resolve_checkpoint(TINY, tmp_path / "gone.pt")


@pytest.mark.parametrize("kept", [0, 10, 1_000_000])
def test_truncated_file_is_called_truncated(tiny_file, tmp_path, kept):
    path = tmp_path / "cut.pt"
    with tiny_file.open("rb") as whole:
        path.write_bytes(whole.read(kept))
    with pytest.raises(ValueError, match="cut.pt: truncated"):
        read_checkpoint(path, TINY)


def test_other_size_and_release_are_named(tiny_file):
    with pytest.raises(ValueError, match="holds SAM 2.1 tiny, but SAM 2.1 large"):
        read_checkpoint(tiny_file, checkpoint_info("large"))
    with pytest.raises(ValueError, match="holds SAM 2.1 tiny, but SAM 2 tiny"):
        read_checkpoint(tiny_file, checkpoint_info("tiny", "2"))


class Planted:
    """What must never be made while weights are read."""

    def __reduce__(self):
        return os.mkdir, ("planted",)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        {"weights": {}},
        {"model": {"layer.weight": torch.zeros(2)}},
        {"model": {"a": 1}},
        [torch.zeros(1)],
        {"model": Planted()},
    ],
)
def test_what_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "some.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=r"some.pt: (not a|a Git LFS)"):
        read_checkpoint(path, TINY)
    assert not (tmp_path / "planted").exists()


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "some.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="not a SAM 2 checkpoint"):
        read_checkpoint(path, TINY)


def test_configurations_need_no_state_of_hydra(tmp_path):
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        assert build_model(checkpoint_info("small")).image_size == 1024
        assert build_model(checkpoint_info("tiny", "2")).image_size == 1024
    finally:
        GlobalHydra.instance().hydra = before


def test_weights_arrive_unchanged(tiny_file):
    loaded, made = load_model(TINY, tiny_file, "cpu"), random_model("tiny", seed=7)
    for name, weight in made.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    assert not loaded.training


def test_segmenter_walks_from_a_file_to_proposals(tiny_file):
    config = Sam2Config(
        model_size="tiny",
        points_per_side=2,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        box_nms_thresh=1.0,
        checkpoint=tiny_file,
    )
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    proposals = Sam2Segmenter(config, "cpu").propose(View("a", image))
    assert proposals.levels is None
    assert len(proposals.records) == 12
    assert proposals.records[0]["segmentation"]["size"] == [40, 60]
