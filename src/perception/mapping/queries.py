# SPDX-License-Identifier: Apache-2.0
"""Compiled lookups of log-odds and labels over both shards."""

from __future__ import annotations

import numpy as np

from perception.mapping.bricks import find_brick, voxel_value
from perception.mapping.entries import read_voxel
from perception.mapping.keys import brick_shard, brick_voxel, coordinate_key
from perception.numba_cache import inlined, kernel


@inlined
def locate_brick(shards, bx, by, bz):
    """Number of the brick in the shard of its column, or -1.

    Both shards are asked by name, here and below: choosing one into a variable would copy all of its array headers.
    """
    if brick_shard(bx, by):
        return find_brick(shards[1], bx, by, bz)
    return find_brick(shards[0], bx, by, bz)


@inlined
def value_in(shards, owner, brick, voxel):
    """Log-odds of a voxel of a brick in one of the shards; NaN for no brick."""
    if brick < 0:
        return np.float32(np.nan)
    if owner:
        return voxel_value(shards[1], brick, voxel)
    return voxel_value(shards[0], brick, voxel)


@kernel
def log_odds_at(shards, points, inverse_resolution, start, stop, result):
    """(N,) float32 log-odds of the voxels that hold the points [start, stop); NaN where unknown or outside."""
    last_x, last_y, last_z = np.int64(-1), np.int64(-1), np.int64(-1)
    brick = np.int64(-1)
    for i in range(start, stop):
        x = coordinate_key(points[i, 0], inverse_resolution)
        y = coordinate_key(points[i, 1], inverse_resolution)
        z = coordinate_key(points[i, 2], inverse_resolution)
        if x < 0 or y < 0 or z < 0:
            result[i] = np.nan
            continue
        bx, by, bz = x >> 3, y >> 3, z >> 3
        if bx != last_x or by != last_y or bz != last_z:
            last_x, last_y, last_z = bx, by, bz
            brick = locate_brick(shards, bx, by, bz)
        result[i] = value_in(shards, brick_shard(bx, by), brick, brick_voxel(x, y, z))


@inlined
def _read_point(shards, points, i, inverse_resolution, ids, scores):
    """Best classes of the voxel that holds a point, as labels_at has them, to ids (K,) and scores (K,)."""
    for k in range(len(ids)):
        ids[k] = -1
        scores[k] = 0.0
    x = coordinate_key(points[i, 0], inverse_resolution)
    y = coordinate_key(points[i, 1], inverse_resolution)
    z = coordinate_key(points[i, 2], inverse_resolution)
    if x < 0 or y < 0 or z < 0:
        return
    bx, by, bz = x >> 3, y >> 3, z >> 3
    brick = locate_brick(shards, bx, by, bz)
    if brick < 0:
        return
    if brick_shard(bx, by):
        read_voxel(shards[1], brick, brick_voxel(x, y, z), ids, scores)
    else:
        read_voxel(shards[0], brick, brick_voxel(x, y, z), ids, scores)


@kernel
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
    for i in range(start, stop):
        _read_point(shards, points, i, inverse_resolution, ids[i], scores[i])


@inlined
def _softmax(ids, scores, num_classes):
    """Turn the scores (K,) of listed classes into probabilities; that of each class that is not listed."""
    best, seen = np.float32(0.0), 0
    while seen < len(ids) and ids[seen] >= 0:
        best = max(best, scores[seen])
        seen += 1
    rest = np.exp(-best)
    total = np.float32(num_classes - seen) * rest
    for k in range(seen):
        scores[k] = np.exp(scores[k] - best)
        total += scores[k]
    for k in range(seen):
        scores[k] /= total
    return rest / total if total > 0 else np.float32(0.0)


@kernel
def softmax(ids, scores, num_classes, start, stop):
    """Turn scores of listed classes into probabilities.

    Args:
        ids: (N, K) int32 classes, -1 beyond the last.
        scores: (N, K) float32, 0 where there is no class; probabilities on return.
        num_classes: C.
        start: first row.
        stop: behind the last one.
    """
    for i in range(start, stop):
        _softmax(ids[i], scores[i], num_classes)


@kernel
def probabilities_at(shards, points, inverse_resolution, start, stop, ids, scores, result):
    """Probabilities of all classes in the voxels that hold the points.

    Args:
        shards: both.
        points: (N, 3) float32, meters.
        inverse_resolution: 1 / meters.
        start: first point.
        stop: behind the last one.
        ids: (R, K) int32 scratch: the thread that starts at 0 takes the first row, the other the last, which must not
            lie on one cache line.
        scores: (R, K) float32 scratch.
        result: (N, C) float32 result.
    """
    row = 0 if start == 0 else ids.shape[0] - 1
    classes = result.shape[1]
    for i in range(start, stop):
        _read_point(shards, points, i, inverse_resolution, ids[row], scores[row])
        unseen = _softmax(ids[row], scores[row], classes)
        for c in range(classes):
            result[i, c] = unseen
        for k in range(ids.shape[1]):
            if ids[row, k] >= 0:
                result[i, ids[row, k]] = scores[row, k]
