# SPDX-License-Identifier: Apache-2.0
"""Bricks to OctoMap's binary stream (free and occupied space), without leaves in between; binary_maps is the way back.

An inner node is two bytes, two bits per child: 0 unknown, 1 free, 2 occupied, 3 an inner node, whose bytes follow in
the same way; child index bit 0 = x, 1 = y, 2 = z. A brick is a node of depth 13, a block one of depth 14.
"""

from __future__ import annotations

import numpy as np

from perception.mapping.bricks import Shard
from perception.mapping.keys import BLOCK_VOXELS, BLOCKS, TREE_DEPTH, brick_corners
from perception.mapping.leaves import BRICK_DEPTH, MORTON_PLACE
from perception.mapping.octomap_kernels import child_index, common_depth, count_binary_leaves, morton_codes
from perception.mapping.store import live_bricks
from perception.numba_cache import inlined, inner, njit

ALL_FREE, ALL_OCCUPIED = 0x5555, 0xAAAA
BRICK_BYTES = 2 * (1 + BLOCKS * (1 + 8))
"""The most that one brick takes."""
GROUPS = MORTON_PLACE[::8].copy()
"""Place in its block of the first voxel of each node of depth 15, by child index."""
_NIBBLES = np.uint64(0x0F0F0F0F)


def encode(shards: list[Shard]) -> tuple[bytes, int] | None:
    """The map as a binary stream, pruned as OctoMap's writeBinary prunes, and the number of nodes.

    OctoMap prunes depth by depth from the bottom and stops at the first depth at which nothing merged. None for a map
    in which more merges above such a depth: then that is for octomap_stream to do, which takes leaves.
    """
    numbers = [live_bricks(shard) for shard in shards]
    owners = np.repeat(np.arange(2), [len(n) for n in numbers])
    packed = np.concatenate([shard.keys[n] for shard, n in zip(shards, numbers, strict=True)])
    codes = morton_codes(brick_corners(packed).astype(np.uint16) * np.uint16(8))
    order = np.argsort(codes)
    # Reserved, not touched, as far as the map does not need it.
    out = np.empty(len(codes) * (BRICK_BYTES + 2 * BRICK_DEPTH), np.uint8)
    size, merges = _encode(tuple(shards), codes[order], np.concatenate(numbers)[order], owners[order], out)
    stop = next((depth for depth in range(TREE_DEPTH - 1, 0, -1) if merges[depth] == 0), 0)
    if merges[:stop].any():
        return None
    stream = out[:size]
    return stream.tobytes(), int(size) // 2 + int(count_binary_leaves(stream))


@njit(cache=True, nogil=True)
def _encode(shards, codes, numbers, owners, out):
    """Bytes written, and (17,) int64 how many nodes of each depth became leaves whose children had several values."""
    merges = np.zeros(TREE_DEPTH + 1, np.int64)
    levels = np.zeros(BRICK_DEPTH, np.int64), np.zeros(BRICK_DEPTH, np.int64)
    values, is_new = np.zeros(BRICK_DEPTH, np.float32), np.zeros(BRICK_DEPTH, np.bool_)
    scratch = np.empty(BLOCK_VOXELS, np.uint8), np.empty(BRICK_BYTES, np.uint8)
    return _encode_bricks(shards, codes, numbers, owners, levels, values, is_new, scratch, merges, out), merges


@inner
def _encode_bricks(shards, codes, numbers, owners, levels, values, is_new, scratch, merges, out):
    """Bytes written; adds to ``merges``.

    ``levels`` are the place in ``out`` and the word of the node of each depth, ``values`` the one value of all that it
    holds, NaN for several; a node that was opened just now takes the first.
    """
    start, states = levels
    voxels, brick_bytes = scratch
    offset, opened, last = np.int64(0), np.int64(-1), np.int64(0)
    for i in range(len(codes) + 1):
        state, size, value, common = np.int64(0), np.int64(0), np.float32(0.0), np.int64(-1)
        if i < len(codes):
            if owners[i]:
                state, size, value = _encode_brick(shards[1], np.int64(numbers[i]), brick_bytes, voxels, merges)
            else:
                state, size, value = _encode_brick(shards[0], np.int64(numbers[i]), brick_bytes, voxels, merges)
            if state == 0:
                continue
            if opened >= 0:
                common = np.int64(common_depth(last, codes[i]))
        for level in range(opened, common, -1):
            word, whole = states[level], values[level]
            if level > 0 and word in (ALL_FREE, ALL_OCCUPIED):
                # All its children are leaves, so its own two bytes are the last ones reserved.
                offset -= 2
                word &= 3
                merges[level] += whole != whole
            else:
                _put_word(out, start[level], word)
                word, whole = np.int64(3), np.float32(np.nan)
            if level > 0:
                _add_child(states, values, is_new, level - 1, child_index(last, level), word, whole)
        if i == len(codes):
            break
        for level in range(common + 1, BRICK_DEPTH):
            start[level], states[level], is_new[level] = offset, 0, True
            offset += 2
        _add_child(states, values, is_new, BRICK_DEPTH - 1, child_index(codes[i], BRICK_DEPTH), state, value)
        for k in range(size):
            out[offset + k] = brick_bytes[k]
        offset += size
        last, opened = codes[i], np.int64(BRICK_DEPTH - 1)
    return offset


@inlined
def _put_word(out, offset, word):
    out[offset], out[offset + 1] = word & 255, word >> 8


@inlined
def _add_child(states, values, is_new, level, child, state, value):
    states[level] |= state << (2 * child)
    if is_new[level]:
        values[level] = value
    elif value != values[level]:
        values[level] = np.nan
    is_new[level] = False


@inlined
def _state(value):
    return np.int64(2) if value >= 0 else (np.int64(1) if value < 0 else np.int64(0))


@inner
def _encode_brick(shard, brick, out, voxels, merges):
    """State of a brick, number of its bytes, and its one value, NaN for several."""
    word, size, whole = np.int64(0), np.int64(2), np.float32(np.nan)
    for number in range(BLOCKS):
        # Blocks by child index, whose lowest bit is x; in a brick's own order that is the highest.
        block = ((number & 1) << 2) | (number & 2) | (number >> 2)
        row = np.int64(shard.rows[brick, block])
        if row < 0:
            value = shard.uniform[brick, block]
            state = _state(value)
        else:
            state, size, value = _encode_block(shard.values[row], out, size, voxels, merges)
        word |= state << (2 * number)
        if number == 0:
            whole = value
        elif value != whole:
            whole = np.float32(np.nan)
    if word in (ALL_FREE, ALL_OCCUPIED):
        merges[BRICK_DEPTH] += whole != whole
        return word & 3, np.int64(0), whole
    _put_word(out, 0, word)
    return np.int64(3) if word != 0 else np.int64(0), size, np.float32(np.nan)


@inlined
def _encode_block(values, out, start, voxels, merges):
    """State of a block, end of its bytes, and its one value, NaN for several."""
    for i in range(BLOCK_VOXELS):
        voxels[i] = 2 * (values[i] >= 0) + (values[i] < 0)
    pairs = voxels.view(np.uint64)
    word, end, whole = np.int64(0), start + 2, values[0]
    for group in range(8):
        inner = _group_word(pairs, group)
        state = np.int64(3)
        if inner in (0, ALL_FREE, ALL_OCCUPIED):
            state = inner & 3
            value = _group_value(values, GROUPS[group])
            merges[BRICK_DEPTH + 2] += state != 0 and value != value
            if value != whole:
                whole = np.float32(np.nan)
        else:
            _put_word(out, end, inner)
            end += 2
            whole = np.float32(np.nan)
        word |= state << (2 * group)
    if word in (0, ALL_FREE, ALL_OCCUPIED):
        merges[BRICK_DEPTH + 1] += word != 0 and whole != whole
        return word & 3, start, whole
    _put_word(out, start, word)
    return np.int64(3), end, np.float32(np.nan)


@inlined
def _group_word(pairs, group):
    """Word of a node of depth 15 from (8,) uint64 with a state in each byte: two rows along y of four voxels along z.

    Two words lie next to each other along x and are joined to four bits a byte, their two rows to eight; what is left
    are the words of two nodes, one above the other.
    """
    first = 4 * (group & 1) + ((group >> 1) & 1)
    joined = pairs[first] | pairs[first + 2] << np.uint64(2)
    both = (joined & _NIBBLES) | (joined >> np.uint64(32)) << np.uint64(4)
    return np.int64(both >> np.uint64(16 * (group >> 2))) & 0xFFFF


@inlined
def _group_value(values, first):
    """The one value of eight voxels, NaN for several."""
    value = values[first]
    alike = (values[first + 1] == value) & (values[first + 4] == value) & (values[first + 5] == value)
    alike &= (values[first + 16] == value) & (values[first + 17] == value)
    alike &= (values[first + 20] == value) & (values[first + 21] == value)
    return value if alike else np.float32(np.nan)
