"""Compiled kernels that hand out blending weights, from pixels to Gaussians.

They walk tiles and blocks as :mod:`hiersplat.gaussians.blending` does, front to back, and keep
nothing that grows with Gaussians times labels.
"""

import numpy as np

from hiersplat.gaussians.blending import BLOCKS, PIXELS
from hiersplat.gaussians.compiling import kernel
from hiersplat.gaussians.lanes import (
    any_lane,
    choose,
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
    take_ticket,
    total,
)
from hiersplat.gaussians.tiles import (
    OPACITY,
    RECORD,
    SIDE,
    TILE,
    XX,
    XY,
    YY,
    X,
    Y,
    column_of,
    row_of,
)

_ALPHA_MIN = np.float32(1.0 / 255.0)
_ALPHA_MAX = np.float32(0.999)
_STOP = np.float32(1e-4)
_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)
_BIT = np.uint64(1)


@kernel(inline=True)
def first_light(light, tile_x, tile_y, width, height):
    """Give every pixel of the tile that lies in the image its light; return the running blocks."""
    running = np.uint64(0)
    for block in range(BLOCKS):
        x = np.float32(tile_x + column_of(block)) + lane_column()
        y = np.float32(tile_y + row_of(block)) + lane_row()
        inside = (x < np.float32(width)) & (y < np.float32(height))
        store(light, block * 16, choose(inside, _ONE, _ZERO))
        if any_lane(inside):
            running |= _BIT << np.uint64(block)
    return running


@kernel(inline=True)
def weigh(light, records, at, tile_x, tile_y, block):
    """Return a Gaussian's weights in a block and dim the block's light; negative light is spent."""
    mean_x = records[at + X] - (np.float32(tile_x + column_of(block)) + _HALF)
    mean_y = records[at + Y] - (np.float32(tile_y + row_of(block)) + _HALF)
    dx, dy = mean_x - lane_column(), mean_y - lane_row()
    power = fused(
        dx, fused(records[at + XX], dx, records[at + XY] * dy), records[at + YY] * dy * dy
    )
    alpha = smaller(records[at + OPACITY] * exp2(power), _ALPHA_MAX)
    before = load(light, block * 16)
    weight = before * alpha
    after = before - weight
    blended = (alpha >= _ALPHA_MIN) & (after > _STOP)
    stopped = (alpha >= _ALPHA_MIN) & (after <= _STOP)
    weight = choose(blended, weight, _ZERO)
    store(light, block * 16, choose(stopped, _ZERO - magnitude(before), before - weight))
    return weight


@kernel(inline=True)
def is_spent(light, block):
    """Tell whether no pixel of a block has light left."""
    return not any_lane(load(light, block * 16) > _ZERO)


@kernel
def weigh_labels(
    tickets, starts, entries, words, records, order, labels, num_labels, width, height, owner, spans
):
    """Sum each Gaussian's weights over the pixels of each label, tile by tile.

    Args:
        tickets: One counter, shared by all workers, of tiles taken so far.
        starts: Start of every tile's list.
        entries: Ranks per tile.
        words: Blocks that every entry reaches.
        records: Records of every rank.
        order: Gaussian of every rank.
        labels: Label of every pixel, flat; negative ones are skipped.
        num_labels: Labels.
        width: Pixels in a row.
        height: Rows.
        owner: One number per worker-shared counter: receives how many workers have started.
        spans: Receives worker, first and end place of every tile's results.

    Returns:
        Gaussian, label and weight of every result of this worker, and which worker it is.
    """
    worker = take_ticket(owner)
    columns = (width + TILE - 1) // TILE
    light = np.empty(PIXELS, np.float32)
    local = np.empty(PIXELS, np.int32)
    of_block = np.empty(BLOCKS, np.int32)
    where = np.full(num_labels, -1, np.int32)
    names = np.empty(PIXELS + 1, np.int32)
    sums = np.zeros(PIXELS + 1, np.float32)
    touched = np.empty(PIXELS + 1, np.int32)
    stamps = np.full(PIXELS + 1, -1, np.int64)
    lanes = np.empty(16, np.float32)
    out_gaussian = np.empty(4096, np.int32)
    out_label = np.empty(4096, np.int32)
    out_weight = np.empty(4096, np.float32)
    found = 0
    while True:
        tile = take_ticket(tickets)
        if tile >= len(starts) - 1:
            break
        tile_x, tile_y = (tile % columns) * TILE, (tile // columns) * TILE
        running = first_light(light, tile_x, tile_y, width, height)
        # Labels of the tile are renumbered from 1; 0 takes the pixels without a label.
        known = 1
        for block in range(BLOCKS):
            of_block[block] = -1
            for lane in range(16):
                px = tile_x + column_of(block) + lane % SIDE
                py = tile_y + row_of(block) + lane // SIDE
                name = 0
                if px < width and py < height and labels[py * width + px] >= 0:
                    label = labels[py * width + px]
                    if where[label] < 0:
                        where[label] = known
                        names[known] = label
                        known += 1
                    name = where[label]
                local[block * 16 + lane] = name
                if lane == 0:
                    of_block[block] = name
                elif of_block[block] != name:
                    of_block[block] = -1
        spans[3 * tile] = worker
        spans[3 * tile + 1] = found
        for entry in range(starts[tile], starts[tile + 1]):
            if running == 0:
                break
            word = words[entry] & running
            at = np.int64(entries[entry]) * RECORD
            num_touched = 0
            while word != 0:
                block = lowest_bit(word)
                word &= word - _BIT
                weight = weigh(light, records, at, tile_x, tile_y, block)
                if not any_lane(weight > _ZERO):
                    if is_spent(light, block):
                        running &= ~(_BIT << np.uint64(block))
                    continue
                name = of_block[block]
                if name >= 0:
                    if stamps[name] != entry:
                        stamps[name] = entry
                        touched[num_touched] = name
                        num_touched += 1
                    sums[name] += total(weight)
                    continue
                store(lanes, 0, weight)
                for lane in range(16):
                    name = local[block * 16 + lane]
                    if stamps[name] != entry:
                        stamps[name] = entry
                        touched[num_touched] = name
                        num_touched += 1
                    sums[name] += lanes[lane]
            if found + num_touched > len(out_label):
                more = max(len(out_label), num_touched)
                out_gaussian = np.concatenate((out_gaussian, np.empty(more, np.int32)))
                out_label = np.concatenate((out_label, np.empty(more, np.int32)))
                out_weight = np.concatenate((out_weight, np.empty(more, np.float32)))
            for i in range(num_touched):
                name = touched[i]
                if name > 0 and sums[name] > _ZERO:
                    out_gaussian[found] = order[entries[entry]]
                    out_label[found] = names[name]
                    out_weight[found] = sums[name]
                    found += 1
                sums[name] = _ZERO
        spans[3 * tile + 2] = found
        for name in range(1, known):
            where[names[name]] = -1
    return out_gaussian[:found], out_label[:found], out_weight[:found], worker


@kernel
def weigh_maps(
    tickets,
    starts,
    entries,
    words,
    slot_of,
    records,
    values,
    num_channels,
    first_channel,
    end_channel,
    width,
    height,
    row_length,
    sums,
):
    """Sum each Gaussian's weights, and weights times a range of channels, into its slots.

    Arguments are those of :func:`weigh_labels`; ``values`` holds channels of every pixel, flat.
    A slot of ``sums`` receives the weight and then the channels.
    """
    columns = (width + TILE - 1) // TILE
    used = end_channel - first_channel
    light = np.empty(PIXELS, np.float32)
    planes = np.empty(PIXELS * used, np.float32)
    lanes = np.empty((used + 1) * 16, np.float32)
    zero = spread(_ZERO)
    while True:
        tile = take_ticket(tickets)
        if tile >= len(starts) - 1:
            break
        tile_x, tile_y = (tile % columns) * TILE, (tile // columns) * TILE
        running = first_light(light, tile_x, tile_y, width, height)
        for block in range(BLOCKS):
            px, py = tile_x + column_of(block), tile_y + row_of(block)
            if px >= width or py >= height:
                continue
            at = (py * width + px) * num_channels + first_channel
            step = width * num_channels
            for channel in range(used):
                plane = load_block(
                    values, at + channel, step, num_channels, height - py, width - px
                )
                store(planes, (block * used + channel) * 16, plane)
        for entry in range(starts[tile], starts[tile + 1]):
            word = words[entry] & running
            at = np.int64(entries[entry]) * RECORD
            for channel in range(used + 1):
                store(lanes, channel * 16, zero)
            while word != 0:
                block = lowest_bit(word)
                word &= word - _BIT
                weight = weigh(light, records, at, tile_x, tile_y, block)
                if not any_lane(weight > _ZERO):
                    if is_spent(light, block):
                        running &= ~(_BIT << np.uint64(block))
                    continue
                store(lanes, 0, load(lanes, 0) + weight)
                for channel in range(used):
                    p = (channel + 1) * 16
                    plane = load(planes, (block * used + channel) * 16)
                    store(lanes, p, fused(weight, plane, load(lanes, p)))
            row = slot_of[entry] * row_length
            for channel in range(used + 1):
                sums[row + channel] = total(load(lanes, channel * 16))


@kernel
def gather_sums(share, num_shares, slots, sums, row_length, order, first, used, totals, weights):
    """Add the slots of one share of the Gaussians to channels from ``first`` on."""
    count = len(order)
    for rank in range(count * share // num_shares, count * (share + 1) // num_shares):
        g = order[rank]
        for slot in range(slots[rank], slots[rank + 1]):
            if first == 0:
                weights[g] += sums[slot * row_length]
            for channel in range(used):
                totals[g, first + channel] += sums[slot * row_length + 1 + channel]
