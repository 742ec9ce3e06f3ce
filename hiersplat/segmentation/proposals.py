"""What goes into a segmenter and what comes out: a view, and mask proposals in SAM's format.

Every segmenter imports these types from here; :mod:`hiersplat.segmentation.segmenter`
gathers the segmenters and offers the same names to everyone else.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int, UInt8

from hiersplat.levels import Level

Record = dict[str, Any]
"""One mask with SAM's keys: ``segmentation`` (bool array, or run-length code as SAM's
``uncompressed_rle`` output has it), ``area``, ``bbox`` (XYWH), ``predicted_iou``,
``point_coords``, ``stability_score``, ``crop_box``."""


@dataclass(frozen=True)
class View:
    """One image to segment."""

    name: str
    """Name of the view, for messages."""
    image: UInt8[np.ndarray, "height width 3"]
    """RGB."""
    labels: Int[np.ndarray, "3 height width"] | None = None
    """True small, part and whole ids, where the data set has them."""


@dataclass(frozen=True)
class MaskProposals:
    """The masks that a segmenter found in one view."""

    records: list[Record]
    """One record a mask, in SAM's format."""
    levels: list[Level | None] | None = None
    """Level of every record; ``None`` where the segmenter does not know levels. A single record
    without a level is a proposal that no level of the pyramid uses."""


class Segmenter(Protocol):
    """Finds masks in a view."""

    def propose(self, view: View) -> MaskProposals:
        """Return the masks of one view."""
        ...
