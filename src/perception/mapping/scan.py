# SPDX-License-Identifier: Apache-2.0
"""From the points of a scan to end voxels: keys, bounds, runs of points with votes, and the ends of rays.

Neighboring points of an image mostly fall into the same voxel with the same label. They are joined into runs before
anything is looked up, which is what makes the rest cheap. Points are dealt to the two threads in blocks, so that both
see near and far parts of the scene, and always in the same way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from perception.mapping.fusion import NO_LABEL
from perception.mapping.keys import KEY_END, KEY_ORIGIN, brick_shard, key_coordinate, pack_key

BLOCK = 4096
"""Points that a thread takes at once."""
FAR_CACHE = 1 << 14


class Runs(NamedTuple):
    """Runs of points that share voxel and label, one row for each shard of the map."""

    bricks: np.ndarray
    """(2, R) int32 number of the brick in the window."""
    tags: np.ndarray
    """(2, R) uint32 voxel in the brick << 16 | label."""
    counts: np.ndarray
    """(2, R) int32 points."""
    sums: np.ndarray
    """(2, R) float64 summed confidence."""
    ends: np.ndarray
    """(E,) int64 packed keys of the end voxels, each once for a thread."""
    used: np.ndarray
    """(4,) int64 runs in either row, ends, points beyond the longest range."""
    seen: np.ndarray
    """(X·Y·Z / 8,) uint8 one bit for each voxel of the window, zero before and after a scan."""
    far: np.ndarray
    """(FAR_CACHE,) int64 last far end voxels seen."""


@njit(cache=True, nogil=True)
def compute_keys(points, inverse_resolution, keys, start, stop):
    """Keys of the coordinates [start, stop) of flat points; -1 where there is none. Vectorizes."""
    for i in range(start, stop):
        key = np.floor(np.float64(points[i]) * inverse_resolution) + KEY_ORIGIN
        keys[i] = np.int32(key) if (key >= 0.0) & (key < KEY_END) else np.int32(-1)


@njit(cache=True, nogil=True)
def key_bounds(keys, start, stop, bounds):
    """Lowest and highest key per axis of the valid points [start, stop), and how many are invalid.

    Args:
        keys: (3 N,) int32 flat keys.
        start: first point.
        stop: behind the last one.
        bounds: (7,) int64 result: lowest x, y, z, highest x, y, z, invalid points.
    """
    big = np.int32(KEY_END)
    low_x, low_y, low_z = big, big, big
    high_x, high_y, high_z = np.int32(-1), np.int32(-1), np.int32(-1)
    invalid = np.int32(0)
    for i in range(start, stop):
        x, y, z = keys[3 * i], keys[3 * i + 1], keys[3 * i + 2]
        bad = (x | y | z) < 0
        invalid += np.int32(bad)
        low_x = min(low_x, big if bad else x)
        low_y = min(low_y, big if bad else y)
        low_z = min(low_z, big if bad else z)
        high_x = max(high_x, np.int32(-1) if bad else x)
        high_y = max(high_y, np.int32(-1) if bad else y)
        high_z = max(high_z, np.int32(-1) if bad else z)
    bounds[0], bounds[1], bounds[2] = low_x, low_y, low_z
    bounds[3], bounds[4], bounds[5] = high_x, high_y, high_z
    bounds[6] = invalid


@njit(cache=True, nogil=True)
def compute_keys_and_bounds(points, inverse_resolution, keys, start, stop, bounds):
    """compute_keys and key_bounds of the points [start, stop)."""
    compute_keys(points, inverse_resolution, keys, 3 * start, 3 * stop)
    key_bounds(keys, start, stop, bounds)


@njit(cache=True, nogil=True)
def axis_squares(origin, lowest_key, count, resolution):
    """(count,) float32 squared distances of the voxel centers of one axis from the origin."""
    squares = np.empty(count, np.float32)
    for i in range(count):
        distance = np.float32(key_coordinate(lowest_key + i, resolution)) - origin
        squares[i] = distance * distance
    return squares


@njit(cache=True, nogil=True, inline="always")
def _end_run(runs, squares, window, x, y, z, label, count, total, range_limit, marks):
    """Store one run: its votes if the voxel is in range, its end voxel if not seen before."""
    used = runs.used
    ny, nz = window[4], window[5]
    in_range = squares[0][x] + squares[1][y] + squares[2][z] <= range_limit
    if in_range and marks:
        bx, by, bz = x >> 3, y >> 3, z >> 3
        shard = brick_shard(bx + window[0], by + window[1], bz + window[2])
        place = used[shard]
        runs.bricks[shard, place] = (bx * ny + by) * nz + bz
        voxel = ((x & 7) << 6) | ((y & 7) << 3) | (z & 7)
        runs.tags[shard, place] = np.uint32((voxel << 16) | label)
        runs.counts[shard, place] = count
        runs.sums[shard, place] = total
        used[shard] = place + 1
    elif marks:
        used[3] += count
    index = np.uint64((x * ny * 8 + y) * nz * 8 + z)
    bit = np.uint8(1 << (z & 7))
    if runs.seen[index >> np.uint64(3)] & bit == 0:
        runs.seen[index >> np.uint64(3)] |= bit
        runs.ends[used[2]] = pack_key(x + window[0] * 8, y + window[1] * 8, z + window[2] * 8)
        used[2] += 1


@njit(cache=True, nogil=True)
def collect_ends(keys, labels, confidences, thread, window, reach, squares, range_limit, with_far, marks, runs):
    """Join the points of one thread's blocks into runs.

    Args:
        keys: (3 N,) int32 flat keys.
        labels: (N,) uint16 classes, NO_LABEL for none; or empty.
        confidences: (N,) float32; or empty for full confidence.
        thread: 0 or 1: even or odd blocks.
        window: (6,) int64 lowest brick and number of bricks per axis.
        reach: (6,) int64 lowest and highest key per axis of voxels that may be in range.
        squares: three axis_squares of the window.
        range_limit: float32, largest squared distance that counts as in range.
        with_far: whether points outside `reach` become ends of rays here.
        marks: whether the end voxels are hit; False for points that only clear.
        runs: result.
    """
    x0, y0, z0 = window[0] * 8, window[1] * 8, window[2] * 8
    nx, ny, nz = np.uint64(window[3] * 8), np.uint64(window[4] * 8), np.uint64(window[5] * 8)
    has_labels, has_confidences = len(labels) > 0, len(confidences) > 0
    points = len(keys) // 3
    last_x, last_y, last_z = np.int64(-1), np.int64(-1), np.int64(-1)
    last_label, count, total = np.int64(NO_LABEL), np.int64(0), 0.0
    for block in range(thread * BLOCK, points, 2 * BLOCK):
        for i in range(block, min(block + BLOCK, points)):
            x, y, z = np.int64(keys[3 * i]) - x0, np.int64(keys[3 * i + 1]) - y0, np.int64(keys[3 * i + 2]) - z0
            label = np.int64(labels[i]) if has_labels else np.int64(NO_LABEL)
            confidence = np.float64(confidences[i]) if has_confidences else 1.0
            if x == last_x and y == last_y and z == last_z and label == last_label:
                count += 1
                total += confidence
                continue
            if np.uint64(x) < nx and np.uint64(y) < ny and np.uint64(z) < nz:
                if count > 0:
                    _end_run(
                        runs, squares, window, last_x, last_y, last_z, last_label, count, total, range_limit, marks
                    )
                last_x, last_y, last_z, last_label = x, y, z, label
                count, total = np.int64(1), confidence
            elif with_far:
                _add_far(runs, reach, x + x0, y + y0, z + z0, marks)
    if count > 0:
        _end_run(runs, squares, window, last_x, last_y, last_z, last_label, count, total, range_limit, marks)


@njit(cache=True, nogil=True)
def _add_far(runs, reach, x, y, z, marks):
    """Store the end of a ray that is longer than the longest range; mostly once per voxel."""
    if x < 0 or y < 0 or z < 0:
        return
    if reach[0] <= x <= reach[3] and reach[1] <= y <= reach[4] and reach[2] <= z <= reach[5]:
        return
    runs.used[3] += marks
    key = pack_key(x, y, z)
    place = (key * np.int64(0x9E3779B97F4A7C1) >> 40) & (FAR_CACHE - 1)
    # A lossy memory is enough: a ray walked twice marks the same voxels.
    if runs.far[place] != key:
        runs.far[place] = key
        runs.ends[runs.used[2]] = key
        runs.used[2] += 1


@njit(cache=True, nogil=True)
def forget_ends(runs, window):
    """Zero the bits of the end voxels again, and the far ones."""
    x0, y0, z0 = window[0] * 8, window[1] * 8, window[2] * 8
    nx, ny, nz = window[3] * 8, window[4] * 8, window[5] * 8
    for i in range(runs.used[2]):
        key = runs.ends[i]
        x, y, z = (key >> 32) - x0, ((key >> 16) & 0xFFFF) - y0, (key & 0xFFFF) - z0
        if 0 <= x < nx and 0 <= y < ny and 0 <= z < nz:
            runs.seen[((x * ny + y) * nz + z) >> 3] = 0
    runs.far[:] = -1


@njit(cache=True, nogil=True)
def clean_labels(labels, confidences, num_classes, out, counts):
    """Labels as uint16 with NO_LABEL for what is no class.

    Args:
        labels: (N,) integers of any type.
        confidences: (N,) float32 or empty.
        num_classes: classes of the map.
        out: (N,) uint16 result.
        counts: (3,) int64 result: points without label (-1, 255, 65535 beyond the classes), other labels that are no
            class, confidences that are NaN.
    """
    unlabeled, outside, invalid = 0, 0, 0
    has_confidences = len(confidences) > 0
    for i in range(len(labels)):
        label = np.int64(labels[i])
        if label < 0 or label >= num_classes:
            nothing = label == -1 or label == 255 or label == NO_LABEL
            unlabeled += nothing
            outside += not nothing
            label = np.int64(NO_LABEL)
        if has_confidences and confidences[i] != confidences[i]:
            invalid += 1
            label = np.int64(NO_LABEL)
        out[i] = label
    counts[0], counts[1], counts[2] = unlabeled, outside, invalid
