# SPDX-License-Identifier: Apache-2.0
"""Rays through a finished map, as OctoMap's castRay follows them: the same voxels, the same ends.

Points, directions and voxel centers are float32 and the parameters of voxel borders float64, as there. Voxels of a
block that is all alike, and those where there is no brick, are passed without being looked up.
"""

from __future__ import annotations

import numpy as np

from perception.mapping.bricks import directory_place, find_region, region_key
from perception.mapping.keys import KEY_END, brick_shard, brick_voxel, coordinate_key, key_coordinate
from perception.mapping.queries import locate_brick, value_in
from perception.numba_cache import inlined, kernel

HIT, UNKNOWN, FREE, OUTSIDE = 1, 2, 0, 3
"""How a cast ray ends: in an occupied voxel, in an unknown one, after its whole length, or at the border of the map."""

MARGIN = 2.0
"""Voxels before the end of its range from which on a ray is measured as OctoMap does it. The center of a voxel is
never farther than the ray's way to the voxel and half a diagonal (0.87 voxels)."""
CROSSING = 14.0
"""Voxels that a ray's way through a brick is never longer than, 8·√3 rounded up."""
FIELD = 20
"""Bits of a key in a packed voxel: 16, and four that only keys outside the map set."""
SPARE = (0xF << 16) | (0xF << (16 + FIELD)) | (0xF << (16 + 2 * FIELD))
WITHIN_BRICK = (7 << (2 * FIELD)) | (7 << FIELD) | 7
WITHIN_BLOCK = (3 << (2 * FIELD)) | (3 << FIELD) | 3


@inlined
def _border(origin, key, direction, resolution):
    """Step along an axis, parameter of the first border and between borders."""
    if direction == 0:
        return np.int64(0), np.inf, np.inf
    step = np.int64(1) if direction > 0 else np.int64(-1)
    border = key_coordinate(key, resolution) + np.float64(step) * resolution * 0.5
    way = np.float64(direction)
    return step, (border - np.float64(origin)) / way, resolution / abs(way)


@inlined
def _pack(x, y, z):
    """One number for three keys: a step is one addition, and a key outside the map shows in SPARE."""
    return (x << (2 * FIELD)) + (y << FIELD) + z


@inlined
def _unpack(voxel):
    """Keys of a packed voxel; −1 for one below the map, which borrowed from the next field."""
    z = _signed(voxel)
    voxel = (voxel - z) >> FIELD
    y = _signed(voxel)
    return (voxel - y) >> FIELD, y, z


@inlined
def _signed(voxel):
    half = np.int64(1) << (FIELD - 1)
    return ((voxel & ((np.int64(1) << FIELD) - 1)) ^ half) - half


@inlined
def _advance(voxel, tx, ty, tz, sx, sy, sz, dx, dy, dz):
    """One voxel further, without a branch: which axis is next cannot be foreseen.

    Minima and sums that may not be used, in place of conditions joined to one: on the way from step to step lie then
    only a comparison and a choice.
    """
    next_x, next_y, next_z = tx + dx, ty + dy, tz + dz
    later, earlier = min(ty, tz), min(tx, ty)
    voxel += sx if tx < later else (sy if ty < tz else sz)
    x = next_x if tx < later else tx
    y = next_y if ty < tz and ty <= tx else ty
    z = next_z if tz <= earlier else tz
    return voxel, x, y, z


@inlined
def _beyond(x, y, z, origins, i, resolution, range_squared):
    """Whether the float32 center of a voxel is farther from the origin than the range."""
    ex = np.float32(key_coordinate(x, resolution)) - origins[i, 0]
    ey = np.float32(key_coordinate(y, resolution)) - origins[i, 1]
    ez = np.float32(key_coordinate(z, resolution)) - origins[i, 2]
    return np.float64(ex * ex) + np.float64(ey * ey) + np.float64(ez * ez) > range_squared


@kernel
def cast_rays(
    shards, origins, directions, max_range, ignore_unknown, resolution, start, stop, states, points, distances
):
    """Follow rays to the first occupied (or unknown) voxel.

    Args:
        shards: both.
        origins: (N, 3) float32, meters.
        directions: (N, 3) float32, unit length.
        max_range: meters; not positive for no limit.
        ignore_unknown: whether unknown voxels are passed.
        resolution: meters.
        start: first ray.
        stop: behind the last one.
        states: (N,) uint8 result: HIT, UNKNOWN, FREE or OUTSIDE.
        points: (N, 3) float32 result: center of the last voxel.
        distances: (N,) float32 result: from the origin to there.
    """
    inverse = 1.0 / resolution
    limited = max_range > 0
    range_squared = max_range * max_range
    near = max_range - MARGIN * resolution if limited else np.inf
    far = near - CROSSING * resolution
    values0, values1 = shards[0].values, shards[1].values
    for i in range(start, stop):
        x = coordinate_key(origins[i, 0], inverse)
        y = coordinate_key(origins[i, 1], inverse)
        z = coordinate_key(origins[i, 2], inverse)
        sx, tx, dx = _border(origins[i, 0], x, directions[i, 0], resolution)
        sy, ty, dy = _border(origins[i, 1], y, directions[i, 1], resolution)
        sz, tz, dz = _border(origins[i, 2], z, directions[i, 2], resolution)
        state = OUTSIDE if min(x, y, z) < 0 else FREE
        walking = state == FREE
        voxel = _pack(x, y, z)
        sx, sy = sx << (2 * FIELD), sy << FIELD
        last_region, region0, region1 = np.int64(-1), np.int64(-1), np.int64(-1)
        while walking:
            if voxel & SPARE:
                state = OUTSIDE
                break
            x, y, z = voxel >> (2 * FIELD), (voxel >> FIELD) & 0xFFFF, voxel & 0xFFFF
            bx, by, bz = x >> 3, y >> 3, z >> 3
            key = region_key(bx, by, bz)
            if key != last_region:
                last_region = key
                region0, region1 = find_region(shards[0], key), find_region(shards[1], key)
            owner, place = brick_shard(bx, by), directory_place(bx, by, bz)
            brick = np.int64(-1)
            if owner:
                if region1 >= 0:
                    brick = np.int64(shards[1].directories[region1, place])
            elif region0 >= 0:
                brick = np.int64(shards[0].directories[region0, place])
            within, row, value = np.int64(WITHIN_BRICK), np.int64(-1), np.float32(np.nan)
            if brick >= 0:
                within = np.int64(WITHIN_BLOCK)
                block = (x & 4) | ((y & 4) >> 1) | ((z & 4) >> 2)
                if owner:
                    row, value = np.int64(shards[1].rows[brick, block]), shards[1].uniform[brick, block]
                else:
                    row, value = np.int64(shards[0].rows[brick, block]), shards[0].uniform[brick, block]
            base = voxel & ~within
            if row < 0:
                if value >= 0:
                    state = HIT
                    break
                if value != value and not ignore_unknown:
                    state = UNKNOWN
                    break
                if min(tx, ty, tz) < far:
                    while voxel & ~within == base:
                        voxel, tx, ty, tz = _advance(voxel, tx, ty, tz, sx, sy, sz, dx, dy, dz)
                    continue
                while voxel & ~within == base:
                    if min(tx, ty, tz) > near:
                        walking = False
                        break
                    voxel, tx, ty, tz = _advance(voxel, tx, ty, tz, sx, sy, sz, dx, dy, dz)
                continue
            values = values1[row] if owner else values0[row]
            if min(tx, ty, tz) < far:
                while voxel & ~WITHIN_BLOCK == base:
                    value = values[((voxel >> (2 * FIELD - 4)) & 48) | ((voxel >> (FIELD - 2)) & 12) | (voxel & 3)]
                    if not value < 0 and (value >= 0 or not ignore_unknown):
                        state = HIT if value >= 0 else UNKNOWN
                        walking = False
                        break
                    voxel, tx, ty, tz = _advance(voxel, tx, ty, tz, sx, sy, sz, dx, dy, dz)
                continue
            while voxel & ~within == base:
                value = values[((voxel >> (2 * FIELD - 4)) & 48) | ((voxel >> (FIELD - 2)) & 12) | (voxel & 3)]
                if not value < 0 and (value >= 0 or not ignore_unknown):
                    state = HIT if value >= 0 else UNKNOWN
                    walking = False
                    break
                if min(tx, ty, tz) > near:
                    walking = False
                    break
                voxel, tx, ty, tz = _advance(voxel, tx, ty, tz, sx, sy, sz, dx, dy, dz)
        # Near the end of the range, voxel by voxel.
        while state == FREE:
            last = voxel
            voxel, tx, ty, tz = _advance(voxel, tx, ty, tz, sx, sy, sz, dx, dy, dz)
            x, y, z = _unpack(voxel)
            if voxel & SPARE:
                state = OUTSIDE
            elif _beyond(x, y, z, origins, i, resolution, range_squared):
                voxel = last
                break
            else:
                brick = locate_brick(shards, x >> 3, y >> 3, z >> 3)
                value = value_in(shards, brick_shard(x >> 3, y >> 3), brick, brick_voxel(x, y, z))
                if value >= 0:
                    state = HIT
                elif value != value and not ignore_unknown:
                    state = UNKNOWN
        x, y, z = _unpack(voxel)
        _store(x, y, z, origins, i, resolution, points, distances)
        states[i] = state


@inlined
def _store(x, y, z, origins, i, resolution, points, distances):
    """Write where a ray ended; one that left the map ended in its last voxel."""
    px = key_coordinate(min(max(x, 0), KEY_END - 1), resolution)
    py = key_coordinate(min(max(y, 0), KEY_END - 1), resolution)
    pz = key_coordinate(min(max(z, 0), KEY_END - 1), resolution)
    points[i, 0], points[i, 1], points[i, 2] = px, py, pz
    px, py, pz = px - origins[i, 0], py - origins[i, 1], pz - origins[i, 2]
    distances[i] = np.sqrt(px * px + py * py + pz * pz)
