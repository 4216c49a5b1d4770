# SPDX-License-Identifier: Apache-2.0
"""octomap_server's filters of incoming clouds: limits and the ground plane. Without ROS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.config import CloudFilterConfig, GroundFilterConfig

MAX_FLOAT32 = float(np.finfo(np.float32).max)
MIN_POINTS = 50
"""A ground plane is looked for in clouds of at least so many points."""
MAX_TRIALS = 200
MIN_PLANE_POINTS = 10


def within_limits(points: NDArray[np.float32], config: CloudFilterConfig) -> NDArray[np.bool_]:
    """(N,) points (N, 3) between ``point_cloud_min_*`` and ``point_cloud_max_*``; False where one is not finite.

    Limits are compared as float32, as octomap_server's are.
    """
    finite = np.isfinite(points)
    # Column by column: a reduction over three values a row takes ten times as long.
    keep = np.ones(len(points), np.bool_) if finite.all() else finite[:, 0] & finite[:, 1] & finite[:, 2]
    for axis, name in enumerate("xyz"):
        low, high = getattr(config, f"point_cloud_min_{name}"), getattr(config, f"point_cloud_max_{name}")
        if low > -MAX_FLOAT32:
            keep &= points[:, axis] >= np.float32(low)
        if high < MAX_FLOAT32:
            keep &= points[:, axis] <= np.float32(high)
    return keep


def beyond(points: NDArray[np.float32], min_range: float) -> NDArray[np.bool_]:
    """(N,) points at least so far from the origin."""
    return np.einsum("ij,ij->i", points, points) >= min_range * min_range


def no_return_ends(points: NDArray[np.float32], reach: float, invalid_too: bool = False) -> NDArray[np.float32]:
    """Where the rays of pixels end that met nothing, in a cloud that came from a depth image.

    Such points have no direction of their own: x and y are infinite too. The pinhole that the other points fit gives
    it; a cloud that fits none, as a LiDAR's, gives no ends.

    Args:
        points: (H, W, 3) meters, optical frame, z forward.
        reach: length of the rays, meters.
        invalid_too: pixels with NaN count, besides those at +inf.

    Returns:
        (M, 3) float32 in the same frame.

    Source: REP 117 (+inf: no return, NaN: invalid).
    """
    z = points[..., 2]
    missing = ~np.isfinite(z) & (z != -np.inf) if invalid_too else np.isposinf(z)
    valid = np.isfinite(points).all(axis=2) & (z > 0)
    if not missing.any() or int(valid.sum()) < MIN_POINTS:
        return np.zeros((0, 3), np.float32)
    rows, columns = np.nonzero(valid)
    slopes = points[valid][:, :2].astype(np.float64) / z[valid].astype(np.float64)[:, None]
    rows_missing, columns_missing = np.nonzero(missing)
    directions = np.ones((len(rows_missing), 3))
    for axis, pixels, wanted in ((0, columns, columns_missing), (1, rows, rows_missing)):
        scale, shift = np.polyfit(pixels, slopes[:, axis], 1) if np.ptp(pixels) else (0.0, 0.0)
        # A tenth of a pixel: more is no pinhole.
        if not scale > 0 or np.abs(scale * pixels + shift - slopes[:, axis]).max() > 0.1 * scale:
            return np.zeros((0, 3), np.float32)
        directions[:, axis] = scale * wanted + shift
    return (directions * (reach / np.linalg.norm(directions, axis=1, keepdims=True))).astype(np.float32)


def ground_plane(points: NDArray[np.float32], config: GroundFilterConfig) -> NDArray[np.bool_]:
    """Which points belong to the ground.

    Planes within ``angle`` of the horizontal are fitted one after the other, the largest first, until one lies within
    ``plane_distance`` of the base frame's height 0; its points are the ground.

    Args:
        points: (N, 3) finite, meters, in the base frame, z up.
        config: limits.

    Returns:
        (N,) bool; all False when there is no such plane.

    Source: random sample consensus, Fischler and Bolles, 1981; the rules are octomap_server's.
    """
    ground = np.zeros(len(points), np.bool_)
    if len(points) < MIN_POINTS:
        return ground
    left = np.arange(len(points))
    rng = np.random.default_rng(0)
    while len(left) >= MIN_PLANE_POINTS:
        members, height = _largest_plane(points[left].astype(np.float64), config, rng)
        if int(members.sum()) < MIN_PLANE_POINTS:
            return ground
        if abs(height) <= config.plane_distance:
            ground[left[members]] = True
            return ground
        left = left[~members]
    return ground


def _largest_plane(
    points: NDArray[np.float64], config: GroundFilterConfig, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], float]:
    """Points of the largest nearly horizontal plane and its height over the origin."""
    best, best_plane = np.zeros(len(points), np.bool_), np.array([0.0, 0.0, 1.0, 0.0])
    for _ in range(MAX_TRIALS):
        plane = _plane_through(points[rng.integers(len(points), size=3)], config.angle)
        if plane is None:
            continue
        members = np.abs(points @ plane[:3] - plane[3]) <= config.distance
        if members.sum() > best.sum():
            best, best_plane = members, plane
            # So large a plane would have been hit before with a probability of 0.999.
            if best.mean() > 0.5:
                break
    return best, float(best_plane[3] / best_plane[2])


def _plane_through(corners: NDArray[np.float64], max_angle: float) -> NDArray[np.float64] | None:
    """Unit normal (z up) and distance of the plane through three points; None when too steep or no plane."""
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    length = np.linalg.norm(normal)
    if not length > 1e-9:
        return None
    normal = normal / length * np.sign(normal[2] or 1.0)
    if normal[2] < np.cos(max_angle):
        return None
    return np.append(normal, normal @ corners[0])
