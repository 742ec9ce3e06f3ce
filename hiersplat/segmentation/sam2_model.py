"""SAM 2 models: built from the sam2 package's own files, filled with weights, run on an image.

``sam2.build_sam`` asks Hydra's global state for a configuration and fails with
``MissingConfigException`` whenever something else has set that state; here the packaged
YAML is read as a file, so neither the working directory nor Hydra matters.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from hiersplat.segmentation.checkpoints import (
    CheckpointInfo,
    checkpoint_info,
    read_checkpoint,
    recognise,
    resolve_checkpoint,
)

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base


def build_model(info: CheckpointInfo, image_size: int = 1024) -> "SAM2Base":
    """Build an architecture with fresh weights, in evaluation mode, on the CPU.

    Args:
        info: Size and release.
        image_size: Pixels a side that images are resized to; the released weights were
            trained at 1024, other multiples of 64 serve tests.
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config: Any = OmegaConf.create(files("sam2").joinpath(info.config_name).read_text())
    OmegaConf.resolve(config)
    config.model.image_size = image_size
    return instantiate(config.model, _recursive_=True).eval()


def load_model(info: CheckpointInfo, path: Path | None, device: str | torch.device) -> "SAM2Base":
    """Build an architecture with the weights of a checkpoint, fetched if need be.

    Raises:
        FileNotFoundError: If there are no weights on this machine and none can be fetched.
        ValueError: If the file is truncated, of another size, or no checkpoint.
    """
    path = resolve_checkpoint(info, path)
    weights = read_checkpoint(path, info)
    model = build_model(info)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path}: does not fit {info.title} ({reason})") from error
    return model.to(device)


def random_model(
    size: str = "tiny", version: str = "2.1", seed: int = 0, image_size: int = 1024
) -> "SAM2Base":
    """Build an architecture with seeded random weights, for tests and timings.

    The random state of the caller is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(checkpoint_info(size, version), image_size)


def save_checkpoint(model: "SAM2Base", path: Path) -> CheckpointInfo:
    """Write the weights as the official checkpoints hold them, and return what they are."""
    weights = model.state_dict()
    info = recognise(weights)
    if info is None:
        raise ValueError(f"{path}: the model is not one of the published architectures")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": weights}, path)
    return info


@dataclass(frozen=True)
class ImageFeatures:
    """What the mask decoder needs to know about one image."""

    embedding: Float[Tensor, "1 channels height width"]
    """Image embedding at a 16th of the model's resolution."""
    high_res: tuple[Float[Tensor, "1 c0 h0 w0"], Float[Tensor, "1 c1 h1 w1"]]
    """Projected features at a quarter and an eighth of the model's resolution."""


@torch.inference_mode()
def encode_image(
    model: "SAM2Base",
    image: UInt8[np.ndarray, "height width 3"],
    product_type: torch.dtype = torch.float32,
) -> ImageFeatures:
    """Run the image encoder, as ``SAM2ImagePredictor.set_image`` does.

    Args:
        model: A SAM 2 model.
        image: RGB.
        product_type: Type of the encoder's matrix products; the features are float32 always.
    """
    pixels = torch.stack([_resized(image[..., channel], model.image_size) for channel in range(3)])
    mean, spread = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    pixels = ((pixels - mean) / spread)[None].to(model.device)
    if model.device.type == "cpu":
        from hiersplat.segmentation.sam2_encoder import encoded

        embedding, *high_res = encoded(model, pixels, product_type)
    else:
        *high_res, embedding = model.forward_image(pixels)["backbone_fpn"][-3:]
    if model.directly_add_no_mem_embed:
        embedding = embedding + model.no_mem_embed.view(1, -1, 1, 1)
    return ImageFeatures(embedding, (high_res[0], high_res[1]))


def _resized(channel: UInt8[np.ndarray, "height width"], size: int) -> Float[Tensor, "size size"]:
    """Resize as torchvision does for the official predictor, whose import takes 130 MB."""
    values = torch.from_numpy(np.ascontiguousarray(channel)).float().div_(255)[None, None]
    if values.shape[2:] == (size, size):
        return values[0, 0]
    options = {"mode": "bilinear", "align_corners": False, "antialias": True}
    return torch.nn.functional.interpolate(values, (size, size), **options)[0, 0]
