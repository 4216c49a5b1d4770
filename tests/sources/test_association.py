# SPDX-License-Identifier: Apache-2.0
"""Pairing by stamp: the rule, its oracle, and the same pairs when images stream by."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.sources.association import associate
from perception.sources.bag_sync import Synchronizer

stamps = st.lists(st.integers(0, 300), max_size=25, unique=True).map(sorted)


def pairs_of(color, depth, tolerance):
    return associate(np.array(color, np.int64), np.array(depth, np.int64), tolerance)


def oracle(color, depth, tolerance):
    """Closest pair first, written as the rule is said."""
    candidates = sorted(
        (abs(c - d), i, j) for i, c in enumerate(color) for j, d in enumerate(depth) if abs(c - d) <= tolerance
    )
    pairs: list[tuple[int, int]] = []
    for _, i, j in candidates:
        if all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return sorted(pairs)


def test_the_closest_pair_wins_and_every_image_is_used_once():
    assert pairs_of([0, 10], [8], 20) == [(1, 0)]
    assert pairs_of([0, 10], [4, 6], 20) == [(0, 0), (1, 1)]
    assert pairs_of([5], [0, 10], 20) == [(0, 0)]


def test_the_tolerance_itself_is_near_enough():
    assert pairs_of([0], [20], 20) == [(0, 0)]
    assert pairs_of([0], [21], 20) == []
    assert pairs_of([], [1], 20) == pairs_of([1], [], 20) == []


@settings(max_examples=60, deadline=None)
@given(stamps, stamps, st.integers(0, 40))
def test_association_agrees_with_the_rule(color, depth, tolerance):
    assert pairs_of(color, depth, tolerance) == oracle(color, depth, tolerance)


def stream(color, depth, tolerance, lookahead=10_000, delay=0):
    """Pairs found by the synchronizer; depth images arrive ``delay`` later."""
    synchronizer = Synchronizer(tolerance, lookahead)
    events = sorted([(c, 0, "color", c) for c in color] + [(d + delay, 1, "depth", d) for d in depth])
    found = []
    for log_ns, _, kind, stamp in events:
        assert synchronizer.add(kind, stamp, log_ns, stamp)
        found += synchronizer.take(log_ns)
    found += synchronizer.take(None)
    assert [bundle.color for bundle in found] == color
    return [(bundle.color, bundle.depth) for bundle in found if bundle.depth is not None]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=25),
    st.lists(st.booleans(), min_size=25, max_size=25),
    st.integers(0, 200),
)
def test_streams_of_steady_rate_pair_as_if_all_were_known(jitter, kept, delay):
    # Images every 100, depth off by less than a tenth: no two pairs compete, in whatever order they arrive.
    color = [1000 + 100 * i for i in range(len(jitter))]
    depth = [c + j for c, j, keep in zip(color, jitter, kept, strict=False) if keep]
    expected = [(color[i], depth[j]) for i, j in pairs_of(color, depth, 10)]
    assert stream(color, depth, 10, delay=delay) == expected


@settings(max_examples=60, deadline=None)
@given(stamps, stamps, st.integers(0, 40))
def test_streamed_pairs_are_near_enough_and_one_to_one(color, depth, tolerance):
    found = stream(color, depth, tolerance)
    assert all(abs(c - d) <= tolerance for c, d in found)
    assert len({d for _, d in found}) == len(found)


def test_images_wait_no_longer_than_the_lookahead():
    synchronizer = Synchronizer(10, 100)
    synchronizer.add("color", 0, 0, "c")
    assert synchronizer.take(100) == []
    assert [bundle.color for bundle in synchronizer.take(101)] == ["c"]


def test_depth_without_color_is_not_kept_forever():
    synchronizer = Synchronizer(10, 100)
    for stamp in range(0, 10_000, 10):
        synchronizer.add("depth", stamp, stamp, "d")
        synchronizer.take(stamp)
    assert len(synchronizer._depth) <= 12


def test_labels_belong_to_the_image_of_exactly_their_stamp():
    synchronizer = Synchronizer(10, 1000, with_labels=True)
    for i in range(4):
        synchronizer.add("color", 100 * i, 100 * i, i)
        synchronizer.add("depth", 100 * i + 1, 100 * i, i)
        if i != 1:
            synchronizer.add("labels", 100 * i, 100 * i, f"label {i}")
    assert [bundle.labels for bundle in synchronizer.take(None)] == ["label 0", None, "label 2", "label 3"]
