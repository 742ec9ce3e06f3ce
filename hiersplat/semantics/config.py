"""Settings of the CLIPSeg features; light to import, because training programs nest it."""

from dataclasses import dataclass
from typing import Literal

DEFAULT_CHECKPOINT = "CIDAS/clipseg-rd64-refined"
MICRO_CHECKPOINT = "micro-clipseg"
"""What ``checkpoints/micro-clipseg/train.py`` makes; it knows only generated scenes."""

FEATURES_VERSION = 1
"""Part of every cache key; raised when the same settings begin to give other features."""


@dataclass(frozen=True)
class FeaturesConfig:
    """What is computed in words' space for every view, and by which model."""

    features: Literal["clipseg", "none"] = "clipseg"
    """Attach CLIPSeg features to every view, or train without semantics (no text queries then).
    On two CPU cores CLIPSeg takes about a second a view and a quarter of a second a mask."""

    checkpoint: str = DEFAULT_CHECKPOINT
    """CLIPSeg weights: a folder, a name below checkpoints/, or a repository of the Hugging Face
    hub (603 MB for the default). "micro-clipseg" is what
    checkpoints/micro-clipseg/train.py makes: tiny, and it knows only generated scenes."""

    crop_context: float = 0.25
    """Surroundings kept around a mask's box, as a share of the box's longer side. More context
    helps to name a part, and makes the part smaller in its crop."""

    crop_background: float = 0.3
    """Brightness of the surroundings inside a crop: 1 leaves them, 0 blacks them out. Dimmed
    rather than removed: a knob without its drawer is a dot."""

    batch_size: int = 16
    """Crops or texts evaluated at once; results do not depend on it. 16 crops need about 1 GB."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number type of the weights. Half types halve the memory and suit a GPU; float16 is slow or
    missing on most CPUs."""

    def __post_init__(self) -> None:
        """Reject values that no model can use.

        Raises:
            ValueError: If a setting is out of its range.
        """
        if self.features not in ("clipseg", "none"):
            raise ValueError(f"features must be clipseg or none, not {self.features!r}")
        if self.crop_context < 0:
            raise ValueError(f"crop_context must not be negative, got {self.crop_context}")
        if not 0 <= self.crop_background <= 1:
            raise ValueError(f"crop_background must be in [0, 1], got {self.crop_background}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
