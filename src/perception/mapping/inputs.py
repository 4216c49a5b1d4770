# SPDX-License-Identifier: Apache-2.0
"""Checks of what callers hand to the octree, and the report they get."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.depth_kernels import depth_rows, pixel_labels
from perception.errors import InputError
from perception.geometry import Transform
from perception.mapping.collection import CloudScan, ImageScan, PointCounts
from perception.mapping.fusion import MAX_CLASSES
from perception.mapping.insertion import VoxelCounts
from perception.mapping.keys import KEY_END, KEY_ORIGIN
from perception.types import DepthScan

_NO_RAY = "rays: expected finite origins and directions with a length, got others"


@dataclass(frozen=True, slots=True)
class InsertReport:
    """What became of one scan.

    Attributes:
        points: points given.
        dropped_not_finite: points with NaN or infinite coordinates.
        dropped_out_of_map: finite points outside the map's ±32768 voxels.
        beyond_max_range: points that cleared up to the longest range and marked nothing.
        unlabeled: points whose label is -1, 255 or 65535 and no class.
        invalid_labels: points whose label is neither a class nor one of those; used without label.
        invalid_confidences: points whose confidence is NaN; used without label.
        clear_points: clearing points given.
        clear_dropped: clearing points that are not finite or outside the map.
        hits: voxels hit.
        bricks_touched: bricks (8³ voxels) that the scan reached.
        bricks_changed: bricks with a changed value or label.
        bricks_refused: bricks that the memory bound kept from being updated.
        bricks_forgotten: bricks far from the sensor given up before this scan to stay below the memory bound.
        parts: windows the scan was done in.
    """

    points: int
    dropped_not_finite: int
    dropped_out_of_map: int
    beyond_max_range: int
    unlabeled: int
    invalid_labels: int
    invalid_confidences: int
    clear_points: int
    clear_dropped: int
    hits: int
    bricks_touched: int
    bricks_changed: int
    bricks_refused: int
    bricks_forgotten: int
    parts: int

    @property
    def used(self) -> int:
        """Points that marked a voxel."""
        return self.points - self.dropped_not_finite - self.dropped_out_of_map - self.beyond_max_range


@functools.lru_cache(maxsize=64)
def log_odds(probability: float) -> np.float32:
    """log(p / (1 - p)), computed as OctoMap does."""
    return np.float32(np.log(probability / (1.0 - probability)))


def checked_number(name: str, value: float, lowest: float, highest: float) -> float:
    """The number; raises InputError outside [lowest, highest], and for what is no number."""
    if not isinstance(value, (int, float, np.number)) or not lowest <= value <= highest:
        raise InputError(f"{name}: expected {lowest:g} to {highest:g}, got {value!s:.100}")
    return value


def checked_decay(decay_s: ArrayLike | None, num_classes: int) -> NDArray[np.float32]:
    """(C,) float32 time constants, +inf for classes that stay; at least one entry."""
    if decay_s is None:
        return np.full(max(num_classes, 1), np.inf, np.float32)
    times = np.asarray(decay_s, np.float32)
    if times.shape != (num_classes,) or not (times > 0).all():
        raise InputError(f"decay_s: expected ({num_classes},) positive seconds, got {times.shape} {times.tolist()[:9]}")
    return times if num_classes else np.full(1, np.inf, np.float32)


def checked_points(name: str, points: ArrayLike) -> NDArray[np.float32]:
    """(N, 3) contiguous float32, as OctoMap casts them."""
    array = np.asarray(points)
    if array.size == 0 and array.ndim <= 2:
        return np.empty((0, 3), np.float32)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise InputError(f"{name}: expected (N, 3) numbers, got {array.shape} {array.dtype}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def checked_origin(origin: ArrayLike, resolution: float) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """The origin as float32 and its voxel key."""
    array = np.asarray(origin)
    if array.shape != (3,) or array.dtype.kind not in "fiu":
        raise InputError(f"sensor_origin: expected (3,) numbers, got {array.shape} {array.dtype}")
    array = array.astype(np.float32)
    scaled = [float(x) * (1.0 / resolution) for x in array]
    x, y, z = (math.floor(part) + KEY_ORIGIN if math.isfinite(part) else -1 for part in scaled)
    if not (0 <= x < KEY_END and 0 <= y < KEY_END and 0 <= z < KEY_END):
        raise InputError(f"sensor_origin: expected a point within ±{KEY_ORIGIN * resolution:g} m, got {array.tolist()}")
    return array, (x, y, z)


def checked_box(lower: ArrayLike, upper: ArrayLike, resolution: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lowest and highest voxel key of a box; corners outside the map are moved to its border."""
    corners = np.array([lower, upper], np.float64)
    if corners.shape != (2, 3) or np.isnan(corners).any():
        raise InputError(f"box: expected two corners of three numbers, got {lower} and {upper}")
    if (corners[0] > corners[1]).any():
        raise InputError(f"box: expected the lower corner first, got {lower} and {upper}")
    keys = np.floor(corners.astype(np.float32).astype(np.float64) * (1.0 / resolution)) + KEY_ORIGIN
    keys = np.clip(keys, 0, KEY_END - 1).astype(np.int64)
    return keys[0], keys[1]


def checked_rays(origins: ArrayLike, directions: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, 3) float32 origins and unit directions, of the bits that octomap's float32 vectors have."""
    ways = np.asarray(directions, np.float64)
    starts = np.asarray(origins, np.float64)
    if ways.ndim != 2 or ways.shape[1] != 3 or starts.shape not in ((3,), ways.shape):
        raise InputError(f"rays: expected origins (N, 3) or (3,), directions (N, 3), got {starts.shape}, {ways.shape}")
    lowest, highest = ways.min(initial=0.0), ways.max(initial=0.0)
    bounds = lowest, highest, starts.min(initial=0.0), starts.max(initial=0.0)
    if not np.isfinite(bounds).all() or max(-bounds[2], bounds[3]) > np.finfo(np.float32).max:
        raise InputError(_NO_RAY)
    units = np.empty(ways.shape, np.float32)
    # Squares of what is larger or smaller have no place in a float32.
    if max(-lowest, highest) > 1e15 or (_normalize(ways, units) < 2e-15).any():
        longest = np.abs(ways).max(axis=1)
        if (longest == 0).any():
            raise InputError(_NO_RAY)
        scales = np.where((longest < 1e-15) | (longest > 1e15), longest, 1.0)
        _normalize(ways / scales[:, None], units)
    return np.array(np.broadcast_to(starts, ways.shape), np.float32, order="C"), units


def _normalize(ways: NDArray[np.float64], units: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide vectors by their lengths as octomap does; column by column, which is several times as fast."""
    x, y, z = (np.ascontiguousarray(ways[:, axis], np.float32) for axis in range(3))
    lengths = np.sqrt((x * x + y * y + z * z).astype(np.float64)).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis, values in enumerate((x, y, z)):
            np.divide(values, lengths, out=units[:, axis])
    return lengths


def checked_cloud(
    points: ArrayLike,
    labels: ArrayLike | None,
    confidence: ArrayLike | None,
    clear_points: ArrayLike | None,
    num_classes: int,
) -> CloudScan:
    """The arrays of a scan in the types that the kernels take."""
    where = checked_points("points", points)
    clear = checked_points("clear_points", () if clear_points is None else clear_points)
    none = np.empty(0, np.float32)
    if labels is None:
        if confidence is not None:
            raise InputError("confidence: expected labels with it, got none")
        return CloudScan(where, np.empty(0, np.int32), none, clear)
    if num_classes == 0:
        raise InputError("labels: expected a map with num_classes > 0, got one without classes")
    names = np.asarray(labels)
    if names.shape != (len(where),) or (names.dtype.kind not in "iu" and names.size):
        raise InputError(f"labels: expected ({len(where)},) integers, got {names.shape} {names.dtype}")
    sure = none if confidence is None else np.asarray(confidence)
    if confidence is not None and (sure.shape != names.shape or (sure.dtype.kind != "f" and sure.size)):
        raise InputError(f"confidence: expected {names.shape} floating, got {sure.shape} {sure.dtype}")
    return CloudScan(where, _narrowed(names), np.ascontiguousarray(sure, np.float32), clear)


def _narrowed(labels: NDArray) -> NDArray[np.int32]:
    """Labels as int32; what does not fit is no class anyhow."""
    if labels.dtype.itemsize < 4 or labels.dtype == np.int32:
        return np.ascontiguousarray(labels, np.int32)
    return np.where((labels >= -1) & (labels <= MAX_CLASSES), labels, -2).astype(np.int32)


def checked_image(scan: DepthScan, map_T_camera: Transform, num_classes: int) -> ImageScan:
    """A depth image as the kernels take it."""
    if scan.labels.size and num_classes == 0:
        raise InputError("labels: expected a map with num_classes > 0, got one without classes")
    return ImageScan(depth_rows(scan), pixel_labels(scan), map_T_camera.matrix.astype(np.float32, order="C"))


def make_report(points: PointCounts, voxels: VoxelCounts, forgotten: int) -> InsertReport:
    """The report of a scan."""
    return InsertReport(
        points=points.points,
        dropped_not_finite=points.not_finite,
        dropped_out_of_map=points.invalid - points.not_finite,
        beyond_max_range=voxels.beyond_range,
        unlabeled=points.unlabeled,
        invalid_labels=points.invalid_labels,
        invalid_confidences=points.invalid_confidences,
        clear_points=points.clear_points,
        clear_dropped=points.clear_invalid,
        hits=voxels.hits,
        bricks_touched=voxels.touched,
        bricks_changed=voxels.changed,
        bricks_refused=voxels.refused,
        bricks_forgotten=forgotten,
        parts=voxels.parts,
    )
