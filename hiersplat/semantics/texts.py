"""What counts as a text that can be asked for; every program answers bad ones the same way."""

import difflib
import re
from collections.abc import Sequence
from typing import Any


def check_texts(
    texts: Sequence[object],
    tokenizer: Any,
    max_tokens: int,
    words: frozenset[str] | None = None,
) -> None:
    """Refuse texts a model would misread in silence.

    Args:
        texts: What is to be embedded.
        tokenizer: The model's tokenizer.
        max_tokens: Longest sequence the model has positions for, marks of begin and end included.
        words: The words the model was trained with, where it knows only those.

    Raises:
        ValueError: If a text is no string, empty, too long, or holds words the model does not
            know.
    """
    if isinstance(texts, str):
        raise ValueError(f"expected a list of texts, got the single text {_short(texts)}")
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"a text must be a string, got {type(text).__name__} {_short(text)}")
        if not text.strip():
            raise ValueError("the text is empty; ask for something, as in: the red mug")
        tokens = tokenizer(text, verbose=False)["input_ids"]
        if len(tokens) > max_tokens:
            raise ValueError(
                f"the text {_short(text)} is too long: {len(text)} characters are {len(tokens)} "
                f"tokens, and the model reads {max_tokens}; ask in fewer words"
            )
        unknown = _unknown_words(text, tokenizer, words)
        if unknown:
            raise ValueError(_explain_unknown(text, unknown, words))


def _unknown_words(text: str, tokenizer: Any, words: frozenset[str] | None) -> list[str]:
    found = re.findall(r"\w+|[^\w\s]+", text.lower())
    if not found:
        return [text]
    if words is not None:
        return [word for word in found if word not in words]
    # CLIP's own unknown token is also its end token, so a word is asked for by itself.
    return [word for word in found if _has_unknown(word, tokenizer)]


def _has_unknown(word: str, tokenizer: Any) -> bool:
    tokens = tokenizer(word, add_special_tokens=False)["input_ids"]
    return not tokens or tokenizer.unk_token_id in tokens


def _explain_unknown(text: str, unknown: list[str], words: frozenset[str] | None) -> str:
    named = ", ".join(_short(word) for word in unknown[:5])
    close = sorted(
        {match for word in unknown for match in difflib.get_close_matches(word, words or (), 2)}
    )
    hint = f"; it knows {', '.join(close)}" if close else ""
    return f"the model does not know {named} in the text {_short(text)}{hint}"


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:36]}...'"
