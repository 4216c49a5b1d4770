# SPDX-License-Identifier: Apache-2.0
"""Compiled loops behind octomap_stream: Morton codes, pruning, and the node streams of OctoMap both ways.

A leaf is a Morton code (48 bits: three per level, child index bit 0 = x, 1 = y, 2 = z, root's child on top)
and a depth 0 to 16. Leaves ascend by code, which is OctoMap's depth-first order. Everything here trusts the
dtypes and shapes of its arguments, never the content of a stream: octomap_stream checks the former, the
return codes report the latter.
"""

from __future__ import annotations

import numpy as np

from perception.numba_cache import inner, njit

TREE_DEPTH = 16
LOWEST_LOG_ODDS = np.float32(-3.4028234663852886e38)

TRUNCATED = -1
"""The stream ends inside a node."""
TOO_DEEP = -2
"""A node of depth 16 has children."""
CHILDLESS = -3
"""A binary stream announces an inner node that has no children."""


_SPREAD = np.array([sum((byte >> bit & 1) << 3 * bit for bit in range(8)) for byte in range(256)], np.int64)
"""Each byte with two zero bits between neighbors; a table, since spreading by shifts takes twice the time."""


@inner
def _morton_code(x, y, z):
    high = _SPREAD[x >> 8] | _SPREAD[y >> 8] << 1 | _SPREAD[z >> 8] << 2
    return high << 24 | _SPREAD[x & 255] | _SPREAD[y & 255] << 1 | _SPREAD[z & 255] << 2


@njit(cache=True, nogil=True)
def morton_codes(keys):
    """(M,) int64 codes of (M, 3) uint16 keys."""
    codes = np.empty(keys.shape[0], np.int64)
    for i in range(keys.shape[0]):
        codes[i] = _morton_code(keys[i, 0], keys[i, 1], keys[i, 2])
    return codes


@inner
def common_depth(a, b):
    """Depth of the deepest node that holds both codes."""
    difference = a ^ b
    depth = TREE_DEPTH
    while difference > 0:
        difference >>= 3
        depth -= 1
    return depth


@inner
def child_index(code, depth):
    """Which child of its parent the node of this depth is that holds the code."""
    return code >> 3 * (TREE_DEPTH - np.int64(depth)) & 7


@inner
def _leaf_end(code, depth, end):
    """The code after a leaf, or −1 when it is deeper than 16, not aligned to its size, or starts before end."""
    if depth > TREE_DEPTH:
        return np.int64(-1)
    size = np.int64(1) << 3 * (TREE_DEPTH - depth)
    return np.int64(-1) if code < end or code & (size - 1) != 0 else code + size


@njit(cache=True, nogil=True)
def count_nodes(codes, depths):
    """Nodes of the tree that has these leaves, inner ones included, and the first bad leaf or −1 (see _leaf_end)."""
    nodes = 0
    end = np.int64(0)
    for i in range(codes.shape[0]):
        depth = np.int64(depths[i])
        end = _leaf_end(codes[i], depth, end)
        if end < 0:
            return nodes, i
        nodes += depth + 1 if i == 0 else depth - common_depth(codes[i - 1], codes[i])
    return nodes, -1


@njit(cache=True, nogil=True)
def prune(codes, depths, values, tags, min_depth):
    """Merge eight leaves of one parent while their values and tags are equal, up to depth min_depth.

    Returns:
        index (K,) int64 of the first leaf merged into each surviving one, depths (K,) uint8 of the survivors,
        merges (17,) int64: how many parents of each depth became leaves.
    """
    index = np.empty(codes.shape[0], np.int64)
    levels = np.empty(codes.shape[0], np.uint8)
    merges = np.zeros(TREE_DEPTH + 1, np.int64)
    top = 0
    for i in range(codes.shape[0]):
        depth = np.int64(depths[i])
        index[top], levels[top] = i, depth
        top += 1
        # Only the last voxel of a parent can complete it: the cheap test spares seven calls of eight.
        while top >= 8 and depth > min_depth and child_index(codes[i], depth) == 7:
            if not _collapsible(codes, values, tags, index, levels, top):
                break
            top -= 7
            depth -= 1
            levels[top - 1] = depth
            merges[depth] += 1
    return index[:top].copy(), levels[:top].copy(), merges


@inner
def _collapsible(codes, values, tags, index, levels, top):
    """Whether the last eight survivors are all children of one parent, with one value and one tag."""
    last, first = index[top - 1], index[top - 8]
    shift = 3 * (TREE_DEPTH - np.int64(levels[top - 1]))
    if codes[first] >> (shift + 3) != codes[last] >> (shift + 3):
        return False
    for k in range(top - 8, top - 1):
        other = index[k]
        if levels[k] != levels[top - 1] or values[other] != values[last]:
            return False
        if tags.shape[0] > 0 and tags[other] != tags[last]:
            return False
    return True


@njit(cache=True, nogil=True)
def write_full(codes, depths, log_odds, colors, out):
    """Fill out with the nodes: log-odds, color when colors is not empty, mask of the children; parents first."""
    record = 8 if colors.shape[0] > 0 else 5
    leaf_bits = log_odds.view(np.uint32)
    start = np.zeros(TREE_DEPTH + 1, np.int64)
    masks = np.zeros(TREE_DEPTH + 1, np.int64)
    best = np.zeros(TREE_DEPTH + 1, np.float32)
    best_bits = best.view(np.uint32)
    sums = np.zeros((TREE_DEPTH + 1, 4), np.int64)
    offset, opened, count = 0, -1, codes.shape[0]
    for i in range(count + 1):
        common = -1 if i == 0 or i == count else common_depth(codes[i - 1], codes[i])
        for level in range(opened, common, -1):
            _put(out, start[level], best_bits[level])
            out[start[level] + record - 1] = masks[level]
            if record == 8:
                _put_mean_color(out, start[level] + 4, sums, level)
            if level > 0:
                masks[level - 1] |= 1 << child_index(codes[i - 1], level)
                # A strict comparison keeps the first of 0.0 and −0.0, as OctoMap does.
                if best[level] > best[level - 1]:
                    best[level - 1] = best[level]
                if record == 8:
                    _add_color(out, start[level] + 4, sums, level - 1)
        if i == count:
            return
        depth = np.int64(depths[i])
        for level in range(common + 1, depth):
            start[level], masks[level], best[level] = offset, 0, LOWEST_LOG_ODDS
            for k in range(4):
                sums[level, k] = 0
            offset += record
        _put(out, offset, leaf_bits[i])
        out[offset + record - 1] = 0
        if record == 8:
            for k in range(3):
                out[offset + 4 + k] = colors[i, k]
        if depth > 0:
            masks[depth - 1] |= 1 << child_index(codes[i], depth)
            if log_odds[i] > best[depth - 1]:
                best[depth - 1] = log_odds[i]
            if record == 8:
                _add_color(out, offset + 4, sums, depth - 1)
        offset += record
        opened = depth - 1


@njit(cache=True, nogil=True)
def _put(out, offset, bits):
    """Four bytes, the lowest first."""
    for k in range(4):
        out[offset + k] = (np.int64(bits) >> 8 * k) & 255


@inner
def _add_color(out, offset, sums, level):
    """Add the color at offset, if it is set, to the sums of the node of this level."""
    if out[offset] != 255 or out[offset + 1] != 255 or out[offset + 2] != 255:
        for k in range(3):
            sums[level, k] += out[offset + k]
        sums[level, 3] += 1


@inner
def _put_mean_color(out, offset, sums, level):
    """The mean of the added colors, rounded down; white, which means unset, for none."""
    count = sums[level, 3]
    for k in range(3):
        out[offset + k] = sums[level, k] // count if count > 0 else 255


@njit(cache=True, nogil=True)
def write_binary(keys, depths, log_odds, min_depth, out):
    """Write two bytes per inner node, two bits per child: 1 free, 2 occupied, 3 inner; at most 32 per leaf.

    Eight leaves of one state become one, up to depth min_depth ≥ 1. The root must not be a leaf.

    Returns:
        bytes written, merges (17,) int64: parents of each depth that became leaves, the first bad leaf (see
        _leaf_end) or −1.
    """
    start = np.zeros(TREE_DEPTH + 1, np.int64)
    states = np.zeros(TREE_DEPTH + 1, np.int64)
    merges = np.zeros(TREE_DEPTH + 1, np.int64)
    offset, opened, count = 0, -1, keys.shape[0]
    code, last, end = np.int64(0), np.int64(0), np.int64(0)
    for i in range(count + 1):
        common = -1
        if i < count:
            code = _morton_code(keys[i, 0], keys[i, 1], keys[i, 2])
            end = _leaf_end(code, np.int64(depths[i]), end)
            if end < 0:
                return offset, merges, i
            if i > 0:
                common = common_depth(last, code)
        for level in range(opened, common, -1):
            state = states[level]
            if level >= min_depth and (state == 0x5555 or state == 0xAAAA):
                # All its children are leaves, so its own two bytes are the last ones reserved.
                offset -= 2
                merges[level] += 1
                state &= 3
            else:
                out[start[level]], out[start[level] + 1] = state & 255, state >> 8
                state = 3
            if level > 0:
                states[level - 1] |= state << 2 * child_index(last, level)
        if i < count:
            opened = np.int64(depths[i]) - 1
            for level in range(common + 1, opened + 1):
                start[level], states[level] = offset, 0
                offset += 2
            states[opened] |= (2 if log_odds[i] >= 0 else 1) << 2 * child_index(code, opened + 1)
            last = code
    return offset, merges, -1


@njit(cache=True, nogil=True)
def scan_full(data, record):
    """Walk a full stream without storing it: status (0 or an error), bytes walked, number of leaves."""
    rest = np.zeros(TREE_DEPTH + 1, np.uint8)
    offset, leaves, depth = 0, 0, 0
    while depth >= 0:
        if data.shape[0] - offset < record:
            return TRUNCATED, offset, leaves
        rest[depth] = data[offset + record - 1]
        if rest[depth] == 0:
            leaves += 1
        elif depth == TREE_DEPTH:
            return TOO_DEEP, offset, leaves
        offset += record
        while depth >= 0 and rest[depth] == 0:
            depth -= 1
        if depth >= 0:
            rest[depth] &= rest[depth] - np.uint8(1)
            depth += 1
    return 0, offset, leaves


@inner
def _lowest_bit(mask):
    """Index of the lowest set bit of a mask that is not zero."""
    bit = 0
    while mask >> bit & 1 == 0:
        bit += 1
    return bit


@inner
def _descend(path, depth, child):
    """Set the lowest-corner key of a child of the node of this depth on the path."""
    for axis in range(3):
        path[depth + 1, axis] = path[depth, axis] | (child >> axis & 1) << (TREE_DEPTH - 1 - depth)


@njit(cache=True, nogil=True)
def read_full(data, record, keys, depths, bits, colors):
    """Fill the leaf arrays from a stream that scan_full accepted."""
    rest = np.zeros(TREE_DEPTH + 1, np.int64)
    path = np.zeros((TREE_DEPTH + 1, 3), np.int64)
    offset, leaf, depth = 0, 0, 0
    while depth >= 0:
        rest[depth] = data[offset + record - 1]
        if rest[depth] == 0:
            for axis in range(3):
                keys[leaf, axis] = path[depth, axis]
            depths[leaf] = depth
            value = np.uint32(0)
            for k in range(4):
                value |= np.uint32(data[offset + k]) << np.uint32(8 * k)
            bits[leaf] = value
            if record == 8:
                colors[leaf] = data[offset + 4 : offset + 7]
            leaf += 1
        offset += record
        while depth >= 0 and rest[depth] == 0:
            depth -= 1
        if depth >= 0:
            _descend(path, depth, _lowest_bit(rest[depth]))
            rest[depth] &= rest[depth] - 1
            depth += 1


@njit(cache=True, nogil=True)
def count_binary_leaves(data):
    """Children that are free or occupied leaves in a whole binary stream."""
    count = 0
    for i in range(data.shape[0]):
        single = (data[i] ^ data[i] >> 1) & 0x55
        count += (single & 1) + (single >> 2 & 1) + (single >> 4 & 1) + (single >> 6)
    return count


@njit(cache=True, nogil=True)
def read_binary(data, free, occupied, keys, depths, log_odds):
    """Fill the leaf arrays from a binary stream: status (0 or an error), bytes read.

    The arrays have one place more than count_binary_leaves(data), which is scratch. They cannot overflow: a leaf
    comes from two bits of the stream, which are read once.
    """
    values = np.array([free, free, occupied, free], np.float32)
    states = np.zeros(TREE_DEPTH, np.int64)
    child = np.zeros(TREE_DEPTH, np.int64)
    path = np.zeros((TREE_DEPTH + 1, 3), np.int64)
    offset, leaf, depth = 0, 0, 0
    while depth >= 0:
        if data.shape[0] - offset < 2:
            return TRUNCATED, offset
        state = np.int64(data[offset]) | np.int64(data[offset + 1]) << 8
        if state == 0:
            return CHILDLESS, offset
        states[depth], child[depth] = state, 0
        if state & state >> 1 & 0x5555 == 0:
            leaf = _read_leaves(state, depth, path[depth], values, keys, depths, log_odds, leaf)
            depth -= 1
        elif depth == TREE_DEPTH - 1:
            return TOO_DEEP, offset
        offset += 2
        inner = False
        while depth >= 0 and not inner:
            if states[depth] == 0:
                depth -= 1
                continue
            state = states[depth] & 3
            _descend(path, depth, child[depth])
            states[depth] >>= 2
            child[depth] += 1
            inner = state == 3
            if inner:
                depth += 1
            elif state != 0:
                for axis in range(3):
                    keys[leaf, axis] = path[depth + 1, axis]
                depths[leaf], log_odds[leaf] = depth + 1, values[state]
                leaf += 1
    return 0, offset


@njit(cache=True, nogil=True)
def _read_leaves(state, depth, corner, values, keys, depths, log_odds, leaf):
    """Store the children of a node that has no inner ones; the place of the next leaf.

    Unknown children are written too, and overwritten by the next: that is faster than to branch.
    """
    shift = TREE_DEPTH - 1 - depth
    for child in range(8):
        for axis in range(3):
            keys[leaf, axis] = corner[axis] | (child >> axis & 1) << shift
        depths[leaf], log_odds[leaf] = depth + 1, values[state & 3]
        leaf += 1 if state & 3 != 0 else 0
        state >>= 2
    return leaf
