# SPDX-License-Identifier: Apache-2.0
"""Ray casting through a dense window of bytes, voxel for voxel as OctoMap's computeRayKeys does it.

Direction, length and half a voxel are float32, the distances to the next voxel borders float64 by repeated addition
(Amanatides and Woo, "A Fast Voxel Traversal Algorithm for Ray Tracing", 1987, with OctoMap's types and tie rule).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perception.mapping.keys import axis_masks, brick_place, cell_place, coordinate_key, key_coordinate, window_bits
from perception.mapping.lanes import LANES, RAYS, Rays, make_rays, walk_lanes
from perception.numba_cache import inlined, inner, kernel

FREE = 1
NEVER = 1.7976931348623157e308
SORTED_LENGTHS = 1024
"""Rays are sorted by so many different lengths."""


class RayBatch(NamedTuple):
    """What one thread needs to walk rays, RAYS at a time."""

    directions: np.ndarray
    """(3, RAYS) float32 unit vectors."""
    lengths: np.ndarray
    """(RAYS,) int32 voxels to mark."""
    order: np.ndarray
    """(RAYS,) int32 rays by their length."""
    starts: np.ndarray
    """(SORTED_LENGTHS + 1,) int32, where the rays of each length begin in `order`."""
    rays: Rays


def make_ray_batch() -> RayBatch:
    """Room for RAYS rays."""
    lengths, order, starts = (np.zeros(size, np.int32) for size in (RAYS, RAYS, SORTED_LENGTHS + 1))
    return RayBatch(np.zeros((3, RAYS), np.float32), lengths, order, starts, make_rays())


@inlined
def _borders(origin, origin_key, resolution):
    """Signed distances to the borders of the origin's voxel along one axis, upwards and downwards."""
    center = key_coordinate(origin_key, resolution)
    up = center + np.float64(np.float32(resolution * 0.5)) - np.float64(origin)
    down = center + np.float64(np.float32(resolution * -0.5)) - np.float64(origin)
    return up, down


@inlined
def _axis(origin, origin_key, direction, resolution):
    """Step, distance to the first border and between borders along one axis."""
    if not (direction > 0 or direction < 0):
        return 0, NEVER, NEVER
    up, down = _borders(origin, origin_key, resolution)
    step, border = (1, up) if direction > 0 else (-1, down)
    return step, border / np.float64(direction), resolution / abs(np.float64(direction))


@inlined
def _border_distance(coordinate, key, resolution):
    """Distance of a coordinate to the nearest border of its voxel, in voxels; negative outside."""
    return 0.5 - abs(np.float64(coordinate) - key_coordinate(key, resolution)) / resolution


@inlined
def _near_border(end, key, length, resolution):
    """Whether a ray may miss its end voxel.

    An end safely inside its voxel is reached after exactly one border per key step; float32 directions are off by less
    than 1e-6 of the length.
    """
    margin = 1e-6 + 1e-6 * np.float64(length) / resolution
    return (
        _border_distance(end[0], key[0], resolution) < margin
        or _border_distance(end[1], key[1], resolution) < margin
        or _border_distance(end[2], key[2], resolution) < margin
    )


@inner
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


@inlined
def _ray_to(origin, key, rule):
    """The ray to a voxel.

    Returns:
        its end as (x, y, z) float32, keys of the voxel it ends in (negative ones outside the map), direction, length,
        whether it was cut at the longest range. A ray without length has no direction either.
    """
    resolution, range_limit, max_range = rule
    kx, ky, kz = key >> 32, (key >> 16) & 0xFFFF, key & 0xFFFF
    x = np.float32(key_coordinate(kx, resolution))
    y = np.float32(key_coordinate(ky, resolution))
    z = np.float32(key_coordinate(kz, resolution))
    dx, dy, dz = x - origin[0], y - origin[1], z - origin[2]
    squared = dx * dx + dy * dy + dz * dz
    cut = squared > range_limit
    if cut:
        norm = np.float32(np.sqrt(np.float64(squared)))
        x = origin[0] + dx / norm * max_range
        y = origin[1] + dy / norm * max_range
        z = origin[2] + dz / norm * max_range
        inverse = 1.0 / resolution
        kx, ky, kz = coordinate_key(x, inverse), coordinate_key(y, inverse), coordinate_key(z, inverse)
        dx, dy, dz = x - origin[0], y - origin[1], z - origin[2]
        squared = dx * dx + dy * dy + dz * dz
    length = np.float32(np.sqrt(np.float64(squared)))
    return (x, y, z), (kx, ky, kz), (dx / length, dy / length, dz / length), length, cut


@inlined
def _find_rays(cells, origin, origin_key, ends, rule, window, batch):
    """Directions of the rays to the end voxels, and how many voxels each marks; how many rays have any."""
    found = 0
    for i in range(len(ends)):
        end, end_key, direction, length, cut = _ray_to(origin, ends[i], rule)
        kx, ky, kz = end_key
        if kx < 0 or ky < 0 or kz < 0:
            continue
        left = abs(kx - origin_key[0]) + abs(ky - origin_key[1]) + abs(kz - origin_key[2])
        if left == 0:
            continue
        if cut and _near_border(end, end_key, length, rule[0]):
            length = np.float64(length)
            walk_exact(cells, cells, False, origin, origin_key, end_key, length, direction, rule[0], window)
            continue
        batch.directions[0, found], batch.directions[1, found], batch.directions[2, found] = direction
        batch.lengths[found] = left
        found += 1
    return found


@inlined
def _sort_rays(batch, found):
    """Numbers of the rays, those with few voxels first: what is walked together should end together."""
    longest = np.int64(0)
    for i in range(found):
        longest = max(longest, np.int64(batch.lengths[i]))
    shift = 0
    while longest >> shift >= SORTED_LENGTHS:
        shift += 1
    starts = batch.starts
    starts[: (longest >> shift) + 2] = 0
    for i in range(found):
        starts[(batch.lengths[i] >> shift) + 1] += 1
    for length in range(longest >> shift):
        starts[length + 1] += starts[length]
    for i in range(found):
        length = batch.lengths[i] >> shift
        batch.order[starts[length]] = i
        starts[length] += 1


@inlined
def _prepare_rays(origin, origin_key, resolution, masks, batch, found):
    """Put the rays in their order into lanes; the last ones are filled up with the last ray."""
    rays = batch.rays
    for axis in range(3):
        up, down = _borders(origin[axis], origin_key[axis], resolution)
        first, between, steps = rays.reals[axis], rays.reals[3 + axis], rays.steps[axis]
        directions, back = batch.directions[axis], masks[axis]
        # In the bits of one axis, all ones are -1.
        forth = masks[axis] & -masks[axis]
        for i in range(found):
            direction = np.float64(directions[batch.order[i]])
            never = not (direction > 0 or direction < 0)
            first[i] = NEVER if never else (up if direction > 0 else down) / direction
            between[i] = NEVER if never else resolution / abs(direction)
            steps[i] = forth if direction > 0 else back
    for i in range(found):
        rays.left[i] = batch.lengths[batch.order[i]]
    for i in range(found, -(-found // LANES) * LANES):
        rays.left[i] = rays.left[found - 1]
        for row in range(6):
            rays.reals[row, i] = rays.reals[row, found - 1]
        for row in range(3):
            rays.steps[row, i] = rays.steps[row, found - 1]


@inner
def walk_rays(cells, origin, origin_key, ends, start, stop, rule, window, batch):
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
        batch: scratch.
    """
    bits = window_bits(window)
    masks = axis_masks(bits)
    others = (np.int32(~masks[0]), np.int32(~masks[1]), np.int32(~masks[2]))
    x, y, z = origin_key[0] - window[0] * 8, origin_key[1] - window[1] * 8, origin_key[2] - window[2] * 8
    place = np.int32(cell_place(x, y, z, bits))
    for first in range(start, stop, RAYS):
        some = ends[first : min(first + RAYS, stop)]
        found = _find_rays(cells, origin, origin_key, some, rule, window, batch)
        if found > 0:
            _sort_rays(batch, found)
            _prepare_rays(origin, origin_key, rule[0], masks, batch, found)
        for ray in range(0, found, LANES):
            walk_lanes(cells, batch.rays, ray, place, others)


@kernel
def walk_shares(cells, origin, origin_key, runs, share, rule, window, batch):
    """walk_rays for one thread's share (first, last, first, last) of the ends that both threads found."""
    walk_rays(cells, origin, origin_key, runs[0].ends, share[0], share[1], rule, window, batch)
    walk_rays(cells, origin, origin_key, runs[1].ends, share[2], share[3], rule, window, batch)


@kernel
def walk_clipped(cells, touched, origin, origin_key, ends, rule, window):
    """Like walk_rays for a window that holds only a part of the rays, and perhaps not their origin.

    `touched`, (bricks of the window,) uint8, is set to 1 where rays pass; the rest is as in walk_rays.
    """
    for i in range(len(ends)):
        _, end_key, direction, length, _ = _ray_to(origin, ends[i], rule)
        kx, ky, kz = end_key
        if kx < 0 or ky < 0 or kz < 0 or (kx == origin_key[0] and ky == origin_key[1] and kz == origin_key[2]):
            continue
        length = np.float64(length)
        walk_exact(cells, touched, True, origin, origin_key, end_key, length, direction, rule[0], window)
