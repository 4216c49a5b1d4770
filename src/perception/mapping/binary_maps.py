# SPDX-License-Identifier: Apache-2.0
"""OctoMap's binary stream to bricks, without leaves in between; see binary_encoding for its words and the way back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.mapping import octomap_kernels, octomap_stream
from perception.mapping.bricks import collapse_block, take_row
from perception.mapping.keys import BLOCK_VOXELS, BLOCKS, brick_shard
from perception.mapping.leaves import BRICK_DEPTH
from perception.mapping.loading import UNLIMITED, fill_bricks
from perception.mapping.octomap_kernels import CHILDLESS, TOO_DEEP, TRUNCATED
from perception.mapping.store import BrickStore
from perception.mapping.threads import run_both
from perception.mapping.update import RECORD_BYTES, REGION_BYTES, ROW_BYTES, find_or_add
from perception.numba_cache import inlined, inner, kernel

LEAF = np.int64(-1)
"""In place of where a brick's bytes are: it is part of a leaf."""
STATUS, OFFSET, DEPTH, COUNT, ROWS, INNER, PROGRESS = range(7)
"""Places of what _scan has come to, and how many there are."""
_BYTES, _NIBBLES = np.uint64(0x0303030303030303), np.uint64(0x0F0F0F0F)


class BinaryMap(NamedTuple):
    """A checked binary stream and where its bricks are.

    Attributes:
        data: (N,) uint8 the stream.
        bricks: (M, 3) int64 brick keys (voxel key // 8), those of the lowest brick for a leaf of several.
        places: (M,) int64 where the bytes of each are in the stream; LEAF for a leaf.
        depths: (M,) uint8 of the leaves, 13 for what has bytes.
        occupied: (M,) bool of the leaves.
        rows: blocks that are neither of one state nor unknown.
        nodes: of the tree.
    """

    data: NDArray[np.uint8]
    bricks: NDArray[np.int64]
    places: NDArray[np.int64]
    depths: NDArray[np.uint8]
    occupied: NDArray[np.bool_]
    rows: int
    nodes: int


def scan(data: octomap_stream.ByteData) -> BinaryMap:
    """Check a binary stream and find its bricks. Takes up to 27 times the size of the stream.

    Raises:
        InputError: data is truncated, has bytes after the tree, nodes below depth 16 or inner nodes without children.
    """
    stream = np.frombuffer(data, np.uint8)
    if stream.size == 0:
        return BinaryMap(stream, *_room(0), 0, 0)
    if stream.size == 2 and not stream.any():
        # The stream has no word for a root without children; readers take the empty node as occupied.
        root = np.zeros((1, 3), np.int64), np.array([LEAF]), np.zeros(1, np.uint8), np.ones(1, np.bool_)
        return BinaryMap(stream, *root, 0, 1)
    progress, entries = _find_bricks(stream)
    octomap_stream.check_binary(int(progress[STATUS]), int(progress[OFFSET]), stream.size)
    nodes = stream.size // 2 + int(octomap_kernels.count_binary_leaves(stream))
    bricks, places, depths, occupied = (array[: progress[COUNT]] for array in entries)
    return BinaryMap(stream, bricks, places, depths, occupied, int(progress[ROWS]), nodes)


def _room(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8], NDArray[np.bool_]]:
    return (
        np.empty((count, 3), np.int64),
        np.empty(count, np.int64),
        np.empty(count, np.uint8),
        np.empty(count, np.bool_),
    )


def _find_bricks(stream: NDArray[np.uint8]) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...]]:
    """Progress (see _scan) after the whole stream or at an error, and the entries of BinaryMap, with room behind."""
    progress = np.zeros(PROGRESS, np.int64)
    progress[INNER] = 1
    scratch = np.zeros((2, BRICK_DEPTH), np.int64), np.zeros((BRICK_DEPTH + 1, 3), np.int64)
    entries = _room(1024)
    while not _scan(stream, progress, *scratch, *entries):
        more = _room(2 * len(entries[1]))
        for old, new in zip(entries, more, strict=True):
            new[: len(old)] = old
        entries = more
    return progress, entries


@kernel
def _scan(data, progress, nodes, path, bricks, places, depths, occupied):
    """Walk on through a stream until it ends or an error comes; False when there is no room for the next entry.

    Args:
        data: (N,) uint8.
        progress: (6,) int64: status (0 or an error), offset, depth, entries, blocks with rows, whether a node begins.
        nodes: (2, 13) int64 the states that are left of each node on the path, and the next child.
        path: (14, 3) int64 lowest brick key of each node on the path.
        bricks: see BinaryMap.
        places: see BinaryMap.
        depths: see BinaryMap.
        occupied: see BinaryMap.
    """
    states, child = nodes
    depth, count, offset, is_inner = progress[DEPTH], progress[COUNT], progress[OFFSET], progress[INNER] != 0
    is_whole, status = True, np.int64(0)
    while depth >= 0 and status == 0:
        if is_inner:
            if len(data) - offset < 2:
                status = np.int64(TRUNCATED)
                break
            states[depth], child[depth] = _word(data, offset), 0
            if states[depth] == 0:
                status = np.int64(CHILDLESS)
                break
            offset += 2
            is_inner = False
        if states[depth] == 0:
            depth -= 1
            continue
        if count == len(places):
            is_whole = False
            break
        state = states[depth] & 3
        for axis in range(3):
            path[depth + 1, axis] = path[depth, axis] | ((child[depth] >> axis & 1) << (BRICK_DEPTH - 1 - depth))
        states[depth] >>= 2
        child[depth] += 1
        if state == 3 and depth < BRICK_DEPTH - 1:
            depth += 1
            is_inner = True
        elif state != 0:
            for axis in range(3):
                bricks[count, axis] = path[depth + 1, axis]
            places[count], depths[count], occupied[count] = offset if state == 3 else LEAF, depth + 1, state == 2
            count += 1
            if state == 3:
                status, offset, more = _scan_brick(data, offset)
                progress[ROWS] += more
    progress[STATUS], progress[OFFSET], progress[DEPTH] = status, offset, depth
    progress[COUNT], progress[INNER] = count, is_inner
    return is_whole


@inlined
def _word(data, offset):
    return np.int64(data[offset]) | np.int64(data[offset + 1]) << 8


@inner
def _scan_brick(data, offset):
    """Status, end of the brick's bytes or place of the error, and number of its inner blocks."""
    if len(data) - offset < 2:
        return TRUNCATED, offset, 0
    word = _word(data, offset)
    if word == 0:
        return CHILDLESS, offset, 0
    offset += 2
    blocks = _inner_children(word)
    for _ in range(blocks):
        if len(data) - offset < 2:
            return TRUNCATED, offset, 0
        word = _word(data, offset)
        if word == 0:
            return CHILDLESS, offset, 0
        offset += 2
        groups = _inner_children(word)
        whole = min(groups, (np.int64(len(data)) - offset) >> 1)
        is_bad = False
        for place in range(offset, offset + 2 * whole, 2):
            word = _word(data, place)
            is_bad |= (word == 0) | (word & word >> 1 & 0x5555 != 0)
        if is_bad:
            return _first_error(data, offset)
        offset += 2 * whole
        if whole < groups:
            return TRUNCATED, offset, 0
    return np.int64(0), offset, blocks


@inlined
def _first_error(data, offset):
    """What is wrong with the first bad one of the words from a place on."""
    while True:
        word = _word(data, offset)
        if word == 0:
            return CHILDLESS, offset, 0
        if word & word >> 1 & 0x5555 != 0:
            return TOO_DEEP, offset, 0
        offset += 2


@inlined
def _inner_children(word):
    inner = word & word >> 1 & 0x5555
    # Neighboring counts are added, pair by pair.
    inner = (inner & 0x1111) + (inner >> 2 & 0x1111)
    inner = (inner & 0x0F0F) + (inner >> 4 & 0x0F0F)
    return (inner & 15) + (inner >> 8)


def load(store: BrickStore, content: BinaryMap, free: float, occupied: float) -> None:
    """Fill an empty store.

    Args:
        store: to fill.
        content: of a stream.
        free: log-odds of free voxels, < 0.
        occupied: log-odds of occupied voxels, ≥ 0.

    Raises:
        InputError: the map needs more memory than the store may use.
    """
    spans = BRICK_DEPTH - content.depths.astype(np.int64)
    bricks = float((8.0**spans).sum())
    x, y, z = content.bricks[spans <= 3].T
    # As bricks.region_key; a larger leaf fills whole regions.
    regions = len(np.unique(x >> 3 << 20 | y >> 3 << 10 | z >> 4)) + int((8.0 ** (spans[spans > 3] - 3)).sum())
    needed = bricks * RECORD_BYTES + content.rows * ROW_BYTES + 2 * regions * REGION_BYTES
    if needed > store.max_memory:
        raise InputError(
            f"map: expected to fit into {store.max_memory} bytes of memory, got a map that takes {needed:.0f}"
        )
    store.make_room(regions)
    values = np.array([np.nan, free, occupied, np.nan], np.float32)
    # Far enough apart for the two threads not to share a cache line.
    scratch = np.empty((2, 4 * BLOCK_VOXELS), np.uint8)[:, :BLOCK_VOXELS]
    first, second = ((store.shards[i], i, *content[:5], values, scratch[i]) for i in range(2))
    run_both(_load, first, second)


@kernel
def _load(shard, owner, data, bricks, places, depths, occupied, values, voxels):
    """Fill one shard's part."""
    for i in range(len(places)):
        x, y, z = bricks[i, 0], bricks[i, 1], bricks[i, 2]
        if places[i] >= 0:
            if brick_shard(x, y) == owner:
                _load_brick(shard, x, y, z, data, places[i], values, voxels)
            continue
        span = np.int64(1) << (BRICK_DEPTH - np.int64(depths[i]))
        value = values[2] if occupied[i] else values[1]
        for bx in range(x, x + span):
            for by in range(y, y + span):
                if brick_shard(bx, by) == owner:
                    fill_bricks(shard, bx, by, z, span, value)


@inner
def _load_brick(shard, bx, by, bz, data, offset, values, voxels):
    brick = find_or_add(shard, bx, by, bz, UNLIMITED)
    pairs = voxels.view(np.uint64)
    word = _word(data, offset)
    offset += 2
    for number in range(BLOCKS):
        block = ((number & 1) << 2) | (number & 2) | (number >> 2)
        state = (word >> (2 * number)) & 3
        if state != 3:
            shard.uniform[brick, block] = values[state]
            continue
        groups = _word(data, offset)
        offset += 2
        for i in range(8):
            pairs[i] = 0
        for group in range(8):
            inner = (groups >> (2 * group)) & 3
            # A leaf is eight voxels of one state.
            states = inner * 0x5555
            if inner == 3:
                states = _word(data, offset)
                offset += 2
            _spread_group(pairs, group, np.uint64(states))
        row = shard.values[take_row(shard, brick, block)]
        for i in range(BLOCK_VOXELS):
            row[i] = values[1] if voxels[i] == 1 else (values[2] if voxels[i] == 2 else values[0])
        if row[0] == row[BLOCK_VOXELS - 1]:
            # Who wrote the file need not have pruned it.
            collapse_block(shard, brick, block)


@inlined
def _spread_group(pairs, group, word):
    """The other way around of binary_encoding._group_word, into (8,) uint64 that are zero there."""
    first, shift = 4 * (group & 1) + ((group >> 1) & 1), np.uint64(16 * (group >> 2))
    both = word << shift
    joined = (both & _NIBBLES) | (both >> np.uint64(4) & _NIBBLES) << np.uint64(32)
    pairs[first] |= joined & _BYTES
    pairs[first + 2] |= joined >> np.uint64(2) & _BYTES
