# SPDX-License-Identifier: Apache-2.0
"""Depth image, labels and color to a labeled cloud in the camera's optical frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perception import image_codec
from perception.config import CloudConfig
from perception.errors import InputError
from perception.geometry import PinholeCamera
from perception.labels import LabelClass, LabelSet
from perception.types import DepthScan, LabeledCloud, LabelImage

NO_MASK = np.zeros((0, 0), np.uint8)
MAX_SLOPE = 1000.0
"""Tangent of the largest angle between a ray and the optical axis; a pinhole's lens ends far before."""


def label_cloud(
    depth: NDArray[np.floating],
    camera: PinholeCamera,
    labels: LabelImage | None = None,
    color: NDArray[np.uint8] | None = None,
    config: CloudConfig | None = None,
    *,
    min_confidence: float = 0.0,
    no_return_range: float = 0.0,
    stamp_ns: int = 0,
    frame_id: str = "camera_optical_frame",
) -> LabeledCloud:
    """Lift the pixels of a depth image to points with label, confidence and color.

    Ranges are distances from the camera, as OctoMap counts them, not depths. Pixels of classes that move, and
    ``config.moving_margin`` pixels around them, become ``moving_points`` and end rays that only clear. A label is
    dropped, and its point kept, when its confidence is too low or it lies behind a depth edge.

    Args:
        depth: (H, W) float, meters along the optical axis. +inf: no return; 0, NaN, negative and −inf: no measurement.
        camera: intrinsics of the depth image, without distortion.
        labels: (H, W) labels registered to the depth; None for geometry only.
        color: (H, W, 3) uint8 RGB registered to the depth; None leaves colors black.
        config: stride, range limits, edges and clearing.
        min_confidence: labels below it count as none.
        no_return_range: length in meters of the rays without return when ``config.max_range`` sets no limit. With
            neither they have no end, so they are dropped and clear nothing.
        stamp_ns: time of the image, nanoseconds.
        frame_id: name of the optical frame.

    Returns:
        The cloud in the optical frame. ``clear_points`` are the ends of rays without return, of rays beyond the
        limit (cut there) and of rays to things that move.

    Raises:
        InputError: sizes or types do not fit, or the camera is distorted or looks sideways.

    Source: pinhole model, Hartley and Zisserman, Multiple View Geometry, ch. 6.
    """
    if color is not None and (color.shape != (*depth.shape, 3) or color.dtype != np.uint8):
        raise InputError(f"color: expected {(*depth.shape, 3)} uint8, got {color.shape} {color.dtype}")
    scan = depth_scan(depth, camera, labels, config, min_confidence=min_confidence, no_return_range=no_return_range)
    return lift(scan, color, stamp_ns, frame_id)


def depth_scan(
    depth: NDArray[np.floating],
    camera: PinholeCamera,
    labels: LabelImage | None = None,
    config: CloudConfig | None = None,
    *,
    min_confidence: float = 0.0,
    no_return_range: float = 0.0,
) -> DepthScan:
    """What :func:`label_cloud` lifts, before it is lifted: ``SemanticOcTree.insert_depth`` takes it as it is.

    Args, errors: as :func:`label_cloud`.
    """
    config = CloudConfig() if config is None else config
    depth = _checked_depth(depth, camera)
    ray_x, ray_y = _ray_tables(camera)
    limited = config.max_range > 0
    scan = DepthScan(
        depth,
        ray_x,
        ray_y,
        config.min_range,
        config.max_range if limited else np.inf,
        config.max_range if limited else max(no_return_range, 0.0),
        config.stride,
        config.clear_no_return,
        config.clear_zero,
    )
    if labels is None:
        return scan
    if labels.labels.shape != depth.shape:
        raise InputError(f"labels: expected {depth.shape} as the depth, got {labels.labels.shape}")
    ids, confidence = _plain(labels)
    return replace(
        scan,
        moving=moving_mask(labels, min_confidence, config.moving_margin),
        labels=ids,
        confidence=confidence,
        unsure=_unsure_mask(depth, config),
        min_confidence=min_confidence,
    )


def lift(
    scan: DepthScan,
    color: NDArray[np.uint8] | None = None,
    stamp_ns: int = 0,
    frame_id: str = "camera_optical_frame",
) -> LabeledCloud:
    """The points of a scan; the arguments and the cloud are those of :func:`label_cloud`."""
    from perception import cloud_kernels
    from perception.depth_kernels import depth_rows, make_row_buffers, pixel_labels

    rows = depth_rows(scan)
    buffers = make_row_buffers(len(rows.ray_x))
    points, pixels, ids, sure, clear, movers = cloud_kernels.lift_pixels(rows, pixel_labels(scan), buffers)
    colors = np.zeros((len(points), 3), np.uint8)
    if color is not None:
        colors = cloud_kernels.pick_colors(pixels, np.ascontiguousarray(color))
    if len(movers):
        clear = np.concatenate([clear, movers])
    return LabeledCloud(points, colors, ids, sure, clear, pixels, stamp_ns, frame_id, movers)


def moving_mask(labels: LabelImage, min_confidence: float = 0.0, margin: int = 0) -> NDArray[np.uint8]:
    """Where things that move are.

    Args:
        labels: labels of an image; classes move as their label set says.
        min_confidence: labels below it count as none.
        margin: pixels by which the mask is widened in all eight directions.

    Returns:
        (H, W) uint8, 1 on things that move; (0, 0) when there are none.
    """
    from perception.cloud_kernels import find_moving

    moves = labels.label_set.moves
    if not moves.any():
        return NO_MASK
    ids, confidence = _plain(labels)
    table = np.concatenate([[False], moves]).astype(np.uint8)
    mask, found = find_moving(ids, confidence, table, np.float32(min_confidence))
    if not found:
        return NO_MASK
    if margin > 0:
        import cv2

        mask = cv2.dilate(mask, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    return np.ascontiguousarray(mask, np.uint8)


def warm_up() -> None:
    """Compile the kernels, or load them from the cache, so that the first frame is as quick as the others."""
    image_codec.warm_up()
    camera = PinholeCamera(4, 3, 4.0, 4.0, 1.5, 1.0)
    classes = LabelSet("warm up", (LabelClass(0, "floor", (0, 0, 0)), LabelClass(1, "person", (9, 9, 9), moves=True)))
    labels = LabelImage.certain(np.array([[0, 0, 0, 1]] * 3, np.int32), classes)
    label_cloud(np.ones((3, 4), np.float32), camera, labels, np.zeros((3, 4, 3), np.uint8))
    label_cloud(np.ones((3, 4), np.float32), camera, config=CloudConfig(edge_radius=2))


def _ray_tables(camera: PinholeCamera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    widest_x = max(abs(camera.cx), abs(camera.width - 1 - camera.cx))
    widest_y = max(abs(camera.cy), abs(camera.height - 1 - camera.cy))
    if widest_x > MAX_SLOPE * camera.fx or widest_y > MAX_SLOPE * camera.fy:
        raise InputError(
            f"camera: expected rays less than {MAX_SLOPE:g} times as far aside as ahead, got fx, fy, cx, cy = "
            f"{camera.fx:g}, {camera.fy:g}, {camera.cx:g}, {camera.cy:g} for {camera.width}x{camera.height} pixels"
        )
    ray_x = (np.arange(camera.width) - camera.cx) / camera.fx
    ray_y = (np.arange(camera.height) - camera.cy) / camera.fy
    return ray_x.astype(np.float32), ray_y.astype(np.float32)


def _checked_depth(depth: NDArray[np.floating], camera: PinholeCamera) -> NDArray[np.float32]:
    if camera.is_distorted:
        raise InputError("camera: expected a rectified image without distortion; call registration.rectify first")
    if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
        raise InputError(f"depth: expected (H, W) floating point meters, got {depth.shape} {depth.dtype}")
    if depth.shape != camera.size:
        raise InputError(f"depth: expected {camera.size} as the intrinsics say, got {depth.shape}")
    return np.ascontiguousarray(depth, np.float32)


def _plain(labels: LabelImage) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Labels and confidence in the types that the kernels are compiled for."""
    return np.ascontiguousarray(labels.labels, np.int32), np.ascontiguousarray(labels.confidence, np.float32)


def _unsure_mask(depth: NDArray[np.float32], config: CloudConfig) -> NDArray[np.uint8]:
    from perception.cloud_kernels import far_side_of_edges

    if config.edge_threshold <= 0 or config.edge_radius <= 0:
        return NO_MASK
    return far_side_of_edges(depth, config.edge_threshold, config.edge_radius)
