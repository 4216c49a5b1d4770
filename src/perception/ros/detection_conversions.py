# SPDX-License-Identifier: Apache-2.0
"""Boxes in space to vision_msgs and visualization_msgs, and boxes drawn into an image."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray
from visualization_msgs.msg import Marker, MarkerArray

from perception.ros.conversions import make_header
from perception.types import Detections, Detections3D

BOX_OPACITY = 0.4
TEXT_HEIGHT = 0.12


def detections_to_detection3d_array(detections: Detections3D) -> Any:
    """Boxes to vision_msgs/Detection3DArray; class_id is the name of the class, id the track's number or empty."""
    from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

    header, objects = make_header(detections.frame_id, detections.stamp_ns), []
    for center, size, yaw, score, label, number in _rows(detections):
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = detections.label_set.name_of(label), score
        _set_pose(result.pose.pose, center, yaw)
        item = Detection3D(header=header, results=[result], id=str(number) if number >= 0 else "")
        _set_pose(item.bbox.center, center, yaw)
        item.bbox.size.x, item.bbox.size.y, item.bbox.size.z = size
        objects.append(item)
    return Detection3DArray(header=header, detections=objects)


def detections_to_markers(detections: Detections3D) -> MarkerArray:
    """Boxes to translucent cubes with a line of text above, in place of those shown before; namespaces are classes."""
    header = make_header(detections.frame_id, detections.stamp_ns)
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for index, (center, size, yaw, score, label, number) in enumerate(_rows(detections)):
        name = detections.label_set.name_of(label)
        red, green, blue = (detections.label_set.colors[label] / 255).tolist()
        cube = Marker(header=header, ns=name, id=index, type=Marker.CUBE)
        _set_pose(cube.pose, center, yaw)
        cube.scale.x, cube.scale.y, cube.scale.z = size
        cube.color.r, cube.color.g, cube.color.b, cube.color.a = red, green, blue, BOX_OPACITY
        text = Marker(header=header, ns=f"{name} text", id=index, type=Marker.TEXT_VIEW_FACING)
        text.text = f"{name} {number}" if number >= 0 else f"{name} ({score:.2f})"
        _set_pose(text.pose, [center[0], center[1], center[2] + size[2] / 2 + TEXT_HEIGHT], 0.0)
        text.scale.z, text.color.a = TEXT_HEIGHT, 1.0
        text.color.r = text.color.g = text.color.b = 1.0
        markers += [cube, text]
    return MarkerArray(markers=markers)


def draw_detections(rgb: NDArray[np.uint8], detections: Detections) -> NDArray[np.uint8]:
    """A copy of an (H, W, 3) uint8 image with boxes, names and scores."""
    import cv2

    picture = rgb.copy()
    for box, score, label in zip(detections.boxes, detections.scores, detections.labels.tolist(), strict=True):
        left, top, right, bottom = (int(value) for value in np.rint(box))
        color = tuple(int(channel) for channel in detections.label_set.colors[label])
        cv2.rectangle(picture, (left, top), (right, bottom), color, 2)
        text, place = f"{detections.label_set.name_of(label)} {score:.2f}", (left + 3, top + 15)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1, cv2.LINE_AA)
    return picture


def _rows(detections: Detections3D) -> Iterator[tuple[list[float], list[float], float, float, int, int]]:
    return zip(
        detections.centers.tolist(),
        detections.sizes.tolist(),
        detections.yaws.tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        detections.ids.tolist(),
        strict=True,
    )


def _set_pose(pose: Any, center: list[float], yaw: float) -> None:
    pose.position.x, pose.position.y, pose.position.z = center
    pose.orientation.z, pose.orientation.w = sin(yaw / 2), cos(yaw / 2)
