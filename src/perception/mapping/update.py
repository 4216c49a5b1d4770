# SPDX-License-Identifier: Apache-2.0
"""Apply a scan's window to one shard of the map: every voxel once, occupied wins over free, votes fused."""

from __future__ import annotations

import numpy as np

from perception.mapping.bricks import (
    BRICKS,
    CHUNKS,
    DECAYING,
    FREE_BRICK,
    FREE_ROW,
    REGIONS,
    ROWS,
    add_brick,
    add_region,
    collapse_block,
    directory_place,
    expand_block,
    find_region,
    log_change,
    region_key,
)
from perception.mapping.fusion import NO_LABEL, elect, merge_votes, vote_weight
from perception.mapping.keys import (
    BLOCK_VOXELS,
    BLOCKS,
    BRICK_VOXELS,
    brick_place,
    brick_shard,
    brick_voxel,
    window_bits,
)
from perception.mapping.scan import MARKING, forget_ends
from perception.numba_cache import inlined, inner, kernel

ROW_BYTES = 256
RECORD_BYTES = 105
REGION_BYTES = 2048 + 12 + 48
CHUNK_BYTES = 68


@inlined
def used_bytes(counters):
    """Memory of a shard that its counters stand for."""
    return (
        counters[ROWS] * ROW_BYTES
        + counters[BRICKS] * RECORD_BYTES
        + counters[REGIONS] * REGION_BYTES
        + counters[CHUNKS] * CHUNK_BYTES
    )


@inner
def chain_entries(entries, collectors, number, heads):
    """Chain both threads' entries of a shard by brick, the last one first.

    Args:
        entries: of both threads.
        collectors: of both threads.
        number: the shard.
        heads: (bricks of the window,) int32 first entry of each, -1 where there is none yet.
    """
    for thread in range(2):
        base = collectors[thread].base
        for row in range(base, base + collectors[thread].used[MARKING]):
            place = entries.places[row]
            if place >= 0 and (place & 1) == number:
                entries.next_in_brick[row] = heads[place >> 1]
                heads[place >> 1] = row


@inlined
def update_misses(values, flags, miss, low, high):
    """Add a miss to the flagged voxels of a block; 2 when a state changed, 1 when only values did."""
    changed, state = np.uint8(0), np.uint8(0)
    zero = np.float32(0.0)
    for i in range(BLOCK_VOXELS):
        value = values[i]
        unknown = value != value
        new = (zero if unknown else value) + miss
        new = min(max(new, low), high)
        # OctoMap leaves a voxel alone that is at the bound already, even beyond it.
        new = value if value <= low else new
        flag = flags[i] != 0
        result = new if flag else value
        values[i] = result
        changed |= np.uint8(flag & (result != value))
        state |= np.uint8(flag & (unknown | ((value >= zero) & (new < zero))))
    return 2 if state != 0 else np.int64(changed != 0)


@inlined
def update_hits(values, voxels, start, stop, rules):
    """Add a hit to the listed voxels of a block; 2 when a state changed, 1 when only values did."""
    outcome = 0
    zero = np.float32(0.0)
    for i in range(start, stop):
        place = voxels[i] & 63
        value = values[place]
        if value >= rules.high:
            continue
        new = min(max((value if value == value else zero) + rules.hit, rules.low), rules.high)
        values[place] = new
        if not value >= zero:
            outcome = 2
        elif new != value:
            outcome = max(outcome, 1)
    return outcome


@inlined
def _uniform_miss(shard, brick, block, flags, rules):
    """Update a uniform block that no ray ended in, if it stays uniform; -1 if it does not, else as update_misses."""
    value = shard.uniform[brick, block]
    if value <= rules.low:
        return 0
    for i in range(BLOCK_VOXELS):
        if flags[i] == 0:
            return -1
    unknown = value != value
    new = min(max((np.float32(0.0) if unknown else value) + rules.miss, rules.low), rules.high)
    shard.uniform[brick, block] = new
    return 2 if unknown or (value >= 0 and new < 0) else np.int64(new != value)


@inlined
def elect_brick(head, entries, flags, scratch, num_classes):
    """Voxels of a brick that were hit, and their votes.

    Args:
        head: first entry of the brick.
        entries: all of them.
        flags: (512,) uint8 of the brick; those of voxels hit become 0.
        scratch: gets voxels (ascending), classes and weights.
        num_classes: classes of the map.

    Returns:
        how many voxels were hit, how many of them got a vote; the others have class NO_LABEL.
    """
    codes, heads = entries.codes, scratch.heads
    row = head
    while row >= 0:
        code = codes[row]
        voxel = brick_voxel((code >> 48) & 7, (code >> 32) & 7, (code >> 16) & 7)
        entries.next_in_voxel[row] = heads[voxel]
        heads[voxel] = row
        row = entries.next_in_brick[row]
    hits, votes = 0, 0
    for voxel in range(BRICK_VOXELS):
        row = heads[voxel]
        if row < 0:
            continue
        heads[voxel] = -1
        winner, mean = elect(row, entries, scratch.class_sums, scratch.class_counts)
        scratch.voxels[hits] = voxel
        scratch.classes[hits] = winner
        flags[voxel] = 0
        if winner != NO_LABEL:
            scratch.weights[hits] = vote_weight(mean, num_classes)
            votes += 1
        hits += 1
    return hits, votes


@inlined
def _fuse(shard, brick, hits, scratch, rules, limit):
    """Merge the votes of a brick into its labels; whether a best class changed and whether they were stored."""
    votes = 0
    decaying = False
    for i in range(hits):
        label = scratch.classes[i]
        if label != NO_LABEL:
            scratch.voxels[votes] = scratch.voxels[i]
            scratch.classes[votes] = label
            scratch.weights[votes] = scratch.weights[i]
            decaying |= rules.decays[label] != 0
            votes += 1
    if decaying and shard.decaying[brick] == 0:
        shard.decaying[brick] = 1
        shard.decay_list[shard.counters[DECAYING]] = brick
        shard.counters[DECAYING] += 1
    arrays = (scratch.voxels, scratch.classes, scratch.weights)
    changed, stored, start = False, True, np.int64(0)
    while start < votes:
        block = scratch.voxels[start] >> 6
        stop = start + 1
        while stop < votes and scratch.voxels[stop] >> 6 == block:
            stop += 1
        one, fits = merge_votes(shard, brick, block, arrays, start, stop, scratch, rules, limit)
        changed |= one
        stored &= fits
        start = stop
    return changed, stored


@inlined
def find_or_add(shard, bx, by, bz, limit):
    """Number of a brick, made if missing; -1 when the memory bound forbids it."""
    key = region_key(bx, by, bz)
    region = find_region(shard, key)
    counters = shard.counters
    if region >= 0:
        brick = np.int64(shard.directories[region, directory_place(bx, by, bz)])
        if brick >= 0:
            return brick
    if counters[FREE_BRICK] < 0 and used_bytes(counters) > limit:
        return np.int64(-1)
    if region < 0:
        region = add_region(shard, key)
    return add_brick(shard, region, bx, by, bz)


@inlined
def _update_block(shard, brick, block, start, stop, all_flags, scratch, rules):
    """Apply misses and hits [start, stop) to one block; outcome as in update_brick."""
    flags = all_flags[block * BLOCK_VOXELS : (block + 1) * BLOCK_VOXELS]
    words = flags.view(np.uint64)
    any_miss = np.uint64(0)
    for i in range(8):
        any_miss |= words[i]
    if any_miss == 0 and start == stop:
        return 0
    if shard.rows[brick, block] < 0:
        if start == stop:
            outcome = _uniform_miss(shard, brick, block, flags, rules)
            if outcome >= 0:
                return outcome
        if shard.counters[FREE_ROW] < 0 and used_bytes(shard.counters) > rules.limit:
            return -1
    values = shard.values[expand_block(shard, brick, block)]
    outcome = 0
    if any_miss != 0:
        outcome = update_misses(values, flags, rules.miss, rules.low, rules.high)
    if start < stop:
        outcome = max(outcome, update_hits(values, scratch.voxels, start, stop, rules))
    if outcome > 0 and values[0] == values[BLOCK_VOXELS - 1]:
        collapse_block(shard, brick, block)
    return outcome


@inlined
def update_brick(shard, brick, hits, votes, flags, scratch, rules):
    """Apply one brick's misses, hits and votes.

    Returns:
        0 nothing changed, 1 a value changed, 2 a state (unknown, free, occupied, best class) changed, -1 the memory
        bound forbids some of it.
    """
    outcome, start = 0, np.int64(0)
    refused = False
    for block in range(BLOCKS):
        stop = start
        while stop < hits and scratch.voxels[stop] >> 6 == block:
            stop += 1
        one = _update_block(shard, brick, block, start, stop, flags, scratch, rules)
        refused |= one < 0
        outcome = max(outcome, one)
        start = stop
    if votes > 0:
        counters = shard.counters
        chunks = counters[CHUNKS] + max((rules.limit - used_bytes(counters)) // CHUNK_BYTES, 0)
        relabeled, stored = _fuse(shard, brick, hits, scratch, rules, chunks)
        refused |= not stored
        if relabeled:
            outcome = 2
    return -1 if refused else outcome


@inlined
def _take_flags(first, second, place, flags):
    """Move a brick's bytes out of both windows, which are zero then; whether any was set."""
    a, b, both = first.view(np.uint64), second.view(np.uint64), flags.view(np.uint64)
    start = np.uint64(64 * place)
    any_a, any_b = np.uint64(0), np.uint64(0)
    for i in range(64):
        in_a, in_b = a[start + np.uint64(i)], b[start + np.uint64(i)]
        any_a |= in_a
        any_b |= in_b
        both[i] = in_a | in_b
    if any_a != 0:
        for i in range(64):
            a[start + np.uint64(i)] = 0
    if any_b != 0:
        for i in range(64):
            b[start + np.uint64(i)] = 0
    return (any_a | any_b) != 0


@kernel
def update_shard(shard, number, cells, touched, sparse, window, entries, collectors, heads, scratch, rules, result):
    """Apply a window to one shard and leave the window's bytes of that shard zero.

    Args:
        shard: the shard.
        number: 0 or 1.
        cells: both threads' windows of uint8 with FREE where rays passed, in the order of keys.cell_place.
        touched: (bricks of the window,) uint8, 1 where rays passed a brick, all 0 on return; only of a sparse window.
        sparse: whether `touched` says which bricks to look at.
        window: (6,) int64 lowest brick and number of bricks per axis.
        entries: both threads' entries.
        collectors: of both threads; the one of this number forgets its ends of rays.
        heads: (bricks of the window,) int32, all -1 before and after.
        scratch: of this thread.
        rules: how to update.
        result: (4,) int64, added to: voxels hit, bricks touched, bricks changed, bricks refused for memory.
    """
    chain_entries(entries, collectors, number, heads)
    forget_ends(collectors[number], window)
    bits, flags = window_bits(window), scratch.flags
    for bx in range(window[3]):
        for by in range(window[4]):
            if brick_shard(bx + window[0], by + window[1]) != number:
                continue
            for bz in range(window[5]):
                place = brick_place(bx, by, bz, bits)
                head = heads[place]
                if sparse:
                    if touched[place] == 0 and head < 0:
                        continue
                    touched[place] = 0
                if not _take_flags(cells[0], cells[1], place, flags) and head < 0:
                    continue
                hits, votes = 0, 0
                if head >= 0:
                    heads[place] = -1
                    hits, votes = elect_brick(head, entries, flags, scratch, rules.num_classes)
                brick = find_or_add(shard, bx + window[0], by + window[1], bz + window[2], rules.limit)
                outcome = -1
                if brick >= 0:
                    outcome = update_brick(shard, brick, hits, votes, flags, scratch, rules)
                result[0] += hits
                result[1] += 1
                result[2] += outcome > 0
                result[3] += outcome < 0
                if brick >= 0 and outcome != 0 and outcome != 1:
                    log_change(shard, shard.keys[brick])
