# SPDX-License-Identifier: Apache-2.0
"""Whole grids and cumulative updates: what a subscriber in the manner of Nav2's StaticLayer ends up with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")


from perception.costmap.sampling import difference
from perception.ros import costmap_output
from perception.ros.costmap_output import CostmapOutput, united
from perception.types import CostGrid

SIZE = 12


class Topic:
    def __init__(self):
        self.messages = []

    def publish(self, message):
        self.messages.append(message)

    def get_subscription_count(self):
        return 1


class Board:
    """Stands in for the node: keeps what is published."""

    def __init__(self):
        self.topics = {}

    def advertise(self, message_type, topic, qos, matched=None):
        self.topics[topic] = Topic()
        return self.topics[topic]


class Subscriber:
    """Takes whole grids and patches them, as a StaticLayer with subscribe_to_updates does."""

    def __init__(self):
        self.data = None

    def grid(self, message):
        self.data = np.array(message.data, np.int8).reshape(message.info.height, message.info.width)

    def update(self, message):
        if self.data is None:  # StaticLayer ignores updates before its first map.
            return
        part = np.array(message.data, np.int8).reshape(message.height, message.width)
        self.data[message.y : message.y + message.height, message.x : message.x + message.width] = part


def grid_of(data, origin=(0.0, 0.0)):
    return CostGrid(np.array(data, np.int8), 0.1, origin)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(costmap_output, "monotonic", lambda: now[0])
    return now


def make():
    board = Board()
    return CostmapOutput(board, True, lambda: None), board.topics  # type: ignore[arg-type]


def test_first_grid_is_whole_and_a_small_change_is_a_small_update(clock):
    output, topics = make()
    data = np.full((SIZE, SIZE), -1)
    output.publish(grid_of(data), "map", 1, 5.0)
    data[3:5, 2:7] = 100
    output.publish(grid_of(data), "map", 2, 5.0)
    assert len(topics["semantic_costmap"].messages) == 1
    (update,) = topics["semantic_costmap_updates"].messages
    assert (update.x, update.y, update.width, update.height) == (2, 3, 5, 2)
    assert list(update.data) == [100] * 10


def test_unchanged_grid_is_not_published_again(clock):
    output, topics = make()
    for _ in range(3):
        output.publish(grid_of(np.zeros((SIZE, SIZE))), "map", 1, 5.0)
        clock[0] += 10
    assert len(topics["semantic_costmap"].messages) == 1
    assert topics["semantic_costmap_updates"].messages == []


def test_whole_grid_comes_again_after_its_period_when_something_changed(clock):
    output, topics = make()
    data = np.zeros((SIZE, SIZE))
    output.publish(grid_of(data), "map", 1, 5.0)
    data[0, 0] = 50
    output.publish(grid_of(data), "map", 2, 5.0)
    clock[0] = 6.0
    output.publish(grid_of(data), "map", 3, 5.0)
    assert len(topics["semantic_costmap"].messages) == 2


def test_other_geometry_is_a_whole_grid(clock):
    output, topics = make()
    output.publish(grid_of(np.zeros((SIZE, SIZE))), "map", 1, 5.0)
    output.publish(grid_of(np.zeros((SIZE, SIZE)), (1.0, 0.0)), "map", 2, 5.0)
    assert len(topics["semantic_costmap"].messages) == 2


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1), st.sampled_from([-1, 0, 30, 100]), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    joins=st.integers(0, 20),
)
def test_late_and_lossy_subscribers_are_right_after_the_next_update(steps, joins):
    board = Board()
    output = CostmapOutput(board, True, lambda: None)  # type: ignore[arg-type]
    grids, updates = (board.topics[name].messages for name in ("semantic_costmap", "semantic_costmap_updates"))
    data = np.zeros((SIZE, SIZE))
    output.publish(grid_of(data), "map", 0, 1e9)
    lossy, late, joined = Subscriber(), Subscriber(), False
    lossy.grid(grids[-1])
    for number, (x, y, value, arrives) in enumerate(steps):
        data[y, x] = value
        before = len(updates)
        output.publish(grid_of(data), "map", number, 1e9)
        if number >= joins and not joined:
            joined = True
            late.grid(grids[-1])  # Transient local: the last whole grid, however old.
        if len(updates) == before:
            continue
        if arrives:
            lossy.update(updates[-1])
            np.testing.assert_array_equal(lossy.data, data)
        if joined:
            late.update(updates[-1])
            np.testing.assert_array_equal(late.data, data)


def test_rectangles_join_and_compare():
    assert united(None, (1, 2, 3, 4)) == (1, 2, 3, 4)
    assert united((0, 0, 1, 1), (5, 7, 2, 3)) == (0, 0, 7, 10)
    assert difference(np.zeros((4, 4)), np.zeros((4, 4))) is None
