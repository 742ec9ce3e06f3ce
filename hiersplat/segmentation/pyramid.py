"""Mask pyramids: every labelled pixel lies in one small, one part and one whole mask.

Labels are ``(3, height, width)``, indexed by :class:`~hiersplat.levels.Level`. They are
nested by construction: the label of a pixel at a coarser level follows from its small label.
Where no mask of a finer level was found, the rest of the coarser mask stands in, flagged
as inherited. A pixel is labelled at all levels or at none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from hiersplat.levels import UNLABELLED, Level
from hiersplat.segmentation.forest import (
    assign_levels,
    containment_forest,
    given_forest,
    without_duplicates,
)
from hiersplat.segmentation.masks import Atoms, area_of, cut_into_atoms, edges_of
from hiersplat.segmentation.proposals import MaskProposals
from hiersplat.segmentation.rests import hand_over_slivers

PYRAMID_VERSION = 2
"""Changes whenever the same proposals and settings would give another pyramid."""


@dataclass
class PyramidConfig:
    """How masks become three nested levels."""

    duplicate_iou: float = 0.85
    """Masks that overlap more than this (IoU) are one; the better scored one stays."""
    containment: float = 0.9
    """Share of a mask that must lie in a larger one for it to be its child. SAM's masks bleed
    over the outline by a few pixels, so 1 would lose most children."""
    max_sliver: float = 0.05
    """Where the parts of a whole leave at most this share of it between them, that goes to the
    part it borders most (the same for details of a part); 0 keeps every sliver apart."""
    min_area: float = 1e-4
    """Masks below this share of the image are ignored (6 pixels of 256 x 256, 207 of 1080p)."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("duplicate_iou", 0.0, 1.0),
            ("containment", 0.5, 1.0),
            ("max_sliver", 0.0, 1.0),
            ("min_area", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"pyramid.{name} is {value}; it must be in [{low}, {high}]")


@dataclass(frozen=True)
class MaskPyramid:
    """Small, part and whole masks of one view."""

    labels: Int32[np.ndarray, "3 height width"]
    """Mask label of every pixel per level; contiguous from 0 within a level."""
    parents: tuple[Int32[np.ndarray, " num_small"], Int32[np.ndarray, " num_part"]]
    """Part of every small mask; whole of every part."""
    inherited: tuple[
        Bool[np.ndarray, " num_small"],
        Bool[np.ndarray, " num_part"],
        Bool[np.ndarray, " num_whole"],
    ]
    """Whether a mask only stands in for what was found at another level."""
    scores: tuple[
        Float32[np.ndarray, " num_small"],
        Float32[np.ndarray, " num_part"],
        Float32[np.ndarray, " num_whole"],
    ]
    """Predicted IoU times stability of every mask; 0 where inherited."""

    def num_masks(self, level: Level) -> int:
        """Number of masks at one level, inherited ones included."""
        return len(self.inherited[level])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the pyramid as small arrays: the rest follows from the small labels."""
        import cv2

        stored = (self.labels[Level.SMALL] + 1).astype(np.uint16)
        encoded, png = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        assert encoded, "a 16-bit label map always has a PNG form"
        arrays = {
            "small_png": png.reshape(-1),
            "small_parents": self.parents[0],
            "part_parents": self.parents[1],
        }
        for level in Level:
            arrays[f"{level.title}_inherited"] = self.inherited[level]
            arrays[f"{level.title}_scores"] = self.scores[level]
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "MaskPyramid":
        """Rebuild a pyramid from :meth:`to_arrays`.

        Raises:
            ValueError: If the arrays are not those of a pyramid or contradict one another.
        """
        import cv2

        try:
            stored = cv2.imdecode(np.ascontiguousarray(arrays["small_png"]), cv2.IMREAD_UNCHANGED)
            parents = (arrays["small_parents"], arrays["part_parents"])
            inherited = tuple(arrays[f"{level.title}_inherited"] for level in Level)
            scores = tuple(arrays[f"{level.title}_scores"] for level in Level)
        except (KeyError, cv2.error) as error:
            raise ValueError(f"these arrays are no mask pyramid ({error})") from error
        if stored is None or stored.dtype != np.uint16 or stored.ndim != 2:
            raise ValueError("these arrays are no mask pyramid (small labels are no 16-bit PNG)")
        counts = tuple(len(flags) for flags in inherited)
        consistent = (
            tuple(len(values) for values in scores) == counts
            and tuple(len(links) for links in parents) == counts[:2]
            and all(
                _are_links(links, count) for links, count in zip(parents, counts[1:], strict=True)
            )
            and np.array_equal(np.unique(stored[stored > 0]), np.arange(1, counts[0] + 1))
        )
        if not consistent:
            raise ValueError("these arrays are no mask pyramid (labels and parents disagree)")
        small = stored.astype(np.int32) - 1
        return cls(_stack_labels(small, parents), parents, inherited, scores)  # pyright: ignore[reportArgumentType]


def _are_links(links: np.ndarray, num_parents: int) -> bool:
    """Whether every parent has a child and every child a parent."""
    return links.dtype == np.int32 and np.array_equal(np.unique(links), np.arange(num_parents))


def _stack_labels(
    small: Int32[np.ndarray, "height width"], parents: tuple[np.ndarray, np.ndarray]
) -> Int32[np.ndarray, "3 height width"]:
    """Follow the parents of the small labels upwards."""
    labels = np.full((3, *small.shape), UNLABELLED, np.int32)
    labelled = small != UNLABELLED
    labels[Level.SMALL] = small
    labels[Level.PART][labelled] = parents[0][small[labelled]]
    labels[Level.WHOLE][labelled] = parents[1][labels[Level.PART][labelled]]
    return labels


def build_pyramid(
    proposals: MaskProposals, shape: tuple[int, int], config: PyramidConfig
) -> MaskPyramid:
    """Arrange the masks of a view in three nested levels.

    Near-duplicates collapse, containment gives a forest, a place in the forest gives a level
    (or the segmenter does), and the masks are painted from whole to small, each inside its
    parent. Neither the order of the records nor mirroring the image changes the result, except
    between masks that agree in level, score and area.

    Args:
        proposals: Masks in SAM's format, with levels where the segmenter knows them.
        shape: Height and width of the image.
        config: Settings.

    Raises:
        ValueError: If a mask does not fit the shape.
    """
    records, levels = proposals.records, proposals.levels
    if levels is not None and len(levels) != len(records):
        raise ValueError(f"{len(records)} masks come with {len(levels)} levels")
    masks = [edges_of(record["segmentation"], shape) for record in records]
    smallest = max(1.0, config.min_area * shape[0] * shape[1])
    if levels is None:
        kept = [i for i, mask in enumerate(masks) if area_of(mask) >= smallest]
        given = None
    else:
        # Masks that come with levels are true or chosen: none of them is too small to count.
        kept = [i for i, mask in enumerate(masks) if levels[i] is not None and mask.size]
        given = np.array([levels[i] for i in kept], np.int64)
    scores = np.array(
        [records[i]["predicted_iou"] * records[i]["stability_score"] for i in kept], np.float64
    )
    atoms = cut_into_atoms([masks[i] for i in kept], shape)
    order = _canonical_order(atoms, scores)
    atoms = Atoms(atoms.of_pixel, atoms.areas, atoms.member[:, order])
    scores = scores[order]
    shared = atoms.intersections()
    if given is None:
        unique = without_duplicates(shared, scores, config.duplicate_iou)
        atoms = Atoms(atoms.of_pixel, atoms.areas, atoms.member[:, unique])
        scores, shared = scores[unique], shared[np.ix_(unique, unique)]
        parent = containment_forest(shared, config.containment)
        level, parent = assign_levels(parent, np.diag(shared), scores)
    else:
        level, parent = given_forest(shared, given[order])
    chosen = _paint(atoms, level, parent)
    atoms, chosen = _without_slivers(atoms, chosen, config.max_sliver)
    return _number(atoms, chosen, scores)


def _without_slivers(
    atoms: Atoms, chosen: Int[np.ndarray, "3 num_atoms"], max_share: float
) -> tuple[Atoms, Int[np.ndarray, "3 num_atoms"]]:
    """Hand small rests over to their neighbours; pixels of an atom may then go separate ways."""
    if max_share == 0 or (chosen >= 0).all():
        return atoms, chosen
    covered = atoms.of_pixel >= 0
    before = np.where(covered, chosen[:, atoms.of_pixel], -1)
    after = hand_over_slivers(before, max_share)
    paths, of_covered = np.unique(after[:, covered], axis=1, return_inverse=True)
    of_pixel = np.full(covered.shape, -1, np.int32)
    of_pixel[covered] = of_covered.reshape(-1)
    areas = np.bincount(of_pixel[covered], minlength=paths.shape[1]).astype(np.int64)
    return Atoms(of_pixel, areas, np.zeros((len(areas), 0), bool)), paths


def _canonical_order(atoms: Atoms, scores: np.ndarray) -> Int[np.ndarray, " num_masks"]:
    """Order masks by what they are: largest first, then best scored, then by their spread.

    The spread about the image's centre is the same in a mirrored image.
    """
    if atoms.member.size == 0:
        return np.arange(atoms.member.shape[1])
    height, width = atoms.of_pixel.shape
    rows = (np.arange(height) - (height - 1) / 2)[:, None] ** 2
    columns = (np.arange(width) - (width - 1) / 2)[None] ** 2
    covered = atoms.of_pixel >= 0
    spread = np.bincount(
        atoms.of_pixel[covered], (rows + columns)[covered], minlength=len(atoms.areas)
    )
    first = np.full(len(atoms.areas), height * width)
    flat = atoms.of_pixel.reshape(-1)
    found, position = np.unique(flat, return_index=True)
    first[found[found >= 0]] = position[found >= 0]
    member = atoms.member.astype(np.float64)
    starts = np.where(atoms.member, first[:, None], height * width).min(
        axis=0, initial=height * width
    )
    return np.lexsort((starts, spread @ member, -scores, -(atoms.areas @ member)))


def _paint(
    atoms: Atoms,
    level: Int[np.ndarray, " num_masks"],
    parent: Int[np.ndarray, " num_masks"],
) -> Int[np.ndarray, "3 num_atoms"]:
    """Give every atom its whole, then a part inside that whole, then a small inside that part.

    Returns:
        The mask of every atom and level; -1 where there is none.
    """
    num_masks = len(level)
    # A mask also holds what its descendants hold; its own claim counts more than theirs.
    claims = atoms.member.astype(np.int8) * 2
    for child in sorted(range(num_masks), key=lambda i: int(level[i])):
        if parent[child] >= 0:
            target = claims[:, parent[child]]
            np.maximum(target, (claims[:, child] > 0).astype(np.int8), out=target)
    areas = atoms.areas @ atoms.member
    chosen = np.full((3, len(atoms.areas)), -1, np.int64)
    home = np.full(len(atoms.areas), -1, np.int64)  # Where the next finer mask must belong.
    labelled = np.zeros(len(atoms.areas), bool)
    for current in reversed(Level):
        nodes = np.flatnonzero(level == current)
        # Among equal claims the smaller mask lies on top of the larger one, as SAM draws them.
        nodes = nodes[np.lexsort((-nodes, areas[nodes]))]
        if nodes.size:
            fits = np.where(parent[nodes][None] == home[:, None], claims[:, nodes], 0)
            best = fits.argmax(axis=1)
            found = fits[np.arange(len(best)), best] > 0
            chosen[current] = np.where(found, nodes[best], -1)
        if current == Level.WHOLE:
            labelled = chosen[current] >= 0
            home = chosen[current].copy()
        elif current == Level.PART:
            # Details may hang on a whole directly: they lie in the rest that no part holds.
            home = np.where(chosen[current] >= 0, chosen[current], home)
        home[~labelled] = -2
    return chosen


def _number(
    atoms: Atoms, chosen: Int[np.ndarray, "3 num_atoms"], scores: np.ndarray
) -> MaskPyramid:
    """Number the painted masks from the largest down, level by level.

    ``chosen`` holds the mask of every atom and level, or -1: at the finer levels that is the
    rest of the coarser mask, which becomes an inherited mask.
    """
    labelled = chosen[Level.WHOLE] >= 0
    num_atoms = len(atoms.areas)
    labels = np.full((3, num_atoms), UNLABELLED, np.int64)
    parents: dict[Level, np.ndarray] = {}
    inherited: dict[Level, np.ndarray] = {}
    mask_scores: dict[Level, np.ndarray] = {}
    for level in reversed(Level):
        path = chosen[level:, labelled]  # This level first, then what contains it.
        distinct, first, label = np.unique(path, axis=1, return_index=True, return_inverse=True)
        label = label.reshape(-1)
        painted = np.bincount(label, atoms.areas[labelled], distinct.shape[1])
        # Masks are numbered canonically, so equal areas are ordered by what they are.
        order = np.lexsort((*distinct, -painted))
        rank = np.argsort(order)
        labels[level, labelled] = rank[label]
        own = distinct[0, order]
        inherited[level] = own < 0
        mask_scores[level] = np.where(own < 0, 0, scores[own] if scores.size else 0)
        if level.coarser is not None:
            parents[level] = labels[level.coarser, labelled][first[order]].astype(np.int32)
    small = np.append(labels[Level.SMALL], UNLABELLED)[atoms.of_pixel].astype(np.int32)
    links = (parents[Level.SMALL], parents[Level.PART])
    return MaskPyramid(
        _stack_labels(small, links),
        links,
        (inherited[Level.SMALL], inherited[Level.PART], inherited[Level.WHOLE]),
        (
            mask_scores[Level.SMALL].astype(np.float32),
            mask_scores[Level.PART].astype(np.float32),
            mask_scores[Level.WHOLE].astype(np.float32),
        ),
    )
