# SPDX-License-Identifier: Apache-2.0
"""The map as the leaves of an octree, in OctoMap's depth-first order, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.mapping import bricks as layout
from perception.mapping.bricks import Shard, brick_is_uniform, collapse_brick, set_voxel, voxel_value
from perception.mapping.entries import CHUNK, END, MAX_ENTRIES, has_labels, store_entries
from perception.mapping.fusion import NO_LABEL
from perception.mapping.keys import (
    BLOCKS,
    BRICK_VOXELS,
    TREE_DEPTH,
    brick_corners,
    brick_shard,
    brick_voxel,
    unpack_brick,
    voxel_offset,
)
from perception.mapping.octomap_kernels import morton_codes
from perception.mapping.octomap_stream import prune_leaves
from perception.mapping.store import BrickStore, live_bricks
from perception.mapping.update import RECORD_BYTES, REGION_BYTES, ROW_BYTES, find_or_add
from perception.numba_cache import kernel, njit

BRICK_DEPTH = 13
NO_TAG = -1


@dataclass(frozen=True, slots=True)
class TreeLeaves:
    """Leaves in depth-first order.

    Attributes:
        keys: (M, 3) uint16 key of each leaf's lowest voxel.
        depths: (M,) uint8.
        log_odds: (M,) float32.
        tags: (M,) int64 as asked for in `extract_leaves`.
    """

    keys: NDArray[np.uint16]
    depths: NDArray[np.uint8]
    log_odds: NDArray[np.float32]
    tags: NDArray[np.int64]


def extract_leaves(shards: list[Shard], evidence: bool) -> TreeLeaves:
    """All leaves, pruned where values and tags agree.

    Args:
        shards: both.
        evidence: False: the tag of an occupied voxel is its best class, -1 without one or when free. True: the tag of
            a voxel with votes says where they stand (see `gather_evidence`), so it stays a leaf of its own.
    """
    numbers = [live_bricks(shard) for shard in shards]
    owners = np.repeat(np.arange(2), [len(n) for n in numbers])
    packed = np.concatenate([shard.keys[n] for shard, n in zip(shards, numbers, strict=True)])
    corners = brick_corners(packed).astype(np.uint16) * np.uint16(8)
    order = np.argsort(morton_codes(corners))
    numbers, owners = np.concatenate(numbers)[order], owners[order]
    counts = _count_leaves(tuple(shards), numbers, owners, evidence)
    starts = np.concatenate([[0], np.cumsum(counts)])
    total = int(starts[-1])
    keys, depths = np.empty((total, 3), np.uint16), np.empty(total, np.uint8)
    values, tags = np.empty(total, np.float32), np.empty(total, np.int64)
    _fill_leaves(tuple(shards), numbers, owners, evidence, starts, keys, depths, values, tags)
    index, depths = prune_leaves(keys, depths, values, tags)
    return TreeLeaves(keys[index], depths, values[index], tags[index])


@njit(cache=True, nogil=True)
def _morton_voxel(code):
    """Number of a voxel in its brick from a Morton code of 9 bits."""
    x = (code & 1) | ((code >> 2) & 2) | ((code >> 4) & 4)
    y = ((code >> 1) & 1) | ((code >> 3) & 2) | ((code >> 5) & 4)
    z = ((code >> 2) & 1) | ((code >> 4) & 2) | ((code >> 6) & 4)
    return brick_voxel(x, y, z)


@njit(cache=True, nogil=True)
def _load_brick(shard, owner, brick, evidence, values, tags):
    """Values and tags of a brick's voxels in Morton order; whether all are alike."""
    tags[:] = NO_TAG
    labeled = has_labels(shard, brick)
    if brick_is_uniform(shard, brick):
        values[:] = shard.uniform[brick, 0]
        if not labeled:
            return True
    else:
        for code in range(BRICK_VOXELS):
            values[code] = voxel_value(shard, brick, _morton_voxel(code))
    if labeled:
        plain = np.full(BRICK_VOXELS, NO_TAG, np.int64)
        _load_tags(shard, owner, brick, evidence, plain)
        for code in range(BRICK_VOXELS):
            if evidence or values[code] >= 0:
                tags[code] = plain[_morton_voxel(code)]
    return False


@kernel
def _load_tags(shard, owner, brick, evidence, plain):
    """Set plain (512,) int64 to the best class of each voxel, or to where its evidence stands."""
    for block in range(BLOCKS):
        chunk = np.int64(shard.label_heads[brick, block])
        voxel, first = np.int64(-1), np.int64(0)
        while chunk >= 0:
            for i in range(CHUNK):
                tag = shard.tags[chunk, i]
                if tag == END:
                    break
                if np.int64(tag >> 16) != voxel:
                    voxel, first = np.int64(tag >> 16), chunk * CHUNK + i
                    plain[voxel] = first * 2 + owner if evidence else np.int64(tag & NO_LABEL)
            chunk = np.int64(shard.chunk_next[chunk])


@njit(cache=True, nogil=True)
def _uniform_cube(values, tags, start, size):
    """Whether `size` voxels from a Morton code on are known and alike."""
    first = values[start]
    if first != first:
        return False
    alike = True
    for i in range(start, start + size):
        alike &= values[i] == first and tags[i] == tags[start]
    return alike


@njit(cache=True, nogil=True)
def _split(values, tags, sizes):
    """Leaves of one brick: writes their Morton codes and numbers of voxels, returns how many there are."""
    count = 0
    code = 0
    while code < BRICK_VOXELS:
        size = 512 if code == 0 else (64 if code % 64 == 0 else (8 if code % 8 == 0 else 1))
        while size > 1 and not _uniform_cube(values, tags, code, size):
            size >>= 3
        if values[code] == values[code]:
            sizes[count, 0], sizes[count, 1] = code, size
            count += 1
        code += size
    return count


@njit(cache=True, nogil=True)
def _count_leaves(shards, numbers, owners, evidence):
    counts = np.zeros(len(numbers), np.int64)
    values, tags = np.empty(BRICK_VOXELS, np.float32), np.empty(BRICK_VOXELS, np.int64)
    sizes = np.empty((BRICK_VOXELS, 2), np.int64)
    for i in range(len(numbers)):
        shard = shards[1] if owners[i] else shards[0]
        if _load_brick(shard, owners[i], numbers[i], evidence, values, tags):
            counts[i] = values[0] == values[0]
        else:
            counts[i] = _split(values, tags, sizes)
    return counts


@njit(cache=True, nogil=True)
def _fill_leaves(shards, numbers, owners, evidence, starts, keys, depths, out_values, out_tags):
    values, tags = np.empty(BRICK_VOXELS, np.float32), np.empty(BRICK_VOXELS, np.int64)
    sizes = np.empty((BRICK_VOXELS, 2), np.int64)
    for i in range(len(numbers)):
        shard = shards[1] if owners[i] else shards[0]
        _load_brick(shard, owners[i], numbers[i], evidence, values, tags)
        bx, by, bz = unpack_brick(shard.keys[numbers[i]])
        count = _split(values, tags, sizes)
        for j in range(count):
            place = starts[i] + j
            code, size = sizes[j, 0], sizes[j, 1]
            x, y, z = voxel_offset(_morton_voxel(code))
            keys[place, 0], keys[place, 1], keys[place, 2] = bx * 8 + x, by * 8 + y, bz * 8 + z
            depths[place] = 16 if size == 1 else (15 if size == 8 else (14 if size == 64 else 13))
            out_values[place] = values[code]
            out_tags[place] = tags[code]


@njit(cache=True, nogil=True)
def gather_evidence(shards, tags, kept):
    """Classes and scores of voxels with votes.

    Args:
        shards: both.
        tags: (N,) int64, 2 · (chunk · CHUNK + place of the first entry) + shard.
        kept: K, classes per voxel.

    Returns:
        ids (N, K) uint16, NO_LABEL beyond the last; scores (N, K) float32, 0 there.
    """
    ids = np.full((len(tags), kept), NO_LABEL, np.uint16)
    scores = np.zeros((len(tags), kept), np.float32)
    for i in range(len(tags)):
        if tags[i] & 1:
            _gather(shards[1], tags[i] >> 1, ids[i], scores[i])
        else:
            _gather(shards[0], tags[i] >> 1, ids[i], scores[i])
    return ids, scores


@kernel
def _gather(shard, place, ids, scores):
    chunk, i = place // CHUNK, place % CHUNK
    voxel = shard.tags[chunk, i] >> 16
    for k in range(len(ids)):
        if shard.tags[chunk, i] >> 16 != voxel:
            return
        ids[k] = shard.tags[chunk, i] & NO_LABEL
        scores[k] = shard.scores[chunk, i]
        i += 1
        if i == CHUNK:
            chunk, i = np.int64(shard.chunk_next[chunk]), 0
            if chunk < 0:
                return


def coarser(leaves: TreeLeaves, depth: int) -> TreeLeaves:
    """The nodes at a depth in place of the deeper leaves: the highest value, and the class of most occupied leaves."""
    shift = TREE_DEPTH - depth
    parents = (leaves.keys >> np.uint16(shift)) << np.uint16(shift) if shift < 16 else np.zeros_like(leaves.keys)
    codes = morton_codes(parents)
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]])) if len(codes) else np.empty(0, np.int64)
    if len(starts) == 0:
        return leaves
    groups = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(codes))))
    values = np.maximum.reduceat(leaves.log_odds, starts)
    tags = np.full(len(starts), NO_TAG, np.int64)
    labeled = np.flatnonzero(leaves.tags >= 0)
    if len(labeled):
        pairs, weights = groups[labeled] * 65536 + leaves.tags[labeled], 8.0 ** (16 - leaves.depths[labeled])
        unique, inverse = np.unique(pairs, return_inverse=True)
        totals = np.bincount(inverse, weights)
        # Stable and ascending by weight, ties by class from high to low: the last one written is the winner.
        order = np.lexsort((-unique, totals))
        tags[unique[order] // 65536] = unique[order] % 65536
    return TreeLeaves(parents[starts], np.minimum(leaves.depths[starts], depth).astype(np.uint8), values, tags)


def load_leaves(
    store: BrickStore, keys: NDArray[np.uint16], depths: NDArray[np.uint8], values: NDArray[np.float32]
) -> None:
    """Put leaves into an empty store.

    Raises:
        InputError: they need more memory than the store may use.
    """
    spans = np.maximum(BRICK_DEPTH - depths.astype(np.int64), 0)
    fine = depths > BRICK_DEPTH
    fine_bricks = _count_cubes(keys[fine], 3)
    blocks = _count_cubes(keys[depths > BRICK_DEPTH + 1], 2)
    coarse_bricks = int((8.0 ** spans[~fine]).sum())
    needed = (fine_bricks + coarse_bricks) * RECORD_BYTES + blocks * ROW_BYTES
    regions = _region_count(keys.astype(np.int64), spans)
    needed += 2 * regions * REGION_BYTES
    if needed > store.max_memory:
        raise InputError(f"map: expected to fit into {store.max_memory} bytes of memory, got a map that takes {needed}")
    store.make_room(regions)
    _load(tuple(store.shards), keys, depths, values)


def _count_cubes(keys: NDArray[np.uint16], shift: int) -> int:
    """Cubes of 2^shift voxels that hold these keys."""
    corners = keys.astype(np.int64) >> shift
    return len(np.unique((corners[:, 0] << 32) | (corners[:, 1] << 16) | corners[:, 2]))


def _region_count(keys: NDArray[np.int64], spans: NDArray[np.int64]) -> int:
    """Regions that leaves touch, or more."""
    regions = ((keys[:, 0] >> 6) << 20) | ((keys[:, 1] >> 6) << 10) | (keys[:, 2] >> 7)
    large = spans > 3
    extra = int((8.0 ** (spans[large] - 3)).sum())
    return len(np.unique(regions)) + extra


@njit(cache=True, nogil=True)
def _load(shards, keys, depths, values):
    """Write leaves into bricks and make uniform what is."""
    unlimited = np.int64(1) << 60
    for i in range(len(depths)):
        bx, by, bz = np.int64(keys[i, 0]) >> 3, np.int64(keys[i, 1]) >> 3, np.int64(keys[i, 2]) >> 3
        if depths[i] <= BRICK_DEPTH:
            span = np.int64(1) << (BRICK_DEPTH - np.int64(depths[i]))
            for x in range(bx, bx + span):
                for y in range(by, by + span):
                    for z in range(bz, bz + span):
                        shard = shards[1] if brick_shard(x, y) else shards[0]
                        shard.uniform[find_or_add(shard, x, y, z, unlimited), :] = values[i]
            continue
        shard = shards[1] if brick_shard(bx, by) else shards[0]
        brick = find_or_add(shard, bx, by, bz, unlimited)
        size = np.int64(1) << (TREE_DEPTH - np.int64(depths[i]))
        x0, y0, z0 = np.int64(keys[i, 0]) & 7, np.int64(keys[i, 1]) & 7, np.int64(keys[i, 2]) & 7
        if size == 4:
            shard.uniform[brick, brick_voxel(x0, y0, z0) >> 6] = values[i]
            continue
        for x in range(x0, x0 + size):
            for y in range(y0, y0 + size):
                for z in range(z0, z0 + size):
                    set_voxel(shard, brick, brick_voxel(x, y, z), values[i])
    for owner in range(2):
        shard = shards[1] if owner else shards[0]
        for brick in range(shard.counters[layout.BRICKS]):
            collapse_brick(shard, brick)


@njit(cache=True, nogil=True)
def _brick_voxels(keys):
    """(N,) int64 number of each voxel in its brick."""
    voxels = np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        voxels[i] = brick_voxel(keys[i, 0], keys[i, 1], keys[i, 2])
    return voxels


def load_evidence(
    store: BrickStore, keys: NDArray[np.uint16], ids: NDArray[np.uint16], scores: NDArray[np.float32]
) -> None:
    """Put label evidence of single voxels (keys (N, 3)) into a store that has their bricks."""
    wide = keys.astype(np.int64)
    bricks = wide >> 3
    packed = (bricks[:, 0] << 26) | (bricks[:, 1] << 13) | bricks[:, 2]
    voxels = _brick_voxels(wide)
    order = np.lexsort((voxels, packed))
    _load_evidence(tuple(store.shards), packed[order], voxels[order], ids[order], scores[order])


@njit(cache=True, nogil=True)
def _load_evidence(shards, packed, voxels, ids, scores):
    tags, values = np.empty(MAX_ENTRIES, np.uint32), np.empty(MAX_ENTRIES, np.float32)
    unlimited = np.int64(1) << 60
    i = 0
    while i < len(packed):
        count, first, block = 0, packed[i], voxels[i] >> 6
        while i < len(packed) and packed[i] == first and voxels[i] >> 6 == block:
            for k in range(ids.shape[1]):
                if ids[i, k] != NO_LABEL and count < MAX_ENTRIES:
                    tags[count] = np.uint32((voxels[i] << 16) | np.int64(ids[i, k]))
                    values[count] = scores[i, k]
                    count += 1
            i += 1
        bx, by, bz = unpack_brick(first)
        shard = shards[1] if brick_shard(bx, by) else shards[0]
        store_entries(shard, find_or_add(shard, bx, by, bz, unlimited), block, tags, values, count, unlimited)
