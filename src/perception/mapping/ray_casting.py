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
def _advance(x, y, z, tx, ty, tz, sx, sy, sz, dx, dy, dz):
    """One voxel further, without a branch: which axis is next cannot be foreseen."""
    x_first = (tx < ty) & (tx < tz)
    y_first = (ty <= tx) & (ty < tz)
    z_first = not (x_first | y_first)
    x += sx if x_first else np.int64(0)
    y += sy if y_first else np.int64(0)
    z += sz if z_first else np.int64(0)
    tx += dx if x_first else 0.0
    ty += dy if y_first else 0.0
    tz += dz if z_first else 0.0
    return x, y, z, tx, ty, tz


@inlined
def _out_of_map(x, y, z):
    return (np.uint64(x) | np.uint64(y) | np.uint64(z)) >= np.uint64(KEY_END)


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
        last_region, region0, region1 = np.int64(-1), np.int64(-1), np.int64(-1)
        while walking:
            if _out_of_map(x, y, z):
                state = OUTSIDE
                break
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
            shift, row, value = np.int64(3), np.int64(-1), np.float32(np.nan)
            if brick >= 0:
                shift = np.int64(2)
                block = (x & 4) | ((y & 4) >> 1) | ((z & 4) >> 2)
                if owner:
                    row, value = np.int64(shards[1].rows[brick, block]), shards[1].uniform[brick, block]
                else:
                    row, value = np.int64(shards[0].rows[brick, block]), shards[0].uniform[brick, block]
            fx, fy, fz = x, y, z
            if row < 0:
                if value >= 0:
                    state = HIT
                    break
                if value != value and not ignore_unknown:
                    state = UNKNOWN
                    break
                while ((x ^ fx) | (y ^ fy) | (z ^ fz)) >> shift == 0:
                    if min(tx, ty, tz) > near:
                        walking = False
                        break
                    x, y, z, tx, ty, tz = _advance(x, y, z, tx, ty, tz, sx, sy, sz, dx, dy, dz)
                continue
            values = values1[row] if owner else values0[row]
            while ((x ^ fx) | (y ^ fy) | (z ^ fz)) >> 2 == 0:
                value = values[((x & 3) << 4) | ((y & 3) << 2) | (z & 3)]
                if not value < 0 and (value >= 0 or not ignore_unknown):
                    state = HIT if value >= 0 else UNKNOWN
                    walking = False
                    break
                if min(tx, ty, tz) > near:
                    walking = False
                    break
                x, y, z, tx, ty, tz = _advance(x, y, z, tx, ty, tz, sx, sy, sz, dx, dy, dz)
        # Near the end of the range, voxel by voxel.
        while state == FREE:
            last_x, last_y, last_z = x, y, z
            x, y, z, tx, ty, tz = _advance(x, y, z, tx, ty, tz, sx, sy, sz, dx, dy, dz)
            if _out_of_map(x, y, z):
                state = OUTSIDE
            elif _beyond(x, y, z, origins, i, resolution, range_squared):
                x, y, z = last_x, last_y, last_z
                break
            else:
                brick = locate_brick(shards, x >> 3, y >> 3, z >> 3)
                value = value_in(shards, brick_shard(x >> 3, y >> 3), brick, brick_voxel(x, y, z))
                if value >= 0:
                    state = HIT
                elif value != value and not ignore_unknown:
                    state = UNKNOWN
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
