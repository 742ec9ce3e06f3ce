"""The three levels of the hierarchy and their order; nothing else in the project orders levels.

Label maps of all levels are stacked along a first axis indexed by :class:`Level`,
so ``labels[Level.PART]`` is the part label of every pixel (or Gaussian).
"""

from enum import IntEnum

UNLABELLED = -1
"""Label of a pixel or Gaussian that belongs to no segment."""


class Level(IntEnum):
    """A level of the hierarchy, fine to coarse."""

    SMALL = 0
    PART = 1
    WHOLE = 2

    @property
    def title(self) -> str:
        """Lower-case name, as it appears in options, files and tables."""
        return self.name.lower()

    @property
    def coarser(self) -> "Level | None":
        """The level that contains this one; ``None`` above wholes."""
        return Level(self + 1) if self < Level.WHOLE else None

    @property
    def finer(self) -> "Level | None":
        """The level that this one contains; ``None`` below small details."""
        return Level(self - 1) if self > Level.SMALL else None

    @classmethod
    def parse(cls, text: str) -> "Level":
        """Return the level called ``text``.

        Raises:
            ValueError: If there is no such level.

        Example:
            >>> Level.parse("part")
            <Level.PART: 1>
        """
        try:
            return cls[text.strip().upper()]
        except KeyError:
            names = ", ".join(level.title for level in cls)
            raise ValueError(f"unknown level {text!r}; expected one of {names}") from None
