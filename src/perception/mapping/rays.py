# SPDX-License-Identifier: Apache-2.0
"""Ray casting through a dense window of bytes, voxel for voxel as OctoMap's computeRayKeys does it.

Direction, length and half a voxel are float32, the distances to the next voxel borders float64 by repeated addition
(Amanatides and Woo, "A Fast Voxel Traversal Algorithm for Ray Tracing", 1987, with OctoMap's types and tie rule).
"""

from __future__ import annotations

import numpy as np

from perception.mapping.keys import axis_masks, brick_place, cell_place, coordinate_key, key_coordinate, window_bits
from perception.mapping.lanes import LANES, walk_lanes
from perception.numba_cache import inlined, kernel

FREE = 1
NEVER = 1.7976931348623157e308


@inlined
def _axis(origin, origin_key, direction, resolution):
    """Step, distance to the first border and between borders along one axis."""
    if direction > 0:
        step = 1
    elif direction < 0:
        step = -1
    else:
        return 0, NEVER, NEVER
    border = key_coordinate(origin_key, resolution) + np.float64(np.float32(step * resolution * 0.5))
    return step, (border - np.float64(origin)) / np.float64(direction), resolution / abs(np.float64(direction))


@inlined
def ray_end(origin, key, resolution, range_limit, max_range):
    """End of the ray to a voxel, cut at the longest range.

    Returns:
        x, y, z float32 of the end, whether the ray was cut.
    """
    x = np.float32(key_coordinate(key >> 32, resolution))
    y = np.float32(key_coordinate((key >> 16) & 0xFFFF, resolution))
    z = np.float32(key_coordinate(key & 0xFFFF, resolution))
    dx, dy, dz = x - origin[0], y - origin[1], z - origin[2]
    squared = dx * dx + dy * dy + dz * dz
    if squared <= range_limit:
        return x, y, z, False
    norm = np.float32(np.sqrt(np.float64(squared)))
    return (
        origin[0] + dx / norm * max_range,
        origin[1] + dy / norm * max_range,
        origin[2] + dz / norm * max_range,
        True,
    )


@inlined
def _border_distance(coordinate, key, resolution):
    """Distance of a coordinate to the nearest border of its voxel, in voxels; negative outside."""
    return 0.5 - abs(np.float64(coordinate) - key_coordinate(key, resolution)) / resolution


@kernel
def walk_exact(cells, touched, sparse, origin, origin_key, end_key, length, direction, resolution, window):
    """Mark a ray whose end lies so close to a voxel border that it may miss its end voxel.

    OctoMap then stops it by its length; the number of voxels is not known beforehand. What lies outside the window is
    passed over; in a sparse window the bricks passed are marked in `touched`.
    """
    sx, tx, dx = _axis(origin[0], origin_key[0], direction[0], resolution)
    sy, ty, dy = _axis(origin[1], origin_key[1], direction[1], resolution)
    sz, tz, dz = _axis(origin[2], origin_key[2], direction[2], resolution)
    x, y, z = origin_key
    x0, y0, z0 = window[0] * 8, window[1] * 8, window[2] * 8
    nx, ny, nz = window[3] * 8, window[4] * 8, window[5] * 8
    bits = window_bits(window)
    while True:
        wx, wy, wz = x - x0, y - y0, z - z0
        if 0 <= wx < nx and 0 <= wy < ny and 0 <= wz < nz:
            cells[np.uint64(cell_place(wx, wy, wz, bits))] = FREE
            if sparse:
                touched[np.uint64(brick_place(wx >> 3, wy >> 3, wz >> 3, bits))] = 1
        elif sparse and (
            (wx < 0 and sx <= 0)
            or (wx >= nx and sx >= 0)
            or (wy < 0 and sy <= 0)
            or (wy >= ny and sy >= 0)
            or (wz < 0 and sz <= 0)
            or (wz >= nz and sz >= 0)
        ):
            # A ray never comes back.
            return
        if tx < ty and tx < tz:
            x += sx
            tx += dx
        elif ty <= tx and ty < tz:
            y += sy
            ty += dy
        else:
            z += sz
            tz += dz
        if (x == end_key[0] and y == end_key[1] and z == end_key[2]) or min(tx, ty, tz) > length:
            return


@kernel
def start_ray(cells, origin, origin_key, key, resolution, range_limit, max_range, window, reals, wholes, lane):
    """Prepare the ray to a voxel in a lane of `reals` (6, L) float64 and `wholes` (8, L) int64; see lanes.walk_lanes.

    Returns:
        True when the lane has voxels to mark; False when the ray has none or was walked here.
    """
    x, y, z, cut = ray_end(origin, key, resolution, range_limit, max_range)
    kx, ky, kz = key >> 32, (key >> 16) & 0xFFFF, key & 0xFFFF
    if cut:
        inverse = 1.0 / resolution
        kx, ky, kz = coordinate_key(x, inverse), coordinate_key(y, inverse), coordinate_key(z, inverse)
        if kx < 0 or ky < 0 or kz < 0:
            return False
    ox, oy, oz = origin_key
    left = abs(kx - ox) + abs(ky - oy) + abs(kz - oz)
    if left == 0:
        return False
    dx, dy, dz = x - origin[0], y - origin[1], z - origin[2]
    length = np.float32(np.sqrt(np.float64(dx * dx + dy * dy + dz * dz)))
    dx, dy, dz = dx / length, dy / length, dz / length
    if cut:
        # An end safely inside its voxel is reached after exactly one border per key step; float32 directions are off
        # by less than 1e-6 of the length.
        margin = 1e-6 + 1e-6 * np.float64(length) / resolution
        if (
            _border_distance(x, kx, resolution) < margin
            or _border_distance(y, ky, resolution) < margin
            or _border_distance(z, kz, resolution) < margin
        ):
            direction, end_key = (dx, dy, dz), (kx, ky, kz)
            walk_exact(
                cells, cells, False, origin, origin_key, end_key, np.float64(length), direction, resolution, window
            )
            return False
    sx, reals[0, lane], reals[3, lane] = _axis(origin[0], ox, dx, resolution)
    sy, reals[1, lane], reals[4, lane] = _axis(origin[1], oy, dy, resolution)
    sz, reals[2, lane], reals[5, lane] = _axis(origin[2], oz, dz, resolution)
    bits = window_bits(window)
    masks = axis_masks(bits)
    wholes[0, lane] = cell_place(ox - window[0] * 8, oy - window[1] * 8, oz - window[2] * 8, bits)
    # In the bits of one axis, all ones are -1.
    wholes[1, lane] = 16 if sx > 0 else masks[0]
    wholes[2, lane] = 4 if sy > 0 else masks[1]
    wholes[3, lane] = 1 if sz > 0 else masks[2]
    wholes[5, lane], wholes[6, lane], wholes[7, lane] = ~masks[0], ~masks[1], ~masks[2]
    wholes[4, lane] = left
    return True


@kernel
def walk_lane(cells, reals, wholes, lane):
    """Mark what is left of the ray of one lane."""
    a, b, c = reals[0, lane], reals[1, lane], reals[2, lane]
    da, db, dc = reals[3, lane], reals[4, lane], reals[5, lane]
    place = wholes[0, lane]
    for _ in range(wholes[4, lane]):
        cells[np.uint64(place)] = FREE
        if a < b and a < c:
            axis = 0
            a += da
        elif b <= a and b < c:
            axis = 1
            b += db
        else:
            axis = 2
            c += dc
        others = wholes[5 + axis, lane]
        place = (place & others) | (((place | others) + wholes[1 + axis, lane]) & ~others)
    wholes[4, lane] = 0


@kernel
def walk_rays(cells, origin, origin_key, ends, start, stop, rule, window, reals, wholes):
    """Mark the voxels between the origin and the end voxels (neither ends nor what lies behind).

    Args:
        cells: window of uint8, in the order of keys.cell_place; set to FREE where a ray passes.
        origin: (x, y, z) float32.
        origin_key: its keys, inside the window.
        ends: (E,) int64 packed keys of end voxels.
        start: first of them.
        stop: behind the last one.
        rule: resolution in meters; float32 largest squared float32 distance that counts as in range; float32 longest
            range in meters.
        window: (6,) int64, lowest brick and number of bricks per axis.
        reals: (6, LANES) float64 scratch.
        wholes: (8, LANES) int64 with zeros in row 4, also on return.
    """
    ray = start
    while True:
        full = True
        for lane in range(LANES):
            while wholes[4, lane] == 0 and ray < stop:
                start_ray(cells, origin, origin_key, ends[ray], *rule, window, reals, wholes, lane)  # pyright: ignore[reportCallIssue]
                ray += 1
            full &= wholes[4, lane] > 0
        if not full:
            break
        walk_lanes(cells, reals, wholes)
    for lane in range(LANES):
        walk_lane(cells, reals, wholes, lane)


@kernel
def walk_shares(cells, origin, origin_key, runs, share, rule, window, reals, wholes):
    """walk_rays for one thread's share (first, last, first, last) of the ends that both threads found."""
    walk_rays(cells, origin, origin_key, runs[0].ends, share[0], share[1], rule, window, reals, wholes)
    walk_rays(cells, origin, origin_key, runs[1].ends, share[2], share[3], rule, window, reals, wholes)


@kernel
def walk_clipped(cells, touched, origin, origin_key, ends, rule, window):
    """Like walk_rays for a window that holds only a part of the rays, and perhaps not their origin.

    `touched`, (bricks of the window,) uint8, is set to 1 where rays pass; the rest is as in walk_rays.
    """
    resolution, range_limit, max_range = rule
    for i in range(len(ends)):
        x, y, z, cut = ray_end(origin, ends[i], resolution, range_limit, max_range)
        kx, ky, kz = ends[i] >> 32, (ends[i] >> 16) & 0xFFFF, ends[i] & 0xFFFF
        if cut:
            inverse = 1.0 / resolution
            kx, ky, kz = coordinate_key(x, inverse), coordinate_key(y, inverse), coordinate_key(z, inverse)
        if kx < 0 or ky < 0 or kz < 0 or (kx == origin_key[0] and ky == origin_key[1] and kz == origin_key[2]):
            continue
        dx, dy, dz = x - origin[0], y - origin[1], z - origin[2]
        length = np.float32(np.sqrt(np.float64(dx * dx + dy * dy + dz * dz)))
        direction, end_key = (dx / length, dy / length, dz / length), (kx, ky, kz)
        walk_exact(cells, touched, True, origin, origin_key, end_key, np.float64(length), direction, resolution, window)
