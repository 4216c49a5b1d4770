# SPDX-License-Identifier: Apache-2.0
"""The time that /clock brings: jumps back, and times that are none, at which rclpy raises and ends the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import ClockChange, JumpThreshold, TimeJump  # pyright: ignore[reportPrivateImportUsage]
from rclpy.duration import Duration
from rclpy.node import Node

from perception.errors import InputError
from perception.ros.conversions import stamp_to_ns


def guard_clock(node: Node, rejected: Callable[[str], Any]) -> None:
    """Let a node keep its time when /clock brings one that is none.

    Args:
        node: of any kind, with or without use_sim_time, which may change later.
        rejected: called with a sentence for each message that is passed over.
    """
    source: Any = node._time_source
    take = source.clock_callback

    def checked(message: Any) -> None:
        try:
            clock_to_ns(message)
        except InputError as error:
            rejected(str(error))
            return
        take(message)

    # The source subscribes with its own attribute whenever use_sim_time becomes true; it may have done so already.
    source.clock_callback = checked
    if source._clock_sub is not None:
        source._clock_sub.callback = checked


def clock_to_ns(message: Any) -> int:
    """rosgraph_msgs/Clock to nanoseconds.

    Raises:
        InputError: before zero, or a billion nanoseconds or more.
    """
    time_ns = stamp_to_ns(message.clock)
    if time_ns < 0:
        raise InputError(f"/clock: expected a time of at least zero, got {time_ns / 1e9:.3f} s")
    return time_ns


def watch_jumps(node: Node, jumped: Callable[[float], None]) -> Any:
    """Call back with the seconds whenever a node's time goes back, until what is returned is forgotten."""

    def judge(jump: TimeJump) -> None:
        if jump.clock_change not in (ClockChange.ROS_TIME_ACTIVATED, ClockChange.ROS_TIME_DEACTIVATED):
            jumped(-jump.delta.nanoseconds / 1e9)

    back = JumpThreshold(
        min_forward=None,
        min_backward=Duration(nanoseconds=-1),
        on_clock_change=True,  # type: ignore[arg-type]
    )
    return node.get_clock().create_jump_callback(back, post_callback=judge)
