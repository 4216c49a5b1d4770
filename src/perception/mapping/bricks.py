# SPDX-License-Identifier: Apache-2.0
"""Storage of the map: bricks of 8³ voxels in two shards, found through a hash over regions of bricks.

A brick has eight blocks of 4³ voxels. A block is either uniform (one value for all its voxels; NaN is unknown) or owns
a row of 64 log-odds. Rows, brick records and region directories live in `SlabArray`s: address space reserved once, used
slab by slab, so growing neither copies nor moves anything. Only the hash over regions (one entry for 1024 bricks) is
rebuilt as it grows.

Neighboring columns of bricks belong to different shards (see `brick_shard`); a shard shares nothing with the other, so
two threads update one each and the result does not depend on their timing.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from typing import Any, NamedTuple

import numpy as np

from perception.mapping.keys import BLOCK_VOXELS, BLOCKS, pack_brick
from perception.numba_cache import inlined, inner, kernel

REGION_BRICKS = 512
"""Entries of a region's directory: 8 x 8 x 16 bricks, of which this shard holds every second one along x."""

UNIFORM = -1

SLAB = 1 << 12
"""Bytes by which arrays grow, a page."""
HUGE_PAGE, HUGE_FROM, HUGE_LEAST = 1 << 21, 1 << 23, 1 << 29
"""Bytes of a huge page; place in an array from which on it has such; least reservation of an array that has any, so
that half filled ones stay a small part of the memory that a map may take."""

# Places in Shard.counters.
BRICKS, FREE_BRICK, LIVE_BRICKS = 0, 1, 2
ROWS, FREE_ROW, LIVE_ROWS = 3, 4, 5
REGIONS, FREE_REGION = 6, 7
CHUNKS, FREE_CHUNK, LIVE_CHUNKS = 8, 9, 10
LOGGED = 11
DECAYING = 12
COUNTERS = 16

LOG_LENGTH = 1 << 16
"""Changed bricks that a shard remembers; who asks for older changes is told to read everything."""


class Shard(NamedTuple):
    """Arrays of one half of the map; a named tuple because compiled code takes it as it is."""

    counters: np.ndarray
    """(16,) int64: see the constants above."""
    hash_keys: np.ndarray
    """(H,) int64 region keys, -1 where empty; H is a power of two, linear probing."""
    hash_regions: np.ndarray
    """(H,) int32 region numbers."""
    directories: np.ndarray
    """(R, 512) int32 brick numbers, -1 where there is none."""
    region_keys: np.ndarray
    """(R,) int64 region keys; of a free region the next free one."""
    region_bricks: np.ndarray
    """(R,) int32 bricks in the region, -1 when it is free."""
    keys: np.ndarray
    """(B,) int64 packed brick keys; of a free record -2 - the next free one."""
    rows: np.ndarray
    """(B, 8) int32 row of each block's values, or UNIFORM."""
    uniform: np.ndarray
    """(B, 8) float32 value of each uniform block."""
    label_heads: np.ndarray
    """(B, 8) int32 first chunk of each block's label entries, -1 where there is none."""
    decaying: np.ndarray
    """(B,) uint8: 1 when the brick stands in the list of those that may decay."""
    values: np.ndarray
    """(V, 64) float32 log-odds; see keys.brick_voxel for the order."""
    tags: np.ndarray
    """(C, 8) uint32 label entries, voxel << 16 | class; see entries."""
    scores: np.ndarray
    """(C, 8) float32 their scores."""
    chunk_next: np.ndarray
    """(C,) int32 next chunk of the same block, or next free one; -1 at the end."""
    decay_list: np.ndarray
    """(B,) int32 bricks that may decay."""
    log: np.ndarray
    """(LOG_LENGTH,) int64 ring of packed keys of bricks whose state changed."""


class SlabArray:
    """An array that grows in fixed slabs without ever moving.

    A large one lies on huge pages from HUGE_FROM bytes on, where the system has them: the more of the map a scan
    touches for the first time in a while, the more of its time goes into the translation of addresses.

    Attributes:
        array: (rows, *shape) over the whole reservation; only rows below the number in use may be touched.
        slack_bytes: by how much the allocated memory may exceed the rows in use.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, rows: int) -> None:
        self.row_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        size = max(rows, 1) * self.row_bytes
        self._is_huge = size >= HUGE_LEAST and hasattr(mmap, "MADV_HUGEPAGE")
        self._memory = _reserve(size + HUGE_PAGE * self._is_huge)
        start = 0
        if self._is_huge:
            start = -np.frombuffer(self._memory, np.uint8, 1).ctypes.data % HUGE_PAGE
            # A system without huge pages refuses, and nothing is lost.
            with contextlib.suppress(OSError, ValueError):
                self._memory.madvise(mmap.MADV_HUGEPAGE, start + HUGE_FROM)
        rows = (len(self._memory) - start) // self.row_bytes
        self.array = np.frombuffer(self._memory, dtype, rows * self.row_bytes // np.dtype(dtype).itemsize, start)
        self.array = self.array.reshape(rows, *shape)
        self.slack_bytes = HUGE_PAGE if self._is_huge else SLAB

    def capacity_bytes(self, rows_in_use: int) -> int:
        """Memory taken by the slabs that hold so many rows."""
        used = rows_in_use * self.row_bytes
        slab = HUGE_PAGE if self._is_huge and used > HUGE_FROM else SLAB
        return -(-used // slab) * slab


def _reserve(size: int) -> mmap.mmap:
    """Zeroed private memory of which only touched pages exist; less than asked where the system refuses."""
    size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    if sys.platform == "win32":
        return mmap.mmap(-1, min(size, 1 << 28))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if sys.platform.startswith("linux"):
        flags |= getattr(mmap, "MAP_NORESERVE", 0x4000)
    while True:
        try:
            return mmap.mmap(-1, size, flags=flags)
        except (OSError, ValueError):
            if size <= 1 << 24:
                raise
            size = max(size // 2 // mmap.PAGESIZE * mmap.PAGESIZE, 1 << 24)


@inlined
def region_key(bx, by, bz):
    """Key of the region that holds a brick."""
    return ((bx >> 3) << 20) | ((by >> 3) << 10) | (bz >> 4)


@inlined
def directory_place(bx, by, bz):
    """Place of a brick in its region's directory; the lowest bit of bx follows from the shard."""
    return (((bx >> 1) & 3) << 7) | ((by & 7) << 4) | (bz & 15)


@inlined
def _hash_start(key, mask):
    return np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask


@inlined
def _hash_place(hash_keys, key):
    mask = hash_keys.shape[0] - 1
    place = _hash_start(key, mask)
    while hash_keys[place] != key and hash_keys[place] >= 0:
        place = (place + 1) & mask
    return place


@inlined
def find_region(shard, key):
    """Number of the region with this key, or -1."""
    place = _hash_place(shard.hash_keys, key)
    return np.int64(shard.hash_regions[place]) if shard.hash_keys[place] == key else np.int64(-1)


@inlined
def find_brick(shard, bx, by, bz):
    """Number of the brick, or -1."""
    region = find_region(shard, region_key(bx, by, bz))
    return np.int64(shard.directories[region, directory_place(bx, by, bz)]) if region >= 0 else np.int64(-1)


@inlined
def add_region(shard, key):
    """Number of the region with this key, made if missing; the caller has left room in the hash."""
    place = _hash_place(shard.hash_keys, key)
    if shard.hash_keys[place] == key:
        return np.int64(shard.hash_regions[place])
    counters = shard.counters
    region = counters[FREE_REGION]
    if region >= 0:
        counters[FREE_REGION] = shard.region_keys[region]
    else:
        region = counters[REGIONS]
        counters[REGIONS] += 1
    shard.directories[region, :] = -1
    shard.region_keys[region] = key
    shard.region_bricks[region] = 0
    shard.hash_keys[place] = key
    shard.hash_regions[place] = region
    return region


@inlined
def add_brick(shard, region, bx, by, bz):
    """Number of a new, unknown brick in a region."""
    counters = shard.counters
    brick = counters[FREE_BRICK]
    if brick >= 0:
        counters[FREE_BRICK] = -2 - shard.keys[brick]
    else:
        brick = counters[BRICKS]
        counters[BRICKS] += 1
    counters[LIVE_BRICKS] += 1
    shard.keys[brick] = pack_brick(bx, by, bz)
    for block in range(BLOCKS):
        shard.rows[brick, block] = UNIFORM
        shard.uniform[brick, block] = np.nan
        shard.label_heads[brick, block] = -1
    shard.decaying[brick] = 0
    shard.directories[region, directory_place(bx, by, bz)] = brick
    shard.region_bricks[region] += 1
    return brick


@inlined
def take_row(shard, brick, block):
    """Give a uniform block a row, whose values the caller writes."""
    counters = shard.counters
    row = counters[FREE_ROW]
    if row >= 0:
        counters[FREE_ROW] = np.int64(shard.values[row].view(np.int32)[0])
    else:
        row = counters[ROWS]
        counters[ROWS] += 1
    counters[LIVE_ROWS] += 1
    shard.rows[brick, block] = row
    return row


@inlined
def expand_block(shard, brick, block):
    """Row of a block's values; a uniform block gets one."""
    row = np.int64(shard.rows[brick, block])
    if row >= 0:
        return row
    row = take_row(shard, brick, block)
    value = shard.uniform[brick, block]
    values = shard.values[row]
    for i in range(BLOCK_VOXELS):
        values[i] = value
    return row


@inlined
def voxel_value(shard, brick, voxel):
    """Log-odds of a voxel, NaN when unknown."""
    row = shard.rows[brick, voxel >> 6]
    return shard.values[row, voxel & 63] if row >= 0 else shard.uniform[brick, voxel >> 6]


@inlined
def set_voxel(shard, brick, voxel, value):
    """Set the log-odds of a voxel."""
    shard.values[expand_block(shard, brick, voxel >> 6), voxel & 63] = value


@inlined
def free_row(shard, row):
    """Put a row of values into the free list."""
    # The list of free rows runs through the bits of their first value.
    link = shard.values[row].view(np.int32)
    link[0] = np.int32(shard.counters[FREE_ROW])
    shard.counters[FREE_ROW] = row
    shard.counters[LIVE_ROWS] -= 1


@inlined
def collapse_block(shard, brick, block):
    """Make a block uniform if its values are all equal (this is OctoMap's pruning) or all unknown."""
    row = np.int64(shard.rows[brick, block])
    if row < 0:
        return
    values = shard.values[row]
    first = values[0]
    known = first == first
    for i in range(1, BLOCK_VOXELS):
        if (values[i] != first) if known else (values[i] == values[i]):
            return
    shard.uniform[brick, block] = first
    shard.rows[brick, block] = UNIFORM
    free_row(shard, row)


@inner
def collapse_brick(shard, brick):
    """collapse_block for all blocks of a brick."""
    for block in range(BLOCKS):
        collapse_block(shard, brick, block)


@inner
def brick_is_uniform(shard, brick):
    """Whether all voxels of a brick have the same value, or are all unknown."""
    first = shard.uniform[brick, 0]
    for block in range(BLOCKS):
        value = shard.uniform[brick, block]
        if shard.rows[brick, block] >= 0 or not (value == first or (value != value and first != first)):
            return False
    return True


@inlined
def log_change(shard, brick_key):
    """Remember that the state of a brick changed."""
    shard.log[shard.counters[LOGGED] & (LOG_LENGTH - 1)] = brick_key
    shard.counters[LOGGED] += 1


@inner
def remove_region(shard, region):
    """Give a region's directory back and close the gap in the hash (no entry may stand behind an empty place)."""
    keys, regions = shard.hash_keys, shard.hash_regions
    mask = keys.shape[0] - 1
    gap = _hash_place(keys, shard.region_keys[region])
    place = gap
    while True:
        place = (place + 1) & mask
        if keys[place] < 0:
            break
        # An entry may move into the gap unless its search starts behind the gap.
        if ((place - _hash_start(keys[place], mask)) & mask) >= ((place - gap) & mask):
            keys[gap], regions[gap] = keys[place], regions[place]
            gap = place
    keys[gap] = -1
    shard.region_keys[region] = shard.counters[FREE_REGION]
    shard.region_bricks[region] = -1
    shard.counters[FREE_REGION] = region


@kernel
def rebuild_hash(shard, hash_keys, hash_regions):
    """Fill an empty hash with the regions of a shard."""
    for place in range(shard.hash_keys.shape[0]):
        if shard.hash_keys[place] >= 0:
            new_place = _hash_place(hash_keys, shard.hash_keys[place])
            hash_keys[new_place] = shard.hash_keys[place]
            hash_regions[new_place] = shard.hash_regions[place]
