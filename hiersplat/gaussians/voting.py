"""A compiled kernel in which Gaussians vote, by blending weight, for the ids of pixels."""

import numpy as np

from hiersplat.gaussians.blending import BLOCKS, PIXELS
from hiersplat.gaussians.compiling import kernel
from hiersplat.gaussians.lanes import (
    any_lane,
    choose,
    load,
    lowest_bit,
    magnitude,
    spread,
    store,
    take_ticket,
)
from hiersplat.gaussians.tiles import RECORD, SIDE, TILE, column_of, row_of
from hiersplat.gaussians.weighing import first_light, is_spent, weigh

_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)
_BIT = np.uint64(1)


@kernel
def vote_ids(tickets, starts, entries, words, records, order, ids, num_ids, width, height, out):
    """Write the id with the largest blended weight of every pixel and level.

    Args:
        tickets: One counter, shared by all workers, of tiles taken so far.
        starts: Start of every tile's list.
        entries: Ranks per tile.
        words: Blocks that every entry reaches.
        records: Records of every rank.
        order: Gaussian of every rank.
        ids: Ids of every Gaussian per level, from -1 on.
        num_ids: One more than the largest id.
        width: Pixels in a row.
        height: Rows.
        out: Receives ids per level and pixel, flat per level; -1 where less than half is covered.
    """
    columns = (width + TILE - 1) // TILE
    num_levels = len(ids)
    light = np.empty(PIXELS, np.float32)
    where = np.full((num_levels, num_ids + 1), -1, np.int32)
    names = np.empty((num_levels, num_ids + 1), np.int32)
    known = np.zeros(num_levels, np.int64)
    winners = np.empty(16, np.float32)
    votes = np.empty(0, np.float32)
    while True:
        tile = take_ticket(tickets)
        if tile >= len(starts) - 1:
            break
        tile_x, tile_y = (tile % columns) * TILE, (tile // columns) * TILE
        running = first_light(light, tile_x, tile_y, width, height)
        # Ids of the tile are renumbered from 0, so votes need little room; -1 votes as well.
        most = 0
        for level in range(num_levels):
            known[level] = 0
            for entry in range(starts[tile], starts[tile + 1]):
                name = ids[level, order[entries[entry]]] + 1
                if where[level, name] < 0:
                    where[level, name] = known[level]
                    names[level, known[level]] = name
                    known[level] += 1
            most = max(most, known[level])
        room = num_levels * most * PIXELS
        if len(votes) < room:
            votes = np.empty(room, np.float32)
        votes[:room] = _ZERO
        for entry in range(starts[tile], starts[tile + 1]):
            if running == 0:
                break
            word = words[entry] & running
            rank = np.int64(entries[entry])
            while word != 0:
                block = lowest_bit(word)
                word &= word - _BIT
                weight = weigh(light, records, rank * RECORD, tile_x, tile_y, block)
                if not any_lane(weight > _ZERO):
                    if is_spent(light, block):
                        running &= ~(_BIT << np.uint64(block))
                    continue
                for level in range(num_levels):
                    name = np.int64(where[level, ids[level, order[rank]] + 1])
                    p = (level * most + name) * PIXELS + block * 16
                    store(votes, p, load(votes, p) + weight)
        for level in range(num_levels):
            for block in range(BLOCKS):
                best = spread(_ZERO)
                winner = spread(np.float32(-1.0))
                for name in range(known[level]):
                    vote = load(votes, (level * most + name) * PIXELS + block * 16)
                    more = vote > best
                    winner = choose(more, np.float32(name), winner)
                    best = choose(more, vote, best)
                covered = magnitude(load(light, block * 16)) <= _HALF
                store(winners, 0, choose(covered, winner, np.float32(-1.0)))
                for lane in range(16):
                    px = tile_x + column_of(block) + lane % SIDE
                    py = tile_y + row_of(block) + lane // SIDE
                    if px < width and py < height:
                        name = np.int64(winners[lane])
                        value = names[level, name] - 1 if name >= 0 else -1
                        out[level, py * width + px] = value
            for name in range(known[level]):
                where[level, names[level, name]] = -1
