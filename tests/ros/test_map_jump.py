# SPDX-License-Identifier: Apache-2.0
"""Jumps of the localization against odometry, and of odometry itself, with poses made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perception.geometry import Transform
from perception.ros.map_config import JumpConfig
from perception.ros.map_jump import JumpWatch, OdometryWatch
from perception.ros.statistics import Statistics
from perception.tf_buffer import TransformBuffer

SECOND_NS = 10**9
ROBOT = (20.0, 0.0, 0.0)


def at(x: float, y: float = 0.0, yaw: float = 0.0) -> Transform:
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    matrix[:2, 3] = x, y
    return Transform(matrix)


def looked_at(*map_T_odom: Transform, config: JumpConfig | None = None) -> tuple[list[str], int]:
    """What is said at each scan; the robot stands 20 m ahead of where odometry began."""
    buffer = TransformBuffer()
    watch = JumpWatch(buffer)
    said = []
    for index, transform in enumerate(map_T_odom, start=1):
        buffer.insert("map", "odom", index * SECOND_NS, transform)
        buffer.insert("odom", "base", index * SECOND_NS, at(ROBOT[0]))
        said.append(watch.check(config or JumpConfig(), "map", "base", index * SECOND_NS))
    return said, watch.jumps


def test_small_corrections_are_no_jump():
    assert looked_at(at(0.0), at(0.3), at(0.6)) == (["", "", ""], 0)


def test_translation_is_a_jump():
    said, jumps = looked_at(at(0.0), at(0.0, 2.0), at(0.0, 2.0))
    assert jumps == 1 and "2.00 m" in said[1] and said[0] == said[2] == ""


def test_a_small_turn_far_from_the_origin_moves_the_robot_and_is_a_jump():
    # 20 m · 0.1 rad = 2 m, while the origin of odom stays where it is.
    said, jumps = looked_at(at(0.0), at(0.0, 0.0, 0.1))
    assert jumps == 1 and "2.00 m and 6 degrees" in said[1]


def test_a_turn_around_the_robot_is_a_jump_though_the_robot_stays():
    yaw = 0.5
    # map_T_odom that turns around the robot's place: p = R p + t.
    t = np.array(ROBOT[:2]) - np.array([np.cos(yaw), np.sin(yaw)]) * ROBOT[0]
    said, jumps = looked_at(at(0.0), at(float(t[0]), float(t[1]), yaw))
    assert jumps == 1 and "0.00 m and 29 degrees" in said[1]
    assert looked_at(at(0.0), at(float(t[0]), float(t[1]), yaw), config=JumpConfig(angle=0.6))[1] == 0


def test_nothing_is_watched_without_a_frame():
    assert looked_at(at(0.0), at(9.0), config=JumpConfig(frame_id="")) == (["", ""], 0)


@pytest.mark.parametrize(("meters", "seconds", "jumped"), [(0.4, 0.03, False), (2.0, 0.03, True), (2.0, 1.0, False)])
def test_odometry_jumps_when_no_robot_is_that_fast(meters, seconds, jumped):
    watch = OdometryWatch()
    assert not watch.check(0.5, np.zeros(3), 0)
    assert watch.check(0.5, np.array([meters, 0, 0]), round(seconds * SECOND_NS)) is jumped


def test_a_fault_is_shown_for_its_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("perception.ros.statistics.monotonic", lambda: now[0])
    statistics = Statistics()
    statistics.fault("map_jump", "the robot jumped", 10.0)
    statistics.fault("autosave", "no space")
    assert statistics.snapshot().faults == {"map_jump": "the robot jumped", "autosave": "no space"}
    now[0] += 11.0
    assert statistics.snapshot().faults == {"autosave": "no space"}
