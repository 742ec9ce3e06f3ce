"""Compiled kernels that blend Gaussians over tiles of pixels, forward and backward.

A worker takes one tile of 32 x 32 pixels at a time. The tile is cut into 64 blocks of 4 x 4 pixels,
one value of :mod:`hiersplat.gaussians.lanes` each, and a Gaussian visits the blocks whose bits are
set in its word. Arithmetic per pixel is that of gsplat's CUDA kernels: alpha is capped at 0.999,
alphas below 1/255 are skipped, and a pixel stops before the Gaussian that would bring its
transmittance to 1e-4 or less.
"""

import numpy as np

from hiersplat.gaussians.compiling import kernel
from hiersplat.gaussians.lanes import (
    any_lane,
    choose,
    count_bits,
    exp2,
    fused,
    lane_column,
    lane_row,
    load,
    load_block,
    lowest_bit,
    magnitude,
    smaller,
    spread,
    store,
    store_block,
    take_ticket,
    totals,
)
from hiersplat.gaussians.tiles import (
    BLOCKS_ACROSS,
    OPACITY,
    RECORD,
    TILE,
    XX,
    XY,
    YY,
    X,
    Y,
    column_of,
    row_of,
)

BLOCKS = BLOCKS_ACROSS * BLOCKS_ACROSS
PIXELS = TILE * TILE

MOMENTS = 8
"""Sums kept for a Gaussian in a tile: of 1, x, y, xx, xy, yy, |x| and |y|, then the channels."""

_ALPHA_MIN = np.float32(1.0 / 255.0)
_ALPHA_MAX = np.float32(0.999)
_STOP = np.float32(1e-4)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)
_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)
_BIT = np.uint64(1)


@kernel
def blend_forward(
    tickets,
    starts,
    entries,
    words,
    records,
    order,
    colors,
    num_channels,
    background,
    width,
    height,
    image,
    alphas,
    final,
    last,
    pairs,
):
    """Blend tiles until none is left.

    Args:
        tickets: One counter, shared by all workers, of tiles taken so far.
        starts: Start of every tile's list in ``entries``.
        entries: Ranks (places in ``order`` and ``records``) per tile, near to far.
        words: Blocks that every entry reaches; bits of those where nothing was blended are cleared.
        records: Records of :mod:`hiersplat.gaussians.tiles`.
        order: Gaussian of every rank.
        colors: Channels of every Gaussian, flat.
        num_channels: Channels.
        background: Channels behind everything, or nothing.
        width: Pixels in a row.
        height: Rows.
        image: Receives channels of every pixel, flat.
        alphas: Receives coverage of every pixel, flat.
        final: Receives transmittance, tile by tile, block by block.
        last: Receives, in the same order, one more than the last place in the list that counted.
        pairs: Its first number grows by the pixel-Gaussian pairs evaluated.
    """
    columns = (width + TILE - 1) // TILE
    # A block holds the light that is left (negative once a pixel has stopped), the last place, and
    # the channels.
    stride = (2 + num_channels) * 16
    scratch = np.empty(BLOCKS * stride, np.float32)
    evaluated = np.int64(0)
    while True:
        tile = take_ticket(tickets)
        if tile >= len(starts) - 1:
            break
        tile_x, tile_y = (tile % columns) * TILE, (tile // columns) * TILE
        scratch[:] = _ZERO
        running = np.uint64(0)
        for block in range(BLOCKS):
            # Pixels beyond the image have no light, so they never keep a block running.
            x = np.float32(tile_x + column_of(block)) + lane_column()
            y = np.float32(tile_y + row_of(block)) + lane_row()
            inside = (x < np.float32(width)) & (y < np.float32(height))
            store(scratch, block * stride, choose(inside, _ONE, _ZERO))
            if any_lane(inside):
                running |= _BIT << np.uint64(block)
        start, end = starts[tile], starts[tile + 1]
        corner_x = np.float32(tile_x) + _HALF
        corner_y = np.float32(tile_y) + _HALF
        for entry in range(start, end):
            word = words[entry] & running
            used = word
            evaluated += 16 * count_bits(word)
            rank = np.int64(entries[entry])
            at = rank * RECORD
            color_at = np.int64(order[rank]) * num_channels
            mean_x, mean_y = records[at + X] - corner_x, records[at + Y] - corner_y
            xx, xy, yy = records[at + XX], records[at + XY], records[at + YY]
            opacity = records[at + OPACITY]
            place = np.float32(entry - start + 1)
            while word != 0:
                block = lowest_bit(word)
                word &= word - _BIT
                o = block * stride
                dx = (mean_x - np.float32(column_of(block))) - lane_column()
                dy = (mean_y - np.float32(row_of(block))) - lane_row()
                power = fused(dx, fused(xx, dx, xy * dy), yy * dy * dy)
                alpha = smaller(opacity * exp2(power), _ALPHA_MAX)
                light = load(scratch, o)
                weight = light * alpha
                after = light - weight
                blended = (alpha >= _ALPHA_MIN) & (after > _STOP)
                # A pixel that stops keeps its light with a minus sign, which never blends again.
                stopped = (alpha >= _ALPHA_MIN) & (after <= _STOP)
                weight = choose(blended, weight, _ZERO)
                light = choose(stopped, _ZERO - magnitude(light), light - weight)
                store(scratch, o, light)
                if not any_lane(blended):
                    used ^= _BIT << np.uint64(block)
                    if not any_lane(light > _ZERO):
                        running &= ~(_BIT << np.uint64(block))
                    continue
                store(scratch, o + 16, choose(blended, place, load(scratch, o + 16)))
                for channel in range(num_channels):
                    p = o + 32 + channel * 16
                    store(scratch, p, fused(weight, colors[color_at + channel], load(scratch, p)))
            words[entry] = used
            if running == 0:
                words[entry + 1 : end] = 0
                break
        for block in range(BLOCKS):
            o = block * stride
            place_in_tile = tile * PIXELS + block * 16
            store(final, place_in_tile, magnitude(load(scratch, o)))
            store(last, place_in_tile, load(scratch, o + 16))
            px, py = tile_x + column_of(block), tile_y + row_of(block)
            if px >= width or py >= height:
                continue
            rows, across = height - py, width - px
            light = magnitude(load(scratch, o))
            at = py * width + px
            store_block(alphas, at, width, 1, rows, across, _ONE - light)
            at *= num_channels
            step = width * num_channels
            for channel in range(num_channels):
                value = load(scratch, o + 32 + channel * 16)
                if len(background) > 0:
                    value = fused(light, background[channel], value)
                store_block(image, at + channel, step, num_channels, rows, across, value)
    pairs[0] += evaluated


@kernel
def blend_backward(
    tickets,
    starts,
    entries,
    words,
    slot_of,
    records,
    order,
    colors,
    num_channels,
    background,
    width,
    height,
    final,
    last,
    grad_image,
    grad_alphas,
    absolute,
    row_length,
    grads,
):
    """Walk tiles back to front and write every Gaussian's gradient in every tile to its slot.

    Arguments are those of :func:`blend_forward`, with the words, transmittances and last places
    that it left. The ``row_length`` sums a slot receives are moments of alpha times its gradient,
    then gradients of the channels; :func:`gather_gradients` adds the slots of a Gaussian and turns
    moments into gradients. With ``absolute``, the last two moments are those of ``absgrad``.
    """
    columns = (width + TILE - 1) // TILE
    # A block holds: transmittance, last place, gradient still behind, then the image's gradients.
    stride = (3 + num_channels) * 16
    absolutes = BLOCKS * stride
    sums = absolutes + 32
    # Gradients of the channels follow, in room for whole groups of sixteen.
    scratch = np.zeros(sums + (num_channels + 24) * 16, np.float32)
    zero = spread(_ZERO)
    while True:
        tile = take_ticket(tickets)
        if tile >= len(starts) - 1:
            break
        tile_x, tile_y = (tile % columns) * TILE, (tile // columns) * TILE
        for block in range(BLOCKS):
            o = block * stride
            place_in_tile = tile * PIXELS + block * 16
            light = load(final, place_in_tile)
            store(scratch, o, light)
            store(scratch, o + 16, load(last, place_in_tile))
            px, py = tile_x + column_of(block), tile_y + row_of(block)
            if px >= width or py >= height:
                continue
            rows, across = height - py, width - px
            at = py * width + px
            behind = zero - load_block(grad_alphas, at, width, 1, rows, across)
            at *= num_channels
            step = width * num_channels
            for channel in range(num_channels):
                grad = load_block(grad_image, at + channel, step, num_channels, rows, across)
                store(scratch, o + 48 + channel * 16, grad)
                if len(background) > 0:
                    behind = fused(grad, background[channel], behind)
            # What lies behind the last Gaussian: the background, and coverage itself. Lanes beyond
            # the image have no light, so nothing comes of them.
            store(scratch, o + 32, behind * light)
        start = starts[tile]
        corner_x = np.float32(tile_x) + _HALF
        corner_y = np.float32(tile_y) + _HALF
        for entry in range(starts[tile + 1] - 1, start - 1, -1):
            row = slot_of[entry] * row_length
            word = words[entry]
            if word == 0:
                grads[row : row + row_length] = _ZERO
                continue
            rank = np.int64(entries[entry])
            at = rank * RECORD
            color_at = np.int64(order[rank]) * num_channels
            mean_x, mean_y = records[at + X] - corner_x, records[at + Y] - corner_y
            xx, xy, yy = records[at + XX], records[at + XY], records[at + YY]
            opacity = records[at + OPACITY]
            place = np.float32(entry - start + 1)
            m0 = zero
            mx = zero
            my = zero
            mxx = zero
            mxy = zero
            myy = zero
            if absolute:
                store(scratch, absolutes, zero)
                store(scratch, absolutes + 16, zero)
            for channel in range(num_channels):
                store(scratch, sums + channel * 16, zero)
            while word != 0:
                block = lowest_bit(word)
                word &= word - _BIT
                o = block * stride
                dx = (mean_x - np.float32(column_of(block))) - lane_column()
                dy = (mean_y - np.float32(row_of(block))) - lane_row()
                power = fused(dx, fused(xx, dx, xy * dy), yy * dy * dy)
                free = opacity * exp2(power)
                alpha = smaller(free, _ALPHA_MAX)
                blended = (alpha >= _ALPHA_MIN) & (load(scratch, o + 16) >= place)
                alpha = choose(blended, alpha, _ZERO)
                inverse = _ONE / (_ONE - alpha)
                light = load(scratch, o) * inverse
                store(scratch, o, light)
                weight = alpha * light
                shade = zero
                for channel in range(num_channels):
                    grad = load(scratch, o + 48 + channel * 16)
                    shade = fused(grad, colors[color_at + channel], shade)
                    p = sums + channel * 16
                    store(scratch, p, fused(weight, grad, load(scratch, p)))
                behind = load(scratch, o + 32)
                grad_alpha = shade * light - behind * inverse
                store(scratch, o + 32, fused(weight, shade, behind))
                # A capped alpha passes nothing on to opacity and shape.
                m = choose(free <= _ALPHA_MAX, alpha * grad_alpha, _ZERO)
                m0 = m0 + m
                tx = m * dx
                ty = m * dy
                mx = mx + tx
                my = my + ty
                mxx = fused(tx, dx, mxx)
                mxy = fused(tx, dy, mxy)
                myy = fused(ty, dy, myy)
                if absolute:
                    across = magnitude(fused(_TWO * xx, tx, xy * ty))
                    down = magnitude(fused(_TWO * yy, ty, xy * tx))
                    store(scratch, absolutes, load(scratch, absolutes) + across)
                    store(scratch, absolutes + 16, load(scratch, absolutes + 16) + down)
            c = sums
            both = totals(
                m0,
                mx,
                my,
                mxx,
                mxy,
                myy,
                load(scratch, absolutes),
                load(scratch, absolutes + 16),
                load(scratch, c),
                load(scratch, c + 16),
                load(scratch, c + 32),
                load(scratch, c + 48),
                load(scratch, c + 64),
                load(scratch, c + 80),
                load(scratch, c + 96),
                load(scratch, c + 112),
            )
            store(grads, row, both)
            for group in range(16, row_length, 16):
                c = sums + (group - MOMENTS) * 16
                both = totals(
                    load(scratch, c),
                    load(scratch, c + 16),
                    load(scratch, c + 32),
                    load(scratch, c + 48),
                    load(scratch, c + 64),
                    load(scratch, c + 80),
                    load(scratch, c + 96),
                    load(scratch, c + 112),
                    load(scratch, c + 128),
                    load(scratch, c + 144),
                    load(scratch, c + 160),
                    load(scratch, c + 176),
                    load(scratch, c + 192),
                    load(scratch, c + 208),
                    load(scratch, c + 224),
                    load(scratch, c + 240),
                )
                store(grads, row + group, both)


_LN2 = np.float32(0.6931471805599453)


@kernel
def gather_gradients(
    share,
    num_shares,
    slots,
    grads,
    row_length,
    records,
    order,
    num_channels,
    absolute,
    grad_means2d,
    grad_absolute,
    grad_conics,
    grad_colors,
    grad_opacities,
):
    """Add the slots of one share of the Gaussians and turn moments into gradients."""
    sums = np.empty(row_length, np.float32)
    count = len(order)
    for rank in range(count * share // num_shares, count * (share + 1) // num_shares):
        sums[:] = _ZERO
        for slot in range(slots[rank], slots[rank + 1]):
            for k in range(MOMENTS + num_channels):
                sums[k] += grads[slot * row_length + k]
        g = order[rank]
        at = rank * RECORD
        # Records count in powers of two and hold -sigma; gradients want powers of e and sigma.
        xx, xy, yy = records[at + XX], records[at + XY], records[at + YY]
        grad_means2d[2 * g] = _LN2 * (_TWO * xx * sums[1] + xy * sums[2])
        grad_means2d[2 * g + 1] = _LN2 * (_TWO * yy * sums[2] + xy * sums[1])
        grad_conics[3 * g] = -_HALF * sums[3]
        grad_conics[3 * g + 1] = -sums[4]
        grad_conics[3 * g + 2] = -_HALF * sums[5]
        grad_opacities[g] = sums[0] / records[at + OPACITY]
        if absolute:
            grad_absolute[2 * g] = _LN2 * sums[6]
            grad_absolute[2 * g + 1] = _LN2 * sums[7]
        for channel in range(num_channels):
            grad_colors[g * num_channels + channel] = sums[MOMENTS + channel]
