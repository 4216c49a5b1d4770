# SPDX-License-Identifier: Apache-2.0
"""Leaves of a file, in OctoMap's depth-first order, into bricks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.mapping.bricks import collapse_brick, expand_block, region_key
from perception.mapping.entries import MAX_ENTRIES, store_entries
from perception.mapping.fusion import NO_LABEL
from perception.mapping.keys import BLOCK_VOXELS, BLOCKS, BRICK_VOXELS, TREE_DEPTH, brick_shard, brick_voxel
from perception.mapping.leaves import BRICK_DEPTH
from perception.mapping.store import BrickStore
from perception.mapping.update import RECORD_BYTES, REGION_BYTES, ROW_BYTES, find_or_add
from perception.numba_cache import inlined, inner, kernel, njit

UNLIMITED = 1 << 60
"""Bound of a shard's memory where the whole has been checked before."""


def load_leaves(
    store: BrickStore, keys: NDArray[np.uint16], depths: NDArray[np.uint8], values: NDArray[np.float32]
) -> None:
    """Put leaves, in depth-first order, into an empty store.

    Raises:
        InputError: they need more memory than the store may use.
    """
    region_keys = np.empty(len(depths), np.int64)
    bricks, blocks, found, extra = _measure(keys, depths, region_keys)
    regions = len(np.unique(region_keys[:found])) + int(extra)
    needed = int(bricks) * RECORD_BYTES + int(blocks) * ROW_BYTES + 2 * regions * REGION_BYTES
    if needed > store.max_memory:
        raise InputError(f"map: expected to fit into {store.max_memory} bytes of memory, got a map that takes {needed}")
    store.make_room(regions)
    _load(tuple(store.shards), keys, depths, values)


@njit(cache=True, nogil=True)
def _measure(keys, depths, region_keys):
    """What leaves need: bricks, blocks with values of their own, regions (listed, some twice), and more regions."""
    bricks, blocks, found, extra = 0.0, 0, 0, 0.0
    last_brick, last_block, last_region = np.int64(-1), np.int64(-1), np.int64(-1)
    for i in range(len(depths)):
        x, y, z = np.int64(keys[i, 0]), np.int64(keys[i, 1]), np.int64(keys[i, 2])
        region = region_key(x >> 3, y >> 3, z >> 3)
        if region != last_region:
            last_region = region
            region_keys[found] = region
            found += 1
        if depths[i] <= BRICK_DEPTH:
            span = BRICK_DEPTH - np.int64(depths[i])
            bricks += 8.0**span
            extra += 8.0 ** (span - 3) if span > 3 else 0.0
            continue
        brick = ((x >> 3) << 26) | ((y >> 3) << 13) | (z >> 3)
        block = ((x >> 2) << 28) | ((y >> 2) << 14) | (z >> 2)
        bricks += brick != last_brick
        last_brick = brick
        if depths[i] > BRICK_DEPTH + 1:
            blocks += block != last_block
            last_block = block
    return bricks, blocks, found, extra


@inlined
def _same_brick(keys, i, bx, by, bz):
    return np.int64(keys[i, 0]) >> 3 == bx and np.int64(keys[i, 1]) >> 3 == by and np.int64(keys[i, 2]) >> 3 == bz


@kernel
def _load(shards, keys, depths, values):
    """Write leaves into bricks and make uniform what is."""
    start = 0
    while start < len(depths):
        bx, by, bz = np.int64(keys[start, 0]) >> 3, np.int64(keys[start, 1]) >> 3, np.int64(keys[start, 2]) >> 3
        stop = start + 1
        if depths[start] <= BRICK_DEPTH:
            span = np.int64(1) << (BRICK_DEPTH - np.int64(depths[start]))
            for x in range(bx, bx + span):
                for y in range(by, by + span):
                    if brick_shard(x, y):
                        fill_bricks(shards[1], x, y, bz, span, values[start])
                    else:
                        fill_bricks(shards[0], x, y, bz, span, values[start])
        else:
            while stop < len(depths) and depths[stop] > BRICK_DEPTH and _same_brick(keys, stop, bx, by, bz):
                stop += 1
            if brick_shard(bx, by):
                _load_brick(shards[1], bx, by, bz, keys, depths, values, start, stop)
            else:
                _load_brick(shards[0], bx, by, bz, keys, depths, values, start, stop)
        start = stop


@inner
def fill_bricks(shard, bx, by, bz, span, value):
    """Fill a column of whole bricks."""
    for z in range(bz, bz + span):
        brick = find_or_add(shard, bx, by, z, UNLIMITED)
        for block in range(BLOCKS):
            shard.uniform[brick, block] = value


@inner
def _load_brick(shard, bx, by, bz, keys, depths, values, start, stop):
    """Write leaves [start, stop), all of one brick."""
    brick = find_or_add(shard, bx, by, bz, UNLIMITED)
    for i in range(start, stop):
        voxel = brick_voxel(np.int64(keys[i, 0]) & 7, np.int64(keys[i, 1]) & 7, np.int64(keys[i, 2]) & 7)
        block, place = voxel >> 6, voxel & 63
        if depths[i] == BRICK_DEPTH + 1:
            shard.uniform[brick, block] = values[i]
            continue
        row = expand_block(shard, brick, block)
        if depths[i] == TREE_DEPTH:
            shard.values[row, place] = values[i]
            continue
        for child in range(8):
            # The keys of the leaf are even: its voxels differ in the lowest bit of each axis.
            shard.values[row, place + ((child & 4) << 2) + ((child & 2) << 1) + (child & 1)] = values[i]
    collapse_brick(shard, brick)


def load_evidence(
    store: BrickStore, keys: NDArray[np.uint16], ids: NDArray[np.uint16], scores: NDArray[np.float32]
) -> None:
    """Put label evidence of single voxels (keys (N, 3), in depth-first order) into a store that has their bricks."""
    scratch = np.empty(MAX_ENTRIES, np.uint32), np.empty(MAX_ENTRIES, np.float32), np.full(BRICK_VOXELS, -1, np.int64)
    _load_evidence(tuple(store.shards), keys, ids, scores, *scratch)


@kernel
def _load_evidence(shards, keys, ids, scores, tags, values, lines):
    start = 0
    while start < len(keys):
        bx, by, bz = np.int64(keys[start, 0]) >> 3, np.int64(keys[start, 1]) >> 3, np.int64(keys[start, 2]) >> 3
        stop = start
        while stop < len(keys) and _same_brick(keys, stop, bx, by, bz):
            lines[brick_voxel(np.int64(keys[stop, 0]), np.int64(keys[stop, 1]), np.int64(keys[stop, 2]))] = stop
            stop += 1
        if brick_shard(bx, by):
            _store_brick(shards[1], bx, by, bz, ids, scores, tags, values, lines)
        else:
            _store_brick(shards[0], bx, by, bz, ids, scores, tags, values, lines)
        start = stop


@inner
def _store_brick(shard, bx, by, bz, ids, scores, tags, values, lines):
    """Store the evidence of one brick: lines (512,) int64 is the line of each voxel, -1 for none and on return."""
    brick = find_or_add(shard, bx, by, bz, UNLIMITED)
    for block in range(BLOCKS):
        count = 0
        for voxel in range(block * BLOCK_VOXELS, (block + 1) * BLOCK_VOXELS):
            line = lines[voxel]
            lines[voxel] = -1
            if line < 0:
                continue
            for k in range(ids.shape[1]):
                if ids[line, k] != NO_LABEL and count < MAX_ENTRIES:
                    tags[count] = np.uint32((voxel << 16) | np.int64(ids[line, k]))
                    values[count] = scores[line, k]
                    count += 1
        if count > 0:
            store_entries(shard, brick, block, tags, values, count, UNLIMITED)
