# SPDX-License-Identifier: Apache-2.0
"""The two shards of the map with their memory: making, counting, bounding, forgetting."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.mapping import bricks as layout
from perception.mapping.bricks import (
    Shard,
    SlabArray,
    directory_place,
    find_region,
    free_row,
    log_change,
    rebuild_hash,
    region_key,
    remove_region,
)
from perception.mapping.entries import CHUNK, free_entries
from perception.mapping.keys import BLOCK_VOXELS, BLOCKS, brick_corners, unpack_brick
from perception.mapping.update import CHUNK_BYTES, RECORD_BYTES, REGION_BYTES, ROW_BYTES, used_bytes
from perception.numba_cache import njit

MIN_MEMORY = 1 << 24
LARGEST_STEP = 1 << 16
"""More than one brick with its labels can take: bounds are checked before each."""


def default_memory() -> int:
    """Half of the memory that this process may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 32
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total // 2


class BrickStore:
    """All bricks of a map.

    Attributes:
        shards: the two halves.
        max_memory: bound of `memory_usage`, bytes.
        forgotten: bricks given up to stay below the bound since the map was made.
    """

    def __init__(self, max_memory: int | None) -> None:
        self.max_memory = default_memory() if max_memory is None else int(max_memory)
        if self.max_memory < MIN_MEMORY:
            raise InputError(f"max_memory: expected at least {MIN_MEMORY} bytes, got {max_memory}")
        self.forgotten = 0
        self._slabs: list[dict[str, SlabArray]] = []
        self.shards: list[Shard] = []
        self.epoch = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything and return the memory."""
        self.shards, self._slabs = [], []
        for _ in range(2):
            slabs = _slabs(self.max_memory)
            self._slabs.append(slabs)
            self.shards.append(_empty_shard(slabs))
        self._unfilled = sum(slab.slack_bytes for slabs in self._slabs for slab in slabs.values())
        self.epoch += 1

    def memory_usage(self) -> int:
        """Allocated bytes: whole slabs, hashes and change logs of both shards."""
        total = 0
        for shard, slabs in zip(self.shards, self._slabs, strict=True):
            counters = shard.counters
            rows = {
                "values": counters[layout.ROWS],
                "tags": counters[layout.CHUNKS],
                "scores": counters[layout.CHUNKS],
                "chunk_next": counters[layout.CHUNKS],
                "directories": counters[layout.REGIONS],
                "region_keys": counters[layout.REGIONS],
                "region_bricks": counters[layout.REGIONS],
                "decay_list": counters[layout.DECAYING],
            }
            total += sum(
                slab.capacity_bytes(int(rows.get(name, counters[layout.BRICKS]))) for name, slab in slabs.items()
            )
            total += shard.hash_keys.nbytes + shard.hash_regions.nbytes
            total += min(int(counters[layout.LOGGED]), layout.LOG_LENGTH) * 8
        return total

    def make_room(self, new_regions: int) -> None:
        """Grow the hashes so that so many more regions keep them at most half full."""
        for i, shard in enumerate(self.shards):
            needed = 2 * (int(shard.counters[layout.REGIONS]) + new_regions)
            size = len(shard.hash_keys)
            if needed > size:
                self.shards[i] = _rehashed(shard, 1 << (needed - 1).bit_length())

    def limit(self) -> int:
        """Bytes that the bricks of one shard may use: what is left after change logs, hashes and unfilled slabs."""
        hashes = sum(shard.hash_keys.nbytes + shard.hash_regions.nbytes for shard in self.shards)
        return (self.max_memory - 16 * layout.LOG_LENGTH - hashes - self._unfilled) // 2 - LARGEST_STEP

    def known_voxels(self) -> int:
        """Voxels that are not unknown."""
        return sum(int(_count_known(shard)) for shard in self.shards)

    def keep_below(self, origin_key: tuple[int, int, int], above: float, keep: float) -> int:
        """Forget far bricks when more than the part `above` of the bound is in use; see forget_farthest."""
        used = max(int(live_bytes(shard.counters)) for shard in self.shards)
        return self.forget_farthest(origin_key, keep) if used > self.limit() * above else 0

    def forget_farthest(self, origin_key: tuple[int, int, int], keep: float) -> int:
        """Forget the bricks farthest from a voxel until at most this part of the bound is in use.

        Returns:
            number of bricks forgotten.
        """
        removed = 0
        for shard in self.shards:
            if live_bytes(shard.counters) <= self.limit() * keep:
                continue
            numbers = live_bricks(shard)
            distances = _distances(shard.keys[numbers], np.array(origin_key, np.int64) >> 3)
            order = np.argsort(-distances, kind="stable")
            removed += int(_remove_until(shard, numbers[order], int(self.limit() * keep)))
        self.forgotten += removed
        return removed


def live_bricks(shard: Shard) -> NDArray[np.int64]:
    """Numbers of the bricks in use."""
    return np.flatnonzero(shard.keys[: shard.counters[layout.BRICKS]] >= 0)


@njit(cache=True, nogil=True)
def remove_brick(shard, brick):
    """Forget a brick: its values, labels and record become free, and its region when it was the last one there."""
    counters = shard.counters
    bx, by, bz = unpack_brick(shard.keys[brick])
    log_change(shard, shard.keys[brick])
    for block in range(BLOCKS):
        if shard.rows[brick, block] >= 0:
            free_row(shard, np.int64(shard.rows[brick, block]))
    free_entries(shard, brick)
    if shard.decaying[brick]:
        count = counters[layout.DECAYING]
        for i in range(count):
            if shard.decay_list[i] == brick:
                shard.decay_list[i] = shard.decay_list[count - 1]
                counters[layout.DECAYING] -= 1
                break
    region = find_region(shard, region_key(bx, by, bz))
    shard.directories[region, directory_place(bx, by, bz)] = -1
    shard.region_bricks[region] -= 1
    if shard.region_bricks[region] == 0:
        remove_region(shard, region)
    shard.keys[brick] = -2 - counters[layout.FREE_BRICK]
    counters[layout.FREE_BRICK] = brick
    counters[layout.LIVE_BRICKS] -= 1


@njit(cache=True, nogil=True)
def _count_known(shard):
    total = 0
    for brick in range(shard.counters[layout.BRICKS]):
        if shard.keys[brick] < 0:
            continue
        for block in range(BLOCKS):
            row, value = shard.rows[brick, block], shard.uniform[brick, block]
            if row < 0:
                total += BLOCK_VOXELS if value == value else 0
            else:
                for voxel in range(BLOCK_VOXELS):
                    total += shard.values[row, voxel] == shard.values[row, voxel]
    return total


@njit(cache=True, nogil=True)
def live_bytes(counters):
    """Memory of a shard without what stands in its free lists."""
    free_rows = counters[layout.ROWS] - counters[layout.LIVE_ROWS]
    free_records = counters[layout.BRICKS] - counters[layout.LIVE_BRICKS]
    free_chunks = counters[layout.CHUNKS] - counters[layout.LIVE_CHUNKS]
    return used_bytes(counters) - free_rows * ROW_BYTES - free_records * RECORD_BYTES - free_chunks * CHUNK_BYTES


def _distances(keys: NDArray[np.int64], center: NDArray[np.int64]) -> NDArray[np.int64]:
    return ((brick_corners(keys) - center) ** 2).sum(axis=1)


@njit(cache=True, nogil=True)
def _remove_until(shard, numbers, target):
    """Remove bricks in this order until the shard's live memory reaches the target; returns how many."""
    for i in range(len(numbers)):
        if live_bytes(shard.counters) <= target:
            return i
        remove_brick(shard, numbers[i])
    return len(numbers)


def _rehashed(shard: Shard, size: int) -> Shard:
    fresh = shard._replace(hash_keys=np.full(size, -1, np.int64), hash_regions=np.zeros(size, np.int32))
    rebuild_hash(shard, fresh.hash_keys, fresh.hash_regions)
    return fresh


def _slabs(max_memory: int) -> dict[str, SlabArray]:
    """Arrays of one shard; each may grow until it alone takes the shard's half of the bound."""
    half = max_memory // 2
    records, regions, chunks = half // RECORD_BYTES, half // REGION_BYTES + 1, half // CHUNK_BYTES
    return {
        "directories": SlabArray((layout.REGION_BRICKS,), np.int32, regions),
        "region_keys": SlabArray((), np.int64, regions),
        "region_bricks": SlabArray((), np.int32, regions),
        "keys": SlabArray((), np.int64, records),
        "rows": SlabArray((BLOCKS,), np.int32, records),
        "uniform": SlabArray((BLOCKS,), np.float32, records),
        "label_heads": SlabArray((BLOCKS,), np.int32, records),
        "decaying": SlabArray((), np.uint8, records),
        "values": SlabArray((BLOCK_VOXELS,), np.float32, half // ROW_BYTES),
        "tags": SlabArray((CHUNK,), np.uint32, chunks),
        "scores": SlabArray((CHUNK,), np.float32, chunks),
        "chunk_next": SlabArray((), np.int32, chunks),
        "decay_list": SlabArray((), np.int32, records),
        "log": SlabArray((), np.int64, layout.LOG_LENGTH),
    }


def _empty_shard(slabs: dict[str, SlabArray]) -> Shard:
    counters = np.zeros(layout.COUNTERS, np.int64)
    counters[[layout.FREE_BRICK, layout.FREE_ROW, layout.FREE_REGION, layout.FREE_CHUNK]] = -1
    return Shard(
        counters=counters,
        hash_keys=np.full(64, -1, np.int64),
        hash_regions=np.zeros(64, np.int32),
        **{name: slab.array for name, slab in slabs.items()},
    )
