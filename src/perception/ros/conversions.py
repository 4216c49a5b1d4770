# SPDX-License-Identifier: Apache-2.0
"""Conversions between ROS messages and this package's types: sensor data, transforms, labels and detections.

Maps are in :mod:`perception.ros.map_conversions`, voxels as markers in :mod:`perception.ros.markers`.

Functions that read a message use its attributes alone, so messages that a bag reader made do as well as rclpy's.
Functions that write one hand the array over without a copy (``message._data``): rclpy's own setter takes 200 ms for a
VGA image. Such a message must be published before the array changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from perception import cloud_codec, image_codec
from perception.cloud_codec import PointFields
from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import UNLABELED, UNLABELED_8, UNLABELED_16, LabelSet
from perception.types import Detections, LabeledCloud

NS_PER_S = 1_000_000_000
MAX_8_BIT_CLASSES = UNLABELED_8
"""Label sets of up to this many ids travel as mono8, larger ones as 16UC1."""


def stamp_to_ns(stamp: Any) -> int:
    """builtin_interfaces/Time to integer nanoseconds.

    Raises:
        InputError: a billion nanoseconds or more.
    """
    nanoseconds = int(stamp.nanosec)
    if nanoseconds >= NS_PER_S:
        raise InputError(f"stamp: expected less than {NS_PER_S} nanoseconds, got {nanoseconds}")
    return int(stamp.sec) * NS_PER_S + nanoseconds


def ns_to_stamp(stamp_ns: int) -> Time:
    """Integer nanoseconds to builtin_interfaces/Time.

    Raises:
        InputError: outside of the message's 32-bit seconds.
    """
    sec, nanosec = divmod(int(stamp_ns), NS_PER_S)
    if not -(2**31) <= sec < 2**31:
        raise InputError(f"stamp: expected seconds that fit 32 bits, got {sec}")
    return Time(sec=sec, nanosec=nanosec)


def make_header(frame_id: str, stamp_ns: int) -> Header:
    """std_msgs/Header from a frame name and integer nanoseconds."""
    return Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)


def image_to_color(message: Any) -> NDArray[np.uint8]:
    """sensor_msgs/Image or CompressedImage to (H, W, 3) uint8 RGB.

    Encodings that :mod:`perception.image_codec` does not know are left to cv_bridge where it is installed.

    Raises:
        InputError: the encoding is not known or is no color, or the sizes contradict each other.
    """
    if not hasattr(message, "encoding"):
        return image_codec.decode_compressed_color(message.format, message.data)
    if message.encoding not in image_codec.LAYOUTS:
        return _convert_with_cv_bridge(message, "rgb8")
    return image_codec.decode_color(*_image_fields(message))


def image_to_depth(message: Any) -> NDArray[np.float32]:
    """sensor_msgs/Image or CompressedImage (compressedDepth, or a 16-bit PNG) to (H, W) float32 meters.

    Zero and NaN mean no measurement, +inf no return, −inf too close.

    Raises:
        InputError: the encoding is not a depth encoding, or the sizes contradict each other.
    """
    if not hasattr(message, "encoding"):
        return image_codec.decode_compressed_depth(message.format, message.data)
    return image_codec.decode_depth(*_image_fields(message))


def image_to_labels(message: Any) -> NDArray[np.int32]:
    """A label image (8 or 16 bits unsigned, or 32SC1; plain or as PNG) to (H, W) int32 ids, −1 where there is none.

    Raises:
        InputError: the encoding holds no ids, or was compressed with loss.
    """
    if hasattr(message, "encoding"):
        if message.encoding not in ("mono8", "8UC1", "mono16", "16UC1", "32SC1"):
            raise InputError(f"label image: expected mono8, 16UC1 or 32SC1, got encoding {message.encoding[:40]!r}")
        ids = image_codec.decode_image(*_image_fields(message))
    else:
        if "jpeg" in message.format or "jpg" in message.format:
            raise InputError(f"label image: expected lossless compression, got format {message.format[:60]!r}")
        ids = image_codec.decode_compressed(message.format, message.data)
    if ids.ndim != 2:
        raise InputError(f"label image: expected one channel, got {ids.shape}")
    labels = ids.astype(np.int32)
    none = {np.dtype(np.uint8): labels == UNLABELED_8, np.dtype(np.uint16): labels == UNLABELED_16}
    labels[none.get(ids.dtype, labels < 0)] = UNLABELED
    return labels


def image_to_confidence(message: Any) -> NDArray[np.float32]:
    """A confidence image, mono8 (0–255) or 32FC1, to (H, W) float32 in [0, 1]; NaN becomes 0.

    Raises:
        InputError: another encoding.
    """
    if message.encoding not in ("mono8", "8UC1", "32FC1"):
        raise InputError(f"confidence image: expected mono8 or 32FC1, got encoding {message.encoding[:40]!r}")
    values = image_codec.decode_image(*_image_fields(message))
    if values.dtype == np.uint8:
        return np.divide(values, np.float32(255), dtype=np.float32)
    return np.clip(np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)


def array_to_image(array: NDArray[Any], encoding: str, frame_id: str, stamp_ns: int) -> Image:
    """An array to sensor_msgs/Image, without a copy where it is C-ordered and little-endian.

    Args:
        array: (H, W) or (H, W, C) of the type and channels that the encoding names.
        encoding: a key of :data:`perception.image_codec.LAYOUTS`.
        frame_id: name of the optical frame.
        stamp_ns: nanoseconds.

    Raises:
        InputError: array and encoding do not fit.
    """
    kind, channels = image_codec.LAYOUTS.get(encoding, ("", 0))
    shape = array.shape[:2] if channels == 1 else (*array.shape[:2], channels)
    if not channels or array.ndim < 2 or array.shape != shape or array.dtype != np.dtype(kind):
        raise InputError(f"image: expected an array that fits encoding {encoding!r}, got {array.shape} {array.dtype}")
    pixels = np.ascontiguousarray(array, np.dtype(kind).newbyteorder("<"))
    height, width = pixels.shape[:2]
    message = Image(header=make_header(frame_id, stamp_ns), height=height, width=width, encoding=encoding)
    message.step = width * channels * pixels.itemsize
    message._data = pixels.reshape(-1).view(np.uint8)  # pyright: ignore[reportAttributeAccessIssue]
    return message


def labels_to_image(labels: NDArray[np.integer], num_classes: int, frame_id: str, stamp_ns: int) -> Image:
    """(H, W) ids, −1 where there is none, to a label image: mono8 (none: 255) or 16UC1 (none: 65535)."""
    small = num_classes <= MAX_8_BIT_CLASSES
    none, dtype = (UNLABELED_8, np.uint8) if small else (UNLABELED_16, np.uint16)
    ids = np.where(labels < 0, none, labels).astype(dtype)
    return array_to_image(ids, "mono8" if small else "16UC1", frame_id, stamp_ns)


def confidence_to_image(confidence: NDArray[np.floating], frame_id: str, stamp_ns: int) -> Image:
    """(H, W) confidence in [0, 1] to mono8, 0–255."""
    scaled = np.clip(np.nan_to_num(confidence), 0, 1) * 255
    return array_to_image(np.rint(scaled).astype(np.uint8), "mono8", frame_id, stamp_ns)


def camera_info_to_camera(message: Any, rectified: bool = False) -> PinholeCamera:
    """sensor_msgs/CameraInfo to the camera of the images as they are sent, region of interest and binning applied.

    Args:
        message: the CameraInfo.
        rectified: the images are rectified already: takes P and ignores the distortion.

    Raises:
        InputError: the camera is not calibrated, or its numbers make no sense.
    """
    k = np.asarray(message.p, np.float64).reshape(-1) if rectified else np.asarray(message.k, np.float64)
    if k.size != (12 if rectified else 9) or not k.any():
        raise InputError(
            f"camera_info: expected a calibrated camera, got {'P' if rectified else 'K'} with "
            f"{np.count_nonzero(k)} numbers other than zero"
        )
    roi = message.roi
    return PinholeCamera.from_info(
        int(message.width),
        int(message.height),
        k.reshape(3, 4)[:, :3] if rectified else k,
        () if rectified else message.d,
        message.distortion_model,
        (int(message.binning_x), int(message.binning_y)),
        (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
    )


def camera_to_camera_info(camera: PinholeCamera, frame_id: str, stamp_ns: int) -> CameraInfo:
    """Intrinsics to sensor_msgs/CameraInfo."""
    message = CameraInfo(header=make_header(frame_id, stamp_ns), height=camera.height, width=camera.width)
    message.distortion_model = camera.distortion_model if camera.is_distorted else "plumb_bob"
    message.d = [float(value) for value in camera.distortion or (0.0,) * 5]
    message.k = camera.matrix.ravel()
    message.r = np.eye(3).ravel()
    message.p = np.hstack([camera.matrix, np.zeros((3, 1))]).ravel()
    return message


def odometry_to_message(
    odom_T_base: Transform, velocity: tuple[float, float, float], parent: str, child: str, stamp_ns: int
) -> Odometry:
    """Pose and velocity to nav_msgs/Odometry.

    Args:
        odom_T_base: of the robot.
        velocity: forward and left in m/s, turn in rad/s, in the robot's frame.
        parent: name of the odometry's frame.
        child: name of the robot's frame.
        stamp_ns: nanoseconds.
    """
    message = Odometry(header=make_header(parent, stamp_ns), child_frame_id=child)
    position, orientation = message.pose.pose.position, message.pose.pose.orientation
    position.x, position.y, position.z = (float(value) for value in odom_T_base.translation)
    orientation.x, orientation.y, orientation.z, orientation.w = (float(v) for v in odom_T_base.quaternion_xyzw)
    twist = message.twist.twist
    twist.linear.x, twist.linear.y, twist.angular.z = velocity
    return message


def transform_stamped_to_transform(message: Any) -> Transform:
    """geometry_msgs/TransformStamped to ``parent_T_child`` (parent: header.frame_id, child: child_frame_id).

    Raises:
        InputError: not finite, or no unit quaternion.
    """
    t, q = message.transform.translation, message.transform.rotation
    return Transform.from_translation_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))


def transform_to_transform_stamped(
    parent_T_child: Transform, parent: str, child: str, stamp_ns: int
) -> TransformStamped:
    """``parent_T_child`` to geometry_msgs/TransformStamped."""
    message = TransformStamped(header=make_header(parent, stamp_ns), child_frame_id=child)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = (float(value) for value in parent_T_child.translation)
    q.x, q.y, q.z, q.w = (float(value) for value in parent_T_child.quaternion_xyzw)
    return message


def point_cloud2_to_points(message: Any, with_colors: bool = True) -> PointFields:
    """sensor_msgs/PointCloud2 to points and, where it has them, colors (if wanted), labels and confidence.

    Raises:
        InputError: a coordinate is missing, or sizes and offsets contradict each other.
    """
    return cloud_codec.decode_point_cloud(
        message.height,
        message.width,
        message.fields,
        message.is_bigendian,
        message.point_step,
        message.row_step,
        message.data,
        with_colors,
    )


def points_to_point_cloud2(points: NDArray[np.floating], frame_id: str, stamp_ns: int) -> PointCloud2:
    """(N, 3) points, meters, to sensor_msgs/PointCloud2 with x, y, z."""
    is_dense = bool(np.isfinite(points).all())
    return records_to_point_cloud2(cloud_codec.encode_points(points), frame_id, stamp_ns, is_dense)


def labeled_cloud_to_point_cloud2(cloud: LabeledCloud) -> PointCloud2:
    """A labeled cloud to sensor_msgs/PointCloud2: x, y, z, rgb (packed), label (65535: none), confidence."""
    records = cloud_codec.encode_labeled_points(cloud.points, cloud.colors, cloud.labels, cloud.confidence)
    return records_to_point_cloud2(records, cloud.frame_id, cloud.stamp_ns, bool(np.isfinite(cloud.points).all()))


def laser_scan_to_points(message: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """sensor_msgs/LaserScan to points in its frame.

    Returns:
        Hits, (N, 3) float32 meters: beams within range_min and range_max. Ends of free rays, (M, 3): beams of +inf, at
        range_max. All else (NaN, −inf, out of range) is dropped. Source: REP 117.

    Raises:
        InputError: angles or limits are not finite.
    """
    angle_min, increment = message.angle_min, message.angle_increment
    range_min, range_max = message.range_min, message.range_max
    ranges = np.asarray(message.ranges, np.float32).reshape(-1)
    last_angle = angle_min + increment * len(ranges)
    if not np.isfinite((angle_min, last_angle, range_min, range_max)).all():
        raise InputError(
            f"laser scan: expected finite angles and range limits, got angles from {angle_min} by {increment} "
            f"and ranges from {range_min} to {range_max}"
        )
    angles = angle_min + increment * np.arange(len(ranges), dtype=np.float64)
    directions = np.stack((np.cos(angles), np.sin(angles), np.zeros_like(angles)), axis=1)
    hit = (ranges >= range_min) & (ranges <= range_max)  # False for NaN and both infinities.
    points = directions[hit] * ranges[hit, None]
    free = directions[np.isposinf(ranges)] * range_max
    return points.astype(np.float32), free.astype(np.float32)


def label_set_to_label_info(label_set: LabelSet, frame_id: str, stamp_ns: int, threshold: float = 0.0) -> Any:
    """Ids and names of a label set to vision_msgs/LabelInfo."""
    from vision_msgs.msg import LabelInfo, VisionClass

    classes = [VisionClass(class_id=label.id, class_name=label.name) for label in label_set.classes]
    return LabelInfo(header=make_header(frame_id, stamp_ns), class_map=classes, threshold=float(threshold))


def detections_to_detection2d_array(detections: Detections, frame_id: str, stamp_ns: int) -> Any:
    """Objects in an image to vision_msgs/Detection2DArray; class_id is the name of the class."""
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    message = Detection2DArray(header=make_header(frame_id, stamp_ns))
    boxes, scores, labels = detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist()
    for (left, top, right, bottom), score, label in zip(boxes, scores, labels, strict=True):
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = detections.label_set.name_of(label), score
        detection = Detection2D(header=message.header, results=[result])
        detection.bbox.center.position.x, detection.bbox.center.position.y = (left + right) / 2, (top + bottom) / 2
        detection.bbox.size_x, detection.bbox.size_y = right - left, bottom - top
        message.detections.append(detection)  # pyright: ignore[reportAttributeAccessIssue]
    return message


def _image_fields(message: Any) -> tuple[int, int, str, int, bool, Any]:
    return message.height, message.width, message.encoding, message.step, message.is_bigendian, message.data


def _convert_with_cv_bridge(message: Any, encoding: str) -> NDArray[Any]:
    try:
        from cv_bridge import CvBridge
    except ImportError:
        known = ", ".join(image_codec.LAYOUTS)
        raise InputError(
            f"image encoding: expected one of {known}, or an installed cv_bridge, got {message.encoding[:40]!r}"
        ) from None
    expected, length = int(message.step) * int(message.height), len(image_codec.as_bytes(message.data))
    if not 0 < expected <= length:
        raise InputError(f"image data: expected step x height = {expected} bytes, got {length}")
    try:
        return np.asarray(CvBridge().imgmsg_to_cv2(message, desired_encoding=encoding))
    except Exception as error:  # cv_bridge raises what OpenCV, NumPy and Boost raise.
        raise InputError(
            f"image encoding {message.encoding[:40]!r}: cv_bridge cannot convert it to {encoding}"
        ) from error


def records_to_point_cloud2(
    records: NDArray[np.void], frame_id: str, stamp_ns: int, is_dense: bool | None = None
) -> PointCloud2:
    """(N,) records with x, y, z and further fields to sensor_msgs/PointCloud2; looks itself whether all are finite."""
    numbers = {kind: number for number, kind in cloud_codec.FIELD_TYPES.items()}
    fields = [
        PointField(name=name, offset=place[1], datatype=numbers[place[0].str[1:]], count=1)
        for name, place in (records.dtype.fields or {}).items()
    ]
    step = records.dtype.itemsize
    if is_dense is None:
        is_dense = all(bool(np.isfinite(records[axis]).all()) for axis in "xyz")
    message = PointCloud2(
        header=make_header(frame_id, stamp_ns),
        height=1,
        width=len(records),
        fields=fields,
        point_step=step,
        row_step=step * len(records),
        is_dense=is_dense,
    )
    message._data = records.view(np.uint8)  # pyright: ignore[reportAttributeAccessIssue]
    return message
