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

from perception.mapping.entries import END, load_entries, store_entries
from perception.numba_cache import inlined, inner

MAX_KEPT = 8
NO_LABEL = 65535
MAX_CLASSES = 65535
CONFIDENCE_MAX = 0.99
UNIT = 1 << 30
"""Full confidence of one point. Confidences are summed as whole numbers: the order of points does not matter."""


@inlined
def vote_weight(confidence, num_classes):
    """What a winner with this mean confidence adds to its score."""
    q = min(max(confidence, 1.0 / num_classes), CONFIDENCE_MAX)
    # One class alone is always right; any positive weight says so.
    others = max(num_classes - 1, 1)
    return np.float32(np.log(q * others / (1.0 - q)))


@inlined
def elect(row, entries, class_sums, class_counts):
    """Winner of one voxel and its mean confidence.

    Args:
        row: the voxel's first entry.
        entries: see scan.Entries.
        class_sums: (C,) int64 zeros, zeros again on return.
        class_counts: (C,) int64 likewise.

    Returns:
        class (NO_LABEL when no point had one), mean confidence.
    """
    codes, counts, sums, following = entries.codes, entries.counts, entries.sums, entries.next_in_voxel
    r = row
    if following[r] < 0:
        # By far the most frequent case.
        return codes[r] & 0xFFFF, sums[r] / (np.float64(counts[r]) * UNIT)
    while r >= 0:
        label = codes[r] & 0xFFFF
        if label != NO_LABEL:
            class_sums[label] += sums[r]
            class_counts[label] += counts[r]
        r = following[r]
    winner = np.int64(NO_LABEL)
    r = row
    while r >= 0:
        label = codes[r] & 0xFFFF
        if label != NO_LABEL and (
            winner == NO_LABEL
            or class_sums[label] > class_sums[winner]
            or (class_sums[label] == class_sums[winner] and label < winner)
        ):
            winner = label
        r = following[r]
    mean = class_sums[winner] / (np.float64(class_counts[winner]) * UNIT) if winner != NO_LABEL else 0.0
    r = row
    while r >= 0:
        label = codes[r] & 0xFFFF
        if label != NO_LABEL:
            class_sums[label] = 0
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


@inner
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
def merge_votes(shard, brick, block, votes, start, stop, scratch, rules, limit):
    """Add the votes [start, stop) of one scan to a block's labels.

    Args:
        shard: shard of the brick.
        brick: its number.
        block: of the brick.
        votes: (voxels ascending, classes, weights) of the brick.
        start: first vote for this block.
        stop: behind the last one.
        scratch: old_tags, old_scores, tags and scores, (MAX_ENTRIES,) each.
        rules: kept and score_max.
        limit: most chunks of label entries.

    Returns:
        whether the best class of some voxel changed, whether the labels could be stored.
    """
    voxels, classes, weights = votes
    tags, scores = scratch.tags, scratch.scores
    old_count = load_entries(shard, brick, block, scratch.old_tags, scratch.old_scores)
    old, count = 0, 0
    changed = False
    for vote in range(start, stop):
        voxel = np.uint32(voxels[vote])
        while old < old_count and (scratch.old_tags[old] >> 16) < voxel:
            tags[count], scores[count] = scratch.old_tags[old], scratch.old_scores[old]
            old += 1
            count += 1
        first = count
        while old < old_count and (scratch.old_tags[old] >> 16) == voxel:
            tags[count], scores[count] = scratch.old_tags[old], scratch.old_scores[old]
            old += 1
            count += 1
        best = tags[first] if count > first else END
        tag = np.uint32((voxel << 16) | np.uint32(classes[vote]))
        count = add_vote(tags, scores, first, count, tag, weights[vote], rules.kept, rules.score_max)
        changed |= tags[first] != best
    while old < old_count:
        tags[count], scores[count] = scratch.old_tags[old], scratch.old_scores[old]
        old += 1
        count += 1
    return changed, store_entries(shard, brick, block, tags, scores, count, limit)
