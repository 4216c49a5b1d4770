# SPDX-License-Identifier: Apache-2.0
"""What changed since a cursor, and the occupied voxels of columns: the reading side for costmaps.

A tile is a square of 8 x 8 columns of voxels, the footprint of a brick: (x key // 8, y key // 8).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.mapping import bricks as layout
from perception.mapping.bricks import Shard, directory_place, find_region, voxel_value
from perception.mapping.entries import MAX_ENTRIES, load_entries
from perception.mapping.keys import BLOCKS, brick_shard, unpack_brick, voxel_offset
from perception.mapping.store import BrickStore, live_bricks
from perception.numba_cache import njit


class Cursor(NamedTuple):
    """A moment in the life of a map; only a map makes and reads it."""

    epoch: int
    first: int
    second: int


def changed_bricks(store: BrickStore, cursor: Cursor | None) -> tuple[NDArray[np.int64] | None, Cursor]:
    """Packed keys, without repeats, of the bricks that changed since a cursor; None when it is too old to tell."""
    counts = [int(shard.counters[layout.LOGGED]) for shard in store.shards]
    now = Cursor(store.epoch, counts[0], counts[1])
    if cursor is None or cursor.epoch != now.epoch:
        return None, now
    keys = []
    for shard, since, count in zip(store.shards, cursor[1:], counts, strict=True):
        if count - since > layout.LOG_LENGTH:
            return None, now
        keys.append(shard.log[np.arange(since, count) & (layout.LOG_LENGTH - 1)])
    return np.unique(np.concatenate(keys)), now


def tiles_of(packed: NDArray[np.int64]) -> NDArray[np.int64]:
    """(T, 2) int64 tiles of packed brick keys, ascending, without repeats."""
    tiles = np.unique(packed >> 13)
    return np.stack([tiles >> 13, tiles & 8191], axis=1)


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


@njit(cache=True, nogil=True)
def _tile_bricks(shards, tx, ty, lowest, highest, bricks):
    """Numbers of the bricks above a tile from low to high as 2 · number + shard; returns how many."""
    count = 0
    for rz in range(lowest, highest + 1):
        key = ((tx >> 3) << 20) | ((ty >> 3) << 10) | rz
        even, odd = find_region(shards[0], key), find_region(shards[1], key)
        for bz in range(rz * 16, rz * 16 + 16):
            owner = brick_shard(tx, ty)
            shard = shards[1] if owner else shards[0]
            region = odd if owner else even
            if region >= 0:
                brick = np.int64(shard.directories[region, directory_place(tx, ty, bz)])
                if brick >= 0:
                    bricks[count] = 2 * brick + owner
                    count += 1
    return count


@njit(cache=True, nogil=True)
def _count_occupied(shard, brick, counts):
    """Add the occupied voxels of a brick to the counts of its 64 columns 8 · (y & 7) + (x & 7)."""
    for voxel in range(512):
        if voxel_value(shard, brick, voxel) >= 0:
            x, y, _ = voxel_offset(voxel)
            counts[8 * y + x] += 1


@njit(cache=True, nogil=True)
def _best_labels(shard, brick, num_classes, tags, scores, labels, probabilities):
    """Best class and its probability for each voxel of a brick."""
    labels[:] = -1
    probabilities[:] = 0.0
    for block in range(BLOCKS):
        count = load_entries(shard, brick, block, tags, scores)
        i = 0
        while i < count:
            voxel = tags[i] >> 16
            best = scores[i]
            labels[voxel] = np.int32(tags[i] & 0xFFFF)
            total, seen = np.float32(0.0), 0
            while i < count and tags[i] >> 16 == voxel:
                total += np.exp(scores[i] - best)
                seen += 1
                i += 1
            probabilities[voxel] = np.float32(1.0) / (total + np.float32(num_classes - seen) * np.exp(-best))


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
    for t in range(len(tiles)):
        count = _tile_bricks(shards, tiles[t, 0], tiles[t, 1], lowest, highest, bricks)
        for i in range(count):
            shard = shards[1] if bricks[i] & 1 else shards[0]
            _count_occupied(shard, bricks[i] >> 1, offsets[64 * t + 1 : 64 * t + 65])
    for i in range(1, len(offsets)):
        offsets[i] += offsets[i - 1]
    total = offsets[-1]
    keys, labels = np.empty(total, np.int32), np.empty(total, np.int32)
    probabilities = np.empty(total, np.float32)
    best, sure = np.empty(512, np.int32), np.empty(512, np.float32)
    tags, scores = np.empty(MAX_ENTRIES, np.uint32), np.empty(MAX_ENTRIES, np.float32)
    places = np.empty(64, np.int64)
    for t in range(len(tiles)):
        places[:] = offsets[64 * t : 64 * t + 64]
        count = _tile_bricks(shards, tiles[t, 0], tiles[t, 1], lowest, highest, bricks)
        for i in range(count):
            shard = shards[1] if bricks[i] & 1 else shards[0]
            brick = bricks[i] >> 1
            _best_labels(shard, brick, num_classes, tags, scores, best, sure)
            base = unpack_brick(shard.keys[brick])[2] * 8
            for voxel in range(512):
                if voxel_value(shard, brick, voxel) >= 0:
                    # Voxels are numbered so that z ascends in each column.
                    x, y, z = voxel_offset(voxel)
                    place = places[8 * y + x]
                    keys[place] = base + z
                    labels[place] = best[voxel]
                    probabilities[place] = sure[voxel]
                    places[8 * y + x] = place + 1
    return offsets, keys, labels, probabilities
