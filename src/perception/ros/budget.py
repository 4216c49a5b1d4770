# SPDX-License-Identifier: Apache-2.0
"""Which frames are mapped when the computer has other work to do. Without ROS."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from time import monotonic

import numpy as np

from perception.geometry import Transform
from perception.ros.drops import FrameDroppedError
from perception.ros.sensor_config import BudgetConfig


@dataclass
class _Last:
    """What was last mapped of one source."""

    at: float
    stamp_ns: int
    pose: Transform


class Budget:
    """Keeps to a :class:`BudgetConfig`; used by one thread.

    Attributes:
        thinned: points left out so far because of ``max_points``.
    """

    def __init__(self) -> None:
        self.thinned = 0
        self._last: dict[str, _Last] = {}
        self._free_at = 0.0

    def admit(self, config: BudgetConfig, source: str, stamp_ns: int, now_ns: int, pose: Transform) -> None:
        """Let a frame be mapped, or not.

        Args:
            config: limits.
            source: name of its camera or topic.
            stamp_ns: its stamp, nanoseconds.
            now_ns: the node's time, nanoseconds.
            pose: of the sensor in the map.

        Raises:
            FrameDroppedError: "stale", "budget" or "standing_still".
        """
        now, age_s = monotonic(), (now_ns - stamp_ns) / 1e9
        if config.max_age > 0 and age_s > config.max_age:
            raise FrameDroppedError("stale", f"{age_s:.3f} s old when its turn came")
        if now < self._free_at:
            raise FrameDroppedError("budget", f"budget.max_load {config.max_load:g} is used up")
        last = self._last.get(source)
        if last is not None and stamp_ns > last.stamp_ns:
            since_s = (stamp_ns - last.stamp_ns) / 1e9
            # A tenth of a period: stamps of a camera at just this rate jitter.
            if config.max_rate > 0 and since_s < 0.9 / config.max_rate:
                raise FrameDroppedError("budget", f"more than budget.max_rate {config.max_rate:g} per second")
            if since_s < config.still_period and _is_still(last.pose, pose, config):
                raise FrameDroppedError("standing_still", "")
        self._last[source] = _Last(now, stamp_ns, pose)

    def finish(self, config: BudgetConfig, source: str) -> None:
        """The frame admitted last is mapped: the time it took decides when the next may be."""
        now, last = monotonic(), self._last.get(source)
        if last is not None:  # Forgotten when time went back while the frame was being mapped.
            self._free_at = now + (now - last.at) * (1 / config.max_load - 1)

    def stride(self, config: BudgetConfig, count: int) -> int:
        """Of how many points one is taken; counts those left out."""
        if config.max_points == 0 or count <= config.max_points:
            return 1
        step = ceil(count / config.max_points)
        self.thinned += count - ceil(count / step)
        return step

    def forget(self) -> None:
        """The next frame of each source is its first: time went back."""
        self._last.clear()
        self._free_at = 0.0


def _is_still(before: Transform, now: Transform, config: BudgetConfig) -> bool:
    if config.still_distance <= 0:
        return False
    step = before.inverse() @ now
    cosine = (np.trace(step.rotation) - 1) / 2
    angle = float(np.arccos(np.clip(cosine, -1, 1)))
    return float(np.linalg.norm(step.translation)) < config.still_distance and angle <= config.still_angle
