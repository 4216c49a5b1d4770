# SPDX-License-Identifier: Apache-2.0
"""Label fusion: one vote per voxel and scan, Bayes with a symmetric error model, the best few classes kept.

The points of a voxel vote with their confidences; the class k with the largest sum wins (tie: lowest id). With q the
mean confidence of the winner's points, clamped to [1/C, 0.99], the score of k grows by log(q (C - 1) / (1 - q)); all
probabilities are the softmax of the scores, where a class never seen has score 0. A score that would pass its bound
takes the excess off all classes of the voxel (none falls below 0): the softmax among them stays the same, and a class
that is right from now on overtakes after a bounded number of scans. A voxel keeps its best K classes; one more
replaces the weakest when its vote exceeds it.
"""

from __future__ import annotations

import numpy as np

from perception.mapping.bricks import LABEL_UNIT, LABEL_UNITS
from perception.numba_cache import inlined, kernel

MAX_KEPT = 8
NO_LABEL = 65535
MAX_CLASSES = 65535
CONFIDENCE_MAX = 0.99
MAX_ENTRIES = 512 * MAX_KEPT


@inlined
def vote_weight(confidence, num_classes):
    """What a winner with this mean confidence adds to its score."""
    q = min(max(confidence, 1.0 / num_classes), CONFIDENCE_MAX)
    # One class alone is always right; any positive weight says so.
    others = max(num_classes - 1, 1)
    return np.float32(np.log(q * others / (1.0 - q)))


@inlined
def elect(run, following, tags, counts, sums, class_sums, class_counts):
    """Winner of one voxel and its mean confidence.

    Args:
        run: first of the voxel's runs of points.
        following: (R,) int32 next run of the same voxel, -1 at the end.
        tags: (R,) uint32, class in the low 16 bits, NO_LABEL for points without one.
        counts: (R,) int32 points of each run.
        sums: (R,) float64 summed confidence of each run.
        class_sums: (C,) float64 zeros, zeros again on return.
        class_counts: (C,) int64 likewise.

    Returns:
        class (NO_LABEL when no point had one), mean confidence.
    """
    r = run
    if following[r] < 0:
        # By far the most frequent case.
        label = np.int64(tags[r] & 0xFFFF)
        return label, (sums[r] / counts[r] if label != NO_LABEL else 0.0)
    while r >= 0:
        label = tags[r] & 0xFFFF
        if label != NO_LABEL:
            class_sums[label] += sums[r]
            class_counts[label] += counts[r]
        r = following[r]
    winner = np.int64(NO_LABEL)
    r = run
    while r >= 0:
        label = np.int64(tags[r] & 0xFFFF)
        if label != NO_LABEL and (
            winner == NO_LABEL
            or class_sums[label] > class_sums[winner]
            or (class_sums[label] == class_sums[winner] and label < winner)
        ):
            winner = label
        r = following[r]
    mean = class_sums[winner] / class_counts[winner] if winner != NO_LABEL else 0.0
    r = run
    while r >= 0:
        label = tags[r] & 0xFFFF
        if label != NO_LABEL:
            class_sums[label] = 0.0
            class_counts[label] = 0
        r = following[r]
    return winner, mean


@inlined
def _sort_best_first(tags, scores, start, end):
    """Order the few entries of one voxel by score, then by class."""
    for i in range(start + 1, end):
        tag, score = tags[i], scores[i]
        j = i - 1
        while j >= start and (scores[j] < score or (scores[j] == score and tags[j] > tag)):
            tags[j + 1], scores[j + 1] = tags[j], scores[j]
            j -= 1
        tags[j + 1], scores[j + 1] = tag, score


@kernel
def add_vote(tags, scores, start, end, tag, weight, kept, score_max):
    """Add one vote to the entries [start, end) of a voxel, with room for one more; returns the new end."""
    place = start
    while place < end and tags[place] != tag:
        place += 1
    if place == end:
        if end - start < kept:
            tags[end], scores[end] = tag, np.float32(0.0)
            end += 1
        else:
            place = end - 1
            if weight <= scores[place]:
                return end
            tags[place], scores[place] = tag, np.float32(0.0)
    score = scores[place] + weight
    excess = score - score_max
    if excess > 0:
        for i in range(start, end):
            scores[i] = max(scores[i] - excess, np.float32(0.0))
        score = score_max
    scores[place] = score
    _sort_best_first(tags, scores, start, end)
    return end


@inlined
def first_entry(tags, start, count, voxel):
    """Place of the first label entry of a voxel in its brick's entries, or where it would stand."""
    low, high = start, start + count
    wanted = np.uint32(voxel << 16)
    while low < high:
        middle = (low + high) >> 1
        if tags[middle] < wanted and (tags[middle] >> 16) < voxel:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _take_block(shard, units, limit):
    """Start of a free label block of so many units, or -1 when the memory bound is reached."""
    start = shard.label_free[units]
    if start >= 0:
        shard.label_free[units] = np.int64(shard.tags[start]) | (np.int64(shard.tags[start + 1]) << 32)
        if shard.label_free[units] == 0xFFFFFFFFFFFFFFF:
            shard.label_free[units] = -1
        return start
    if shard.counters[LABEL_UNITS] + units > limit:
        return np.int64(-1)
    start = shard.counters[LABEL_UNITS] * LABEL_UNIT
    shard.counters[LABEL_UNITS] += units
    return start


@inlined
def free_block(shard, brick):
    """Return the label block of a brick to the free list of its size."""
    units = shard.label_units[brick]
    if units > 0:
        start = shard.label_starts[brick]
        following = shard.label_free[units]
        if following < 0:
            following = np.int64(0xFFFFFFFFFFFFFFF)
        # The list of free blocks runs through their first two tags.
        shard.tags[start] = np.uint32(following & 0xFFFFFFFF)
        shard.tags[start + 1] = np.uint32(following >> 32)
        shard.label_free[units] = start
    shard.label_units[brick] = 0
    shard.label_counts[brick] = 0


@inlined
def store_labels(shard, brick, tags, scores, count, limit):
    """Replace the label entries of a brick; False when the memory bound forbids it."""
    units = (count + LABEL_UNIT - 1) // LABEL_UNIT
    # A block is kept while it fits and is not four times too large.
    if units > shard.label_units[brick] or units * 4 < shard.label_units[brick]:
        if units > 0:
            units += units >> 3
            start = _take_block(shard, units, limit)
            if start < 0:
                return False
            free_block(shard, brick)
            shard.label_starts[brick] = start
            shard.label_units[brick] = units
        else:
            free_block(shard, brick)
    start = shard.label_starts[brick]
    for i in range(count):
        shard.tags[start + i] = tags[i]
        shard.scores[start + i] = scores[i]
    shard.label_counts[brick] = count
    return True


@inlined
def merge_votes(shard, brick, voxels, classes, weights, votes, tags, scores, kept, score_max, limit):
    """Add the votes of one scan to a brick's labels.

    Args:
        shard: shard of the brick.
        brick: its number.
        voxels: (512,) int64 voxels that got a vote, ascending.
        classes: (512,) int64 what each was voted for.
        weights: (512,) float32 of each vote.
        votes: how many.
        tags: (MAX_ENTRIES + 8,) uint32 scratch.
        scores: (MAX_ENTRIES + 8,) float32 scratch.
        kept: classes per voxel.
        score_max: float32 bound of a score.
        limit: most units of label memory.

    Returns:
        whether the best class of some voxel changed, whether the labels could be stored.
    """
    old = shard.label_starts[brick]
    old_end = old + shard.label_counts[brick]
    count = 0
    changed = False
    for vote in range(votes):
        voxel = np.uint32(voxels[vote])
        while old < old_end and (shard.tags[old] >> 16) < voxel:
            tags[count], scores[count] = shard.tags[old], shard.scores[old]
            old += 1
            count += 1
        start = count
        while old < old_end and (shard.tags[old] >> 16) == voxel:
            tags[count], scores[count] = shard.tags[old], shard.scores[old]
            old += 1
            count += 1
        best = tags[start] if count > start else np.uint32(0xFFFFFFFF)
        tag = np.uint32((voxel << 16) | np.uint32(classes[vote]))
        count = add_vote(tags, scores, start, count, tag, weights[vote], kept, score_max)
        changed |= tags[start] != best
    while old < old_end:
        tags[count], scores[count] = shard.tags[old], shard.scores[old]
        old += 1
        count += 1
    return changed, store_labels(shard, brick, tags, scores, count, limit)
