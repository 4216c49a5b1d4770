# SPDX-License-Identifier: Apache-2.0
"""Quality of service of topics, and its events; each profile is made anew, as overrides change it in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind


def sensor_qos() -> QoSProfile:
    """The sensor data profile: best effort, keep the last five."""
    return QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST)


def latched_qos(latched: bool = True, depth: int = 1) -> QoSProfile:
    """The profile of maps, REP 2003: reliable, transient local."""
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=durability)


def on_new(callback: Callable[[], None]) -> Callable[[Any], None]:
    """A handler of a publisher's matched events that calls back for each subscriber that comes."""

    def matched(info: Any) -> None:
        if info.current_count_change > 0:
            callback()

    return matched


def policy_name(event: Any) -> str:
    """Which policy an event of incompatible QoS is about: reliability, for example."""
    return qos_policy_name_from_kind(event.last_policy_kind).lower()
