# SPDX-License-Identifier: Apache-2.0
"""The transform tree: look-ups by hand, its limits in time, loops, and waiting."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import InputError, TransformError
from perception.geometry import Transform
from perception.tf_buffer import TransformBuffer, TransformLoopError

MS = 1_000_000
QUARTER = (0, 0, float(np.sqrt(0.5)), float(np.sqrt(0.5)))


def move(x: float, y: float = 0, quaternion=(0, 0, 0, 1)) -> Transform:
    return Transform.from_translation_quaternion((x, y, 0), quaternion)


def test_lookup_composes_the_chain_and_interpolates_each_link():
    buffer = TransformBuffer()
    buffer.insert("odom", "base", 0, move(0))
    buffer.insert("odom", "base", 100 * MS, move(1))
    buffer.insert("map", "odom", 0, move(10, 0, QUARTER), static=True)
    buffer.insert("base", "camera", 0, move(0, 2), static=True)
    # In odom the camera is at (0.25, 2); the quarter turn makes that (−2, 0.25).
    assert np.allclose(buffer.lookup("map", "camera", 25 * MS).translation, [8, 0.25, 0])


def test_lookup_goes_both_ways_and_across_branches():
    buffer = TransformBuffer()
    buffer.insert("base", "left", 0, move(0, 1), static=True)
    buffer.insert("base", "right", 0, move(0, -1), static=True)
    assert buffer.lookup("left", "right", 5).translation.tolist() == [0, -2, 0]
    assert buffer.lookup("left", "base", 5).translation.tolist() == [0, -1, 0]
    assert np.array_equal(buffer.lookup("left", "left", 5).matrix, np.eye(4))


def test_leading_slashes_are_the_same_frame():
    buffer = TransformBuffer()
    buffer.insert("/map", "/base", 0, move(3), static=True)
    assert buffer.lookup("map", "/base", 0).translation[0] == 3
    assert buffer.frames() == {"map", "base"}
    assert buffer.root_of("base") == "map" and buffer.root_of("nobody") == "nobody"


@pytest.mark.parametrize(
    ("stamp", "reason"), [(-1, "extrapolation_past"), (101 * MS, "extrapolation_future"), (100 * MS, None), (0, None)]
)
def test_lookup_never_extrapolates(stamp, reason):
    buffer = TransformBuffer()
    buffer.insert("map", "base", 0, move(0))
    buffer.insert("map", "base", 100 * MS, move(1))
    if reason is None:
        assert buffer.lookup("map", "base", stamp).translation[0] == (1 if stamp else 0)
        return
    with pytest.raises(TransformError) as caught:
        buffer.lookup("map", "base", stamp)
    assert caught.value.reason == reason


def test_unconnected_frames_are_no_tf_and_the_known_ones_are_named():
    buffer = TransformBuffer()
    buffer.insert("map", "base", 0, move(0), static=True)
    with pytest.raises(TransformError, match="base, map") as caught:
        buffer.lookup("map", "camera", 0)
    assert caught.value.reason == "no_tf"


def test_stamps_may_come_in_any_order_and_the_later_of_two_equal_ones_counts():
    buffer = TransformBuffer()
    for stamp, x in ((200, 2), (0, 0), (100, 7), (100, 1)):
        buffer.insert("map", "base", stamp * MS, move(x))
    assert buffer.lookup("map", "base", 50 * MS).translation[0] == 0.5
    assert buffer.lookup("map", "base", 150 * MS).translation[0] == 1.5


def test_transforms_older_than_the_cache_are_forgotten_unless_all_are_kept():
    for cache, reason in ((100 * MS, "extrapolation_past"), (None, None)):
        buffer = TransformBuffer(cache)
        for stamp in range(0, 500 * MS, 50 * MS):
            buffer.insert("map", "base", stamp, move(stamp / MS))
        assert buffer.lookup("map", "base", 375 * MS).translation[0] == 375
        if reason is None:
            assert buffer.lookup("map", "base", 10 * MS).translation[0] == 10
            continue
        with pytest.raises(TransformError) as caught:
            buffer.lookup("map", "base", 10 * MS)
        assert caught.value.reason == reason


def test_loops_and_wrong_names_are_refused_and_nothing_known_is_lost():
    buffer = TransformBuffer()
    buffer.insert("map", "odom", 0, move(1), static=True)
    buffer.insert("odom", "base", 0, move(1), static=True)
    with pytest.raises(TransformLoopError, match="loop"):
        buffer.insert("base", "map", 0, move(9))
    for parent, child in (("map", "map"), ("", "base"), ("map", ""), ("/map", "map")):
        with pytest.raises(InputError, match="two different frame names"):
            buffer.insert(parent, child, 0, move(9))
    assert buffer.lookup("map", "base", 0).translation[0] == 2


def test_a_frame_that_changes_its_parent_follows_the_new_one():
    buffer = TransformBuffer()
    buffer.insert("shelf", "box", 0, move(1), static=True)
    buffer.insert("map", "shelf", 0, move(10), static=True)
    buffer.insert("map", "robot", 0, move(20), static=True)
    buffer.insert("robot", "box", 0, move(2), static=True)
    assert buffer.lookup("map", "box", 0).translation[0] == 22


def test_clear_keeps_static_transforms_only():
    buffer = TransformBuffer()
    buffer.insert("map", "base", 0, move(0))
    buffer.insert("base", "camera", 0, move(1), static=True)
    buffer.clear()
    assert buffer.lookup("base", "camera", 9).translation[0] == 1
    with pytest.raises(TransformError):
        buffer.lookup("map", "base", 0)


def test_wait_returns_as_soon_as_the_transform_comes():
    buffer = TransformBuffer()
    buffer.insert("map", "base", 0, move(0))
    timer = threading.Timer(0.05, buffer.insert, ("map", "base", 100 * MS, move(1)))
    timer.start()
    begin = time.monotonic()
    assert buffer.wait("map", "base", 50 * MS, timeout_s=5.0).translation[0] == 0.5
    assert time.monotonic() - begin < 2.0
    timer.join()


def test_wait_gives_up_after_the_timeout_and_at_once_where_waiting_cannot_help():
    buffer = TransformBuffer()
    buffer.insert("map", "base", 100 * MS, move(0))
    begin = time.monotonic()
    with pytest.raises(TransformError) as caught:
        buffer.wait("map", "base", 200 * MS, timeout_s=0.1)
    assert caught.value.reason == "extrapolation_future" and time.monotonic() - begin >= 0.1
    begin = time.monotonic()
    with pytest.raises(TransformError) as caught:
        buffer.wait("map", "base", 0, timeout_s=30.0)
    assert caught.value.reason == "extrapolation_past" and time.monotonic() - begin < 5.0


def test_threads_may_insert_while_others_look_up():
    buffer = TransformBuffer(50 * MS)
    buffer.insert("map", "base", 0, move(0))
    errors = []

    def insert() -> None:
        for i in range(1, 2000):
            buffer.insert("map", "base", i * MS, move(i))

    def look_up() -> None:
        for i in range(500):
            try:
                assert buffer.lookup("map", "base", i * MS).translation[0] == pytest.approx(i)
            except TransformError as error:
                errors.extend([] if error.reason.startswith("extrapolation") else [error])

    threads = [threading.Thread(target=target) for target in (insert, look_up, look_up)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20, unique=True), st.data())
def test_a_straight_path_is_met_at_every_stamp(stamps, data):
    buffer = TransformBuffer(None)
    for stamp in stamps:
        buffer.insert("map", "base", stamp, move(2 * stamp))
    asked = data.draw(st.integers(min(stamps), max(stamps)))
    assert buffer.lookup("map", "base", asked).translation[0] == pytest.approx(2 * asked)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_any_order_of_inserts_ends_in_a_tree(pairs):
    buffer = TransformBuffer()
    for parent, child in pairs:
        try:
            buffer.insert(str(parent), str(child), 0, move(1), static=True)
        except InputError:
            continue
    for frame in buffer.frames():
        assert buffer.root_of(frame) in buffer.frames()  # Ends: there is no loop.
