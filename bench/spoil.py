"""Spoil a third of the masks of a view: drop, merge, split, or move a level. Seeded.

What is left is a pyramid again, nested as a segmenter's would be: a pixel whose small mask is
gone falls to the rest of its part, flagged as inherited; parts whose whole is gone become wholes
themselves.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from hiersplat.levels import UNLABELLED, Level

OPERATIONS = ("drop", "merge", "split", "move")


@dataclass(frozen=True)
class NestedMasks:
    """Label maps of one view with their links, like a ``MaskPyramid`` without scores."""

    labels: Int[np.ndarray, "3 height width"]
    parents: tuple[Int[np.ndarray, " num_small"], Int[np.ndarray, " num_part"]]
    inherited: tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]
    done: Counter
    """How many masks went through each operation."""


def spoil(
    labels: Int[np.ndarray, "3 height width"], share: float = 1 / 3, seed: int = 0
) -> NestedMasks:
    """Spoil a share of the masks of all levels, in random order.

    Args:
        labels: Nested label maps; a pixel is labelled at all levels or at none.
        share: Share of the masks to spoil, in [0, 1].
        seed: Seed of the choice of masks and of what happens to each.

    Raises:
        ValueError: If the share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of spoiled masks must be in [0, 1], not {share}")
    return _Spoiler(labels, np.random.default_rng(seed)).run(share)


class _Spoiler:
    """The label maps while they are being spoiled; ids only grow, and are renumbered at the end."""

    def __init__(self, labels: np.ndarray, rng: np.random.Generator):
        self.maps = labels.astype(np.int64).copy()
        self.rng = rng
        self.next_id = int(labels.max(initial=0)) + 1
        self.inherited: tuple[set[int], ...] = (set(), set(), set())
        self.rests: dict[tuple[int, int], int] = {}

    def run(self, share: float) -> NestedMasks:
        masks = [
            (level, mask_id)
            for level in Level
            for mask_id in np.unique(self.maps[level])
            if mask_id != UNLABELLED
        ]
        count = round(share * len(masks))
        chosen = self.rng.permutation(len(masks))[:count]
        done: Counter = Counter()
        for index in chosen:
            level, mask_id = masks[index]
            if not (self.maps[level] == mask_id).any():
                done["gone before"] += 1  # an earlier operation swallowed it
                continue
            operation = OPERATIONS[self.rng.integers(len(OPERATIONS))]
            done[operation if getattr(self, operation)(level, mask_id) else "drop"] += 1
        return self.result(done)

    def drop(self, level: Level, mask_id: int) -> bool:
        """Let the mask disappear; always possible, so every other operation may end here."""
        inside = self.maps[level] == mask_id
        if level == Level.WHOLE:
            for part in np.unique(self.maps[Level.PART][inside]):
                self.maps[Level.WHOLE][self.maps[Level.PART] == part] = self.fresh()
                self.inherited[Level.PART].add(int(part))
        else:
            self.maps[level][inside] = self.rest(level, self.maps[level + 1][inside][0])
        return True

    def merge(self, level: Level, mask_id: int) -> bool:
        """Unite the mask with a neighbour inside the same parent."""
        inside = self.maps[level] == mask_id
        other = self.neighbour(level, inside)
        if other is None:
            self.drop(level, mask_id)
            return False
        self.maps[level][inside] = other
        return True

    def split(self, level: Level, mask_id: int) -> bool:
        """Cut the mask in two along a random line, with everything inside it."""
        inside = self.maps[level] == mask_id
        rows, columns = np.nonzero(inside)
        angle = self.rng.uniform(0, np.pi)
        offset = np.cos(angle) * (rows - rows.mean()) + np.sin(angle) * (columns - columns.mean())
        beyond = offset > 0
        if not beyond.any():
            self.drop(level, mask_id)
            return False
        for finer in range(level + 1):
            values = self.maps[finer][rows[beyond], columns[beyond]]
            for value in np.unique(values):
                copy = self.fresh()
                if int(value) in self.inherited[finer]:
                    self.inherited[finer].add(copy)
                values[values == value] = copy
            self.maps[finer][rows[beyond], columns[beyond]] = values
        return True

    def move(self, level: Level, mask_id: int) -> bool:
        """Let the mask be found on the wrong level."""
        inside = self.maps[level] == mask_id
        up = level == Level.SMALL or (level == Level.PART and self.rng.random() < 0.5)
        if up:
            coarser = self.maps[level + 1]
            if np.array_equal(coarser == coarser[inside][0], inside):
                self.drop(level, mask_id)  # it is its own parent already
                return False
            coarser[inside] = self.fresh()
        elif level == Level.PART:
            self.maps[Level.SMALL][inside] = self.fresh()
            self.maps[Level.PART][inside] = self.rest(Level.PART, self.maps[Level.WHOLE][inside][0])
        else:
            other = self.neighbour(level, inside)
            if other is None:
                self.drop(level, mask_id)
                return False
            parts = self.maps[Level.PART][inside]
            self.maps[Level.SMALL][inside] = self.next_id + parts  # its parts become smalls
            self.next_id += int(parts.max()) + 1
            self.maps[Level.PART][inside] = self.fresh()
            self.maps[Level.WHOLE][inside] = other
        return True

    def fresh(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def rest(self, level: Level, parent: int) -> int:
        """Id of what of a parent no mask of ``level`` covers: one inherited mask a parent."""
        key = (int(level), int(parent))
        # What was the rest may have been split, merged or moved away since: then a new one.
        known = self.rests.get(key)
        if known is not None:
            above = self.maps[level + 1][self.maps[level] == known]
            if above.size and (above == parent).all():
                return known
        self.rests[key] = self.fresh()
        self.inherited[level].add(self.rests[key])
        return self.rests[key]

    def neighbour(self, level: Level, inside: np.ndarray) -> int | None:
        """Draw a mask of the same level that touches this one, inside the same parent."""
        near = np.zeros_like(inside)
        for axis in (0, 1):
            for step in (-2, -1, 1, 2):
                near |= np.roll(inside, step, axis)
        near &= ~inside & (self.maps[level] != UNLABELLED)
        if level != Level.WHOLE:
            coarser = self.maps[level + 1]
            near &= coarser == coarser[inside][0]
        found = np.unique(self.maps[level][near])
        return int(self.rng.choice(found)) if found.size else None

    def result(self, done: Counter) -> NestedMasks:
        labels = np.full(self.maps.shape, UNLABELLED, np.int32)
        labelled = self.maps[0] != UNLABELLED
        inherited = []
        for level in Level:
            ids, labels[level][labelled] = np.unique(
                self.maps[level][labelled], return_inverse=True
            )
            inherited.append(np.array([int(i) in self.inherited[level] for i in ids], bool))
        return NestedMasks(
            labels,
            (_parents(labels, Level.SMALL), _parents(labels, Level.PART)),
            (inherited[0], inherited[1], inherited[2]),
            done,
        )


def _parents(labels: np.ndarray, level: Level) -> Int[np.ndarray, " n"]:
    """Parent of every mask, read off the label maps."""
    fine, coarse = labels[level].ravel(), labels[level + 1].ravel()
    labelled = fine != UNLABELLED
    ids, first = np.unique(fine[labelled], return_index=True)
    assert np.array_equal(ids, np.arange(len(ids)))
    return coarse[labelled][first].astype(np.int32)


def nested(labels: Int[np.ndarray, "3 height width"]) -> NestedMasks:
    """Return the masks as they are, renumbered from 0 in every level."""
    return spoil(labels, share=0.0)
