"""SAM 2's image encoder on a CPU, a few windows at a time.

All but a few blocks attend within small windows only, so such a block is finished for some
windows before the next are begun: their projections and the four times wider middle of the MLP
stay in the cache, and nothing is ever held for the whole image but its state. Of the levels of
the neck only what the mask decoder reads is formed. The features are those of
``SAM2Base.forward_image`` up to rounding.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, gelu, interpolate, layer_norm, linear, max_pool2d, pad

from hiersplat.segmentation.sam2_workers import workers

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

_TOKENS_AT_ONCE = 512
"""Image positions in a chunk: their working set fits the second-level cache."""
_QUERIES_AT_ONCE = 128
"""Of a block that attends to the whole image; each head forms a row of scores for every one."""
State = Float[Tensor, "height width channels"]
Features = tuple[Float[Tensor, "1 c h w"], Float[Tensor, "1 c0 h0 w0"], Float[Tensor, "1 c1 h1 w1"]]


@torch.inference_mode()
def encoded(
    model: "SAM2Base", pixels: Float[Tensor, "1 3 size size"], product_type: torch.dtype
) -> Features:
    """Return the image embedding, and the projected features at a quarter and an eighth.

    Args:
        model: A SAM 2 model on the CPU.
        pixels: As the model expects them.
        product_type: Type of the matrix products; states and features are float32.
    """
    encoder: Any = model.image_encoder
    decoder: Any = model.sam_mask_decoder
    trunk, neck = encoder.trunk, encoder.neck
    if list(neck.fpn_top_down_levels) != [2, 3] or encoder.scalp != 1:
        raise ValueError("the neck of the image encoder is not that of a published SAM 2")
    state = _embedded(trunk, pixels)
    levels: list[Tensor] = []
    with workers() as pool:
        for index, block in enumerate(trunk.blocks):
            state = _applied(_Weights.of(block, product_type), state, pool)
            if index in trunk.stage_ends:
                lateral = neck.convs[len(neck.convs) - 1 - len(levels)].conv
                # The finer two are read through one more projection only.
                final = (decoder.conv_s0, decoder.conv_s1, None, None)[len(levels)]
                levels.append(_lateral(lateral, final, state))
    fine, middle, embedding, coarse = levels
    upsampled = interpolate(coarse, scale_factor=2.0, mode=neck.fpn_interp_model)
    return embedding + upsampled, fine, middle


def _embedded(trunk: Any, pixels: Float[Tensor, "1 3 size size"]) -> State:
    """Return patches with their positions; formed in parts, for the memory's sake."""
    conv, window = trunk.patch_embed.proj, trunk.pos_embed_window[0]
    channels, stride, edge = conv.out_channels, conv.stride[0], conv.padding[0]
    side, size = pixels.shape[-1] // stride, window.shape[-1]
    state = pixels.new_empty(side, side, channels)
    for some in torch.arange(channels).split(16):
        position = interpolate(trunk.pos_embed[:, some], (side, side), mode="bicubic")[0]
        position = position.unflatten(2, (-1, size)).unflatten(1, (-1, size))
        position = position + window[some][:, None, :, None]
        state[..., some] = position.flatten(3).flatten(1, 2).permute(1, 2, 0)
    padded = pad(pixels, (edge, edge, edge, edge))
    for rows in torch.arange(side).split(32):
        first, last = stride * int(rows[0]), stride * int(rows[-1]) + conv.kernel_size[0]
        patches = conv2d(padded[:, :, first:last], conv.weight, conv.bias, conv.stride)
        state[rows] += patches[0].permute(1, 2, 0)
    return state


def _lateral(conv: torch.nn.Conv2d, final: torch.nn.Conv2d | None, state: State) -> Tensor:
    """Project channels by one pointwise convolution, or by two in one product."""
    weight, bias = conv.weight.flatten(1), conv.bias
    assert bias is not None
    if final is not None:
        assert final.bias is not None
        outer = final.weight.flatten(1)
        weight, bias = outer @ weight, outer @ bias + final.bias
    projected = weight @ state.flatten(0, 1).T + bias[:, None]
    return projected.view(1, len(bias), *state.shape[:2])


Linear = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Weights:
    """A block of the trunk with its matrices in the type of the products."""

    norms: tuple[torch.nn.LayerNorm, torch.nn.LayerNorm]
    qkv: Linear
    """Queries are scaled for attention already."""
    proj: Linear
    widen: Linear
    narrow: Linear
    skip: Linear | None
    """Where the number of channels changes."""
    window: int
    """Positions a side; 0 attends to the whole image."""
    num_heads: int
    pools: bool
    """Halves height and width."""

    @staticmethod
    def of(block: Any, kind: torch.dtype) -> "_Weights":
        def cast(layer: torch.nn.Linear) -> Linear:
            return layer.weight.to(kind), layer.bias.to(kind)

        attention = block.attn
        if block.q_stride and (block.window_size == 0 or tuple(block.q_stride) != (2, 2)):
            raise ValueError("a block of the image encoder pools in a way that is not SAM 2's")
        size = attention.dim_out // attention.num_heads
        factor = torch.ones(3 * attention.dim_out)
        factor[: attention.dim_out] = 1 / math.sqrt(size)
        weight, bias = attention.qkv.weight * factor[:, None], attention.qkv.bias * factor
        return _Weights(
            (block.norm1, block.norm2),
            (weight.to(kind), bias.to(kind)),
            cast(attention.proj),
            cast(block.mlp.layers[0]),
            cast(block.mlp.layers[1]),
            cast(block.proj) if block.dim != block.dim_out else None,
            block.window_size,
            attention.num_heads,
            bool(block.q_stride),
        )

    def normed(self, which: int, values: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        norm = self.norms[which]
        values = layer_norm(values, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return values.to(self.qkv[0].dtype)

    def finish(self, target: Float[Tensor, "*n c"], found: Float[Tensor, "*n c"]) -> None:
        """Add what attention found, then what the MLP makes of the sum, to ``target``."""
        target += linear(found, *self.proj)
        wide = gelu(linear(self.normed(1, target), *self.widen))
        target += linear(wide, *self.narrow)


def _applied(weights: _Weights, state: State, pool: ThreadPoolExecutor) -> State:
    """Apply a block; without pooling that is in place."""
    if not weights.window:
        _attend_everywhere(weights, state, pool)
        return state
    height, width, _ = state.shape
    out = state
    if weights.pools:
        channels = weights.proj[0].shape[0]
        out = state.new_empty(height // 2, width // 2, channels)
    rectangles = _rectangles(height, width, weights.window)
    _all(pool, lambda place: _attend_in_windows(weights, state, out, place), rectangles)
    return out


def _rectangles(height: int, width: int, window: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of whole windows that make a chunk; the last ones may be cut."""
    across = window * max(1, _TOKENS_AT_ONCE // window**2)
    for top in range(0, height, window):
        for left in range(0, width, across):
            yield (
                slice(top, min(top + window, height)),
                slice(left, min(left + across, width)),
            )


def _all(
    pool: ThreadPoolExecutor, work: Callable[[Any], None], places: Iterator[Any] | list[Any]
) -> None:
    # A worker starts outside of the caller's inference mode.
    for _ in pool.map(torch.inference_mode()(work), places):
        pass


def _attend_in_windows(
    weights: _Weights, state: State, out: State, place: tuple[slice, slice]
) -> None:
    part = state[place]
    normed = weights.normed(0, part)
    size = weights.window
    high, wide = -(-part.shape[0] // size), -(-part.shape[1] // size)
    # Windows that hang over the edge are filled up with zeros, as in the official encoder.
    padded = pad(normed, (0, 0, 0, wide * size - part.shape[1], 0, high * size - part.shape[0]))
    windows = (
        padded.view(high, size, wide, size, -1).transpose(1, 2).reshape(-1, size**2, part.shape[2])
    )
    qkv = linear(windows, *weights.qkv).unflatten(-1, (3, -1))  # (windows, tokens, 3, channels)
    queries, keys, values = qkv.unbind(2)
    if weights.pools:
        queries = _pooled(queries.unflatten(1, (size, size))).flatten(1, 2)
        size //= 2
    heads = (_heads(values, weights.num_heads) for values in (queries, keys, values))
    found = _attention(*heads)
    found = found.unflatten(0, (-1, weights.num_heads)).transpose(1, 2).flatten(2)
    found = found.view(high, wide, size, size, -1).transpose(1, 2)
    found = found.reshape(high * size, wide * size, -1)
    if weights.pools:
        assert weights.skip is not None
        rows, columns = (slice(edge.start // 2, edge.stop // 2) for edge in place)
        part = out[rows, columns]
        part.copy_(_pooled(linear(normed, *weights.skip)[None])[0])
    weights.finish(part, found[: part.shape[0], : part.shape[1]])


def _attend_everywhere(weights: _Weights, state: State, pool: ThreadPoolExecutor) -> None:
    tokens = state.flatten(0, 1)
    heads, kind = weights.num_heads, weights.qkv[0].dtype
    size = tokens.shape[1] // heads
    stored = tokens.new_empty(3, heads, len(tokens), size, dtype=kind)

    def project(first: int) -> None:
        some = slice(first, first + _TOKENS_AT_ONCE)
        qkv = linear(weights.normed(0, tokens[some]), *weights.qkv)
        stored[:, :, some] = qkv.unflatten(-1, (3, heads, size)).permute(1, 2, 0, 3)

    def attend(first: int) -> None:
        some = slice(first, first + _QUERIES_AT_ONCE)
        found = [
            _attention(*(values[head : head + 1] for values in (stored[0, :, some], *stored[1:])))
            for head in range(heads)
        ]
        weights.finish(tokens[some], torch.cat(found, dim=-1)[0])

    _all(pool, project, list(range(0, len(tokens), _TOKENS_AT_ONCE)))
    _all(pool, attend, list(range(0, len(tokens), _QUERIES_AT_ONCE)))


def _pooled(values: Float[Tensor, "n height width c"]) -> Float[Tensor, "n h w c"]:
    return max_pool2d(values.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def _heads(values: Float[Tensor, "n tokens c"], num: int) -> Float[Tensor, "heads tokens size"]:
    return values.unflatten(-1, (num, -1)).transpose(1, 2).flatten(0, 1)


def _attention(
    queries: Float[Tensor, "heads queries size"],
    keys: Float[Tensor, "heads tokens size"],
    values: Float[Tensor, "heads tokens size"],
) -> Float[Tensor, "heads queries size"]:
    """Plain products: for short rows and in bfloat16 they are faster than torch's fused kernel."""
    return torch.bmm(torch.softmax(torch.bmm(queries, keys.mT), dim=-1), values)
