# SPDX-License-Identifier: Apache-2.0
"""What a node tells about itself on /diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]
from rclpy.node import Node

from perception.ros.statistics import HARMLESS, REASONS, WINDOW_S, Snapshot, Statistics

PERIOD_S = 1.0
CLOCK_OFFSET_MS = 10_000.0
"""Stamps further from the clock than this are of another clock."""
STALE_S = 3.0
"""Without input for this long, an active node is in error: what it published is out of date."""


class Diagnostics:
    """Publishes the state of a node once a second.

    Args:
        node: publishes; its name and namespace name the status.
        statistics: what is counted.
        is_active: whether the node should be receiving.
        details: further values, by name, asked for at each publication.
    """

    def __init__(
        self,
        node: Node,
        statistics: Statistics,
        is_active: Callable[[], bool],
        details: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._node, self._statistics, self._is_active, self._details = node, statistics, is_active, details
        self._process = _process()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Real time, not the clock of the simulation: a simulation that stands still is worth telling, too.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD_S, self.publish, clock=steady)

    def publish(self) -> None:
        """Publish the status now."""
        snapshot = self._statistics.snapshot()
        level, message = assess(snapshot, self._is_active())
        values = {**report(snapshot), **self._details(), **self._usage()}
        status = DiagnosticStatus(
            level=level,
            name=self._node.get_fully_qualified_name().lstrip("/"),
            hardware_id="perception",
            message=message,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _usage(self) -> dict[str, str]:
        if self._process is None:
            return {}
        with self._process.oneshot():
            memory, cpu = self._process.memory_info().rss, self._process.cpu_percent()
        return {"memory (MB)": f"{memory / 1e6:.1f}", "CPU (% of one core)": f"{cpu:.0f}"}


def assess(snapshot: Snapshot, active: bool) -> tuple[bytes, str]:
    """Level and message of a status."""
    if not active:
        return DiagnosticStatus.OK, "not active"
    if snapshot.idle_s is None:
        return DiagnosticStatus.WARN, "waiting for the first message"
    if snapshot.idle_s > STALE_S:
        return DiagnosticStatus.ERROR, f"no input for {snapshot.idle_s:.0f} s"
    faults = {reason: count for reason, count in snapshot.recent_drops.items() if reason not in HARMLESS}
    if snapshot.latency_ms is not None and abs(snapshot.latency_ms[0]) > CLOCK_OFFSET_MS:
        behind = snapshot.latency_ms[0] / 1e3
        return DiagnosticStatus.WARN, f"stamps are {behind:.0f} s behind the clock: set use_sim_time for recordings"
    if not faults:
        return DiagnosticStatus.OK, f"{snapshot.processed_rate:.1f} frames per second"
    named = ", ".join(f"{count} {reason}" for reason, count in sorted(faults.items()))
    worst = max(faults, key=lambda reason: faults[reason])
    message = f"dropped in {WINDOW_S:.0f} s: {named} ({snapshot.details.get(worst) or REASONS.get(worst, '')})"
    return (DiagnosticStatus.WARN if snapshot.processed_rate > 0 else DiagnosticStatus.ERROR), message


def report(snapshot: Snapshot) -> dict[str, str]:
    """Counts as texts by name."""
    values = {
        "frames processed": f"{snapshot.processed}",
        "frames processed per second": f"{snapshot.processed_rate:.1f}",
    }
    for topic, count in sorted(snapshot.received.items()):
        values[f"{topic} received"] = f"{count}"
        values[f"{topic} per second"] = f"{snapshot.rates[topic]:.1f}"
    for reason, count in sorted(snapshot.drops.items()):
        values[f"dropped: {reason}"] = f"{count}"
        if snapshot.details.get(reason):
            values[f"last {reason}"] = snapshot.details[reason]
    if snapshot.latency_ms is not None:
        values["latency p50 (ms)"], values["latency p95 (ms)"] = (f"{value:.1f}" for value in snapshot.latency_ms)
    return values


def _process() -> Any:
    try:
        import psutil
    except ImportError:
        return None
    return psutil.Process()
