# SPDX-License-Identifier: Apache-2.0
"""Frames that the computer has no time for are skipped, each with its reason."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from perception.geometry import Transform
from perception.ros.budget import Budget
from perception.ros.drops import FrameDroppedError
from perception.ros.sensor_config import BudgetConfig

HERE = Transform.identity()
MS = 1_000_000


def at(x: float, angle: float = 0.0) -> Transform:
    return Transform.from_translation_quaternion((x, 0.0, 0.0), (0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2)))


def reason(budget: Budget, config: BudgetConfig, stamp_ms: int, pose: Transform = HERE, now_ms: int | None = None):
    try:
        budget.admit(config, "camera", stamp_ms * MS, (stamp_ms if now_ms is None else now_ms) * MS, pose)
    except FrameDroppedError as error:
        return error.reason
    budget.finish(config, "camera")
    return ""


def test_without_limits_every_frame_is_mapped():
    budget = Budget()
    assert [reason(budget, BudgetConfig(), stamp, now_ms=10**6) for stamp in range(0, 100, 10)] == [""] * 10
    assert budget.stride(BudgetConfig(), 10**7) == 1 and budget.thinned == 0


def test_rate_takes_every_third_frame_of_a_thirty_hertz_camera_at_ten_per_second():
    budget, config = Budget(), BudgetConfig(max_rate=10.0)
    taken = [reason(budget, config, round(i * 1000 / 30)) for i in range(9)]
    assert taken == ["", "budget", "budget"] * 3


def test_sources_have_rates_of_their_own():
    budget, config = Budget(), BudgetConfig(max_rate=10.0)
    budget.admit(config, "front", 0, 0, HERE)
    budget.admit(config, "rear", 0, 0, HERE)
    with pytest.raises(FrameDroppedError):
        budget.admit(config, "front", 10 * MS, 10 * MS, HERE)


def test_old_frame_is_dropped():
    config = BudgetConfig(max_age=0.1)
    assert reason(Budget(), config, 1000, now_ms=1050) == ""
    assert reason(Budget(), config, 1000, now_ms=1150) == "stale"


def test_load_leaves_as_much_time_as_was_worked():
    budget, config = Budget(), BudgetConfig(max_load=0.5)
    budget.admit(config, "camera", 0, 0, HERE)
    time.sleep(0.05)
    budget.finish(config, "camera")
    assert reason(budget, config, 10) == "budget"
    time.sleep(0.06)
    assert reason(budget, config, 20) == ""


def test_standing_still_maps_once_per_period_and_moving_or_turning_at_once():
    budget = Budget()
    config = BudgetConfig(still_distance=0.05, still_angle=0.1, still_period=1.0)
    assert reason(budget, config, 0) == ""
    assert reason(budget, config, 100, at(0.01)) == "standing_still"
    assert reason(budget, config, 200, at(0.06)) == ""
    assert reason(budget, config, 300, at(0.06, 0.2)) == ""
    assert reason(budget, config, 1200, at(0.06, 0.2)) == "standing_still"
    assert reason(budget, config, 1300, at(0.06, 0.2)) == ""


def test_time_that_goes_back_begins_anew():
    budget, config = Budget(), BudgetConfig(max_rate=1.0)
    assert reason(budget, config, 60_000) == ""
    assert reason(budget, config, 10) == ""


def test_points_are_thinned_to_the_limit_and_counted():
    budget, config = Budget(), BudgetConfig(max_points=100)
    assert budget.stride(config, 100) == 1
    step = budget.stride(config, 350)
    left = len(range(0, 350, step))
    assert left <= 100 and budget.thinned == 350 - left


def test_time_that_goes_back_while_a_frame_is_mapped_does_no_harm():
    budget, config = Budget(), BudgetConfig(max_load=0.5)
    assert reason(budget, config, 1000) == ""
    budget.forget()
    budget.finish(config, "")
    assert reason(budget, config, 100) == ""
