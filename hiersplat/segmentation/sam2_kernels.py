"""Element-wise work of the mask decoder: compiled loops on a CPU, plain torch elsewhere."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu

from hiersplat.segmentation.sam2_shared import SharedTerms

_TILE = 512
"""Positions that are upscaled at once; the working set then fits the second-level cache."""


def softmax_over_tokens_(scores: Float[Tensor, "rows positions"], tokens: int) -> None:
    """Softmax over the tokens of each head, in place; rows are (head, token) pairs."""
    if scores.is_cpu:
        from hiersplat.segmentation.sam2_compiled import softmax_over_tokens

        softmax_over_tokens(scores.numpy(), tokens)
        return
    split = scores.view(-1, tokens, scores.shape[1])
    torch.softmax(split, dim=1, out=split)


def upscaled_masks(
    shared: SharedTerms,
    folded: Float[Tensor, "channels rows"],
    attention: Float[Tensor, "rows positions"],
    scale: Float[Tensor, " positions"],
    offset_scale: Float[Tensor, " positions"],
    hyper: Float[Tensor, "masks small"],
) -> Float[Tensor, "masks height width"]:
    """Upscale a prompt's state twice and multiply it with the masks' vectors.

    Args:
        shared: The image's own terms.
        folded: What the first upscaling makes of the prompt's vectors.
        attention: Rows of the prompt's state.
        scale: Factor of the shared part.
        offset_scale: Factor of ``attention`` and of the shared offset.
        hyper: One vector a mask.
    """
    twin = _in_tiles if attention.is_cpu else upscaled_masks_
    return twin(shared, folded, attention, scale, offset_scale, hyper)


def upscaled_masks_(
    shared: SharedTerms,
    folded: Float[Tensor, "channels rows"],
    attention: Float[Tensor, "rows positions"],
    scale: Float[Tensor, " positions"],
    offset_scale: Float[Tensor, " positions"],
    hyper: Float[Tensor, "masks small"],
) -> Float[Tensor, "masks height width"]:
    """Plain twin of :func:`upscaled_masks`."""
    values = (folded @ attention.to(folded.dtype) + shared.up_offset[:, None]) * offset_scale
    values += shared.up_shared * scale + shared.up_fixed
    weight, bias, eps = shared.up_norm
    values = values.view(4, len(weight), -1)
    values *= torch.rsqrt(values.square().mean(dim=1, keepdim=True) + eps)
    values = gelu(values * weight[:, None] + bias[:, None])
    fine = gelu(torch.matmul(shared.up2_weight, values) + shared.up2_fixed)
    logits = torch.matmul(hyper, fine.view(4, 4, hyper.shape[1], -1))  # (4, 4, masks, n)
    height, width = shared.grid
    logits = logits.view(2, 2, 2, 2, len(hyper), height, width).permute(4, 5, 0, 2, 6, 1, 3)
    return logits.reshape(len(hyper), 4 * height, 4 * width)


def _in_tiles(
    shared: SharedTerms,
    folded: Float[Tensor, "channels rows"],
    attention: Float[Tensor, "rows positions"],
    scale: Float[Tensor, " positions"],
    offset_scale: Float[Tensor, " positions"],
    hyper: Float[Tensor, "masks small"],
) -> Float[Tensor, "masks height width"]:
    from hiersplat.segmentation.sam2_compiled import combine_norm_gelu, gelu_product

    weight, bias, eps = shared.up_norm
    channels, positions = len(weight), attention.shape[1]
    height, width = shared.grid
    terms = _bits(shared.up_shared), scale.numpy(), shared.up_offset.numpy()
    terms = (
        *terms,
        offset_scale.numpy(),
        _bits(shared.up_fixed),
        weight.detach().numpy(),
        bias.detach().numpy(),
    )
    fixed, vectors = _bits(shared.up2_fixed), hyper.numpy()
    out = hyper.new_empty(len(hyper), 4 * height, 4 * width)
    logits = out.numpy()
    kind = shared.product_type
    folded, attention, fine_weight = folded.to(kind), attention.to(kind), shared.up2_weight.to(kind)
    for start in range(0, positions, _TILE):
        values = folded @ attention[:, start : start + _TILE]
        combine_norm_gelu(_bits(values), start, *terms, eps)
        fine = torch.bmm(fine_weight.expand(4, -1, -1), values.view(4, channels, -1))
        gelu_product(_bits(fine), start, width, fixed, vectors, logits)
    return out


def _bits(values: Tensor) -> np.ndarray:
    """Return an array for the compiled loops, which know bfloat16 as uint16."""
    return values.view(torch.uint16).numpy() if values.dtype == torch.bfloat16 else values.numpy()
