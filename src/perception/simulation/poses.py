# SPDX-License-Identifier: Apache-2.0
"""Poses of robots and cameras, by the axes of REP 103: bodies look along x with z up, optical frames along z."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.geometry import Transform

BODY_T_OPTICAL = Transform(np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], np.float64))
"""Rotation of an optical frame in the body it is fixed to: its z is the body's x, its x the body's −y."""


def rotation_rpy(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """(3, 3) rotation by fixed axes: roll about x first, then pitch about y, then yaw about z, all radians.

    Source: REP 103 and SDF's ``pose`` (fixed-axis roll, pitch, yaw): Rz(yaw) · Ry(pitch) · Rx(roll).
    """
    (cr, cp, cy), (sr, sp, sy) = np.cos((roll, pitch, yaw)), np.sin((roll, pitch, yaw))
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def pose(position: ArrayLike, roll: float = 0.0, pitch: float = 0.0, yaw: float = 0.0) -> Transform:
    """A body at (3,) meters turned by :func:`rotation_rpy`; positive pitch looks down."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_rpy(roll, pitch, yaw)
    matrix[:3, 3] = np.asarray(position, np.float64)
    return Transform(matrix)


def camera_pose(position: ArrayLike, yaw: float, pitch: float = 0.0) -> Transform:
    """``map_T_camera`` of an optical frame at (3,) meters that looks along yaw, tilted down by pitch, radians."""
    return pose(position, 0.0, pitch, yaw) @ BODY_T_OPTICAL
