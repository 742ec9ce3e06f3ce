"""Slivers: what remains of a mask between the masks found inside it.

Masks of parts rarely meet exactly, so a thin rest of the whole stays between them. A rest that
is a small share of its mask is no segment of its own; every connected piece of it goes to the
mask that it borders most.
"""

import numpy as np
from jaxtyping import Int

from hiersplat.levels import Level


def hand_over_slivers(
    chosen: Int[np.ndarray, "3 height width"], max_share: float
) -> Int[np.ndarray, "3 height width"]:
    """Give small rests to their neighbours among the masks with the same parent.

    Args:
        chosen: Mask of every pixel and level; -1 at whole where nothing was found, at the finer
            levels for the rest of the coarser mask.
        max_share: Rests above this share of their mask stay as they are.

    Returns:
        The masks after handing over; masks of the level below what was handed over are rests.
    """
    chosen = chosen.copy()
    labelled = chosen[Level.WHOLE] >= 0
    for level in (Level.PART, Level.SMALL):
        pieces = _slivers(chosen, labelled, level, max_share)
        if pieces is None:
            continue
        owner = _most_bordered(pieces, chosen, level)
        inside = pieces >= 0
        given = np.where(inside, owner[pieces], -1)
        chosen[level] = np.where(given >= 0, given, chosen[level])
    return chosen


def _parents(chosen: np.ndarray, level: Level) -> Int[np.ndarray, "height width"]:
    """Number what directly contains every pixel at a level; rests of a whole are told apart."""
    whole = chosen[Level.WHOLE]
    if level == Level.PART:
        return whole
    part = chosen[Level.PART]
    return np.where(part >= 0, part, -2 - whole)


def _slivers(
    chosen: np.ndarray, labelled: np.ndarray, level: Level, max_share: float
) -> Int[np.ndarray, "height width"] | None:
    """Number the connected pieces of all small rests of a level; -1 elsewhere."""
    from scipy import ndimage

    is_rest = labelled & (chosen[level] < 0)
    if level == Level.SMALL:
        # What lies in no part has been weighed one level higher.
        is_rest &= chosen[Level.PART] >= 0
    if not is_rest.any():
        return None
    parents = _parents(chosen, level)
    lowest = int(parents.min())
    areas = np.bincount((parents - lowest)[labelled], minlength=int(parents.max()) - lowest + 1)
    rests = np.bincount((parents - lowest)[is_rest], minlength=len(areas))
    is_small = (rests > 0) & (rests <= max_share * areas) & (rests < areas)
    is_rest &= is_small[parents - lowest]
    pieces = np.full(is_rest.shape, -1, np.int64)
    count = 0
    numbers = np.where(is_rest, parents - lowest + 1, 0)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is None:
            continue
        numbered = np.zeros(numbers[box].shape, np.int32)
        ndimage.label(numbers[box] == number, output=numbered)
        inside = numbered > 0
        pieces[box][inside] = numbered[inside] + count - 1
        count += int(numbered.max())
    return pieces if count else None


def _most_bordered(
    pieces: np.ndarray, chosen: np.ndarray, level: Level
) -> Int[np.ndarray, " num_pieces"]:
    """Mask that shares the longest border with each piece, and its parent; -1 without one."""
    parents = _parents(chosen, level)
    touching = []
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        for one, other in ((here, there), (there, here)):
            meet = (pieces[one] >= 0) & (chosen[level][other] >= 0)
            meet &= parents[one] == parents[other]
            touching.append(np.stack([pieces[one][meet], chosen[level][other][meet]]))
    pairs, lengths = np.unique(np.concatenate(touching, axis=1), axis=1, return_counts=True)
    owner = np.full(int(pieces.max()) + 1, -1, np.int64)
    # The longest border comes last; of equal ones the mask that comes first in canonical order.
    for piece, mask in pairs[:, np.lexsort((-pairs[1], lengths))].T:
        owner[piece] = mask
    return owner
