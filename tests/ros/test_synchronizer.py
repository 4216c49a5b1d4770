# SPDX-License-Identifier: Apache-2.0
"""Messages are joined by stamp: nearest within the tolerance, the newest set wins, what is left over is counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perception.ros.synchronizer import Synchronizer

MS = 1_000_000


def make(streams=("depth", "image"), tolerance_ms=20, queue_size=10):
    dropped: list[str] = []
    return Synchronizer(streams, tolerance_ms * MS, queue_size, dropped.append), dropped


def feed(sync, *messages):
    """Adds (stream, milliseconds) pairs; returns the stamps of the sets given out."""
    given_out = [sync.add(stream, ms * MS, ms) for stream, ms in messages]
    return [match for match in given_out if match is not None]


def test_same_stamp_is_given_out_at_once_whatever_comes_first():
    sync, dropped = make()
    assert feed(sync, ("image", 0), ("depth", 0)) == [{"depth": 0, "image": 0}]
    assert feed(sync, ("depth", 33), ("image", 33)) == [{"depth": 33, "image": 33}]
    assert dropped == []


def test_stamps_within_the_tolerance_match_once_no_nearer_one_can_come():
    sync, _ = make()
    assert feed(sync, ("image", 0), ("depth", 12)) == []
    # 12 ms is nearer to 16 ms than to 0 ms.
    assert feed(sync, ("image", 16)) == [{"depth": 12, "image": 16}]


def test_the_message_of_the_last_period_is_not_taken_for_this_one():
    sync, _ = make()
    # At 60 Hz the image of the last period lies within the tolerance, too.
    assert feed(sync, ("image", 0), ("depth", 0)) == [{"depth": 0, "image": 0}]
    assert feed(sync, ("depth", 17)) == []
    assert feed(sync, ("image", 17)) == [{"depth": 17, "image": 17}]


def test_stamps_beyond_the_tolerance_never_match_and_count_once():
    sync, dropped = make()
    assert feed(sync, ("depth", 0), ("image", 50), ("depth", 100), ("image", 150), ("image", 200), ("depth", 200)) == [
        {"depth": 200, "image": 200}
    ]
    assert dropped == ["sync", "sync"]


def test_newest_complete_set_wins_and_older_leaders_are_dropped():
    sync, dropped = make(("labels", "depth"))
    assert feed(sync, ("depth", 0), ("depth", 33), ("depth", 66), ("labels", 33)) == [{"labels": 33, "depth": 33}]
    assert feed(sync, ("labels", 0)) == []
    assert dropped == ["too_old"]


def test_queue_is_bounded_and_each_leader_that_falls_out_counts():
    sync, dropped = make(queue_size=3)
    feed(sync, *(("depth", 100 * i) for i in range(8)))
    assert dropped == ["sync"] * 5
    feed(sync, *(("image", 100 * i + 50) for i in range(8)))
    assert len(dropped) == 5


def test_clear_accepts_older_stamps_again():
    sync, dropped = make()
    feed(sync, ("depth", 1000), ("image", 1000))
    sync.clear()
    assert feed(sync, ("depth", 0), ("image", 0)) == [{"depth": 0, "image": 0}]
    assert dropped == []


def test_one_stream_gives_out_every_message():
    sync, _ = make(("image",))
    assert feed(sync, ("image", 0), ("image", 33)) == [{"image": 0}, {"image": 33}]


@given(st.lists(st.tuples(st.sampled_from(["depth", "image", "labels"]), st.integers(0, 400)), min_size=1, max_size=60))
def test_every_set_is_within_tolerance_and_newer_than_the_last_and_every_leader_is_accounted_for(messages):
    sync, dropped = make(("depth", "image", "labels"), tolerance_ms=15, queue_size=5)
    sets = feed(sync, *messages)
    leaders = [match["depth"] for match in sets]
    assert leaders == sorted(set(leaders))
    for match in sets:
        assert all(abs(stamp - match["depth"]) <= 15 for stamp in match.values())
    waiting = len(sync._stamps["depth"])
    repeated = sum(1 for stream, _ in messages if stream == "depth") - len(dropped) - len(sets) - waiting
    # A stamp that is still waiting and comes again replaces its message.
    assert 0 <= repeated <= len(messages)
    assert waiting <= 5
