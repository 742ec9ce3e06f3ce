"""One image to masks to a pyramid of three nested levels."""

from hiersplat.segmentation.sam2 import Sam2Config, SamGenerator, build_sam_generator

__all__ = ["Sam2Config", "SamGenerator", "build_sam_generator"]
