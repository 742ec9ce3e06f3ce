"""Colours by name: the words that scenes, and questions about them, use."""

import re

import numpy as np
from jaxtyping import Float

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (196, 44, 40),
    "orange": (232, 126, 38),
    "yellow": (240, 200, 60),
    "green": (62, 142, 72),
    "teal": (36, 140, 140),
    "blue": (48, 92, 180),
    "purple": (122, 72, 158),
    "pink": (232, 142, 168),
    "brown": (122, 78, 48),
    "white": (238, 236, 230),
    "grey": (138, 140, 144),
    "black": (38, 38, 42),
    "cream": (236, 220, 188),
    "gold": (206, 160, 72),
    "silver": (186, 190, 196),
    "navy": (34, 48, 92),
    "lime": (150, 196, 62),
    "terracotta": (190, 98, 66),
}
"""sRGB in [0, 255] of every colour with a name."""


def parse_colour(text: str) -> tuple[float, float, float]:
    """Return the sRGB colour, in [0, 1], of a name or of ``#rrggbb``.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> parse_colour("#ff0000")
        (1.0, 0.0, 0.0)
    """
    if text in COLOURS:
        red, green, blue = COLOURS[text]
        return red / 255, green / 255, blue / 255
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:3], 16) / 255, int(text[3:5], 16) / 255, int(text[5:7], 16) / 255
    raise ValueError(f"unknown colour {text!r}; expected '#rrggbb' or one of {', '.join(COLOURS)}")


def linear_from_srgb(srgb: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Undo the display curve: sRGB in [0, 1] to light in [0, 1]."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Apply the display curve: light, clipped to [0, 1], to sRGB in [0, 1]."""
    light = np.clip(linear, 0.0, 1.0)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
