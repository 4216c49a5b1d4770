# SPDX-License-Identifier: Apache-2.0
"""Notices when the localization moves the robot in the map at once: what is mapped from then on fits no more."""

from __future__ import annotations

import numpy as np

from perception.errors import TransformError
from perception.geometry import Transform
from perception.ros.map_config import JumpConfig
from perception.tf_buffer import TransformBuffer


class JumpWatch:
    """Compares the transform between two frames from scan to scan.

    Args:
        transforms: where to look it up.

    Attributes:
        jumps: how many were seen.
    """

    def __init__(self, transforms: TransformBuffer) -> None:
        self._transforms = transforms
        self._last: Transform | None = None
        self.jumps = 0

    def check(self, config: JumpConfig, frame_id: str, stamp_ns: int) -> str:
        """A sentence when ``frame_id`` jumped against ``config.frame_id`` since the last scan; empty otherwise."""
        if not config.frame_id or config.frame_id == frame_id:
            return ""
        try:
            now = self._transforms.lookup(frame_id, config.frame_id, stamp_ns)
        except TransformError:
            return ""
        before, self._last = self._last, now
        if before is None:
            return ""
        moved = float(np.linalg.norm((before.inverse() @ now).translation))
        if moved <= config.distance:
            return ""
        self.jumps += 1
        return f"{config.frame_id} jumped by {moved:.2f} m in {frame_id}: what is mapped may be out of place"

    def forget(self) -> None:
        """The next scan is the first."""
        self._last = None
