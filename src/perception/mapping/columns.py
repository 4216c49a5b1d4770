# SPDX-License-Identifier: Apache-2.0
"""What changed since a cursor, and the occupied voxels of columns: the reading side for costmaps.

A tile is a square of 8 x 8 columns of voxels, the footprint of a brick: (x key // 8, y key // 8).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.mapping import bricks as layout
from perception.mapping.bricks import Shard, directory_place, find_region
from perception.mapping.entries import CHUNK, END
from perception.mapping.fusion import NO_LABEL
from perception.mapping.keys import BLOCK_VOXELS, BLOCKS, brick_shard, unpack_brick, voxel_offset
from perception.mapping.store import BrickStore, live_bricks
from perception.numba_cache import inlined, inner, njit

MARKED_TILES = 1 << 20
"""Up to a box of so many tiles repeats are found by marking them in it."""


class Cursor(NamedTuple):
    """A moment in the life of a map; only a map makes and reads it."""

    epoch: int
    first: int
    second: int


def changed_bricks(store: BrickStore, cursor: Cursor | None) -> tuple[NDArray[np.int64] | None, Cursor]:
    """Packed keys, with repeats, of the bricks that changed since a cursor; None when it is too old to tell."""
    counts = [int(shard.counters[layout.LOGGED]) for shard in store.shards]
    now = Cursor(store.epoch, counts[0], counts[1])
    if cursor is None or cursor.epoch != now.epoch:
        return None, now
    keys = []
    for shard, since, count in zip(store.shards, cursor[1:], counts, strict=True):
        if count - since > layout.LOG_LENGTH:
            return None, now
        keys.append(shard.log[np.arange(since, count) & (layout.LOG_LENGTH - 1)])
    return np.concatenate(keys), now


def tiles_of(packed: NDArray[np.int64]) -> NDArray[np.int64]:
    """(T, 2) int64 tiles of packed brick keys, ascending, without repeats."""
    found, is_small = _tiles_by_marking(packed)
    if is_small:
        return found
    tiles = np.unique(packed >> 13)
    return np.stack([tiles >> 13, tiles & 8191], axis=1)


@njit(cache=True, nogil=True)
def _tiles_by_marking(packed):
    """The tiles, found on a map of the box around them: no sorting; False when that box is too large."""
    x0, y0, x1, y1 = 8192, 8192, -1, -1
    for key in packed:
        x, y = key >> 26, (key >> 13) & 8191
        x0, y0, x1, y1 = min(x0, x), min(y0, y), max(x1, x), max(y1, y)
    columns, rows = max(x1 - x0 + 1, 0), max(y1 - y0 + 1, 0)
    if columns * rows > MARKED_TILES:
        return np.empty((0, 2), np.int64), False
    marks = np.zeros((columns, rows), np.bool_)
    count = 0
    for key in packed:
        x, y = (key >> 26) - x0, ((key >> 13) & 8191) - y0
        count += not marks[x, y]
        marks[x, y] = True
    tiles = np.empty((count, 2), np.int64)
    place = 0
    for x in range(columns):
        for y in range(rows):
            if marks[x, y]:
                tiles[place, 0], tiles[place, 1] = x0 + x, y0 + y
                place += 1
    return tiles, True


def all_tiles(shards: list[Shard]) -> NDArray[np.int64]:
    """(T, 2) int64 tiles that hold any brick."""
    return tiles_of(np.concatenate([shard.keys[live_bricks(shard)] for shard in shards]))


@njit(cache=True, nogil=True)
def region_heights(shards):
    """Lowest and highest region key along z, (0, -1) for an empty map."""
    lowest, highest = np.int64(512), np.int64(-1)
    for owner in range(2):
        shard = shards[1] if owner else shards[0]
        for region in range(shard.counters[layout.REGIONS]):
            if shard.region_bricks[region] > 0:
                z = shard.region_keys[region] & 1023
                lowest, highest = min(lowest, z), max(highest, z)
    return (lowest, highest) if highest >= 0 else (np.int64(0), np.int64(-1))


@inner
def _tile_bricks(shards, owner, tx, ty, lowest, highest, bricks):
    """Numbers of the bricks above a tile, all in the shard of its column, from low to high; returns how many."""
    count = 0
    for rz in range(lowest, highest + 1):
        key = ((tx >> 3) << 20) | ((ty >> 3) << 10) | rz
        region = find_region(shards[1], key) if owner else find_region(shards[0], key)
        if region < 0:
            continue
        for bz in range(rz * 16, rz * 16 + 16):
            place = directory_place(tx, ty, bz)
            brick = shards[1].directories[region, place] if owner else shards[0].directories[region, place]
            if brick >= 0:
                bricks[count] = brick
                count += 1
    return count


@inlined
def _block_values(shard, brick, block, values):
    """Copy the log-odds of a block to values (64,) float32; whether any is occupied."""
    row = np.int64(shard.rows[brick, block])
    if row < 0:
        uniform = shard.uniform[brick, block]
        if uniform >= 0:
            for i in range(BLOCK_VOXELS):
                values[i] = uniform
        return uniform >= 0
    source = shard.values[row]
    occupied = np.int32(0)
    # Most blocks hold only free and unknown voxels: one pass without a branch finds that out.
    for i in range(BLOCK_VOXELS):
        values[i] = source[i]
        occupied |= np.int32(source[i] >= 0)
    return occupied != 0


@inner
def _list_occupied(shard, brick, values, counts, listed, count):
    """Add the occupied voxels of a brick to the counts of its 64 columns 8 · (y & 7) + (x & 7).

    Blocks that have any go to ``listed`` behind the first ``count``, as brick · 8 + block; returns how many there are.
    """
    for block in range(BLOCKS):
        if not _block_values(shard, brick, block, values):
            continue
        listed[count] = brick * BLOCKS + block
        count += 1
        for i in range(0, BLOCK_VOXELS, 4):
            x, y, _ = voxel_offset(block * BLOCK_VOXELS + i)
            for z in range(4):
                counts[8 * y + x] += values[i + z] >= 0
    return count


@inlined
def _best_labels(shard, chunk, num_classes, values, labels, probabilities):
    """Best class and its probability for each occupied voxel of a block."""
    voxel, best, total, seen = np.int64(-1), np.float32(0.0), np.float32(0.0), 0
    while chunk >= 0:
        for i in range(CHUNK):
            tag = shard.tags[chunk, i]
            if tag == END:
                break
            place = np.int64(tag >> 16) & 63
            if not values[place] >= 0:
                continue
            if place != voxel:
                if voxel >= 0:
                    probabilities[voxel] = _probability(best, total, num_classes - seen)
                voxel, best, total, seen = place, shard.scores[chunk, i], np.float32(1.0), 1
                labels[place] = np.int32(tag & NO_LABEL)
            else:
                total += np.exp(shard.scores[chunk, i] - best)
                seen += 1
        chunk = np.int64(shard.chunk_next[chunk])
    if voxel >= 0:
        probabilities[voxel] = _probability(best, total, num_classes - seen)


@inlined
def _probability(best, total, unseen):
    return np.float32(1.0) / (total + np.float32(unseen) * np.exp(-best))


@inner
def _fill_block(shard, brick, block, num_classes, scratch, places, keys, labels, probabilities):
    """Write the occupied voxels of a block to the places (64,) int64 of its brick's columns and move those on."""
    values, best, sure = scratch
    base = unpack_brick(shard.keys[brick])[2] * 8
    _block_values(shard, brick, block, values)
    for i in range(BLOCK_VOXELS):
        best[i], sure[i] = -1, 0.0
    _best_labels(shard, np.int64(shard.label_heads[brick, block]), num_classes, values, best, sure)
    for i in range(BLOCK_VOXELS):
        if values[i] >= 0:
            # Voxels are numbered so that z ascends in each column.
            x, y, z = voxel_offset(block * BLOCK_VOXELS + i)
            place = places[8 * y + x]
            keys[place] = base + z
            labels[place] = best[i]
            probabilities[place] = sure[i]
            places[8 * y + x] = place + 1


@njit(cache=True, nogil=True)
def occupied_in_tiles(shards, tiles, num_classes):
    """Occupied voxels of tiles.

    Args:
        shards: both.
        tiles: (T, 2) int64.
        num_classes: classes of the map.

    Returns:
        offsets: (64 T + 1,) int64; column 8 · (y & 7) + (x & 7) of tile t holds the voxels offsets[64 t + column] to
            offsets[64 t + column + 1].
        keys: (V,) int32 z keys, ascending in a column.
        labels: (V,) int32 best class, -1 for none.
        probabilities: (V,) float32 of that class, 0 for none.
    """
    lowest, highest = region_heights(shards)
    bricks = np.empty((highest - lowest + 1) * 16 + 1, np.int64)
    offsets = np.zeros(64 * len(tiles) + 1, np.int64)
    scratch = np.empty(BLOCK_VOXELS, np.float32), np.empty(BLOCK_VOXELS, np.int32), np.empty(BLOCK_VOXELS, np.float32)
    listed, ends = np.empty(32 * len(tiles) + BLOCKS * len(bricks), np.int64), np.zeros(len(tiles) + 1, np.int64)
    # A literal zero would compile the function below twice.
    done = np.int64(0)
    while done < len(tiles):
        done = _list_tiles(shards, tiles, done, (lowest, highest), bricks, scratch[0], offsets, listed, ends)
        if done < len(tiles):
            longer = np.empty(2 * len(listed), np.int64)
            longer[: ends[done]] = listed[: ends[done]]
            listed = longer
    for i in range(1, len(offsets)):
        offsets[i] += offsets[i - 1]
    total = offsets[-1]
    keys, labels = np.empty(total, np.int32), np.empty(total, np.int32)
    probabilities = np.empty(total, np.float32)
    _fill_tiles(shards, tiles, num_classes, listed, ends, offsets[:-1].copy(), scratch, keys, labels, probabilities)
    return offsets, keys, labels, probabilities


@inner
def _list_tiles(shards, tiles, start, heights, bricks, values, offsets, listed, ends):
    """Count the occupied voxels of the columns of tiles from one on, behind ``offsets``, and list their blocks.

    Returns the tile for which ``listed`` has no room left; those of tile t end at ``ends[t + 1]``.
    """
    for t in range(start, len(tiles)):
        owner = brick_shard(tiles[t, 0], tiles[t, 1])
        end = ends[t]
        if end + BLOCKS * len(bricks) > len(listed):
            return t
        count = _tile_bricks(shards, owner, tiles[t, 0], tiles[t, 1], heights[0], heights[1], bricks)
        counts = offsets[64 * t + 1 : 64 * t + 65]
        for i in range(count):
            if owner:
                end = _list_occupied(shards[1], bricks[i], values, counts, listed, end)
            else:
                end = _list_occupied(shards[0], bricks[i], values, counts, listed, end)
        ends[t + 1] = end
    return len(tiles)


@inner
def _fill_tiles(shards, tiles, num_classes, listed, ends, places, scratch, keys, labels, probabilities):
    """Write the voxels of the listed blocks; ``places`` (64 T,) int64 is where each column begins, and moves on."""
    for t in range(len(tiles)):
        columns = places[64 * t : 64 * t + 64]
        owner = brick_shard(tiles[t, 0], tiles[t, 1])
        for i in range(ends[t], ends[t + 1]):
            brick, block = listed[i] // BLOCKS, listed[i] % BLOCKS
            if owner:
                _fill_block(shards[1], brick, block, num_classes, scratch, columns, keys, labels, probabilities)
            else:
                _fill_block(shards[0], brick, block, num_classes, scratch, columns, keys, labels, probabilities)
