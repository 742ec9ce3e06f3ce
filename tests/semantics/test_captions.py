import numpy as np
import pytest

from hiersplat.levels import Level
from hiersplat.semantics.captions import (
    Phrase,
    Segment,
    is_held_out,
    nouns_of,
    phrases_of,
    segments_of,
)

NAMES = {
    "small": {"0": "table", "1": "mug body", "2": "white stripe", "3": "mug handle"},
    "part": {"0": "table", "1": "mug body", "2": "mug handle"},
    "whole": {"0": "table", "1": "red mug"},
    "parents": {
        "small": {"0": 0, "1": 1, "2": 1, "3": 2},
        "part": {"0": 0, "1": 1, "2": 1},
    },
    "looks": {
        "0": {"material": "wood", "colour": "brown"},
        "1": {"material": "ceramic", "colour": "#c42c28"},
        "2": {"material": "ceramic", "colour": "white"},
        "3": {"material": "ceramic", "colour": "#c42c28"},
    },
}
COLOURS = ("red", "white", "brown")


@pytest.fixture
def segments():
    areas = np.array([1000, 200, 50, 40])
    found = segments_of(NAMES, COLOURS, lambda c: "red" if c.startswith("#") else c, areas)
    return {(segment.level, segment.name): segment for segment in found}


def meant(segments, noun, attribute=""):
    phrase = Phrase(noun, attribute)
    return {name for (_, name), segment in segments.items() if phrase.means(segment)}


def test_every_segment_of_every_level_is_listed_with_its_whole(segments):
    assert len(segments) == 9
    assert segments[Level.SMALL, "white stripe"].whole == 1
    assert segments[Level.WHOLE, "table"].whole == 0


def test_a_colour_in_the_name_wins_over_the_look(segments):
    assert segments[Level.WHOLE, "red mug"].colours == {"red"}
    assert segments[Level.SMALL, "white stripe"].colours == {"white"}


def test_the_largest_small_segment_speaks_for_its_parents(segments):
    assert segments[Level.PART, "mug body"].colours == {"red"}
    assert segments[Level.PART, "mug body"].material == "ceramic"


@pytest.mark.parametrize(
    ("noun", "attribute", "names"),
    [
        ("mug", "", {"red mug"}),
        ("mug", "red", {"red mug"}),
        ("mug", "white", set()),
        ("handle", "", {"mug handle"}),
        ("mug handle", "ceramic", {"mug handle"}),
        ("stripe", "white", {"white stripe"}),
    ],
)
def test_a_text_means_what_its_words_say(segments, noun, attribute, names):
    assert meant(segments, noun, attribute) == names


def test_everything_said_of_a_segment_is_true_of_it(segments):
    for segment in segments.values():
        phrases = phrases_of(segment)
        assert phrases
        assert all(phrase.means(segment) for phrase in phrases)


def test_a_segment_nobody_drew_is_left_out():
    names = NAMES | {"part": NAMES["part"] | {"9": "ghost"}}
    found = segments_of(names, COLOURS, str, np.ones(4))
    assert "ghost" not in {segment.name for segment in found}


def test_held_out_combinations_are_about_one_in_eight_and_always_the_same():
    def whole(colour, noun):
        return Segment(
            Level.WHOLE, 0, 0, f"{colour} {noun}", nouns_of(noun), frozenset({colour}), None
        )

    words = [f"w{i}" for i in range(40)]
    share = np.mean([is_held_out(whole(a, b)) for a in words for b in words])
    assert 0.09 < share < 0.16
    part = Segment(Level.PART, 0, 0, "w0 w1", nouns_of("w1"), frozenset({"w0"}), None)
    assert not is_held_out(part)
