"""Compiled measurement of masks at full resolution, from the logits they are upsampled from.

Interpolation follows ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``,
across columns first. Nothing is formed at full resolution but a row or a column at a time.
"""

import numpy as np
from numba import njit

_FLOAT = np.float32
_OPTIONS = {"nogil": True, "error_model": "numpy", "cache": True}


def source_positions(size: int, source_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for every upsampled position, its two sources and the weight of the second."""
    scale = _FLOAT(source_size) / _FLOAT(size)
    source = scale * (np.arange(size, dtype=_FLOAT) + _FLOAT(0.5)) - _FLOAT(0.5)
    source = np.maximum(source, _FLOAT(0.0))
    first = source.astype(np.int32)
    return first, np.minimum(first + 1, source_size - 1), source - first.astype(_FLOAT)


def segment_starts(first: np.ndarray, source_size: int) -> np.ndarray:
    """Return the first position of every segment between neighbouring sources, and the end."""
    return np.searchsorted(first, np.arange(source_size + 1)).astype(np.int32)


@njit(fastmath=True, **_OPTIONS)
def _blend(left, right, weight, out):
    for n in range(out.shape[0]):
        out[n] = left[n] * (_FLOAT(1.0) - weight) + right[n] * weight


@njit(fastmath=True, **_OPTIONS)
def _expand(row, first, second, weights, out):
    for x in range(out.shape[0]):
        out[x] = row[first[x]] * (_FLOAT(1.0) - weights[x]) + row[second[x]] * weights[x]


@njit(fastmath=True, **_OPTIONS)
def _count_row(above, below, weight, low, high):
    lows = np.int32(0)
    highs = np.int32(0)
    for x in range(above.shape[0]):
        value = above[x] * (_FLOAT(1.0) - weight) + below[x] * weight
        lows += np.int32(value > low)
        highs += np.int32(value > high)
    return lows, highs


@njit(fastmath=True, **_OPTIONS)
def _peak(row):
    peak = row[0]
    for x in range(row.shape[0]):
        peak = max(peak, row[x])
    return peak


@njit(**_OPTIONS)
def _peaks(rows):
    peaks = np.empty(rows.shape[0], _FLOAT)
    for n in range(rows.shape[0]):
        peaks[n] = _peak(rows[n])
    return peaks


@njit(**_OPTIONS)
def count_above(logits, across, starts, weights, low, high):
    """Count the pixels of an upsampled mask above two thresholds.

    ``across`` are the sources and weights of the columns, ``starts`` and ``weights`` the
    segments and weights of the rows. Rows that a mask does not reach are left out. Of the others
    every pixel is evaluated: once rows are expanded that is plain vector arithmetic, and takes as
    long for a ragged mask as for a smooth one.
    """
    first, second, across_weights = across
    above = np.empty(first.shape[0], _FLOAT)
    below = np.empty(first.shape[0], _FLOAT)
    above_low = above_high = 0
    peaks = _peaks(logits)
    expanded = -1  # Row of the logits in ``below``.
    for n in range(logits.shape[0]):
        following = min(n + 1, logits.shape[0] - 1)
        if max(peaks[n], peaks[following]) <= low:
            continue
        above, below = below, above
        if expanded != n:
            _expand(logits[n], first, second, across_weights, above)
        _expand(logits[following], first, second, across_weights, below)
        expanded = following
        for y in range(starts[n], starts[n + 1]):
            lows, highs = _count_row(above, below, weights[y], low, high)
            above_low += lows
            above_high += highs
    return above_low, above_high


@njit(**_OPTIONS)
def trace_edges(columns, across, starts, weights, threshold, left, top, full_height):
    """Return where an upsampled mask begins and ends in turn, and its box.

    Between two rows of the logits an upsampled column is linear, so where both ends lie on the
    same side of the threshold nothing in between has to be evaluated. ``columns`` (width, height)
    are the logits, transposed; the other arguments are those of :func:`count_above`. Edges are
    flat positions in the whole image, column by column; the box is XYXY within the crop, with
    the last pixel included, and zeros for an empty mask.
    """
    first, second, weight = across
    height = starts[starts.shape[0] - 1]
    last = columns.shape[1] - 1
    column = np.empty(columns.shape[1], _FLOAT)
    edges = np.empty(4096, np.int32)
    count = 0
    peaks = _peaks(columns)
    box = np.array([1 << 30, 1 << 30, -1, -1])
    for x in range(first.shape[0]):
        if max(peaks[first[x]], peaks[second[x]]) <= threshold:
            continue
        _blend(columns[first[x]], columns[second[x]], weight[x], column)
        if edges.shape[0] < count + height + 2:
            grown = np.empty(2 * edges.shape[0] + height + 2, np.int32)
            grown[:count] = edges[:count]
            edges = grown
        origin = (left + x) * full_height + top
        inside = False
        column_first = count
        for n in range(column.shape[0]):
            here, there = column[n], column[min(n + 1, last)]
            if starts[n] == starts[n + 1]:
                continue
            if (here > threshold) == inside and (there > threshold) == inside:
                continue
            for y in range(starts[n], starts[n + 1]):
                value = here * (_FLOAT(1.0) - weights[y]) + there * weights[y]
                if (value > threshold) != inside:
                    inside = not inside
                    edge = origin + y
                    if inside:
                        box[1] = min(box[1], y)
                    else:
                        box[3] = max(box[3], y - 1)
                    # A run that goes on from the column before has no edge between them.
                    if count and count == column_first and edges[count - 1] == edge:
                        count -= 1
                        column_first = -1
                    else:
                        edges[count] = edge
                        count += 1
                    box[0] = min(box[0], x)
                    box[2] = max(box[2], x)
        if inside:
            edges[count] = origin + height
            count += 1
            box[3] = height - 1
    if box[2] < 0:
        box[:] = 0
    return edges[:count].copy(), box


@njit(**_OPTIONS)
def fill_runs(edges, flat):
    """Set every run between an edge where a mask begins and the next, where it ends."""
    for n in range(0, edges.shape[0], 2):
        flat[edges[n] : edges[n + 1]] = True
