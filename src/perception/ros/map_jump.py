# SPDX-License-Identifier: Apache-2.0
"""Notices when the robot is elsewhere at once: what is mapped from then on does not fit what is mapped already."""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import NDArray

from perception.errors import TransformError
from perception.geometry import Transform
from perception.ros.map_config import JumpConfig
from perception.tf_buffer import TransformBuffer

MAX_SPEED = 10.0
"""No robot of this kind is faster, m/s."""


class JumpWatch:
    """Looks from scan to scan whether the localization moved the robot in the map, which odometry did not.

    Args:
        transforms: where to look it up.

    Attributes:
        jumps: how many were seen.
    """

    def __init__(self, transforms: TransformBuffer) -> None:
        self._transforms = transforms
        self._last: Transform | None = None
        self.jumps = 0

    def check(self, config: JumpConfig, frame_id: str, base_frame_id: str, stamp_ns: int) -> str:
        """A sentence when ``frame_id`` jumped against ``config.frame_id`` since the last scan; empty otherwise.

        A jump is judged where the robot is: a turn of the whole map far from its origin moves the robot by meters.
        """
        if not config.frame_id or config.frame_id == frame_id:
            return ""
        try:
            now = self._transforms.lookup(frame_id, config.frame_id, stamp_ns)
        except TransformError:
            return ""
        before, self._last = self._last, now
        if before is None:
            return ""
        robot = np.zeros(3)
        with contextlib.suppress(TransformError):
            robot = self._transforms.lookup(config.frame_id, base_frame_id, stamp_ns).translation
        moved = float(np.linalg.norm(_place(now, robot) - _place(before, robot)))
        turned = _angle(before.inverse() @ now)
        if moved <= config.distance and turned <= config.angle:
            return ""
        self.jumps += 1
        return (
            f"the robot jumped by {moved:.2f} m and {np.degrees(turned):.0f} degrees in {frame_id}: what is mapped may "
            "be out of place"
        )

    def forget(self) -> None:
        """The next scan is the first."""
        self._last = None


class OdometryWatch:
    """Looks from scan to scan whether the robot moved in the frame that never jumps as no robot can."""

    def __init__(self) -> None:
        self._last: tuple[int, NDArray[np.float64]] | None = None

    def check(self, distance: float, position: NDArray[np.float64], stamp_ns: int) -> bool:
        """Whether the robot jumped since the last scan.

        Args:
            distance: shorter ways are no jump, meters.
            position: of the robot, meters.
            stamp_ns: of the scan, nanoseconds.
        """
        before, self._last = self._last, (stamp_ns, np.array(position))
        if before is None:
            return False
        seconds, moved = abs(stamp_ns - before[0]) / 1e9, float(np.linalg.norm(position - before[1]))
        return moved > distance + MAX_SPEED * seconds


def _place(transform: Transform, point: NDArray[np.float64]) -> NDArray[np.float64]:
    return transform.rotation @ point + transform.translation


def _angle(transform: Transform) -> float:
    return float(np.arccos(np.clip((np.trace(transform.rotation) - 1) / 2, -1, 1)))
