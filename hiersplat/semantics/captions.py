"""Texts for the segments of a generated scene, and which segments a text means.

A segment has a name ("red mug", "mug handle"), a colour and a material. A text asks for a noun
(the name without its colour, or its last word) with or without one of the two. Which texts are
true of which segments follows from the words alone, so training data needs no annotator.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersplat.levels import Level

GENERIC_WORDS = ("object", "things", "stuff", "texture")
"""What fits anything and means nothing: the negatives of a query."""
_HELD_OUT_ONE_IN = 8


@dataclass(frozen=True)
class Segment:
    """A named segment of a scene."""

    level: Level
    """Its level."""
    id: int
    """Its id at that level."""
    whole: int
    """Id of the whole it belongs to."""
    name: str
    """What it is called."""
    nouns: frozenset[str]
    """Nouns that mean it."""
    colours: frozenset[str]
    """Colour words that are true of it."""
    material: str | None
    """What it is made of."""


@dataclass(frozen=True, order=True)
class Phrase:
    """What a text asks for."""

    noun: str
    """The thing."""
    attribute: str = ""
    """A colour or a material; empty if any will do."""

    @property
    def text(self) -> str:
        """The words."""
        return f"{self.attribute} {self.noun}".strip()

    def means(self, segment: Segment) -> bool:
        """Whether the text is true of a segment.

        Example:
            >>> mug = Segment(
            ...     Level.WHOLE, 0, 0, "red mug", frozenset({"mug"}), frozenset({"red"}), None
            ... )
            >>> Phrase("mug").means(mug), Phrase("mug", "blue").means(mug)
            (True, False)
        """
        fits = not self.attribute or self.attribute in segment.colours | {segment.material}
        return fits and self.noun in segment.nouns


def segments_of(
    names: Mapping[str, Any],
    colour_words: Iterable[str],
    colour_word: Callable[[str], str],
    areas: np.ndarray,
) -> list[Segment]:
    """List the segments of a scene from its ``names.json``.

    Args:
        names: Names by level and id, parents, and looks of the small segments.
        colour_words: Words that are colours when a name begins with them.
        colour_word: Turns a colour as written in a scene into a word.
        areas: Visible pixels of every small segment; the largest one's look is its parent's.
    """
    colour_words = frozenset(colour_words)
    small_parents = {int(k): v for k, v in names["parents"][Level.SMALL.title].items()}
    part_parents = {int(k): v for k, v in names["parents"][Level.PART.title].items()}
    wholes = {small: part_parents[part] for small, part in small_parents.items()}
    owners = {
        Level.SMALL: {small: small for small in small_parents},
        Level.PART: small_parents,
        Level.WHOLE: wholes,
    }
    segments = []
    for level in Level:
        largest: dict[int, int] = {}
        for small, owner in owners[level].items():
            if owner not in largest or areas[small] > areas[largest[owner]]:
                largest[owner] = small
        for key, name in names[level.title].items():
            ident = int(key)
            if ident not in largest:
                continue
            small = largest[ident]
            look = names["looks"].get(str(small), {})
            said, noun = split_colour(name, colour_words)
            seen = colour_word(look["colour"]) if "colour" in look else None
            colours = frozenset({said} if said else {seen} if seen else ())
            segments.append(
                Segment(
                    level,
                    ident,
                    wholes[small],
                    name,
                    nouns_of(noun),
                    colours,
                    look.get("material"),
                )
            )
    return segments


def split_colour(name: str, colour_words: frozenset[str]) -> tuple[str | None, str]:
    """Split a name into its colour, if it begins with one, and the rest.

    Example:
        >>> split_colour("red mug", frozenset({"red"}))
        ('red', 'mug')
        >>> split_colour("mug handle", frozenset({"red"}))
        (None, 'mug handle')
    """
    first, _, rest = name.partition(" ")
    return (first, rest) if rest and first in colour_words else (None, name)


def nouns_of(name: str) -> frozenset[str]:
    """Nouns that mean a thing: its name, and the last word of it.

    Example:
        >>> sorted(nouns_of("mug handle"))
        ['handle', 'mug handle']
        >>> sorted(nouns_of("plant in a red pot"))
        ['plant', 'plant in a red pot']
    """
    thing, place, _ = name.partition(" in ")
    return frozenset({name, thing if place else name.rsplit(" ", 1)[-1]})


def phrases_of(segment: Segment) -> list[Phrase]:
    """Everything that is said of a segment."""
    attributes = {"", *segment.colours, segment.material or ""}
    return sorted(
        Phrase(noun, attribute)
        for noun in segment.nouns
        for attribute in attributes
        if attribute not in noun.split()
    )


def is_held_out(segment: Segment) -> bool:
    """Whether a whole's combination of colour and noun is kept from training.

    One combination in eight, by a hash of its words, so it is the same everywhere.
    """
    if segment.level != Level.WHOLE:
        return False
    noun = max(segment.nouns, key=len)
    pairs = (f"{colour} {noun}" for colour in segment.colours)
    return any(hashlib.sha256(pair.encode()).digest()[0] % _HELD_OUT_ONE_IN == 0 for pair in pairs)
