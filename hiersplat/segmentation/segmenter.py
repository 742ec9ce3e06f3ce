"""The segmenters to choose from, and the settings that choose."""

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from hiersplat.segmentation.labels import LabelsSegmenter
from hiersplat.segmentation.proposals import MaskProposals, Record, Segmenter, View
from hiersplat.segmentation.pyramid import PyramidConfig
from hiersplat.segmentation.regions import RegionsConfig, RegionsSegmenter
from hiersplat.segmentation.sam2 import Sam2Config, Sam2Segmenter
from hiersplat.segmentation.settings import read_settings

__all__ = [
    "MaskProposals",
    "Record",
    "SegmentationConfig",
    "Segmenter",
    "View",
    "build_segmenter",
    "load_segmentation_config",
]


@dataclass
class SegmentationConfig:
    """From one image to its pyramid of masks."""

    segmenter: Literal["sam2", "regions", "labels"] = "sam2"
    """sam2: the best masks, needs weights, minutes an image on a CPU. regions: needs no weights,
    a fraction of a second an image, follows edges and knows no objects. labels: the true ids
    that come with a data set."""
    sam2: Sam2Config = field(default_factory=Sam2Config)
    """Settings of the segmenter sam2."""
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    """Settings of the segmenter regions."""
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)
    """How masks become three levels."""


def build_segmenter(config: SegmentationConfig, device: str) -> Segmenter:
    """Return the segmenter that the settings choose.

    Args:
        config: Settings.
        device: Where SAM 2 runs (``cuda``, ``cpu``); the other segmenters use the CPU.

    Raises:
        ValueError: If there is no segmenter of that name.
    """
    if config.segmenter == "labels":
        return LabelsSegmenter()
    if config.segmenter == "regions":
        return RegionsSegmenter(config.regions)
    if config.segmenter == "sam2":
        return Sam2Segmenter(config.sam2, device)
    raise ValueError(
        f"unknown segmenter {config.segmenter!r}; expected one of sam2, regions, labels"
    )


def load_segmentation_config(path: Path) -> SegmentationConfig:
    """Read a preset: a YAML file with what differs from the defaults.

    A bare name such as ``speed`` means the preset of that name that comes with the project.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no YAML mapping, or a key or value does not fit the settings.
    """
    import yaml

    if not path.exists() and path.name == str(path) and not path.suffix:
        presets = Path(str(resources.files("hiersplat.configs")))
        names = sorted(preset.stem for preset in presets.glob("*.yaml"))
        if path.name not in names:
            raise FileNotFoundError(
                f"{path}: there is no such file, and no such preset; presets are {', '.join(names)}"
            )
        path = presets / f"{path.name}.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file with settings")
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({error})") from error
    return read_settings(SegmentationConfig, {} if values is None else values, str(path))
