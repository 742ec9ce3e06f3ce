"""CLIPSeg cut in two at the decoder's inputs, so that a view and a text can be computed apart.

``transformers`` runs image encoder, text encoder and decoder in one call and without gradients
for the encoders; these are the same layers, called in the same order.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def reduced_activations(model: Any, pixels: "Tensor") -> "Tensor":
    """Return the decoder's inputs, (images, 1 + patches, dense_dim), deepest layer first.

    Args:
        model: A ``CLIPSegForImageSegmentation``.
        pixels: Normalised images, (images, 3, side, side).
    """
    import torch

    # Index 0 of the hidden states is what enters the first layer.
    wanted = [layer + 1 for layer in model.config.extract_layers]
    states = model.clip.vision_model(pixels, output_hidden_states=wanted).hidden_states
    deepest_first = [states[index] for index in reversed(wanted)]
    reduces = model.decoder.reduces
    return torch.cat(
        [reduce(state) for reduce, state in zip(reduces, deepest_first, strict=True)], dim=-1
    )


def decode(model: Any, reduced: "Tensor", conditions: "Tensor") -> "Tensor":
    """Return logits, (pairs, rows, columns), from the decoder's inputs on.

    Args:
        model: A ``CLIPSegForImageSegmentation``.
        reduced: Result of :func:`reduced_activations`, one row a pair.
        conditions: Text embedding of every pair, not normalised.
    """
    decoder = model.decoder
    output: Any = None
    parts = reduced.split(model.config.reduce_dim, dim=-1)
    for index, (part, layer) in enumerate(zip(parts, decoder.layers, strict=True)):
        output = part if output is None else part + output
        if index == decoder.conditional_layer:
            scale = decoder.film_mul(conditions)[:, None]
            output = scale * output + decoder.film_add(conditions)[:, None]
        output = layer(output, attention_mask=None)
    patches = output[:, 1:].transpose(1, 2)  # without the class token
    side = round(patches.shape[2] ** 0.5)
    return decoder.transposed_convolution(patches.unflatten(2, (side, side))).squeeze(1)
