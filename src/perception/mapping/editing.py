# SPDX-License-Identifier: Apache-2.0
"""Changes of the map that no sensor made: clearing a box, and letting evidence of moving things fade."""

from __future__ import annotations

import numpy as np

from perception.mapping.bricks import DECAYING, collapse_brick, log_change, set_voxel, voxel_value
from perception.mapping.entries import MAX_ENTRIES, load_entries, store_entries
from perception.mapping.keys import BLOCKS, BRICK_VOXELS, unpack_brick, voxel_offset
from perception.numba_cache import inner, njit

FORGOTTEN = np.float32(0.4)
"""An occupied voxel whose log-odds have faded below this (half a hit of the default sensor model) is unknown again."""


@njit(cache=True, nogil=True)
def clear_box(shard, numbers, lowest, highest, value):
    """Make the known voxels of a box free and drop their labels.

    Args:
        shard: one shard.
        numbers: (B,) int64 bricks that the box touches.
        lowest: (3,) int64 lowest voxel key.
        highest: (3,) int64 highest voxel key.
        value: float32 log-odds to give them.

    Returns:
        number of voxels changed.
    """
    tags, scores = np.empty(MAX_ENTRIES, np.uint32), np.empty(MAX_ENTRIES, np.float32)
    inside = np.zeros(BRICK_VOXELS, np.uint8)
    total = 0
    for number in numbers:
        bx, by, bz = unpack_brick(shard.keys[number])
        changed = 0
        for voxel in range(BRICK_VOXELS):
            x, y, z = voxel_offset(voxel)
            x, y, z = x + bx * 8, y + by * 8, z + bz * 8
            inside[voxel] = (
                lowest[0] <= x <= highest[0] and lowest[1] <= y <= highest[1] and lowest[2] <= z <= highest[2]
            )
            old = voxel_value(shard, number, voxel)
            if inside[voxel] and old == old and old != value:
                set_voxel(shard, number, voxel, value)
                changed += 1
        dropped = _drop_labels(shard, number, inside, tags, scores)
        if changed > 0 or dropped:
            log_change(shard, shard.keys[number])
        collapse_brick(shard, number)
        total += changed
    return total


@inner
def _drop_labels(shard, brick, inside, tags, scores):
    """Drop the labels of the voxels marked in inside (512,); whether there were any."""
    dropped = False
    for block in range(BLOCKS):
        count, kept = load_entries(shard, brick, block, tags, scores), 0
        for i in range(count):
            if not inside[tags[i] >> 16]:
                tags[kept], scores[kept] = tags[i], scores[i]
                kept += 1
        if kept < count:
            store_entries(shard, brick, block, tags, scores, kept, np.int64(1) << 60)
            dropped = True
    return dropped


@njit(cache=True, nogil=True)
def decay(shard, factors):
    """Let voxels whose best class fades lose evidence.

    Log-odds and scores of such a voxel are multiplied by the factor of its best class; an occupied voxel that falls
    below `FORGOTTEN` becomes unknown and loses its labels. Only bricks that hold such voxels are looked at.

    Args:
        shard: one shard.
        factors: (C,) float32 exp(-seconds / time constant), 1 for classes that stay.

    Returns:
        number of voxels forgotten.
    """
    tags, scores = np.empty(MAX_ENTRIES, np.uint32), np.empty(MAX_ENTRIES, np.float32)
    forgotten = 0
    kept_bricks = 0
    for place in range(shard.counters[DECAYING]):
        brick = shard.decay_list[place]
        lost, left = _decay_brick(shard, brick, factors, tags, scores)
        forgotten += lost
        if left:
            shard.decay_list[kept_bricks] = brick
            kept_bricks += 1
        else:
            shard.decaying[brick] = 0
    shard.counters[DECAYING] = kept_bricks
    return forgotten


@inner
def _decay_brick(shard, brick, factors, tags, scores):
    """Voxels forgotten in a brick, and whether any is left that fades."""
    forgotten, left = 0, False
    for block in range(BLOCKS):
        count, kept = load_entries(shard, brick, block, tags, scores), 0
        i = 0
        while i < count:
            voxel, start = tags[i] >> 16, i
            while i < count and tags[i] >> 16 == voxel:
                i += 1
            factor = factors[tags[start] & 0xFFFF]
            if factor < 1.0:
                lost, keep = _decay_voxel(shard, brick, voxel, scores[start] * factor, factor)
                forgotten += lost
                left |= keep
                if not keep:
                    continue
            for place in range(start, i):
                tags[kept], scores[kept] = tags[place], scores[place] * factor
                kept += 1
        store_entries(shard, brick, block, tags, scores, kept, np.int64(1) << 60)
    if forgotten > 0:
        log_change(shard, shard.keys[brick])
    collapse_brick(shard, brick)
    return forgotten, left


@inner
def _decay_voxel(shard, brick, voxel, score, factor):
    """Let an occupied voxel fade; whether it became unknown, and whether its labels stay."""
    value = voxel_value(shard, brick, voxel)
    if value >= 0:
        value *= factor
        set_voxel(shard, brick, voxel, value if value >= FORGOTTEN else np.float32(np.nan))
        return value < FORGOTTEN, value >= FORGOTTEN
    # Cleared by rays already: only its votes have to go.
    return False, score >= FORGOTTEN
