# SPDX-License-Identifier: Apache-2.0
"""What a node tells about itself on /diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]
from rclpy.node import Node

from perception.ros.statistics import HARMLESS, REASONS, WINDOW_S, Snapshot, Statistics

PERIOD_S = 1.0
CLOCK_OFFSET_MS = 10_000.0
"""Stamps further from the clock than this are of another clock."""
BUSY_S = 10.0
"""A worker that is at one frame for longer hangs."""


@dataclass(frozen=True)
class Activity:
    """What an active node is up to.

    Attributes:
        input_timeout_s: without input for this long the node is in error: what it published is out of date.
        busy_s: how long its worker has been at one frame.
    """

    input_timeout_s: float
    busy_s: float = 0.0


class Diagnostics:
    """Publishes the state of a node once a second.

    Args:
        node: publishes; its name and namespace name the status.
        statistics: what is counted.
        activity: what the node is up to; None while it is not active.
        details: further values, by name, asked for at each publication.
    """

    def __init__(
        self,
        node: Node,
        statistics: Statistics,
        activity: Callable[[], Activity | None],
        details: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._node, self._statistics, self._activity, self._details = node, statistics, activity, details
        self._process = _process()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Real time, not the clock of the simulation: a simulation that stands still is worth telling, too.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD_S, self.publish, clock=steady)

    def publish(self) -> None:
        """Publish the status now."""
        snapshot = self._statistics.snapshot()
        level, message = assess(snapshot, self._activity())
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


def assess(snapshot: Snapshot, activity: Activity | None) -> tuple[bytes, str]:
    """Level and message of a status."""
    if activity is None:
        return DiagnosticStatus.OK, "not active"
    errors = [*snapshot.faults.values(), *_silence(snapshot, activity.input_timeout_s)]
    if activity.busy_s > BUSY_S:
        errors.append(f"at one frame for {activity.busy_s:.0f} s")
    if errors:
        return DiagnosticStatus.ERROR, "; ".join(errors)
    if not snapshot.received:
        return DiagnosticStatus.WARN, "waiting for the first message"
    if snapshot.latency_ms is not None and abs(snapshot.latency_ms[0]) > CLOCK_OFFSET_MS:
        behind = snapshot.latency_ms[0] / 1e3
        return DiagnosticStatus.WARN, f"stamps are {behind:.0f} s behind the clock: set use_sim_time for recordings"
    faults = {reason: count for reason, count in snapshot.recent_drops.items() if reason not in HARMLESS}
    if not faults:
        return DiagnosticStatus.OK, f"{snapshot.processed_rate:.1f} frames per second"
    named = ", ".join(f"{count} {reason}" for reason, count in sorted(faults.items()))
    worst = max(faults, key=lambda reason: faults[reason])
    message = f"dropped in {WINDOW_S:.0f} s: {named} ({snapshot.details.get(worst) or REASONS.get(worst, '')})"
    return (DiagnosticStatus.WARN if snapshot.processed_rate > 0 else DiagnosticStatus.ERROR), message


def _silence(snapshot: Snapshot, timeout_s: float) -> list[str]:
    """A sentence for each topic that should bring messages and does not."""
    result = []
    for topic, silent_s in sorted(snapshot.silent_s.items()):
        mismatch = snapshot.mismatched.get(topic)
        if silent_s > timeout_s:
            name = snapshot.names[topic]
            which = name if name.endswith(f"/{topic}") or name == topic else f"{name} ({topic})"
            result.append(f"no message on {which} for {silent_s:.0f} s" + (f": {mismatch}" if mismatch else ""))
        elif mismatch and topic not in snapshot.received:
            result.append(mismatch)
    return result


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
