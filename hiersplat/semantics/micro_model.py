"""The micro CLIPSeg's shape and tokenizer: transformers' own classes at a tiny size.

Its tokenizer is CLIP's, trained on a closed list of words until each is one token; anything else
is ``<|unknown|>``, a token of its own (CLIP's stands for the end of the text as well, which would
cut a text short at its first unknown word).
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hiersplat.cache import write_atomically

MICRO_SIZES: dict[str, Any] = {
    "image_size": 48,
    "view_size": 112,
    "patch_size": 8,
    "hidden_size": 128,
    "num_layers": 4,
    "num_heads": 4,
    "text_layers": 2,
    "embedding_dim": 96,
    "extract_layers": (1, 2, 3),
    "reduce_dim": 48,
}
"""Sizes of the micro model; see ``new_clipseg``."""

TINY_SIZES: dict[str, Any] = {
    "image_size": 24,
    "view_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_layers": 3,
    "num_heads": 2,
    "text_layers": 1,
    "embedding_dim": 24,
    "extract_layers": (0, 1, 2),
    "reduce_dim": 8,
}
"""Sizes at which a random model answers in milliseconds; for tests."""


def write_random_clipseg(
    folder: Path, words: Iterable[str], sizes: dict[str, Any] = TINY_SIZES, seed: int = 0
) -> Path:
    """Write a randomly initialised CLIPSeg with its tokenizer and image settings, as a folder.

    What it says of an image means nothing; the way it is loaded and used is the real one.
    """
    import torch

    tokenizer = train_tokenizer(words)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = new_clipseg(tokenizer, sizes)
    save_clipseg(folder, model, tokenizer, sizes["view_size"])
    return folder


def train_tokenizer(words: Iterable[str], max_tokens: int = 16) -> Any:
    """Train CLIP's tokenizer (``CLIPTokenizer``) so that each of ``words`` is one token."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import CLIPTokenizer

    special = ["<|startoftext|>", "<|endoftext|>", "<|unknown|>"]
    learner = Tokenizer(BPE(unk_token=special[2], end_of_word_suffix="</w>"))
    trainer = BpeTrainer(
        vocab_size=1 << 16,
        min_frequency=1,
        special_tokens=special,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    # Every word by itself: no pre-tokenizer, so merges never cross a word.
    learner.train_from_iterator(sorted(set(words)), trainer)
    learnt: Any = json.loads(learner.to_str())["model"]
    # Annotated as strings, but the BPE model behind it wants pairs.
    merges: Any = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(
        vocab=learnt["vocab"],
        merges=merges,
        bos_token=special[0],
        eos_token=special[1],
        pad_token=special[1],
        unk_token=special[2],
        model_max_length=max_tokens,
    )


def new_clipseg(tokenizer: Any, sizes: dict[str, Any] = MICRO_SIZES) -> Any:
    """Build a ``CLIPSegForImageSegmentation`` with random weights from torch's generator."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    hidden = sizes["hidden_size"]
    layers = {"hidden_size": hidden, "intermediate_size": 4 * hidden}
    config = CLIPSegConfig(
        text_config={
            **layers,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": sizes["text_layers"],
            "num_attention_heads": sizes["num_heads"],
            "max_position_embeddings": tokenizer.model_max_length,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            **layers,
            "num_hidden_layers": sizes["num_layers"],
            "num_attention_heads": sizes["num_heads"],
            "image_size": sizes["image_size"],
            "patch_size": sizes["patch_size"],
        },
        projection_dim=sizes["embedding_dim"],
        extract_layers=list(sizes["extract_layers"]),
        reduce_dim=sizes["reduce_dim"],
        decoder_intermediate_size=4 * sizes["reduce_dim"],
        use_complex_transposed_convolution=True,
    )
    model: Any = CLIPSegForImageSegmentation(config)
    _start_decoder(model.decoder)
    return model


def _start_decoder(decoder: Any) -> None:
    """Draw the decoder's maps as torch draws them, and let a text change nothing at first.

    transformers draws them with variance 1, fit to be overwritten by trained weights only: the
    decoder's inputs are then a hundred times too large and no gradient comes through.
    """
    from torch import nn

    maps = [*decoder.reduces, decoder.film_mul, decoder.film_add, *decoder.transposed_convolution]
    for layer in maps:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.reset_parameters()
    nn.init.ones_(decoder.film_mul.bias)
    nn.init.zeros_(decoder.film_add.bias)


def save_clipseg(
    folder: Path, model: Any, tokenizer: Any, view_size: int, card: dict[str, Any] | None = None
) -> None:
    """Write a model as the folder ``ClipSegEncoder`` loads: safetensors, tokenizer, settings."""
    from transformers import CLIPSegProcessor, ViTImageProcessor
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    images = ViTImageProcessor(
        size={"height": view_size, "width": view_size},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    model.save_pretrained(folder)
    CLIPSegProcessor(images, tokenizer).save_pretrained(folder)
    if card is not None:
        text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
        write_atomically(folder / "hiersplat.json", text.encode())
