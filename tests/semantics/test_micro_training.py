"""The micro model's tokenizer, data and training, at a size that takes seconds."""

import copy

import numpy as np
import pytest
import torch

from hiersplat.levels import Level
from hiersplat.semantics.captions import GENERIC_WORDS, Phrase, Segment, is_held_out, nouns_of
from hiersplat.semantics.clipseg import ClipSegEncoder
from hiersplat.semantics.config import FeaturesConfig
from hiersplat.semantics.micro_data import SceneSample, ViewPool, cut_crops, say
from hiersplat.semantics.micro_model import TINY_SIZES, new_clipseg, save_clipseg, train_tokenizer
from hiersplat.semantics.micro_training import MicroTrainer, MicroTrainingConfig

PAINT = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


def sample(seed, left, right):
    """A ball and a cone side by side, each a whole, a part and a small."""
    rng = np.random.default_rng(seed)
    labels = np.full((1, 3, 32, 32), -1, np.int32)
    labels[:, :, 8:24, 3:14] = 0
    labels[:, :, 10:22, 18:30] = 1
    image = np.full((1, 32, 32, 3), 128, np.uint8)
    for index, colour in enumerate((left, right)):
        image[labels[:, 0] == index] = PAINT[colour]
    image = (image + rng.normal(size=image.shape) * 6).clip(0, 255).astype(np.uint8)
    segments = [
        Segment(level, i, i, f"{c} {n}", nouns_of(n), frozenset({c}), None)
        for level in Level
        for i, (c, n) in enumerate(((left, "ball"), (right, "cone")))
    ]
    return SceneSample(image, labels, tuple(segments))


@pytest.fixture(scope="module")
def samples():
    colours = list(PAINT)
    return [sample(3 * i + j, colours[i], colours[j]) for i in range(3) for j in range(3) if i != j]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a", "the", "ball", "cone", *PAINT, *GENERIC_WORDS])


def make_trainer(samples, tokenizer, **settings):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    return MicroTrainer(
        new_clipseg(tokenizer, TINY_SIZES),
        tokenizer,
        cut_crops(samples, TINY_SIZES["image_size"], rng),
        ViewPool(samples, TINY_SIZES["view_size"]),
        MicroTrainingConfig(crops=12, views=2, scenes=3, learning_rate=3e-3, **settings),
    )


def test_every_word_is_one_token_and_unknown_ones_are_not_the_end(tokenizer):
    for word in ("ball", "texture", "green"):
        tokens = tokenizer(word)["input_ids"]
        assert len(tokens) == 3
        assert tokenizer.unk_token_id not in tokens
    unknown = tokenizer("дом ball")["input_ids"]
    assert tokenizer.unk_token_id in unknown
    assert unknown.count(tokenizer.eos_token_id) == 1


def test_nothing_of_a_held_out_whole_is_trained_on(samples):
    crops = cut_crops(samples, 16, np.random.default_rng(0))
    kept = cut_crops(samples, 16, np.random.default_rng(0), held_out=True)
    held = {s.name for each in samples for s in each.segments if is_held_out(s)}
    assert held, "the hash must hold out one of the combinations, or this tests nothing"
    assert {s.name for s in crops.segments} & held == set()
    assert {s.name for s in kept.segments} == held
    views = ViewPool(samples, 32)
    for index, each in enumerate(samples):
        if any(is_held_out(s) for s in each.segments):
            assert not views.usable[index].all()
        else:
            assert views.usable[index].all()


def test_targets_are_the_pixels_the_text_means(samples):
    views = ViewPool(samples, 32)
    rng = np.random.default_rng(0)
    phrases = [Phrase("ball", "red"), Phrase("cone", "blue")]
    for view in range(len(samples)):
        for text, mask in views.targets(view, 8, phrases, rng):
            assert mask.shape == (16, 16)
            named = {s.name for s in views.segments[view]} | {"ball", "cone"}
            bare = text.removeprefix("the ").removeprefix("a ")
            assert mask.any() == (bare in named), (text, named)


def test_a_text_is_said_with_and_without_an_article():
    rng = np.random.default_rng(0)
    said = {say(Phrase("ball", "red"), rng) for _ in range(30)}
    assert said == {"red ball", "the red ball", "a red ball"}


def test_all_weights_get_gradients(samples, tokenizer):
    trainer = make_trainer(samples, tokenizer)
    torch.stack(list(trainer.step().values())).sum().backward()
    without = [name for name, weight in trainer.model.named_parameters() if weight.grad is None]
    # The class token's place after the last layer that the decoder reads is the only loss of use.
    assert all("post_layernorm" not in name for name in without)
    assert len(without) == 0


def test_training_lowers_its_losses(samples, tokenizer):
    trainer = make_trainer(samples, tokenizer, steps=60)
    before = copy.deepcopy(trainer.mean.state_dict())
    history = trainer.run(log_every=10)
    assert [row["step"] for row in history] == [10, 20, 30, 40, 50, 60]
    for name in ("relevancy", "contrast", "pixels"):
        assert history[-1][name] < history[0][name]
    assert any(
        not torch.equal(before[name], weight) for name, weight in trainer.mean.state_dict().items()
    )


def test_training_ends_when_its_time_is_spent(samples, tokenizer):
    assert make_trainer(samples, tokenizer, steps=60, wall_seconds=0).run(log_every=1) == []


def test_a_trained_model_is_saved_with_its_card_and_loaded(samples, tokenizer, tmp_path):
    trainer = make_trainer(samples, tokenizer)
    card = {"note": "knows balls and cones only", "words": ["red", "ball"]}
    save_clipseg(tmp_path / "m", trainer.mean, tokenizer, TINY_SIZES["view_size"], card)
    encoder = ClipSegEncoder(FeaturesConfig(checkpoint=str(tmp_path / "m")))
    assert encoder.note == card["note"]
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(
            trainer.mean.eval()
            .clip.get_text_features(**tokenizer(["red ball"], return_tensors="pt"))
            .pooler_output,
            dim=-1,
        )
    np.testing.assert_allclose(encoder.text_embeddings(["red ball"]), expected, atol=1e-6)
