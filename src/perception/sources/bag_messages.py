# SPDX-License-Identifier: Apache-2.0
"""Decoded messages of a bag to the values of this package: stamps, cameras, transforms, images, label sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.image_codec import (
    color_size,
    compressed_size,
    decode_color,
    decode_compressed,
    decode_compressed_color,
    decode_compressed_depth,
    decode_depth,
    view_image,
)
from perception.labels import UNLABELED, UNLABELED_8, UNLABELED_16, LabelClass, LabelSet, distinct_color
from perception.sources.bag_topics import COMPRESSED_IMAGE
from perception.types import DeferredColor


def stamp_of(header: Any) -> int:
    """Nanoseconds of a header's stamp; InputError where seconds or nanoseconds are out of range."""
    seconds, nanoseconds = int(header.stamp.sec), int(header.stamp.nanosec)
    if seconds < 0 or not 0 <= nanoseconds < 1_000_000_000:
        raise InputError(f"stamp: expected seconds from 0 and nanoseconds below 1e9, got {seconds} and {nanoseconds}")
    return seconds * 1_000_000_000 + nanoseconds


def frame_id_of(header: Any) -> str:
    """Frame of a header, without the leading slash of tf1; InputError when it is empty."""
    frame = str(header.frame_id).lstrip("/")
    if not frame:
        raise InputError("frame_id: expected the name of the camera's frame, got none")
    return frame


def camera_from(info: Any, rectified: bool = False) -> PinholeCamera:
    """Intrinsics from a sensor_msgs/CameraInfo of ROS 2, or of ROS 1, which writes K, D and P in capitals.

    Args:
        info: the message.
        rectified: the image is an ``image_rect`` one: the matrix is the left part of P, and D was used up.

    Raises:
        InputError: the numbers are no camera.

    Source: sensor_msgs/CameraInfo, "P specifies the intrinsic matrix of the processed (rectified) image".
    """
    roi = info.roi
    k, d = _field(info, "k"), _field(info, "d")
    if rectified:
        p = np.asarray(_field(info, "p"), np.float64).reshape(3, 4)
        if p[0, 0] or np.any(d):
            k, d = p[:, :3], ()
    return PinholeCamera.from_info(
        info.width,
        info.height,
        k,
        d,
        str(info.distortion_model),
        (int(info.binning_x), int(info.binning_y)),
        (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
    )


def _field(info: Any, name: str) -> Any:
    return getattr(info, name) if hasattr(info, name) else getattr(info, name.upper())


def transform_from(transform: Any) -> Transform:
    """From a geometry_msgs/Transform."""
    t, q = transform.translation, transform.rotation
    return Transform.from_translation_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))


def transforms_from(message: Any) -> Iterator[tuple[str, str, int, Any]]:
    """Parent, child, stamp and geometry_msgs/Transform of each entry of a tf2_msgs/TFMessage."""
    for entry in message.transforms:
        parent, child = str(entry.header.frame_id).lstrip("/"), str(entry.child_frame_id).lstrip("/")
        yield parent, child, stamp_of(entry.header), entry.transform


def odometry_from(message: Any) -> tuple[str, str, int, Transform]:
    """Parent, child, stamp and ``parent_T_child`` of a nav_msgs/Odometry."""
    pose = message.pose.pose
    t, q = pose.position, pose.orientation
    transform = Transform.from_translation_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
    parent, child = str(message.header.frame_id).lstrip("/"), str(message.child_frame_id).lstrip("/")
    return parent, child, stamp_of(message.header), transform


def color_from(message: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB from a sensor_msgs/Image or CompressedImage."""
    if _is_compressed(message):
        return decode_compressed_color(message.format, message.data)
    return decode_color(*_layout(message))


def color_when_asked(message: Any) -> DeferredColor:
    """The same image, decoded when it is looked at; what its header and its size tell of damage is found now."""
    if _is_compressed(message):
        height, width = compressed_size(message.format, message.data)
    else:
        height, width = color_size(*_layout(message))
    return DeferredColor(height, width, lambda: color_from(message))


def depth_from(message: Any) -> NDArray[np.float32]:
    """(H, W) float32 meters from a sensor_msgs/Image or CompressedImage."""
    if _is_compressed(message):
        return decode_compressed_depth(message.format, message.data)
    return decode_depth(*_layout(message))


def labels_from(message: Any) -> NDArray[np.int32]:
    """(H, W) int32 ids from a label image: 255 in 8 bits and 65535 in 16 bits mean no label, −1."""
    if _is_compressed(message):
        image = decode_compressed(message.format, message.data)
    else:
        image = view_image(*_layout(message))
    if image.ndim != 2 or image.dtype.kind != "u" or image.itemsize > 2:
        raise InputError(f"labels: expected mono8, 8UC1, mono16 or 16UC1, got {image.shape} {image.dtype}")
    labels = image.astype(np.int32, order="C")
    labels[image == (UNLABELED_8 if image.itemsize == 1 else UNLABELED_16)] = UNLABELED
    return labels


def label_set_from(message: Any, name: str) -> LabelSet:
    """A label set from a vision_msgs/LabelInfo; colors are chosen, everything is lethal, as nothing else is said."""
    return LabelSet(
        name,
        tuple(
            LabelClass(int(entry.class_id), str(entry.class_name), distinct_color(int(entry.class_id)))
            for entry in message.class_map
            if int(entry.class_id) != UNLABELED_16
        ),
    )


def _is_compressed(message: Any) -> bool:
    return message.__msgtype__ == COMPRESSED_IMAGE


def _layout(message: Any) -> tuple[int, int, str, int, bool, Any]:
    return message.height, message.width, message.encoding, message.step, bool(message.is_bigendian), message.data
