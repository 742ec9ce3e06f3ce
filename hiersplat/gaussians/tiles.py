"""Compiled kernels that say which Gaussian reaches which pixels, front to back.

The image is cut into tiles and these into 64 blocks of 4 x 4 pixels. A tile's list holds, near to
far, the Gaussians that reach it, each with a word of 64 bits: the blocks that its ellipse of alpha
1/255 touches. Bands of four rows are intersected with the ellipse exactly, so blocks on which a
Gaussian leaves nothing are never visited. As in gsplat, the reach also ends with the tiles of
``tile_size`` that the square of the radius touches.
"""

import math

import numpy as np

from hiersplat.gaussians.compiling import kernel
from hiersplat.gaussians.lanes import (
    choose,
    difference_of_products,
    lane_number,
    larger,
    load,
    round_down,
    round_up,
    smaller,
    square_root,
    store,
)

SIDE = 4
"""Pixels along a side of a block; written as shifts by 2 where it matters."""

BLOCKS_ACROSS = 8
"""Blocks along a side of a tile; written as shifts by 3 where it matters."""

TILE = SIDE * BLOCKS_ACROSS
"""Pixels along a side of a tile, which one worker blends at a time."""

RECORD = 8
"""Numbers kept of a Gaussian while it is blended."""

# Places within a record. Alpha is ``opacity * 2 ** (XX dx^2 + XY dx dy + YY dy^2)``.
X, Y, XX, XY, YY, OPACITY = range(6)

_LOG2_E = np.float32(1.0 / math.log(2.0))
_HALF_LOG2_E = np.float32(0.5 / math.log(2.0))
_LEVEL_MARGIN = np.float32(1e-4)
_MARGIN = np.float32(0.02)
"""Pixels by which the ellipse is widened; the exact decision is taken pixel by pixel."""

_ZERO = np.float32(0.0)
_QUARTER = np.float32(0.25)
_HALF = np.float32(0.5)
_FOUR = np.float32(4.0)
_ONE = np.float32(1.0)
_SIDE = np.float32(SIDE)
_PER_SIDE = np.float32(1.0 / SIDE)
_BIT = np.uint64(1)


@kernel(inline=True)
def column_of(block):
    """Return the first column of a block within its tile; shifts, since signs cannot occur."""
    return (block & 7) << 2


@kernel(inline=True)
def row_of(block):
    """Return the first row of a block within its tile."""
    return (block >> 3) << 2


@kernel
def sort_by_depth(depths, radii, opacities):
    """Return the ids of visible Gaussians, near to far; equal depths keep their order."""
    count = 0
    for i in range(len(depths)):
        count += radii[i] > 0 and opacities[i] >= np.float32(1.0 / 255.0)
    ids = np.empty(count, np.int32)
    keys = np.empty(count, np.uint32)
    bits = depths.view(np.uint32)
    counts = np.zeros((3, 2048), np.int64)
    at = 0
    for i in range(len(depths)):
        if radii[i] > 0 and opacities[i] >= np.float32(1.0 / 255.0):
            # Floats sort like integers once negative ones are turned round.
            word = bits[i]
            key = ~word if word >> np.uint32(31) else word | np.uint32(0x80000000)
            ids[at] = i
            keys[at] = key
            counts[0, key & np.uint32(2047)] += 1
            counts[1, (key >> np.uint32(11)) & np.uint32(2047)] += 1
            counts[2, key >> np.uint32(22)] += 1
            at += 1
    other_ids = np.empty(count, np.int32)
    other_keys = np.empty(count, np.uint32)
    for digit in range(3):
        shift = np.uint32(11 * digit)
        place = np.int64(0)
        for i in range(2048):
            found = counts[digit, i]
            counts[digit, i] = place
            place += found
        for i in range(count):
            key = (keys[i] >> shift) & np.uint32(2047)
            place = counts[digit, key]
            counts[digit, key] = place + 1
            other_ids[place] = ids[i]
            other_keys[place] = keys[i]
        ids, other_ids = other_ids, ids
        keys, other_keys = other_keys, keys
    return ids


@kernel(inline=True)
def _find_ellipses(ellipses, tile_size, width, height):
    """Turn sixteen centres, conics, levels and radii into ellipses and bounds, column by column.

    The conics become those of a record. On the ellipse, ``x = slope y +- sqrt(across - narrowing
    y^2)`` from the centre; its half height and the row of its rightmost tip follow, and bounds in
    pixels.
    """
    mean_x, mean_y = load(ellipses, 0), load(ellipses, 16)
    xx = load(ellipses, 32) * _HALF_LOG2_E
    xy = load(ellipses, 48) * _LOG2_E
    yy = load(ellipses, 64) * _HALF_LOG2_E
    store(ellipses, 32, _ZERO - xx)
    store(ellipses, 48, _ZERO - xy)
    store(ellipses, 64, _ZERO - yy)
    level = larger(load(ellipses, 80), _ZERO) + _LEVEL_MARGIN
    determinant = difference_of_products(_FOUR * xx, yy, xy)
    # A shape lost to rounding is a needle of which only the bounds are known.
    determinant = choose(determinant > _ZERO, determinant, np.float32(1e-30))
    tall = level / determinant
    half_height = square_root(_FOUR * xx * tall)
    store(ellipses, 112, half_height)
    store(ellipses, 128, _ZERO - xy * square_root(tall / yy))
    inverse = _ONE / xx
    store(ellipses, 144, (_ZERO - _HALF) * xy * inverse)
    store(ellipses, 160, level * inverse)
    store(ellipses, 176, _QUARTER * determinant * inverse * inverse)
    reach = load(ellipses, 96) / tile_size
    tile_x, tile_y = mean_x / tile_size, mean_y / tile_size
    middle = mean_y - _HALF
    store(ellipses, 192, larger(round_down(tile_x - reach) * tile_size, _ZERO))
    store(ellipses, 208, smaller(round_up(tile_x + reach) * tile_size, width))
    from_y = larger(round_down(tile_y - reach) * tile_size, _ZERO)
    to_y = smaller(round_up(tile_y + reach) * tile_size, height)
    store(ellipses, 224, larger(round_up(middle - half_height - _MARGIN), from_y))
    store(ellipses, 240, smaller(round_down(middle + half_height + _MARGIN) + _ONE, to_y))


@kernel(inline=True)
def _find_spans(ellipses, lane, row, spans):
    """Write the first and last block of sixteen bands of four rows, from block row ``row`` on."""
    mean_x, middle = ellipses[lane] - _HALF, ellipses[16 + lane] - _HALF
    half_height, tip = ellipses[112 + lane], ellipses[128 + lane]
    slope, across, narrowing = ellipses[144 + lane], ellipses[160 + lane], ellipses[176 + lane]
    from_x, to_x = ellipses[192 + lane], ellipses[208 + lane]
    from_y, to_y = ellipses[224 + lane], ellipses[240 + lane]
    top = np.float32(row << 2) + lane_number() * _SIDE
    low = larger(top, from_y) - middle
    high = smaller(top + (_SIDE - _ONE), to_y - _ONE) - middle
    low = smaller(larger(low, -half_height), half_height)
    high = smaller(larger(high, -half_height), half_height)
    y = smaller(larger(low, tip), high)
    right = square_root(larger(across - narrowing * y * y, _ZERO)) + slope * y
    y = smaller(larger(low, -tip), high)
    left = slope * y - square_root(larger(across - narrowing * y * y, _ZERO))
    left = larger(round_up(left + (mean_x - _MARGIN)), from_x)
    right = smaller(round_down(right + (mean_x + _MARGIN)), to_x - _ONE)
    store(spans, lane * 32, round_down(left * _PER_SIDE))
    # A band that reaches no centre of a pixel ends before it begins.
    last = choose(left <= right, round_down(right * _PER_SIDE), np.float32(-1.0))
    store(spans, lane * 32 + 16, last)


@kernel
def list_blocks(
    share,
    num_shares,
    order,
    means2d,
    conics,
    opacities,
    levels,
    radii,
    tile_size,
    width,
    height,
    records,
    first_slots,
    histogram,
):
    """Fill the records of one share of the Gaussians and list the tiles and blocks they reach.

    Args:
        share: Which share.
        num_shares: Of how many.
        order: Gaussian of every rank; the share is a range of ranks.
        means2d: Centres, flat.
        conics: Inverse covariances, flat, in gsplat's convention.
        opacities: Opacities.
        levels: Logarithms to base 2 of 255 times the opacities.
        radii: Radii in pixels.
        tile_size: gsplat's tiles, a multiple of four.
        width: Pixels in a row.
        height: Rows.
        records: Receives the records.
        first_slots: Receives the place of every rank's first slot among those of its share.
        histogram: Receives, per share and tile, how many Gaussians reach it.

    Returns:
        Rank, tile and word of blocks of every slot; slots are listed by rank.
    """
    tile_columns = (width + TILE - 1) // TILE
    count = len(order)
    first_rank = count * share // num_shares
    end_rank = count * (share + 1) // num_shares
    capacity = 4 * (end_rank - first_rank) + 4 * tile_columns
    ranks = np.empty(capacity, np.int32)
    tile_ids = np.empty(capacity, np.int32)
    words = np.empty(capacity, np.uint64)
    band = np.zeros(tile_columns, np.uint64)
    ellipses = np.zeros(16 * 16, np.float32)
    spans = np.empty(16 * 32, np.float32)
    found = 0
    for rank in range(first_rank, end_rank):
        lane = (rank - first_rank) % 16
        if lane == 0:
            for i in range(min(16, end_rank - rank)):
                g = order[rank + i]
                ellipses[i] = means2d[2 * g]
                ellipses[16 + i] = means2d[2 * g + 1]
                ellipses[32 + i] = conics[3 * g]
                ellipses[48 + i] = conics[3 * g + 1]
                ellipses[64 + i] = conics[3 * g + 2]
                ellipses[80 + i] = levels[g]
                ellipses[96 + i] = radii[g]
            _find_ellipses(ellipses, np.float32(tile_size), np.float32(width), np.float32(height))
            # Spans of all sixteen come before the branches that hang on them, which would
            # otherwise wait for one square root after the other.
            for i in range(16):
                _find_spans(ellipses, i, np.int64(ellipses[224 + i]) >> 2, spans)
        first_slots[rank] = found
        at = rank * RECORD
        records[at + X] = ellipses[lane]
        records[at + Y] = ellipses[16 + lane]
        records[at + XX] = ellipses[32 + lane]
        records[at + XY] = ellipses[48 + lane]
        records[at + YY] = ellipses[64 + lane]
        records[at + OPACITY] = opacities[order[rank]]
        from_x, to_x = ellipses[192 + lane], ellipses[208 + lane]
        from_y, to_y = ellipses[224 + lane], ellipses[240 + lane]
        if not (from_y < to_y and from_x < to_x):
            continue
        block_row = np.int64(from_y) >> 2
        end_block_row = (np.int64(to_y) + 3) >> 2
        lowest, highest = tile_columns, -1
        for row in range(block_row, end_block_row):
            step = (row - block_row) & 15
            if step == 0 and row > block_row:
                _find_spans(ellipses, lane, row, spans)
            first = np.int64(spans[lane * 32 + step])
            last = np.int64(spans[lane * 32 + 16 + step])
            row_in_tile = row & 7
            if last >= first:
                lowest = min(lowest, first >> 3)
                highest = max(highest, last >> 3)
                for column in range(first >> 3, (last >> 3) + 1):
                    start = max(first - column * BLOCKS_ACROSS, 0)
                    end = min(last - column * BLOCKS_ACROSS, BLOCKS_ACROSS - 1)
                    run = ((_BIT << np.uint64(end - start + 1)) - _BIT) << np.uint64(start)
                    band[column] |= run << np.uint64(row_in_tile * BLOCKS_ACROSS)
            if row_in_tile == BLOCKS_ACROSS - 1 or row == end_block_row - 1:
                tile = (row >> 3) * tile_columns
                if found + tile_columns > len(ranks):
                    ranks = np.concatenate((ranks, np.empty_like(ranks)))
                    tile_ids = np.concatenate((tile_ids, np.empty_like(tile_ids)))
                    words = np.concatenate((words, np.empty_like(words)))
                for column in range(lowest, highest + 1):
                    if band[column] != 0:
                        ranks[found] = rank
                        tile_ids[found] = tile + column
                        words[found] = band[column]
                        band[column] = 0
                        found += 1
                        histogram[share, tile + column] += 1
                lowest, highest = tile_columns, -1
    return ranks[:found], tile_ids[:found], words[:found]


@kernel
def start_tiles(histogram):
    """Return the start of every tile's list, and one more.

    ``histogram`` becomes the place of each share's first entry in each tile.
    """
    num_shares, num_tiles = histogram.shape
    starts = np.empty(num_tiles + 1, np.int64)
    at = np.int64(0)
    for tile in range(num_tiles):
        starts[tile] = at
        for share in range(num_shares):
            found = histogram[share, tile]
            histogram[share, tile] = at
            at += found
    starts[num_tiles] = at
    return starts


@kernel
def fill_tiles(
    share,
    num_shares,
    ranks,
    tile_ids,
    words,
    first_slot,
    histogram,
    first_slots,
    entries,
    entry_words,
    slot_of,
):
    """Write one share's slots into the tiles' lists, which stay sorted by rank."""
    count = len(first_slots) - 1
    for rank in range(count * share // num_shares, count * (share + 1) // num_shares):
        first_slots[rank] += first_slot
    for i in range(len(ranks)):
        place = histogram[share, tile_ids[i]]
        histogram[share, tile_ids[i]] = place + 1
        entries[place] = ranks[i]
        entry_words[place] = words[i]
        slot_of[place] = first_slot + i
