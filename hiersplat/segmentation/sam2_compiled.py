# pyright: reportCallIssue=false
"""Compiled loops over image positions, each over one contiguous row so that it vectorises.

Exponential and error function are polynomials (Cephes, Eigen) good to single precision; the
libraries' own are called value by value from compiled loops and are ten times slower.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

_FLOAT = np.float32
_OPTIONS = {"fastmath": True, "nogil": True, "error_model": "numpy", "cache": True}
_TILE = 512
"""Positions worked on at once; a head's scores then fit the first-level cache."""


@intrinsic
def _float_from_bits(context, bits):  # noqa: ANN001, ANN202  # numba's own calling convention
    def generate(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@intrinsic
def _bits_from_float(context, value):  # noqa: ANN001, ANN202
    def generate(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


def _loaded(stored) -> Any:
    """Return a stored value as float32; bfloat16 is stored as uint16."""


def _stored(value, like) -> Any:
    """Return a float32 in the type of ``like``, rounded to the nearest bfloat16 if uint16."""


@overload(_loaded, inline="always")
def _(stored):
    if stored == types.uint16:
        return lambda stored: _float_from_bits(np.int32(np.uint32(stored) << np.uint32(16)))
    return lambda stored: stored


@overload(_stored, inline="always")
def _(value, like):
    if like == types.uint16:
        return lambda value, like: _bfloat16_bits(value)
    return lambda value, like: value


@njit(inline="always", **_OPTIONS)
def _bfloat16_bits(value):
    bits = _bits_from_float(value)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@njit(inline="always", **_OPTIONS)
def _exp(x):
    x = max(min(x, _FLOAT(88.0)), _FLOAT(-87.0))
    power = np.floor(x * _FLOAT(1.44269504) + _FLOAT(0.5))
    rest = x - power * _FLOAT(0.693359375) + power * _FLOAT(2.12194440e-4)
    value = _FLOAT(1.9875691500e-4)
    value = value * rest + _FLOAT(1.3981999507e-3)
    value = value * rest + _FLOAT(8.3334519073e-3)
    value = value * rest + _FLOAT(4.1665795894e-2)
    value = value * rest + _FLOAT(1.6666665459e-1)
    value = value * rest + _FLOAT(5.0000001201e-1)
    value = value * rest * rest + rest + _FLOAT(1.0)
    return value * _float_from_bits((np.int32(power) + np.int32(127)) << np.int32(23))


@njit(inline="always", **_OPTIONS)
def _gelu(x):
    z = max(min(x * _FLOAT(0.70710678), _FLOAT(4.0)), _FLOAT(-4.0))
    square = z * z
    upper = _FLOAT(-2.72614225801306e-10)
    upper = upper * square + _FLOAT(2.77068142495902e-08)
    upper = upper * square + _FLOAT(-2.10102402082508e-06)
    upper = upper * square + _FLOAT(-5.69250639462346e-05)
    upper = upper * square + _FLOAT(-7.34990630326855e-04)
    upper = upper * square + _FLOAT(-2.95459980854025e-03)
    upper = upper * square + _FLOAT(-1.60960333262415e-02)
    lower = _FLOAT(-1.45660718464996e-05)
    lower = lower * square + _FLOAT(-2.13374055278905e-04)
    lower = lower * square + _FLOAT(-1.68282697438203e-03)
    lower = lower * square + _FLOAT(-7.37332916720468e-03)
    lower = lower * square + _FLOAT(-1.42647390514189e-02)
    return _FLOAT(0.5) * x * (_FLOAT(1.0) + z * upper / lower)


@njit(**_OPTIONS)
def _maximum(row, most):
    for n in range(most.shape[0]):
        most[n] = max(most[n], row[n])


@njit(**_OPTIONS)
def _exponentials(row, most, total):
    for n in range(most.shape[0]):
        value = _exp(row[n] - most[n])
        row[n] = value
        total[n] += value


@njit(**_OPTIONS)
def _divide(row, total):
    for n in range(total.shape[0]):
        row[n] *= total[n]


@njit(**_OPTIONS)
def _invert(total):
    for n in range(total.shape[0]):
        total[n] = _FLOAT(1.0) / total[n]


@njit(**_OPTIONS)
def softmax_over_tokens(scores, tokens):
    """Softmax over each group of ``tokens`` rows, in place."""
    most, total = np.empty(_TILE, _FLOAT), np.empty(_TILE, _FLOAT)
    for start in range(0, scores.shape[1], _TILE):
        stop = min(start + _TILE, scores.shape[1])
        for first in range(0, scores.shape[0], tokens):
            high, norm = most[: stop - start], total[: stop - start]
            high[:] = _FLOAT(-3e38)
            norm[:] = _FLOAT(0.0)
            for row in range(first, first + tokens):
                _maximum(scores[row, start:stop], high)
            for row in range(first, first + tokens):
                _exponentials(scores[row, start:stop], high, norm)
            _invert(norm)
            for row in range(first, first + tokens):
                _divide(scores[row, start:stop], norm)


@njit(**_OPTIONS)
def _combine(row, shared, scale, offset, offset_scale, fixed, out, square):
    for n in range(row.shape[0]):
        own = (_loaded(row[n]) + offset) * offset_scale[n]
        value = own + _loaded(shared[n]) * scale[n] + _loaded(fixed[n])
        out[n] = value
        square[n] += value * value


@njit(**_OPTIONS)
def _scale_of(square, count, eps):
    for n in range(square.shape[0]):
        square[n] = _FLOAT(1.0) / np.sqrt(square[n] / count + eps)


@njit(**_OPTIONS)
def _affine_gelu(row, scale, weight, bias, out):
    for n in range(row.shape[0]):
        out[n] = _stored(_gelu(row[n] * scale[n] * weight + bias), out[n])


@njit(**_OPTIONS)
def combine_norm_gelu(values, start, shared, scale, offset, offset_scale, fixed, weight, bias, eps):
    """Add the shared terms to ``values``, normalise over channels, apply GELU; in place.

    ``values`` (groups x channels, tile) begins at position ``start`` of the other arrays; it
    is float32 or the bits of bfloat16, as are ``shared`` and ``fixed``. Its channels have mean
    zero within a group.
    """
    size, channels = values.shape[1], weight.shape[0]
    square = np.empty(size, _FLOAT)
    work = np.empty((channels, size), _FLOAT)
    stop = start + size
    for first in range(0, values.shape[0], channels):
        square[:] = _FLOAT(0.0)
        for channel in range(channels):
            row = first + channel
            _combine(
                values[row],
                shared[row, start:stop],
                scale[start:stop],
                offset[row],
                offset_scale[start:stop],
                fixed[row, start:stop],
                work[channel],
                square,
            )
        _scale_of(square, _FLOAT(channels), _FLOAT(eps))
        for channel in range(channels):
            row = first + channel
            _affine_gelu(work[channel], square, weight[channel], bias[channel], values[row])


@njit(**_OPTIONS)
def _add_gelu(row, fixed, out):
    for n in range(row.shape[0]):
        out[n] = _gelu(_loaded(row[n]) + _loaded(fixed[n]))


@njit(**_OPTIONS)
def _accumulate(row, factor, out):
    for n in range(row.shape[0]):
        out[n] += row[n] * factor


@njit(**_OPTIONS)
def gelu_product(values, start, width, fixed, hyper, out):
    """Add ``fixed``, apply GELU and multiply with ``hyper`` over channels, into ``out``.

    ``values`` (4, 4 x channels, tile) begins at position ``start`` of ``fixed``, which has its
    type or float32; a position is a 4 x 4 block of ``out`` (masks, height, width). The first axis
    is the sub-position of the first upscaling, the groups of the second are those of the second,
    both row by row.
    """
    size, channels = values.shape[2], hyper.shape[1]
    activated = np.empty(size, _FLOAT)
    sums = np.empty((hyper.shape[0], size), _FLOAT)
    stop = start + size
    for place in range(4):
        for group in range(4):
            sums[:] = _FLOAT(0.0)
            for channel in range(channels):
                row = group * channels + channel
                _add_gelu(values[place, row], fixed[place, row, start:stop], activated)
                for mask in range(hyper.shape[0]):
                    _accumulate(activated, hyper[mask, channel], sums[mask])
            down = 2 * (place // 2) + group // 2
            right = 2 * (place % 2) + group % 2
            for mask in range(hyper.shape[0]):
                for n in range(size):
                    y, x = divmod(start + n, width)
                    out[mask, 4 * y + down, 4 * x + right] = sums[mask, n]
