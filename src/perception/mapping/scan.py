# SPDX-License-Identifier: Apache-2.0
"""From the points of a scan to the voxels they lie in, with their votes, and to the ends of rays.

Neighboring points of an image mostly fall into the same voxel with the same label. They are joined into runs, and runs
of the same voxel and label meet in a small table; what leaves the table is an entry. There are far fewer entries than
points, so everything after that is cheap. Each thread takes one half of the points: an upper and a lower half of an
image write to different parts of the window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perception.mapping.fusion import NO_LABEL, UNIT
from perception.mapping.keys import KEY_END, KEY_ORIGIN, brick_shard, cell_place, key_coordinate, pack_key, window_bits
from perception.numba_cache import inlined, inner, kernel

BLOCK = 1024
"""Points that are worked on at once: what they need stays in the fastest cache."""
TABLE = 8192
"""Places of the table where runs meet: 32, 16 and 16 voxels along x, y and z."""
TABLE_ROW = 2
"""code, points."""
FAR_CACHE = 1 << 14

# Places in Collector.used.
MARKING, ENTRIES, ENDS, BEYOND, INVALID, CLEAR_INVALID = 0, 1, 2, 3, 4, 5
UNLABELED, INVALID_LABELS, INVALID_CONFIDENCES = 6, 7, 8
USED = 9


class Entries(NamedTuple):
    """Voxels with points, a row for each label; the first half of the rows is the first thread's."""

    codes: np.ndarray
    """(2 R,) int64: x, y, z key << 48, 32, 16 | label."""
    counts: np.ndarray
    """(2 R,) int32 points."""
    sums: np.ndarray
    """(2 R,) int64 summed confidence, in 1 / UNIT."""
    places: np.ndarray
    """(2 R,) int32 number of the brick in the window << 1 | shard; -1 for entries that mark no voxel."""
    next_in_brick: np.ndarray
    """(2 R,) int32 another entry of the same brick, -1 at the end."""
    next_in_voxel: np.ndarray
    """(2 R,) int32 another entry of the same voxel, -1 at the end."""


class Collector(NamedTuple):
    """What one thread needs and finds while it goes through its points."""

    base: int
    """its first row of the entries"""
    used: np.ndarray
    """(USED,) int64: entries that mark, entries with those that only clear, ends of rays; points beyond the longest
    range, invalid, clearing and invalid, without label, with a label that is no class, with a confidence of NaN."""
    bounds: np.ndarray
    """(6,) int64 lowest and highest key per axis of the entries."""
    ends: np.ndarray
    """(E,) int64 packed keys of end voxels."""
    lengths: np.ndarray
    """(E,) int64 voxels along the rays up to and with each end."""
    seen: np.ndarray
    """uint8 one bit for each end voxel of the window, zero before and after a scan; of both threads.

    They may lose each other's bits. A ray is then walked twice, which marks the same voxels.
    """
    far: np.ndarray
    """(FAR_CACHE,) int64 last far end voxels seen."""
    table: np.ndarray
    """(TABLE · TABLE_ROW,) int64; an empty place has no points."""
    sums: np.ndarray
    """(TABLE,) int64 summed confidence of each place, where points have one."""
    keys: np.ndarray
    """(3 BLOCK,) int32 keys of a block of points, -1 where there is none."""
    codes: np.ndarray
    """(BLOCK,) int64 their codes, -1 where there is none."""
    totals: np.ndarray
    """(BLOCK + 1,) int64 summed confidence of the points before each."""
    starts: np.ndarray
    """(BLOCK + 1,) int32 first points of runs."""


class Space(NamedTuple):
    """Where a scan, or a part of it, happens."""

    window: np.ndarray
    """(6,) int64 lowest brick and number of bricks per axis."""
    resolution: float
    """m"""
    origin: tuple[np.float32, np.float32, np.float32]
    """m"""
    range_limit: np.float32
    """largest squared distance that counts as in range"""
    origin_key: tuple[int, int, int]


@inlined
def _block_codes(points, labels, start, count, num_classes, inverse, scratch):
    """Keys and codes of a block of points; whether some label is no class. Vectorizes."""
    flat = points.reshape(-1)
    keys, codes = scratch.keys, scratch.codes
    first = np.uint64(3 * start)
    for i in range(3 * count):
        key = np.floor(np.float64(flat[first + np.uint64(i)]) * inverse) + KEY_ORIGIN
        keys[i] = np.int32(key) if (key >= 0.0) & (key < KEY_END) else np.int32(-1)
    has_labels = len(labels) > 0
    strange = False
    limit = np.uint32(num_classes)
    for i in range(count):
        x, y, z = keys[3 * i], keys[3 * i + 1], keys[3 * i + 2]
        label = np.int64(NO_LABEL)
        if has_labels:
            # Negative ones are large as unsigned.
            given = np.uint32(labels[np.uint64(start + i)])
            none = given >= limit
            strange |= none
            label = np.int64(NO_LABEL) if none else np.int64(given)
        code = (np.int64(x) << 48) | (np.int64(y) << 32) | (np.int64(z) << 16) | label
        codes[i] = np.int64(-1) if (x | y | z) < 0 else code
    return strange


@inlined
def _block_totals(confidences, start, count, totals):
    """Running sums of a block's confidences; whether one is NaN."""
    total = np.int64(0)
    strange = False
    totals[0] = 0
    for i in range(count):
        confidence = confidences[np.uint64(start + i)]
        nothing = confidence != confidence
        strange |= nothing
        confidence = min(max(confidence, np.float32(0.0)), np.float32(1.0))
        total += np.int64(0) if nothing else np.int64(np.int32(confidence * np.float32(UNIT)))
        totals[i + 1] = total
    return strange


@inner
def _count_strange(labels, confidences, start, count, num_classes, codes, used):
    """Count labels that are no class; points whose confidence is NaN lose their label."""
    for i in range(count):
        if len(labels) > 0:
            label = np.int64(labels[start + i])
            if label < 0 or label >= num_classes:
                nothing = label == -1 or label == 255 or label == NO_LABEL
                used[UNLABELED if nothing else INVALID_LABELS] += 1
        if len(confidences) > 0 and confidences[start + i] != confidences[start + i]:
            used[INVALID_CONFIDENCES] += 1
            codes[i] |= NO_LABEL


@inlined
def _find_starts(codes, count, starts):
    """First points of runs of equal codes, and behind them the number of points; how many runs. No branch."""
    runs = 0
    last = ~codes[0]
    for i in range(count):
        code = codes[i]
        starts[runs] = i
        runs += np.int64(code != last)
        last = code
    starts[runs] = count
    return runs


@inlined
def _emit(code, count, total, entries, scratch):
    """Store an entry."""
    row = scratch.base + scratch.used[ENTRIES]
    entries.codes[row] = code
    entries.counts[row] = count
    entries.sums[row] = total
    scratch.used[ENTRIES] += 1


@inlined
def _emit_place(place, sure, entries, scratch):
    """Make an entry of a place of the table that has points."""
    row = np.uint64(TABLE_ROW) * place
    count = scratch.table[row + np.uint64(1)]
    _emit(scratch.table[row], count, scratch.sums[place] if sure else count * UNIT, entries, scratch)


@inlined
def _meet(code, count, total, sure, entries, scratch):
    """Add a run to the table; what stood in its place and is another voxel or label becomes an entry."""
    table, sums = scratch.table, scratch.sums
    place = ((code >> 40) & 0x1F00) | ((code >> 28) & 0xF0) | ((code >> 16) & 0xF)
    # Labels of one voxel that alternate must not drive each other out.
    place = np.uint64((place ^ (code * 1237)) & (TABLE - 1))
    row = np.uint64(TABLE_ROW) * place
    if table[row] != code:
        if table[row + np.uint64(1)] > 0:
            _emit_place(place, sure, entries, scratch)
        table[row], table[row + np.uint64(1)] = code, count
        if sure:
            sums[place] = total
        return
    table[row + np.uint64(1)] += count
    if sure:
        sums[place] += total


@inner
def _count_valid(keys, start, stop, used, place):
    """Points of a run that have a key; the others are counted."""
    valid = 0
    for i in range(start, stop):
        if (keys[3 * i] | keys[3 * i + 1] | keys[3 * i + 2]) < 0:
            used[place] += 1
        else:
            valid += 1
    return valid


@inner
def _flush(sure, entries, scratch):
    """Empty the table into entries, and note the bounds of all entries."""
    table, codes = scratch.table, entries.codes
    for place in range(TABLE):
        if table[TABLE_ROW * place + 1] > 0:
            _emit_place(np.uint64(place), sure, entries, scratch)
            table[TABLE_ROW * place + 1] = 0
            scratch.sums[place] = 0
    bounds = scratch.bounds
    for axis in range(3):
        shift = 48 - 16 * axis
        low, high = np.int64(KEY_END), np.int64(-1)
        for row in range(scratch.base, scratch.base + scratch.used[ENTRIES]):
            key = (codes[row] >> shift) & 0xFFFF
            low, high = min(low, key), max(high, key)
        bounds[axis], bounds[3 + axis] = low, high


@inner
def add_points(points, labels, confidences, start, stop, num_classes, inverse_resolution, marks, entries, scratch):
    """Turn the points [start, stop) into runs in the thread's table; :func:`finish_points` makes entries of the table.

    Args:
        points: (N, 3) float32.
        labels: (N,) int32 classes, anything else for none; or empty.
        confidences: (N,) float32, clamped to [0, 1]; or empty for full confidence.
        start: first point.
        stop: behind the last one.
        num_classes: classes of the map.
        inverse_resolution: 1 / m.
        marks: whether the voxels are hit; False for points that only clear.
        entries: result.
        scratch: of this thread.
    """
    sure = len(confidences) > 0
    totals, starts, codes = scratch.totals, scratch.starts, scratch.codes
    for block in range(start, stop, BLOCK):
        size = min(BLOCK, stop - block)
        strange = _block_codes(points, labels, block, size, num_classes, inverse_resolution, scratch)
        if sure:
            strange |= _block_totals(confidences, block, size, totals)
        if strange:
            _count_strange(labels, confidences, block, size, num_classes, codes, scratch.used)
        runs = _find_starts(codes, size, starts)
        for run in range(runs):
            first, behind = np.int64(starts[run]), np.int64(starts[run + 1])
            code, count = codes[first], behind - first
            total = totals[behind] - totals[first] if sure else np.int64(0)
            if code == -1:
                # Nearly always points without a key, but also the code of the map's last corner without a label.
                count = _count_valid(scratch.keys, first, behind, scratch.used, INVALID if marks else CLEAR_INVALID)
                if count == 0:
                    continue
            _meet(code, count, total, sure, entries, scratch)


@inner
def finish_points(marks, sure, entries, scratch):
    """Make entries of what is in the table; no points of the kind ``marks`` follow.

    ``sure``: whether the points in the table have confidences.
    """
    _flush(sure, entries, scratch)
    if marks:
        scratch.used[MARKING] = scratch.used[ENTRIES]


@kernel
def collect(points, labels, confidences, start, stop, num_classes, inverse_resolution, marks, entries, scratch):
    """Turn the points [start, stop) into entries, behind those that are there; arguments as :func:`add_points`."""
    add_points(points, labels, confidences, start, stop, num_classes, inverse_resolution, marks, entries, scratch)
    finish_points(marks, len(confidences) > 0, entries, scratch)


@inlined
def squared_distance(key, origin, resolution):
    """Squared float32 distance of a voxel's float32 center from the origin, as OctoMap computes it."""
    dx = np.float32(key_coordinate(key >> 32, resolution)) - origin[0]
    dy = np.float32(key_coordinate((key >> 16) & 0xFFFF, resolution)) - origin[1]
    dz = np.float32(key_coordinate(key & 0xFFFF, resolution)) - origin[2]
    return dx * dx + dy * dy + dz * dz


@inlined
def _add_end(scratch, space, key):
    """Store the end of a ray."""
    place = scratch.used[ENDS]
    ox, oy, oz = space.origin_key
    length = abs((key >> 32) - ox) + abs(((key >> 16) & 0xFFFF) - oy) + abs((key & 0xFFFF) - oz)
    scratch.ends[place] = key
    scratch.lengths[place] = length + (scratch.lengths[place - 1] if place > 0 else 0)
    scratch.used[ENDS] = place + 1


@inlined
def _place_far(entries, row, scratch, space, key, marks):
    """Store the end of a ray longer than the longest range, mostly once per voxel."""
    if marks:
        scratch.used[BEYOND] += entries.counts[row]
    place = (key * np.int64(0x9E3779B97F4A7C1) >> 40) & (FAR_CACHE - 1)
    # A lossy memory is enough: a ray walked twice marks the same voxels.
    if scratch.far[place] != key:
        scratch.far[place] = key
        _add_end(scratch, space, key)


@kernel
def place_entries(entries, space, scratch):
    """Say where in the window a thread's entries lie, and find the ends of their rays.

    Entries outside the window are too far away: they clear up to the longest range.
    """
    window, base, used = space.window, scratch.base, scratch.used
    x0, y0, z0 = window[0] * 8, window[1] * 8, window[2] * 8
    nx, ny, nz = window[3] * 8, window[4] * 8, window[5] * 8
    bits = window_bits(window)
    for row in range(base, base + used[ENTRIES]):
        code = entries.codes[row]
        x, y, z = ((code >> 48) & 0xFFFF) - x0, ((code >> 32) & 0xFFFF) - y0, ((code >> 16) & 0xFFFF) - z0
        marks = row < base + used[MARKING]
        key = pack_key(x + x0, y + y0, z + z0)
        entries.places[row] = -1
        if x < 0 or x >= nx or y < 0 or y >= ny or z < 0 or z >= nz:
            _place_far(entries, row, scratch, space, key, marks)
            continue
        place = cell_place(x, y, z, bits)
        if marks:
            if squared_distance(key, space.origin, space.resolution) <= space.range_limit:
                entries.places[row] = (place >> 9 << 1) | brick_shard((x >> 3) + window[0], (y >> 3) + window[1])
            else:
                used[BEYOND] += entries.counts[row]
        index, bit = np.uint64(place >> 3), np.uint8(1 << (place & 7))
        if scratch.seen[index] & bit == 0:
            scratch.seen[index] |= bit
            _add_end(scratch, space, key)


@inner
def forget_ends(scratch, window):
    """Zero the bits of the end voxels again, and the far ones."""
    x0, y0, z0 = window[0] * 8, window[1] * 8, window[2] * 8
    nx, ny, nz = window[3] * 8, window[4] * 8, window[5] * 8
    bits = window_bits(window)
    any_far = False
    for i in range(scratch.used[ENDS]):
        key = scratch.ends[i]
        x, y, z = (key >> 32) - x0, ((key >> 16) & 0xFFFF) - y0, (key & 0xFFFF) - z0
        if 0 <= x < nx and 0 <= y < ny and 0 <= z < nz:
            scratch.seen[cell_place(x, y, z, bits) >> 3] = 0
        else:
            any_far = True
    if any_far:
        scratch.far[:] = -1
