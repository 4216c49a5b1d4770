# SPDX-License-Identifier: Apache-2.0
"""Compiled lookups: log-odds, labels and ray casts over both shards."""

from __future__ import annotations

import numpy as np

from perception.mapping.bricks import find_brick, voxel_value
from perception.mapping.fusion import NO_LABEL, first_entry
from perception.mapping.keys import brick_shard, brick_voxel, coordinate_key, key_coordinate
from perception.numba_cache import njit

HIT, UNKNOWN, FREE, OUTSIDE = 1, 2, 0, 3
"""How a cast ray ends: in an occupied voxel, in an unknown one, after its whole length, or at the border of the map."""


@njit(cache=True, nogil=True)
def log_odds_at(shards, points, inverse_resolution, start, stop, result):
    """(N,) float32 log-odds of the voxels that hold the points [start, stop); NaN where unknown or outside."""
    last_x, last_y, last_z = np.int64(-1), np.int64(-1), np.int64(-1)
    brick = np.int64(-1)
    shard = shards[0]
    for i in range(start, stop):
        result[i] = np.nan
        x = coordinate_key(points[i, 0], inverse_resolution)
        y = coordinate_key(points[i, 1], inverse_resolution)
        z = coordinate_key(points[i, 2], inverse_resolution)
        if x < 0 or y < 0 or z < 0:
            continue
        bx, by, bz = x >> 3, y >> 3, z >> 3
        if bx != last_x or by != last_y or bz != last_z:
            last_x, last_y, last_z = bx, by, bz
            shard = shards[1] if brick_shard(bx, by) else shards[0]
            brick = find_brick(shard, bx, by, bz)
        if brick >= 0:
            result[i] = voxel_value(shard, brick, brick_voxel(x, y, z))


@njit(cache=True, nogil=True)
def labels_at(shards, points, inverse_resolution, start, stop, ids, scores):
    """Best classes of the voxels that hold the points, best first.

    Args:
        shards: both.
        points: (N, 3) float32, meters.
        inverse_resolution: 1 / meters.
        start: first point.
        stop: behind the last one.
        ids: (N, K) int32 result, -1 where there are fewer than K.
        scores: (N, K) float32 result, 0 there.
    """
    kept = ids.shape[1]
    for i in range(start, stop):
        for k in range(kept):
            ids[i, k] = -1
            scores[i, k] = 0.0
        x = coordinate_key(points[i, 0], inverse_resolution)
        y = coordinate_key(points[i, 1], inverse_resolution)
        z = coordinate_key(points[i, 2], inverse_resolution)
        if x < 0 or y < 0 or z < 0:
            continue
        bx, by, bz = x >> 3, y >> 3, z >> 3
        shard = shards[1] if brick_shard(bx, by) else shards[0]
        brick = find_brick(shard, bx, by, bz)
        if brick < 0 or shard.label_counts[brick] == 0:
            continue
        voxel = brick_voxel(x, y, z)
        begin, count = shard.label_starts[brick], np.int64(shard.label_counts[brick])
        place = first_entry(shard.tags, begin, count, voxel)
        k = 0
        while k < kept and place < begin + count and np.int64(shard.tags[place] >> 16) == voxel:
            ids[i, k] = np.int32(shard.tags[place] & NO_LABEL)
            scores[i, k] = shard.scores[place]
            place += 1
            k += 1


@njit(cache=True, nogil=True, inline="always")
def _axis(origin, key, direction, resolution):
    if direction == 0:
        return 0, np.inf, np.inf
    step = 1 if direction > 0 else -1
    border = key_coordinate(key, resolution) + step * resolution * 0.5
    return step, (border - origin) / direction, resolution / abs(direction)


@njit(cache=True, nogil=True)
def cast_rays(shards, origins, directions, max_range, ignore_unknown, resolution, start, stop, states, keys):
    """Follow rays to the first occupied (or unknown) voxel.

    Args:
        shards: both.
        origins: (N, 3) float64, meters.
        directions: (N, 3) float64, unit length.
        max_range: meters; negative for no limit.
        ignore_unknown: whether unknown voxels are passed.
        resolution: meters.
        start: first ray.
        stop: behind the last one.
        states: (N,) uint8 result: HIT, UNKNOWN, FREE or OUTSIDE.
        keys: (N, 3) int64 result: key of the last voxel.
    """
    inverse = 1.0 / resolution
    for i in range(start, stop):
        ox, oy, oz = origins[i, 0], origins[i, 1], origins[i, 2]
        x, y, z = coordinate_key(ox, inverse), coordinate_key(oy, inverse), coordinate_key(oz, inverse)
        sx, tx, dx = _axis(ox, x, directions[i, 0], resolution)
        sy, ty, dy = _axis(oy, y, directions[i, 1], resolution)
        sz, tz, dz = _axis(oz, z, directions[i, 2], resolution)
        state = OUTSIDE
        if x < 0 or y < 0 or z < 0:
            tx, ty, tz = np.inf, np.inf, np.inf
        last_x, last_y, last_z = np.int64(-1), np.int64(-1), np.int64(-1)
        shard = shards[0]
        brick = np.int64(-1)
        while 0 <= x < 65536 and 0 <= y < 65536 and 0 <= z < 65536:
            bx, by, bz = x >> 3, y >> 3, z >> 3
            if bx != last_x or by != last_y or bz != last_z:
                last_x, last_y, last_z = bx, by, bz
                shard = shards[1] if brick_shard(bx, by) else shards[0]
                brick = find_brick(shard, bx, by, bz)
            value = voxel_value(shard, brick, brick_voxel(x, y, z)) if brick >= 0 else np.float32(np.nan)
            keys[i, 0], keys[i, 1], keys[i, 2] = x, y, z
            if value >= 0:
                state = HIT
                break
            if value != value and not ignore_unknown:
                state = UNKNOWN
                break
            nearest = min(tx, ty, tz)
            if max_range >= 0 and nearest > max_range:
                state = FREE
                break
            if tx <= ty and tx <= tz:
                x += sx
                tx += dx
            elif ty <= tz:
                y += sy
                ty += dy
            else:
                z += sz
                tz += dz
        states[i] = state


@njit(cache=True, nogil=True)
def softmax(ids, scores, num_classes, probabilities, unseen):
    """Probabilities of listed classes and of each class that is not listed.

    Args:
        ids: (N, K) int32 classes, -1 beyond the last.
        scores: (N, K) float32.
        num_classes: C.
        probabilities: (N, K) float32 result, 0 where there is no class.
        unseen: (N,) float32 result.
    """
    for i in range(ids.shape[0]):
        best, seen = np.float32(0.0), 0
        for k in range(ids.shape[1]):
            if ids[i, k] >= 0:
                best = max(best, scores[i, k])
                seen += 1
        rest = np.exp(-best)
        total = np.float32(num_classes - seen) * rest
        for k in range(seen):
            probabilities[i, k] = np.exp(scores[i, k] - best)
            total += probabilities[i, k]
        unseen[i] = rest / total if total > 0 else np.float32(0.0)
        for k in range(ids.shape[1]):
            probabilities[i, k] = probabilities[i, k] / total if k < seen else np.float32(0.0)


@njit(cache=True, nogil=True)
def spread_probabilities(ids, scores, result):
    """Dense (N, C) float32 probabilities from the (N, K) best classes and scores."""
    probabilities = np.empty(scores.shape, np.float32)
    unseen = np.empty(ids.shape[0], np.float32)
    softmax(ids, scores, result.shape[1], probabilities, unseen)
    for i in range(ids.shape[0]):
        for c in range(result.shape[1]):
            result[i, c] = unseen[i]
        for k in range(ids.shape[1]):
            if ids[i, k] >= 0:
                result[i, ids[i, k]] = probabilities[i, k]
