# SPDX-License-Identifier: Apache-2.0
"""Changes of the map that no sensor made: clearing a box, and letting evidence of moving things fade."""

from __future__ import annotations

import numpy as np

from perception.mapping.bricks import DECAYING, collapse_brick, log_change, set_voxel, voxel_value
from perception.mapping.fusion import MAX_ENTRIES, store_labels
from perception.mapping.keys import BRICK_VOXELS, unpack_brick, voxel_offset
from perception.numba_cache import njit

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
        start, kept = shard.label_starts[number], 0
        for i in range(start, start + shard.label_counts[number]):
            if not inside[shard.tags[i] >> 16]:
                tags[kept], scores[kept] = shard.tags[i], shard.scores[i]
                kept += 1
        dropped = kept < shard.label_counts[number]
        if dropped:
            store_labels(shard, number, tags, scores, kept, np.int64(1) << 60)
        if changed > 0 or dropped:
            log_change(shard, shard.keys[number])
        collapse_brick(shard, number)
        total += changed
    return total


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


@njit(cache=True, nogil=True)
def _decay_brick(shard, brick, factors, tags, scores):
    """Voxels forgotten in a brick, and whether any is left that fades."""
    start = shard.label_starts[brick]
    end = start + shard.label_counts[brick]
    forgotten, count = 0, 0
    left = False
    i = start
    while i < end:
        voxel = shard.tags[i] >> 16
        factor = factors[shard.tags[i] & 0xFFFF]
        first = count
        while i < end and shard.tags[i] >> 16 == voxel:
            tags[count], scores[count] = shard.tags[i], shard.scores[i] * factor
            count += 1
            i += 1
        if factor == 1.0:
            continue
        value = voxel_value(shard, brick, voxel)
        if value >= 0:
            value *= factor
            set_voxel(shard, brick, voxel, value if value >= FORGOTTEN else np.float32(np.nan))
            if value < FORGOTTEN:
                forgotten += 1
                count = first
                continue
            left = True
        elif scores[first] < FORGOTTEN:
            # Cleared by rays already: only its votes have to go.
            count = first
        else:
            left = True
    store_labels(shard, brick, tags, scores, count, np.int64(1) << 60)
    if forgotten > 0:
        log_change(shard, shard.keys[brick])
    collapse_brick(shard, brick)
    return forgotten, left
