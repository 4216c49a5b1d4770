# SPDX-License-Identifier: Apache-2.0
"""The map as the leaves of an octree, in OctoMap's depth-first order; `loading` is the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.mapping import bricks as layout
from perception.mapping.bricks import Shard, brick_is_uniform
from perception.mapping.entries import CHUNK, END, has_labels
from perception.mapping.fusion import NO_LABEL
from perception.mapping.keys import BLOCK_VOXELS, BLOCKS, BRICK_VOXELS, TREE_DEPTH, brick_corners, unpack_brick
from perception.mapping.octomap_kernels import morton_codes
from perception.mapping.store import live_bricks
from perception.numba_cache import inlined, inner, kernel, njit

BRICK_DEPTH = 13
NO_TAG = -1
LEAVES_PER_ROW = 24
"""Leaves that a block of 64 voxels is first expected to have; room for more is made when they come."""

MORTON_PLACE = np.array(
    [(c & 1) << 4 | (c & 2) << 1 | (c & 4) >> 2 | (c & 8) << 2 | (c & 16) >> 1 | (c & 32) >> 4 for c in range(64)],
    np.int64,
)
"""Place in its block (keys.brick_voxel without the block) of a voxel with a Morton code of six bits."""
PLACE_MORTON = np.argsort(MORTON_PLACE)
"""The other way around."""


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


class _Buffers(NamedTuple):
    """Arrays of TreeLeaves with room for more."""

    keys: NDArray[np.uint16]
    depths: NDArray[np.uint8]
    values: NDArray[np.float32]
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
    order = np.argsort(morton_codes(brick_corners(packed).astype(np.uint16) * np.uint16(8)))
    numbers, owners = np.concatenate(numbers)[order], owners[order]
    rows = sum(int(shard.counters[layout.LIVE_ROWS]) for shard in shards)
    buffers = _buffers(BRICK_VOXELS + BLOCKS * len(numbers) + LEAVES_PER_ROW * rows)
    scratch = np.empty(BLOCK_VOXELS, np.float32), np.empty(BLOCK_VOXELS, np.int64)
    brick, count = 0, 0
    while True:
        # Also for no bricks: warming up with an empty map compiles it.
        brick, count = _emit_bricks(tuple(shards), numbers, owners, evidence, brick, count, *scratch, buffers)
        if brick >= len(numbers):
            break
        larger = _buffers(2 * len(buffers.depths))
        for old, new in zip(buffers, larger, strict=True):
            new[:count] = old[:count]
        buffers = larger
    keys, depths, values, tags = buffers
    return TreeLeaves(keys[:count], depths[:count], values[:count], tags[:count])


def _buffers(count: int) -> _Buffers:
    # Only what is written becomes memory.
    return _Buffers(
        np.empty((count, 3), np.uint16),
        np.empty(count, np.uint8),
        np.empty(count, np.float32),
        np.empty(count, np.int64),
    )


@inlined
def _push(out, count, x, y, z, depth, value, tag):
    out.keys[count, 0], out.keys[count, 1], out.keys[count, 2] = x, y, z
    out.depths[count] = depth
    out.values[count] = value
    out.tags[count] = tag


@inlined
def _merge(out, count, depth):
    """Merge the last eight leaves while they are the children of one parent and alike; the new number of leaves."""
    while depth > 0 and count >= 8:
        bit = np.int64(1) << (TREE_DEPTH - depth)
        last, first = count - 1, count - 8
        alike = True
        for axis in range(3):
            key = np.int64(out.keys[last, axis])
            alike &= key & bit != 0 and np.int64(out.keys[first, axis]) == key - bit
        if not alike:
            break
        for i in range(first, last):
            alike &= out.depths[i] == depth and out.values[i] == out.values[last] and out.tags[i] == out.tags[last]
        if not alike:
            break
        depth -= 1
        count -= 7
        out.depths[first] = depth
    return count


@kernel
def _emit_bricks(shards, numbers, owners, evidence, brick, count, values, tags, out):
    """Append the leaves of bricks from one on while there is room; the next brick, and the number of leaves."""
    while brick < len(numbers) and count + BRICK_VOXELS <= len(out.depths):
        number = numbers[brick]
        if owners[brick]:
            count = _emit_brick(shards[1], np.int64(1), number, evidence, count, values, tags, out)
        else:
            count = _emit_brick(shards[0], np.int64(0), number, evidence, count, values, tags, out)
        brick += 1
    return brick, count


@inner
def _emit_brick(shard, owner, brick, evidence, count, values, tags, out):
    """Append the leaves of one brick; the number of leaves."""
    bx, by, bz = unpack_brick(shard.keys[brick])
    if not has_labels(shard, brick) and brick_is_uniform(shard, brick):
        value = shard.uniform[brick, 0]
        if value != value:
            return count
        _push(out, count, bx * 8, by * 8, bz * 8, np.int64(BRICK_DEPTH), value, NO_TAG)
        return _merge(out, count + 1, np.int64(BRICK_DEPTH))
    for number in range(BLOCKS):
        # Blocks in Morton order, whose lowest bit is x; in a brick's own order that is the highest.
        block = ((number & 1) << 2) | (number & 2) | (number >> 2)
        x, y, z = bx * 8 + 4 * (number & 1), by * 8 + 2 * (number & 2), bz * 8 + (number & 4)
        value, head = shard.uniform[brick, block], np.int64(shard.label_heads[brick, block])
        row = np.int64(shard.rows[brick, block])
        if row < 0 and (head < 0 or value != value or not (evidence or value >= 0)):
            if value == value:
                _push(out, count, x, y, z, BRICK_DEPTH + 1, value, NO_TAG)
                count = _merge(out, count + 1, BRICK_DEPTH + 1)
            continue
        for code in range(BLOCK_VOXELS):
            values[code] = shard.values[row, MORTON_PLACE[code]] if row >= 0 else value
            tags[code] = NO_TAG
        if head >= 0:
            _load_tags(shard, owner, head, evidence, values, tags)
        count = _emit_block(values, tags, x, y, z, count, out)
    return count


@inlined
def _emit_block(values, tags, x, y, z, count, out):
    """Append the leaves of a block whose voxels stand in Morton order."""
    for code in range(0, BLOCK_VOXELS, 8):
        value, tag = values[code], tags[code]
        alike = value == value
        for i in range(code + 1, code + 8):
            alike &= (values[i] == value) & (tags[i] == tag)
        place = np.int64(MORTON_PLACE[code])
        cx, cy, cz = x + (place >> 4), y + ((place >> 2) & 3), z + (place & 3)
        if alike:
            _push(out, count, cx, cy, cz, BRICK_DEPTH + 2, value, tag)
            count += 1
            if code == BLOCK_VOXELS - 8:
                count = _merge(out, count, BRICK_DEPTH + 2)
            continue
        for i in range(8):
            if values[code + i] == values[code + i]:
                _push(
                    out,
                    count,
                    cx + (i & 1),
                    cy + ((i >> 1) & 1),
                    cz + (i >> 2),
                    TREE_DEPTH,
                    values[code + i],
                    tags[code + i],
                )
                count += 1
    return count


@inlined
def _load_tags(shard, owner, chunk, evidence, values, tags):
    """Set tags (64,) int64 to the best class of each voxel of a block, or to where its evidence stands.

    Both arrays are in Morton order; without evidence, only occupied voxels get a tag.
    """
    voxel = np.int64(-1)
    while chunk >= 0:
        for i in range(CHUNK):
            tag = shard.tags[chunk, i]
            if tag == END:
                break
            if np.int64(tag >> 16) != voxel:
                voxel = np.int64(tag >> 16)
                code = PLACE_MORTON[voxel & 63]
                if evidence:
                    tags[code] = (chunk * CHUNK + i) * 2 + owner
                elif values[code] >= 0:
                    tags[code] = np.int64(tag & NO_LABEL)
        chunk = np.int64(shard.chunk_next[chunk])


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


@inner
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
