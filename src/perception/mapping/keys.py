# SPDX-License-Identifier: Apache-2.0
"""OctoMap's 16-bit voxel keys, and the keys of bricks (8³ voxels) and regions (8 x 8 x 16 bricks) above them.

key = floor(x · (1 / resolution)) + 32768 per axis, with x a float32 coordinate widened to float64.
"""

from __future__ import annotations

import numpy as np

from perception.numba_cache import inlined

TREE_DEPTH = 16
KEY_ORIGIN = 32768
KEY_END = 65536
BRICK_VOXELS = 512
BLOCKS = 8
"""Blocks of a brick."""
BLOCK_VOXELS = 64
"""Voxels of a block (4³)."""


@inlined
def coordinate_key(coordinate, inverse_resolution):
    """Key of one coordinate, or -1 when it is not finite or lies outside the map."""
    key = np.floor(np.float64(coordinate) * inverse_resolution) + KEY_ORIGIN
    # The comparison is false for NaN too.
    return np.int64(key) if 0.0 <= key < KEY_END else np.int64(-1)


@inlined
def key_coordinate(key, resolution):
    """Float64 coordinate of a voxel's center."""
    return (np.float64(key - KEY_ORIGIN) + 0.5) * resolution


@inlined
def pack_key(x, y, z):
    """Three 16-bit keys in one int64."""
    return (np.int64(x) << 32) | (np.int64(y) << 16) | np.int64(z)


@inlined
def brick_voxel(x, y, z):
    """Number of a voxel in its brick: three bits for the block (x, y, z), six for the place in it."""
    block = (x & 4) | ((y & 4) >> 1) | ((z & 4) >> 2)
    return (block << 6) | ((x & 3) << 4) | ((y & 3) << 2) | (z & 3)


@inlined
def voxel_offset(voxel):
    """Where in its brick the voxel of a number lies: x, y, z from 0 to 7."""
    return (
        ((voxel >> 6) & 4) | ((voxel >> 4) & 3),
        ((voxel >> 5) & 4) | ((voxel >> 2) & 3),
        ((voxel >> 4) & 4) | (voxel & 3),
    )


@inlined
def pack_brick(bx, by, bz):
    """Three 13-bit brick keys (voxel key // 8) in one int64."""
    return (np.int64(bx) << 26) | (np.int64(by) << 13) | np.int64(bz)


@inlined
def unpack_brick(brick):
    """The three brick keys of `pack_brick`."""
    return brick >> 26, (brick >> 13) & 8191, brick & 8191


@inlined
def brick_shard(bx, by):
    """Which of the two shards holds a column of bricks: a pattern that gives both the same work on any wall.

    Whole columns, because rows of the window run along z: two threads must not write to the same cache lines.
    """
    return (bx + (by >> 1)) & 1


def brick_corners(bricks: np.ndarray) -> np.ndarray:
    """(N, 3) int64 brick keys of (N,) packed ones."""
    return np.stack([bricks >> 26, (bricks >> 13) & 8191, bricks & 8191], axis=1)


@inlined
def axis_bits(bricks):
    """Bits that count so many bricks."""
    bits = 0
    while (1 << bits) < bricks:
        bits += 1
    return bits


@inlined
def window_bits(window):
    """Bits of the bricks along y and z of a window: (6,) int64 lowest brick and number of bricks per axis."""
    return axis_bits(window[4]), axis_bits(window[5])


@inlined
def brick_place(bx, by, bz, bits):
    """Number of a brick in a window whose `window_bits` these are; bricks along y and z are rounded up to 2^bits."""
    return (((bx << bits[0]) | by) << bits[1]) | bz


@inlined
def cell_place(x, y, z, bits):
    """Number of a voxel in a window. The 64 voxels of a block are neighbors, so that rays stay in few cache lines."""
    return (brick_place(x >> 3, y >> 3, z >> 3, bits) << 9) | brick_voxel(x & 7, y & 7, z & 7)


@inlined
def axis_masks(bits):
    """Which bits of `cell_place` hold x, y and z."""
    mask_z = np.int64(0b001000011) | (((np.int64(1) << bits[1]) - 1) << 9)
    mask_y = np.int64(0b010001100) | (((np.int64(1) << bits[0]) - 1) << (9 + bits[1]))
    return ~(mask_y | mask_z), mask_y, mask_z


def voxels_in(window: np.ndarray) -> int:
    """Cells that a window takes: (6,) int64 lowest brick and number of bricks per axis."""
    rows, depth = (1 << (int(bricks) - 1).bit_length() for bricks in window[4:])
    return int(window[3]) * rows * depth * BRICK_VOXELS
