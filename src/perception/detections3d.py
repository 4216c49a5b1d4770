# SPDX-License-Identifier: Apache-2.0
"""Objects found in an image and the depth seen there to boxes in space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.config import BoxConfig
from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.types import Detections, Detections3D

MAX_PIXELS = 4096
"""Of one object; of larger ones every n-th row and column is looked at."""
MIN_SIZE = 0.01
"""Edge of a box, meters, for things that are seen as flat."""


def lift_detections(
    detections: Detections,
    depth: NDArray[np.floating],
    camera: PinholeCamera,
    map_T_camera: Transform,
    config: BoxConfig | None = None,
    *,
    stamp_ns: int = 0,
    frame_id: str = "map",
) -> Detections3D:
    """Put upright boxes around the points that belong to each object.

    The median depth within the mask, or within the middle of the box where there is no mask, says how far the object
    is. A thing is taken to be about as deep as it is wide: points whose depth differs from the median by more than
    half the larger side of the object as seen (or ``config.min_depth``) belong to what is behind or before it. The box
    spans percentiles of the rest along the axes of the map, so it covers the visible side, not what is hidden behind.

    Args:
        detections: objects in the color image; boxes and masks in its pixels.
        depth: (H, W) float, meters along the optical axis, registered to the color image; not finite, zero or
            negative: no measurement.
        camera: intrinsics of both, without distortion.
        map_T_camera: pose of the camera's optical frame.
        config: ranges, least number of points, percentiles.
        stamp_ns: time of the image, nanoseconds.
        frame_id: name of the map frame.

    Returns:
        A box for each object with enough points, in the order of the detections; yaws 0, ids −1.

    Raises:
        InputError: sizes differ, or the camera is distorted.
    """
    config = BoxConfig() if config is None else config
    _check(detections, depth, camera)
    kept, lower, upper = [], [], []
    for index in range(len(detections)):
        rows, columns = _object_pixels(detections, index, depth.shape)
        points = _object_points(detections, index, depth, rows, columns, camera, config)
        if len(points) >= config.min_points:
            corners = np.percentile(map_T_camera.apply(points), (config.percentile, 100 - config.percentile), axis=0)
            kept.append(index)
            lower.append(corners[0])
            upper.append(corners[1])
    lower_corners, upper_corners = np.reshape(lower, (-1, 3)), np.reshape(upper, (-1, 3))
    return Detections3D(
        ((lower_corners + upper_corners) / 2).astype(np.float32),
        np.maximum(upper_corners - lower_corners, MIN_SIZE).astype(np.float32),
        np.zeros(len(kept), np.float32),
        detections.scores[kept],
        detections.labels[kept],
        detections.label_set,
        np.full(len(kept), -1, np.int64),
        stamp_ns,
        frame_id,
    )


def _check(detections: Detections, depth: NDArray[np.floating], camera: PinholeCamera) -> None:
    if camera.is_distorted:
        raise InputError("camera: expected a rectified image without distortion; call registration.rectify first")
    if depth.shape != camera.size or not np.issubdtype(depth.dtype, np.floating):
        raise InputError(f"depth: expected {camera.size} floating point meters, got {depth.shape} {depth.dtype}")
    if detections.masks is not None and detections.masks.shape[1:] != depth.shape:
        raise InputError(f"masks: expected {depth.shape} as the depth, got {detections.masks.shape[1:]}")


def _object_pixels(
    detections: Detections, index: int, size: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the image that lie in a detection's box, thinned out to MAX_PIXELS."""
    box = np.nan_to_num(detections.boxes[index].astype(np.float64))
    left, top = np.clip(np.floor(box[:2]), 0, (size[1], size[0])).astype(int)
    right, bottom = np.clip(np.ceil(box[2:]), 0, (size[1], size[0])).astype(int)
    area = max(right - left, 0) * max(bottom - top, 0)
    step = max(1, int(np.ceil(np.sqrt(area / MAX_PIXELS))))
    return np.arange(top, bottom, step), np.arange(left, right, step)


def _object_points(
    detections: Detections,
    index: int,
    depth: NDArray[np.floating],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    camera: PinholeCamera,
    config: BoxConfig,
) -> NDArray[np.float64]:
    """(N, 3) points of one object in the optical frame."""
    seen = depth[np.ix_(rows, columns)].astype(np.float64)
    farthest = config.max_range if config.max_range > 0 else np.inf
    valid = np.isfinite(seen) & (seen > 0) & (seen >= config.min_range) & (seen <= farthest)
    if detections.masks is not None:
        valid &= detections.masks[index][np.ix_(rows, columns)]
        middle = seen[valid]
    else:
        inner = tuple(slice(length // 4, length - length // 4) for length in seen.shape)
        middle = seen[inner][valid[inner]]
        middle = middle if len(middle) >= config.min_points else seen[valid]
    if not len(middle):
        return np.zeros((0, 3))
    distance = np.median(middle)
    box = detections.boxes[index].astype(np.float64)
    width, height = (box[2] - box[0]) / camera.fx * distance, (box[3] - box[1]) / camera.fy * distance
    valid &= np.abs(seen - distance) <= max(config.min_depth, width / 2, height / 2)
    row, column = np.nonzero(valid)
    z = seen[row, column]
    x, y = (columns[column] - camera.cx) / camera.fx * z, (rows[row] - camera.cy) / camera.fy * z
    return np.stack([x, y, z], axis=1)
