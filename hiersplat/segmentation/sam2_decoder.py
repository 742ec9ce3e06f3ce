"""SAM 2's mask decoder for many point prompts of one image, exact but reorganised.

The official decoder projects thousands of image positions for every prompt. Here the
positions' projections are shared (:mod:`sam2_shared`) and what a prompt adds to a position's
state is never formed: it stays a product of attention weights ``(rows, positions)`` and a
few vectors ``(rows, channels)``, a row being a (head, token) pair, head first. Predicted IoU
comes from the tokens alone, so masks are formed only for candidates above the threshold.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hiersplat.segmentation.sam2_kernels import softmax_over_tokens_, upscaled_masks
from hiersplat.segmentation.sam2_model import ImageFeatures
from hiersplat.segmentation.sam2_shared import ReadTerms, SharedTerms

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

NUM_OUTPUTS = 3
"""Masks that SAM gives a point."""
Heads = Float[Tensor, "heads tokens size"]


@dataclass(frozen=True)
class Candidates:
    """Masks predicted for points, at the decoder's resolution."""

    prompts: Int[Tensor, " candidates"]
    """Index of the point."""
    predicted_iou: Float[Tensor, " candidates"]
    """Quality as the model predicts it, in [0, 1]."""
    logits: Float[Tensor, "candidates height width"]
    """Above the threshold inside the mask."""


@dataclass
class PromptState:
    """The state of the image positions for one prompt, as factors.

    After layer 0 it is ``(scale * base + attention @ vectors) * gain + shift`` with the shared
    ``base``, ``gain`` and ``shift``; after layer 1 ``attention`` has twice the rows, and it is
    ``(scale * base + offset_scale * (attention @ vectors + offset)) * gain + shift``.
    """

    attention: Float[Tensor, "rows positions"]
    """In the type of the products."""
    vectors: Float[Tensor, "rows channels"]
    scale: Float[Tensor, " positions"]
    values: Heads
    """What layer 0 wrote, before its output projection."""
    offset_scale: Float[Tensor, " positions"] | None = None


def product_type(precision: str, device: torch.device) -> torch.dtype:
    """Type of the matrix products over image positions, in the encoder and the decoder.

    Args:
        precision: ``auto`` is bfloat16 on CPUs that multiply it in hardware; ``float32``.
        device: Where the model is.
    """
    # The public name of this question is yet to come; its absence means no.
    in_hardware = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    if precision == "auto" and device.type == "cpu" and in_hardware():
        return torch.bfloat16
    return torch.float32


class PointDecoder:
    """The mask decoder with everything about one image that no prompt changes."""

    def __init__(
        self,
        model: "SAM2Base",
        features: ImageFeatures,
        product_type: torch.dtype = torch.float32,
    ) -> None:
        self._prompts = model.sam_prompt_encoder
        self._decoder: Any = model.sam_mask_decoder
        with torch.inference_mode():
            self._shared = SharedTerms(model, features, product_type)

    @property
    def bytes_each(self) -> int:
        """About what a point takes until it is measured: its state, and its masks twice."""
        shared, tokens = self._shared, NUM_OUTPUTS + 5
        state = 2 * shared.num_heads * tokens * shared.num_positions * shared.product_type.itemsize
        return state + 2 * NUM_OUTPUTS * 16 * shared.num_positions * torch.float32.itemsize

    @torch.inference_mode()
    def decode(self, points: Float[Tensor, "points 2"], min_iou: float) -> Candidates:
        """Predict the masks of single foreground points.

        Args:
            points: x and y in pixels of the model's input.
            min_iou: Candidates whose predicted IoU is not above this are left out; at 0 none is.
        """
        hidden, states = self._transform(self._tokens(points))
        # The token of the single mask (output 0) is not asked for.
        predicted = self._decoder.iou_prediction_head(hidden[:, 0])[:, 1:]
        kept = predicted > min_iou if min_iou > 0 else torch.ones_like(predicted).bool()
        mlps = self._decoder.output_hypernetworks_mlps
        hyper = torch.stack([mlps[1 + k](hidden[:, 1 + k]) for k in range(NUM_OUTPUTS)], dim=1)
        logits = [
            self._upscale(states[prompt], hyper[prompt, kept[prompt]])
            for prompt in kept.any(dim=1).nonzero()[:, 0].tolist()
        ]
        height, width = self._shared.grid
        joined = torch.cat(logits) if logits else hyper.new_empty(0, 4 * height, 4 * width)
        return Candidates(kept.nonzero()[:, 0], predicted[kept], joined)

    def _tokens(self, points: Float[Tensor, "prompts 2"]) -> Float[Tensor, "prompts tokens c"]:
        decoder = self._decoder
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        sparse, _ = self._prompts(points=(points[:, None], labels), boxes=None, masks=None)
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            own.insert(0, decoder.obj_score_token.weight)
        return torch.cat([torch.cat(own).expand(len(points), -1, -1), sparse], dim=1)

    def _transform(
        self, tokens: Float[Tensor, "prompts tokens c"]
    ) -> tuple[Float[Tensor, "prompts 4 c"], list[PromptState]]:
        """Run the transformer; return the tokens of quality and masks, and the image states.

        Work on tokens is done for all prompts together, which reads the weights once; work on
        image positions prompt after prompt, which stays in the cache.
        """
        transformer = self._decoder.transformer
        first, second = transformer.layers
        final = transformer.final_attn_token_to_image

        queries = first.norm1(first.self_attn(q=tokens, k=tokens, v=tokens))
        read = first.cross_attn_token_to_image
        found = self._read_image(self._heads(read.q_proj(queries + tokens)))
        queries = first.norm2(queries + read.out_proj(self._joined(found)))
        queries = first.norm3(queries + first.mlp(queries))
        write = first.cross_attn_image_to_token
        keys = self._heads(write.k_proj(queries + tokens), scaled=True)
        values = self._heads(write.v_proj(queries))
        states = [self._write_first(k, v) for k, v in zip(keys, values, strict=True)]

        mixed = queries + tokens
        queries = second.norm1(queries + second.self_attn(q=mixed, k=mixed, v=queries))
        read = second.cross_attn_token_to_image
        asked = self._heads(read.q_proj(queries + tokens), scaled=True)
        found = [self._read_state(q, state) for q, state in zip(asked, states, strict=True)]
        queries = second.norm2(queries + read.out_proj(self._joined(torch.stack(found))))
        queries = second.norm3(queries + second.mlp(queries))
        write = second.cross_attn_image_to_token
        keys = self._heads(write.k_proj(queries + tokens), scaled=True)
        values = self._heads(write.v_proj(queries))
        for state, k, v in zip(states, keys, values, strict=True):
            self._write_second(k, v, state)

        # Only the quality token and the tokens of the three masks are read from here on.
        quality = 1 if self._decoder.pred_obj_scores else 0
        used = [quality] + [quality + 2 + output for output in range(NUM_OUTPUTS)]
        queries = queries[:, used]
        asked = self._heads(final.q_proj(queries + tokens[:, used]), scaled=True)
        found = [self._read_last(q, state) for q, state in zip(asked, states, strict=True)]
        hidden = queries + final.out_proj(self._joined(torch.stack(found)))
        return transformer.norm_final_attn(hidden), states

    def _heads(
        self, values: Float[Tensor, "prompts tokens c"], scaled: bool = False
    ) -> Float[Tensor, "prompts heads tokens size"]:
        """Split channels into heads, with the factor of scaled attention if asked for."""
        heads = values.unflatten(-1, (self._shared.num_heads, -1)).transpose(1, 2)
        return (heads / math.sqrt(heads.shape[-1]) if scaled else heads).contiguous()

    @staticmethod
    def _joined(found: Float[Tensor, "prompts heads tokens size"]) -> Tensor:
        return found.transpose(1, 2).flatten(2)

    def _read_image(self, asked: Tensor) -> Float[Tensor, "prompts heads tokens size"]:
        """Layer 0's tokens read the bare image: keys and values are those of every prompt."""
        shared, (num, heads, tokens, size) = self._shared, asked.shape
        stacked = asked.transpose(0, 1).reshape(1, heads, num * tokens, size)
        found = scaled_dot_product_attention(stacked, shared.first_keys, shared.first_values)
        return found.view(heads, num, tokens, size).transpose(0, 1)

    def _write_first(self, keys: Heads, values: Heads) -> PromptState:
        """Layer 0 writes tokens to the image."""
        shared = self._shared
        rows = keys.shape[0] * keys.shape[1]
        # Layer 1 adds as many rows to the same matrix.
        both = keys.new_empty(2 * rows, shared.num_positions, dtype=shared.product_type)
        attention = keys.new_empty(rows, shared.num_positions)
        _on_positions(keys, shared.first_queries, attention)
        softmax_over_tokens_(attention, keys.shape[1])
        vectors = _vectors(values, shared.write)
        # Squared norm of (base + attention @ vectors) from inner products.
        products = torch.empty_like(attention)
        _on_positions(2 * values, shared.base_write, products)
        products += self._product(vectors @ vectors.T, attention)
        square = products.mul_(attention).sum(dim=0) + shared.base_square
        scale = torch.rsqrt(square / vectors.shape[1] + shared.first_eps)
        torch.mul(attention, scale, out=both[:rows])
        return PromptState(both, vectors, scale, values)

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        """Matrix product in the type for products."""
        kind = self._shared.product_type
        return left.to(kind) @ right.to(kind)

    def _scores(self, asked: Heads, terms: ReadTerms, state: PromptState, scores: Tensor) -> Tensor:
        """Inner products of tokens with a projection of the state, into ``scores``."""
        _on_positions(asked, terms.scaled, scores)
        scores *= state.scale
        _add_on_positions(asked, terms.fixed, scores)
        folded = torch.bmm(asked, _by_head(terms.weight, asked)).flatten(0, 1)
        attention = state.attention[: len(state.vectors)]
        added = self._product(folded @ state.vectors.T, attention)
        if state.offset_scale is None:
            return scores.add_(added)
        offset = (folded @ self._shared.last_offset)[:, None]
        return scores.addcmul_((added + offset).to(scores.dtype), state.offset_scale)

    def _read_state(self, asked: Heads, state: PromptState) -> Heads:
        """Layer 1's tokens read the state that layer 0 wrote."""
        shared = self._shared
        attention = state.attention[: len(state.vectors)]
        scores = asked.new_empty(attention.shape)
        weights = torch.softmax(self._scores(asked, shared.second_read, state, scores), dim=-1)
        mixed = self._product(weights, attention.T).float() @ state.vectors
        return _values(
            weights.mul_(state.scale), mixed, shared.second_values, shared.second_value_weight
        ) + shared.second_value_bias.view(len(asked), 1, -1)

    def _write_second(self, keys: Heads, values: Heads, state: PromptState) -> None:
        """Layer 1 writes tokens to the image; the state gets the rows of both layers."""
        shared, both, rows = self._shared, state.attention, len(state.vectors)
        scale = state.scale
        scores = keys.new_empty(rows, shared.num_positions)
        softmax_over_tokens_(
            self._scores(keys, shared.second_queries, state, scores), keys.shape[1]
        )
        both[rows:] = scores
        vectors = torch.cat(
            [_vectors(state.values, shared.write_gained), _vectors(values, shared.write_second)]
        )
        # As in layer 0.
        products = keys.new_empty(both.shape)
        _on_positions(2 * state.values, shared.last_write_gained, products[:rows])
        _on_positions(2 * values, shared.last_write_second, products[rows:])
        products *= scale
        products += 2 * (vectors @ shared.last_offset)[:, None]
        products += self._product(vectors @ vectors.T, both)
        square = products.mul_(both).sum(dim=0)
        square += scale * (scale * shared.last_square + 2 * shared.last_cross)
        square += shared.last_offset.square().sum()
        state.offset_scale = torch.rsqrt(square / vectors.shape[1] + shared.second_eps)
        state.scale = scale * state.offset_scale
        state.vectors = vectors

    def _read_last(self, asked: Heads, state: PromptState) -> Heads:
        """The tokens in use read the last state."""
        shared, both = self._shared, state.attention
        assert state.offset_scale is not None
        scores = asked.new_empty(asked.shape[0] * asked.shape[1], both.shape[1])
        weights = torch.softmax(self._scores(asked, shared.last_read, state, scores), dim=-1)
        scaled = weights * state.offset_scale
        mixed = self._product(scaled, both.T).float() @ state.vectors
        mixed += torch.outer(scaled.sum(dim=1), shared.last_offset)
        return _values(
            weights.mul_(state.scale), mixed, shared.last_values, shared.last_value_weight
        ) + shared.last_value_bias.view(len(asked), 1, -1)

    def _upscale(
        self, state: PromptState, hyper: Float[Tensor, "masks small"]
    ) -> Float[Tensor, "masks height width"]:
        """Form the logits of some masks of a prompt."""
        shared = self._shared
        assert state.offset_scale is not None
        folded = shared.up_weight @ state.vectors.T
        return upscaled_masks(
            shared, folded, state.attention, state.scale, state.offset_scale, hyper
        )


def _by_head(weight: Float[Tensor, "internal c"], like: Heads) -> Float[Tensor, "heads size c"]:
    return weight.view(like.shape[0], like.shape[2], -1)


def _vectors(values: Heads, weight: Float[Tensor, "c internal"]) -> Float[Tensor, "rows c"]:
    """What a token writes to a position through each head, after the output projection."""
    return torch.bmm(values, _by_head(weight.T.contiguous(), values)).flatten(0, 1)


def _on_positions(tokens: Heads, projected: Float[Tensor, "internal n"], out: Tensor) -> None:
    """Inner products of tokens and positions, head by head, as (rows, positions)."""
    heads, num_tokens, _ = tokens.shape
    torch.bmm(tokens, _by_head(projected, tokens), out=out.view(heads, num_tokens, -1))


def _add_on_positions(tokens: Heads, projected: Float[Tensor, "internal n"], out: Tensor) -> None:
    heads, num_tokens, _ = tokens.shape
    out.view(heads, num_tokens, -1).baddbmm_(tokens, _by_head(projected, tokens))


def _values(
    weights: Float[Tensor, "rows n"],
    mixed: Float[Tensor, "rows c"],
    shared_values: Float[Tensor, "heads n size"],
    weight: Float[Tensor, "internal c"],
) -> Heads:
    """Values that rows of attention weights read: the shared part and the prompt's."""
    heads, _, size = shared_values.shape
    found = torch.bmm(weights.view(heads, -1, weights.shape[1]), shared_values)
    return found.baddbmm_(mixed.view(heads, -1, mixed.shape[1]), weight.view(heads, size, -1).mT)
