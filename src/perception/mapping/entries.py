# SPDX-License-Identifier: Apache-2.0
"""Where label entries are kept: each block of 4³ voxels has a chain of chunks of eight entries.

Chunks of one size never fragment, however often a block's labels grow. The entries of a block ascend by voxel, the
best class of a voxel first; the last chunk is filled up with END.
"""

from __future__ import annotations

import numpy as np

from perception.mapping.bricks import CHUNKS, FREE_CHUNK, LIVE_CHUNKS
from perception.numba_cache import inlined, inner

CHUNK = 8
END = np.uint32(0xFFFFFFFF)
"""Stands behind the last entry; larger than any: a tag is voxel << 16 | class."""
MAX_ENTRIES = 64 * 8 + 1
"""Entries of a block of voxels that all have the most classes, and room for one more."""


@inlined
def load_entries(shard, brick, block, tags, scores):
    """Copy the entries of a block to tags (MAX_ENTRIES,) uint32 and scores (MAX_ENTRIES,) float32; how many."""
    count = 0
    chunk = np.int64(shard.label_heads[brick, block])
    while chunk >= 0:
        for i in range(CHUNK):
            tag = shard.tags[chunk, i]
            if tag == END:
                break
            tags[count], scores[count] = tag, shard.scores[chunk, i]
            count += 1
        chunk = np.int64(shard.chunk_next[chunk])
    return count


@inner
def _take_chunk(counters, chunk_next, limit):
    """Number of an unused chunk, or -1 when there would be more than `limit`."""
    chunk = counters[FREE_CHUNK]
    if chunk >= 0:
        counters[FREE_CHUNK] = chunk_next[chunk]
    elif counters[CHUNKS] < limit:
        chunk = counters[CHUNKS]
        counters[CHUNKS] += 1
    else:
        return np.int64(-1)
    counters[LIVE_CHUNKS] += 1
    return chunk


@inner
def _free_chain(counters, chunk_next, chunk):
    """Put a chunk and all behind it into the free list."""
    while chunk >= 0:
        following = np.int64(chunk_next[chunk])
        chunk_next[chunk] = counters[FREE_CHUNK]
        counters[FREE_CHUNK] = chunk
        counters[LIVE_CHUNKS] -= 1
        chunk = following


@inlined
def store_entries(shard, brick, block, tags, scores, count, limit):
    """Replace the entries of a block.

    Returns:
        False when that takes more than `limit` chunks in all; then the last entries are missing.
    """
    counters, chunk_next = shard.counters, shard.chunk_next
    done, last = 0, np.int64(-1)
    chunk = np.int64(shard.label_heads[brick, block])
    while done < count:
        if chunk < 0:
            chunk = _take_chunk(counters, chunk_next, limit)
            if chunk < 0:
                return False
            chunk_next[chunk] = -1
            if last < 0:
                shard.label_heads[brick, block] = chunk
            else:
                chunk_next[last] = chunk
        for i in range(CHUNK):
            used = done + i < count
            shard.tags[chunk, i] = tags[done + i] if used else END
            shard.scores[chunk, i] = scores[done + i] if used else np.float32(0.0)
        done += CHUNK
        last, chunk = chunk, np.int64(chunk_next[chunk])
    if last < 0:
        shard.label_heads[brick, block] = -1
    else:
        chunk_next[last] = -1
    _free_chain(counters, chunk_next, chunk)
    return True


@inner
def free_entries(shard, brick):
    """Drop all labels of a brick."""
    for block in range(shard.label_heads.shape[1]):
        _free_chain(shard.counters, shard.chunk_next, np.int64(shard.label_heads[brick, block]))
        shard.label_heads[brick, block] = -1


@inlined
def read_voxel(shard, brick, voxel, ids, scores):
    """Copy the classes of a voxel, best first, to ids (K,) int32 and scores (K,) float32, as far as there is room."""
    found = 0
    chunk = np.int64(shard.label_heads[brick, voxel >> 6])
    while chunk >= 0:
        # A whole chunk of lower voxels is passed by its last tag.
        if np.int64(shard.tags[chunk, CHUNK - 1] >> 16) >= voxel:
            for i in range(CHUNK):
                tag = np.int64(shard.tags[chunk, i])
                if tag >> 16 > voxel or found == len(ids):
                    return
                if tag >> 16 == voxel:
                    ids[found] = np.int32(tag & 0xFFFF)
                    scores[found] = shard.scores[chunk, i]
                    found += 1
        chunk = np.int64(shard.chunk_next[chunk])


@inlined
def has_labels(shard, brick):
    """Whether any voxel of a brick has votes."""
    found = False
    for block in range(shard.label_heads.shape[1]):
        found |= shard.label_heads[brick, block] >= 0
    return found
