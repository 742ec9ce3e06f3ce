"""What SAM 2's mask decoder computes alike for every prompt of an image, computed once.

The decoder's state per image position is ``LayerNorm(shared + attention @ few vectors)``.
Projections are linear, so they distribute over that sum: the shared part is projected here,
once an image, and a prompt adds only what its few tokens contribute. The mean that a
LayerNorm removes is linear too and is removed from the weights and the shared part
beforehand ("centred"), so a prompt needs only one scale a position.

Image positions are the last axis everywhere: ``(rows, positions)``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from hiersplat.segmentation.sam2_model import ImageFeatures

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

Rows = Float[Tensor, "rows positions"]


def centred(values: Float[Tensor, "channels *rest"]) -> Float[Tensor, "channels *rest"]:
    """Subtract the mean over channels."""
    return values - values.mean(dim=0, keepdim=True)


@dataclass(frozen=True)
class NormedState:
    """A decoder state: ``scale * (base + attention @ vectors) * gain + shift``, per position.

    ``scale`` and ``attention @ vectors`` belong to a prompt; the rest is here.
    """

    base: Rows
    """Shared part before the scale, centred."""
    gain: Float[Tensor, " channels"]
    """Weight of the LayerNorm."""
    shift: Float[Tensor, " channels"]
    """Bias of the LayerNorm."""

    def projected(self, weight: Float[Tensor, "out channels"]) -> Rows:
        """Projection of ``base * gain``, to be scaled a prompt."""
        return (weight * self.gain) @ self.base


@dataclass(frozen=True)
class ReadTerms:
    """Shared terms of an attention that reads a state: keys (or queries) and values."""

    scaled: Rows
    """Shared part of the keys, to be multiplied by the prompt's scale."""
    fixed: Rows
    """Part of the keys that no prompt changes: position and bias."""
    weight: Float[Tensor, "internal channels"]
    """Projection of the keys, with the state's gain, for what a prompt adds."""


class SharedTerms:
    """Everything about one image that the prompts share; see :mod:`sam2_decoder` for the use."""

    def __init__(
        self, model: "SAM2Base", features: ImageFeatures, product_type: torch.dtype = torch.float32
    ) -> None:
        self.product_type = product_type
        # Attributes of torch modules have no types.
        decoder: Any = model.sam_mask_decoder
        transformer = decoder.transformer
        if len(transformer.layers) != 2:
            raise ValueError(f"the mask decoder has {len(transformer.layers)} layers, not 2")
        first, second = transformer.layers
        final = transformer.final_attn_token_to_image
        self.num_heads: int = transformer.num_heads
        no_mask = model.sam_prompt_encoder.no_mask_embed.weight.view(-1, 1)
        image = features.embedding[0].flatten(1) + no_mask
        position = model.sam_prompt_encoder.get_dense_pe()[0].flatten(1)
        self.num_positions: int = image.shape[1]
        self.grid: tuple[int, int] = (features.embedding.shape[2], features.embedding.shape[3])

        # Layer 0 reads the bare image, so its keys, values and queries are all shared.
        read = first.cross_attn_token_to_image
        self.first_keys = self._by_position(_linear(read.k_proj, image + position))[None]
        self.first_values = self._by_position(_linear(read.v_proj, image))[None]
        write = first.cross_attn_image_to_token
        self.first_queries = _linear(write.q_proj, image + position)

        # State after layer 0: image + attention @ (values out of out_proj), normed.
        out = write.out_proj
        base = centred(image + out.bias[:, None])
        self.state = NormedState(base, first.norm4.weight, first.norm4.bias)
        self.first_eps: float = first.norm4.eps
        self.second_eps: float = second.norm4.eps
        self.write = centred(out.weight)  # (channels, internal)
        self.base_square = base.square().sum(dim=0)
        self.base_write = self.write.T @ base

        # Layer 1 reads that state and writes to it.
        read = second.cross_attn_token_to_image
        self.second_read = _reading(read.k_proj, self.state, position)
        self.second_values = self._by_position(self.state.projected(read.v_proj.weight))
        self.second_value_weight = read.v_proj.weight * self.state.gain
        self.second_value_bias = read.v_proj.weight @ self.state.shift + read.v_proj.bias
        write = second.cross_attn_image_to_token
        self.second_queries = _reading(write.q_proj, self.state, position)

        # State after layer 1: scale * (base * gain) + shift + attention @ values, normed again.
        out = write.out_proj
        gained = centred(base * self.state.gain[:, None])
        self.last = NormedState(gained, second.norm4.weight, second.norm4.bias)
        self.last_offset = centred(self.state.shift + out.bias)
        self.write_gained = centred(self.write * self.state.gain[:, None])
        self.write_second = centred(out.weight)
        self.last_square = gained.square().sum(dim=0)
        self.last_cross = self.last_offset @ gained
        self.last_write_gained = self.write_gained.T @ gained
        self.last_write_second = self.write_second.T @ gained

        # The last attention reads it, and so does the upscaling.
        self.last_read = _reading(final.k_proj, self.last, position)
        self.last_values = self._by_position(self.last.projected(final.v_proj.weight))
        self.last_value_weight = final.v_proj.weight * self.last.gain
        self.last_value_bias = final.v_proj.weight @ self.last.shift + final.v_proj.bias
        self._prepare_upscaling(decoder.output_upscaling, features)

    def _by_position(self, values: Rows) -> Float[Tensor, "heads positions size"]:
        """Lay values out for a sum over positions."""
        return values.view(self.num_heads, -1, values.shape[1]).mT.contiguous()

    def _prepare_upscaling(self, upscaling: Any, features: ImageFeatures) -> None:
        """Fold the state's gain and shift into the first transposed convolution.

        A transposed convolution with stride 2 and kernel 2 is a linear map to four
        sub-positions (row, column); the first axis of everything here is the sub-position.
        """
        # These are read for every prompt, so they are stored as small as the products allow.
        kind = self.product_type
        up1, norm, _, up2, _ = upscaling
        height, width = self.grid
        channels = up1.out_channels
        weight = _subpositions(up1.weight)  # (4, channels, in)
        weight = weight - weight.mean(dim=1, keepdim=True)
        bias = centred(up1.bias)
        high = features.high_res[1][0].view(channels, height, 2, width, 2)
        high = high.permute(2, 4, 0, 1, 3).reshape(4, channels, -1)
        high = high - high.mean(dim=1, keepdim=True)
        shift = weight @ self.last.shift + bias
        self.up_weight = (weight * self.last.gain).reshape(4 * channels, -1)
        self.up_shared = (self.up_weight @ self.last.base).to(kind)
        self.up_offset = self.up_weight @ self.last_offset
        self.up_fixed = (high + shift[..., None]).reshape(4 * channels, -1).to(kind)
        self.up_norm: tuple[Tensor, Tensor, float] = norm.weight, norm.bias, norm.eps

        small = up2.out_channels
        self.up2_weight = _subpositions(up2.weight).reshape(4 * small, -1).contiguous()
        high = features.high_res[0][0].view(small, height, 2, 2, width, 2, 2)
        high = high.permute(2, 5, 3, 6, 0, 1, 4).reshape(4, 4, small, -1)
        self.up2_fixed = (high + up2.bias[:, None]).reshape(4, 4 * small, -1).to(kind)


def _linear(layer: torch.nn.Linear, values: Rows) -> Rows:
    return layer.weight @ values + layer.bias[:, None]


def _reading(layer: torch.nn.Linear, state: NormedState, position: Rows) -> ReadTerms:
    fixed = layer.weight @ (state.shift[:, None] + position) + layer.bias[:, None]
    return ReadTerms(state.projected(layer.weight), fixed, layer.weight * state.gain)


def _subpositions(weight: Float[Tensor, "in out 2 2"]) -> Float[Tensor, "4 out in"]:
    return weight.permute(2, 3, 1, 0).flatten(0, 1)
