# SPDX-License-Identifier: Apache-2.0
"""Labels for the points of another sensor, from the label image of a camera that sees them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import UNLABELED
from perception.types import LabelImage

DEPTH_TOLERANCE_M = 0.1
"""A point this near to what the camera measured along its ray is what the camera sees, …"""
DEPTH_TOLERANCE_SHARE = 0.03
"""… and this share of the distance more: stereo cameras get worse with it."""


class LabeledView(NamedTuple):
    """What a camera saw at one moment.

    Attributes:
        stamp_ns: nanoseconds.
        labels: (H, W) labels.
        depth: (H, W) float32, meters along the optical axis, with the pixels of the labels.
        camera: intrinsics of both, without distortion.
        map_T_camera: where it stood.
    """

    stamp_ns: int
    labels: LabelImage
    depth: NDArray[np.floating]
    camera: PinholeCamera
    map_T_camera: Transform


def labels_in_view(
    points: NDArray[np.floating], view: LabeledView, min_confidence: float = 0.0
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Labels of points that a camera sees.

    A point takes the label of its pixel where the camera measured the point's own depth there. What hides behind
    something, or has no measured depth, keeps no label.

    Args:
        points: (N, 3) meters, in the frame of ``view.map_T_camera``; those not finite get none.
        view: what the camera saw.
        min_confidence: labels below it count as none.

    Returns:
        Ids (N,) int32, −1 where there is none, and confidences (N,) float32, 0 there.

    Raises:
        InputError: the points have another shape, the camera is distorted, or depth and labels differ in size.

    Source: pinhole model, Hartley and Zisserman, Multiple View Geometry, ch. 6.
    """
    camera, depth, shape = view.camera, view.depth, view.labels.labels.shape
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"points: expected (N, 3), got {points.shape}")
    if depth.shape != shape or (camera.height, camera.width) != shape or camera.is_distorted:
        raise InputError(
            f"labeled view: expected depth and an undistorted camera of {shape}, got {depth.shape} and "
            f"{(camera.height, camera.width)}"
        )
    ids = np.full(len(points), UNLABELED, np.int32)
    sure = np.zeros(len(points), np.float32)
    inside, z, row, column = _pixels(view.map_T_camera.inverse().apply(points), camera)
    with np.errstate(invalid="ignore"):
        seen = np.abs(depth[row, column] - z) <= DEPTH_TOLERANCE_M + DEPTH_TOLERANCE_SHARE * z
    found = view.labels.labels[row, column]
    confidence = view.labels.confidence[row, column]
    seen &= (found >= 0) & (confidence >= min_confidence)
    ids[inside[seen]], sure[inside[seen]] = found[seen], confidence[seen]
    return ids, sure


def _pixels(
    points: NDArray[np.float32], camera: PinholeCamera
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Which points fall into the image, with depth, row and column."""
    fx, fy, cx, cy = camera.matrix[0, 0], camera.matrix[1, 1], camera.matrix[0, 2], camera.matrix[1, 2]
    ahead = np.flatnonzero(np.isfinite(points).all(axis=1) & (points[:, 2] > 0))
    x, y, z = points[ahead].T.astype(np.float64)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        u, v = np.rint(fx * x / z + cx), np.rint(fy * y / z + cy)
        inside = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    return ahead[inside], z[inside].astype(np.float32), v[inside].astype(np.int64), u[inside].astype(np.int64)
