# SPDX-License-Identifier: Apache-2.0
"""From the points of a scan to end voxels: bounds, runs of points with votes, and the ends of rays.

Neighboring points of an image mostly fall into the same voxel with the same label. They are joined into runs, and
runs of the same voxel meet in a small table, before anything is looked up; that makes the rest cheap. Each thread
takes one half of the points: an upper and a lower half of an image write to different parts of the window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perception.mapping.fusion import NO_LABEL
from perception.mapping.keys import KEY_END, KEY_ORIGIN, brick_shard, brick_voxel, pack_key
from perception.numba_cache import inlined, kernel

BLOCK = 1024
"""Points whose keys are computed at once: they stay in the fastest cache."""
TABLE = 4096
"""Places of the table where runs meet: 16 voxels along each axis."""
FAR_CACHE = 1 << 14


class Runs(NamedTuple):
    """What one thread finds in its points. Runs have one row for each shard of the map."""

    bricks: np.ndarray
    """(2, R) int32 number of the brick in the window."""
    tags: np.ndarray
    """(2, R) uint32 voxel in the brick << 16 | label."""
    counts: np.ndarray
    """(2, R) int32 points."""
    sums: np.ndarray
    """(2, R) float64 summed confidence."""
    ends: np.ndarray
    """(E,) int64 packed keys of end voxels."""
    lengths: np.ndarray
    """(E,) int64 voxels along the rays up to and with each end."""
    used: np.ndarray
    """(5,) int64 runs in either row, ends, points beyond the longest range, points that are invalid."""
    seen: np.ndarray
    """(X·Y·Z / 8,) uint8 one bit for each end voxel of the window, zero before and after a scan; of both threads.

    They may lose each other's bits. A ray is then walked twice, which marks the same voxels.
    """
    far: np.ndarray
    """(FAR_CACHE,) int64 last far end voxels seen."""
    table_keys: np.ndarray
    """(TABLE,) int64 voxel in the window (16 bits for x, y, z) << 16 | label; -1 where empty."""
    table_counts: np.ndarray
    """(TABLE,) int32 points."""
    table_sums: np.ndarray
    """(TABLE,) float64 summed confidence."""
    block_keys: np.ndarray
    """(3 BLOCK,) int32 keys of a block of points."""
    block_places: np.ndarray
    """(BLOCK,) int32 places in the window."""


class Space(NamedTuple):
    """Where a scan, or a part of it, happens."""

    window: np.ndarray
    """(6,) int64 lowest brick and number of bricks per axis."""
    reach: np.ndarray
    """(6,) int64 lowest and highest key per axis of voxels that may be in range."""
    squares_x: np.ndarray
    """float32 squared distances of the window's voxel centers from the origin, like the next two."""
    squares_y: np.ndarray
    squares_z: np.ndarray
    range_limit: np.float32
    """largest squared distance that counts as in range"""
    origin_key: tuple[int, int, int]
    inverse_resolution: float


@kernel
def coordinate_bounds(bits, start, stop, limit, bounds):
    """Lowest and highest coordinate per axis, of those that are finite and within ±limit.

    Args:
        bits: (3 N,) int32, the bits of float32 points: with the sign taken care of they order as the numbers do, and
            NaN and infinity exceed every limit. Whole numbers vectorize, floating minima do not.
        start: first point.
        stop: behind the last one.
        limit: int32 bits of the limit.
        bounds: (6,) int32 result, to be read with `bits_to_float`; lowest above highest when there is none.
    """
    big = np.int32(0x7FFFFFFF)
    low_x, low_y, low_z = big, big, big
    high_x, high_y, high_z = -big, -big, -big
    for i in range(start, stop):
        x, y, z = bits[np.uint64(3 * i)], bits[np.uint64(3 * i + 1)], bits[np.uint64(3 * i + 2)]
        good_x, good_y, good_z = (x & big) <= limit, (y & big) <= limit, (z & big) <= limit
        x, y, z = x ^ ((x >> 31) & big), y ^ ((y >> 31) & big), z ^ ((z >> 31) & big)
        low_x, high_x = min(low_x, x if good_x else big), max(high_x, x if good_x else -big)
        low_y, high_y = min(low_y, y if good_y else big), max(high_y, y if good_y else -big)
        low_z, high_z = min(low_z, z if good_z else big), max(high_z, z if good_z else -big)
    bounds[0], bounds[1], bounds[2] = low_x, low_y, low_z
    bounds[3], bounds[4], bounds[5] = high_x, high_y, high_z


def bits_to_float(bits: np.ndarray) -> np.ndarray:
    """Float64 coordinates of `coordinate_bounds`; +inf and -inf where there was none to take the bounds of."""
    floats = (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).view(np.float32).astype(np.float64)
    return np.where(np.isnan(floats), np.where(bits > 0, np.inf, -np.inf), floats)


def axis_squares(origin: np.float32, lowest_key: int, count: int, resolution: float) -> np.ndarray:
    """(count,) float32 squared distances of the voxel centers of one axis from the origin."""
    centers = (np.arange(lowest_key, lowest_key + count) - KEY_ORIGIN + 0.5) * resolution
    return (centers.astype(np.float32) - origin) ** 2


@inlined
def _locate_block(points, start, count, space, keys, places):
    """Keys (-1 where there is none) and places in the window (-1 outside) of a block of points; vectorizes."""
    flat = points.reshape(-1)
    inverse = space.inverse_resolution
    for i in range(3 * count):
        key = np.floor(np.float64(flat[3 * start + i]) * inverse) + KEY_ORIGIN
        keys[i] = np.int32(key) if (key >= 0.0) & (key < KEY_END) else np.int32(-1)
    window = space.window
    x0, y0, z0 = np.int32(window[0] * 8), np.int32(window[1] * 8), np.int32(window[2] * 8)
    nx, ny, nz = np.int32(window[3] * 8), np.int32(window[4] * 8), np.int32(window[5] * 8)
    for i in range(count):
        x, y, z = keys[3 * i] - x0, keys[3 * i + 1] - y0, keys[3 * i + 2] - z0
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z >= 0) & (z < nz)
        places[i] = (x * ny + y) * nz + z if inside else np.int32(-1)


@inlined
def _add_end(runs, space, key):
    """Store the end of a ray."""
    place = runs.used[2]
    ox, oy, oz = space.origin_key
    length = abs((key >> 32) - ox) + abs(((key >> 16) & 0xFFFF) - oy) + abs((key & 0xFFFF) - oz)
    runs.ends[place] = key
    runs.lengths[place] = length + (runs.lengths[place - 1] if place > 0 else 0)
    runs.used[2] = place + 1


@inlined
def _end_run(runs, space, packed, count, total, marks):
    """Store one run: its votes if the voxel is in range, its end voxel if not seen before."""
    x, y, z = (packed >> 48) & 0xFFFF, (packed >> 32) & 0xFFFF, (packed >> 16) & 0xFFFF
    window, used = space.window, runs.used
    if marks:
        if space.squares_x[x] + space.squares_y[y] + space.squares_z[z] <= space.range_limit:
            shard = brick_shard((x >> 3) + window[0], (y >> 3) + window[1])
            place = used[shard]
            runs.bricks[shard, place] = ((x >> 3) * window[4] + (y >> 3)) * window[5] + (z >> 3)
            runs.tags[shard, place] = np.uint32((brick_voxel(x, y, z) << 16) | (packed & 0xFFFF))
            runs.counts[shard, place] = count
            runs.sums[shard, place] = total
            used[shard] = place + 1
        else:
            used[3] += count
    index = np.uint64(((x * window[4] * 8 + y) * window[5] * 8 + z) >> 3)
    bit = np.uint8(1 << (z & 7))
    if runs.seen[index] & bit == 0:
        runs.seen[index] |= bit
        _add_end(runs, space, pack_key(x + window[0] * 8, y + window[1] * 8, z + window[2] * 8))


@inlined
def _add_far(runs, space, x, y, z, marks):
    """Count an invalid point, or store the end of a ray longer than the longest range, mostly once per voxel."""
    if x < 0 or y < 0 or z < 0:
        runs.used[4] += 1
        return
    reach = space.reach
    if reach[0] <= x <= reach[3] and reach[1] <= y <= reach[4] and reach[2] <= z <= reach[5]:
        return
    if marks:
        runs.used[3] += 1
    key = pack_key(x, y, z)
    place = (key * np.int64(0x9E3779B97F4A7C1) >> 40) & (FAR_CACHE - 1)
    # A lossy memory is enough: a ray walked twice marks the same voxels.
    if runs.far[place] != key:
        runs.far[place] = key
        _add_end(runs, space, key)


@inlined
def _meet(runs, space, packed, count, total, marks):
    """Add a run to the table; what stood in its place and is another voxel or label is stored."""
    place = np.uint64(((packed >> 40) & 0xF00) | ((packed >> 28) & 0xF0) | ((packed >> 16) & 0xF))
    there = runs.table_keys[place]
    if there == packed:
        runs.table_counts[place] += count
        runs.table_sums[place] += total
        return
    if there != -1:
        _end_run(runs, space, there, runs.table_counts[place], runs.table_sums[place], marks)
    runs.table_keys[place] = packed
    runs.table_counts[place] = count
    runs.table_sums[place] = total


@kernel
def collect_ends(points, labels, confidences, start, stop, space, with_far, marks, runs):
    """Join the points [start, stop) into runs and find the ends of their rays.

    Args:
        points: (N, 3) float32.
        labels: (N,) uint16 classes, NO_LABEL for none; or empty.
        confidences: (N,) float32; or empty for full confidence.
        start: first point.
        stop: behind the last one.
        space: where.
        with_far: whether points outside `space.reach` become ends of rays here.
        marks: whether the end voxels are hit; False for points that only clear.
        runs: result.
    """
    has_labels, has_confidences = len(labels) > 0, len(confidences) > 0
    window, keys, places = space.window, runs.block_keys, runs.block_places
    x0, y0, z0 = window[0] * 8, window[1] * 8, window[2] * 8
    last, last_label = np.int32(-2), np.int64(NO_LABEL)
    packed, count, total = np.int64(0), np.int64(0), 0.0
    for block in range(start, stop, BLOCK):
        size = min(BLOCK, stop - block)
        _locate_block(points, block, size, space, keys, places)
        for i in range(size):
            place = places[i]
            label = np.int64(labels[block + i]) if has_labels else np.int64(NO_LABEL)
            confidence = np.float64(confidences[block + i]) if has_confidences else 1.0
            if place == last and label == last_label:
                count += 1
                total += confidence
                continue
            if place < 0:
                if with_far:
                    _add_far(runs, space, keys[3 * i], keys[3 * i + 1], keys[3 * i + 2], marks)
                continue
            if count > 0:
                _meet(runs, space, packed, count, total, marks)
            x, y, z = np.int64(keys[3 * i]) - x0, np.int64(keys[3 * i + 1]) - y0, np.int64(keys[3 * i + 2]) - z0
            last, last_label = place, label
            packed = (x << 48) | (y << 32) | (z << 16) | label
            count, total = np.int64(1), confidence
    if count > 0:
        _meet(runs, space, packed, count, total, marks)
    for place in range(TABLE):
        if runs.table_keys[place] != -1:
            _end_run(runs, space, runs.table_keys[place], runs.table_counts[place], runs.table_sums[place], marks)
            runs.table_keys[place] = -1


@kernel
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


@kernel
def clean_labels(labels, confidences, num_classes, start, stop, out, counts):
    """Labels as uint16 with NO_LABEL for what is no class.

    Args:
        labels: (N,) integers of any type.
        confidences: (N,) float32 or empty.
        num_classes: classes of the map.
        start: first point.
        stop: behind the last one.
        out: (N,) uint16 result.
        counts: (3,) int64 result: points without label (-1, 255, 65535 beyond the classes), other labels that are no
            class, confidences that are NaN.
    """
    counts[:] = 0
    limit = np.uint64(num_classes)
    any_bad = False
    for i in range(start, stop):
        # Negative ones are large as unsigned.
        bad = np.uint64(np.int64(labels[i])) >= limit
        out[i] = np.uint16(NO_LABEL) if bad else np.uint16(labels[i])
        any_bad |= bad
    if any_bad:
        for i in range(start, stop):
            if out[i] == NO_LABEL:
                label = np.int64(labels[i])
                nothing = label == -1 or label == 255 or label == NO_LABEL
                counts[0 if nothing else 1] += 1
    any_nan = False
    for i in range(start, min(stop, len(confidences))):
        any_nan |= confidences[i] != confidences[i]
    if any_nan:
        for i in range(start, stop):
            if confidences[i] != confidences[i]:
                counts[2] += 1
                out[i] = NO_LABEL


@kernel
def survey(bits, start, stop, limit, bounds, labels, confidences, num_classes, out, counts):
    """coordinate_bounds, and clean_labels where there are labels, of one thread's points."""
    coordinate_bounds(bits, start, stop, limit, bounds)
    counts[:] = 0
    if len(labels) > 0:
        clean_labels(labels, confidences, num_classes, start, stop, out, counts)
