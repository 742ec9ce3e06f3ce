"""What families of things draw from: sizes, colours and materials with the words for them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hiersplat.scene.colours import COLOURS
from hiersplat.scene.spec import Material

SUBSTANCES: dict[str, dict[str, Any]] = {
    "ceramic": {"gloss": 0.25},
    "plastic": {"gloss": 0.12},
    "metal": {"gloss": 0.3},
    "cloth": {},
    "leather": {"gloss": 0.05},
    "paper": {},
    "glass": {"gloss": 0.35},
}
"""Substances that come in every colour."""

FIXED: dict[str, Material] = {
    "brass": Material(colour="gold", gloss=0.35),
    "steel": Material(colour="silver", gloss=0.35),
    "rubber": Material(colour="black"),
    "soil": Material(colour="#4b3324", second="#2b1c12", texture="noise", size=0.06),
    "leaf": Material(colour="#4d9a45"),
    "oak": Material(
        colour="#d8b184", second="#b5885a", texture="wood", size=0.09, substance="wood"
    ),
    "walnut": Material(
        colour="#7a4f30", second="#553520", texture="wood", size=0.08, substance="wood"
    ),
    "pages": Material(
        colour="#f4eedd", second="#dcd2b8", texture="stripes", size=0.02, substance="paper"
    ),
    "lamp light": Material(colour="#fff3cf", glow=0.9, substance="glass"),
    "wax": Material(colour="cream"),
}
"""Looks that come in one colour."""

MAIN_COLOURS = tuple(
    c for c in COLOURS if c not in ("grey", "gold", "silver", "brown", "cream", "terracotta")
)
"""Colours that name a thing; those left out are easily taken for one of them."""


@dataclass
class Drawing:
    """Draws sizes and looks for one thing and collects the materials it uses."""

    rng: np.random.Generator
    """Source of chance."""
    colour: str
    """Main colour of the thing."""
    materials: dict[str, Material] = field(default_factory=dict)
    """Materials asked for so far, by name."""

    def size(self, low: float, high: float) -> float:
        """Draw a length."""
        return round(float(self.rng.uniform(low, high)), 3)

    def one_of(self, options: Sequence[str]) -> str:
        """Draw one of several words."""
        return str(options[int(self.rng.integers(len(options)))])

    def look(self, substance: str, colour: str | None = None) -> str:
        """Return the name of the material of a substance, in the main colour by default."""
        if substance in FIXED:
            self.materials[substance] = FIXED[substance]
            return substance
        colour = colour or self.colour
        name = f"{colour} {substance}"
        self.materials[name] = Material(colour=colour, substance=substance, **SUBSTANCES[substance])
        return name

    def other_colour(self) -> str:
        """Draw a colour that is not the main one."""
        return self.one_of([c for c in MAIN_COLOURS if c not in (self.colour, "black")])
