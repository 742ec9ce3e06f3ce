"""Where weights are looked for, and what is said when they are absent or bad."""

import json
import os
import shutil
import stat

import numpy as np
import pytest

from hiersplat.semantics.clipseg import ClipSegEncoder
from hiersplat.semantics.config import FeaturesConfig
from hiersplat.semantics.weights import features_cache_settings, find_weights, read_card


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "copy")


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_saved_and_loaded_by_folder_a_model_gives_the_same_embeddings(tiny_encoder, tmp_path):
    tiny_encoder.model.save_pretrained(tmp_path / "again")
    tiny_encoder.processor.save_pretrained(tmp_path / "again")
    again = ClipSegEncoder(FeaturesConfig(checkpoint=str(tmp_path / "again")))
    texts = ["red mug", "knob"]
    np.testing.assert_array_equal(again.text_embeddings(texts), tiny_encoder.text_embeddings(texts))


def test_a_name_is_looked_for_below_checkpoints(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.move(folder, tmp_path / "checkpoints" / "my-clipseg")
    assert find_weights("my-clipseg").name == "my-clipseg"
    assert find_weights("somebody/my-clipseg").name == "my-clipseg"


def test_a_snapshot_in_the_hugging_face_cache_is_used(folder, tmp_path):
    repository = tmp_path / "hub" / "models--somebody--clipseg"
    shutil.copytree(folder, repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    assert find_weights("somebody/clipseg") == repository / "snapshots" / "0123"


def test_absent_weights_say_what_to_fetch_from_where_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        ClipSegEncoder(FeaturesConfig(), "cpu")
    message = str(caught.value)
    for part in (
        "model.safetensors",
        "checkpoints/clipseg-rd64-refined",
        "hf download CIDAS/clipseg-rd64-refined",
        "https://huggingface.co/CIDAS/clipseg-rd64-refined",
        "features: none",
    ):
        assert part in message
    assert "\n" not in message


def test_an_absent_folder_is_not_taken_for_a_repository(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_weights(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_weights("nothing-here")


def test_a_name_that_is_empty_is_refused():
    with pytest.raises(ValueError, match="no name"):
        find_weights(" ")


def test_a_recipe_without_weights_says_how_to_train_them(folder):
    (folder / "model.safetensors").unlink()
    (folder / "train.py").touch()
    with pytest.raises(ValueError, match=r"train them: python .*train.py --out"):
        find_weights(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder_names_what_is_missing(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} missing"):
        find_weights(str(folder))


def test_a_pickle_in_place_of_safetensors_is_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickle and is never read"):
        find_weights(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_spoiled_file_gets_one_line_that_names_the_folder(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=str(folder)) as caught:
        ClipSegEncoder(FeaturesConfig(checkpoint=str(folder)))
    assert "\n" not in str(caught.value)


def test_weights_that_lack_a_layer_are_not_filled_with_random_numbers(folder):
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["decoder.film_mul.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing.*film_mul"):
        ClipSegEncoder(FeaturesConfig(checkpoint=str(folder)))


def test_cache_settings_follow_the_weights_and_leave_out_the_batch_size(folder):
    config = FeaturesConfig(checkpoint=str(folder))
    before = features_cache_settings(config)
    assert before == features_cache_settings(FeaturesConfig(checkpoint=str(folder), batch_size=1))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"conditional_layer": 1}))
    assert features_cache_settings(config) != before
    assert features_cache_settings(config) != features_cache_settings(
        FeaturesConfig(checkpoint=str(folder), crop_context=0.5)
    )


def test_settings_without_features_need_no_weights():
    assert "weights" not in features_cache_settings(FeaturesConfig(features="none"))


def test_a_card_restricts_the_words_and_gives_every_output_its_note(folder):
    card = {"note": "knows only generated scenes", "words": ["mug", "red"]}
    (folder / "hiersplat.json").write_text(json.dumps(card))
    encoder = ClipSegEncoder(FeaturesConfig(checkpoint=str(folder)))
    assert encoder.note == "knows only generated scenes"
    encoder.text_embeddings(["red mug"])
    with pytest.raises(ValueError, match="does not know 'blue'"):
        encoder.text_embeddings(["blue mug"])


def test_a_spoiled_card_is_named(folder):
    (folder / "hiersplat.json").write_text("{")
    with pytest.raises(ValueError, match="hiersplat.json"):
        read_card(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_folder_that_may_not_be_read_is_named(folder):
    (folder / "model.safetensors").chmod(0)
    with pytest.raises((ValueError, OSError), match="model.safetensors"):
        ClipSegEncoder(FeaturesConfig(checkpoint=str(folder)))
    (folder / "model.safetensors").chmod(stat.S_IRUSR | stat.S_IWUSR)
