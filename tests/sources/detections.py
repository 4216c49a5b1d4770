# SPDX-License-Identifier: Apache-2.0
"""Writes true objects into bags as vision_msgs/Detection2DArray."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perception.sources.bag_writer import BagWriter
from perception.sources.recorded_objects import DETECTIONS

Box = tuple[float, float, float, float, float]
"""Center x and y, width and height in pixels, turn in radians."""


def write_objects(bag: BagWriter, topic: str, stamp_ns: int, objects: Sequence[tuple[Box, dict[str, float]]]) -> None:
    """Write the objects of one image: their boxes, and the scores of the classes that they may have."""
    header = bag.header(stamp_ns, "camera_optical_frame")
    detections = [
        bag.make(
            "vision_msgs/msg/Detection2D",
            header=header,
            results=[hypothesis(bag, name, score) for name, score in classes.items()],
            bbox=bounding_box(bag, box),
            id="",
        )
        for box, classes in objects
    ]
    bag.write(topic, DETECTIONS, stamp_ns, bag.make(DETECTIONS, header=header, detections=detections))


def bounding_box(bag: BagWriter, box: Box):
    x, y, width, height, turn = box
    point = bag.make("vision_msgs/msg/Point2D", x=x, y=y)
    center = bag.make("vision_msgs/msg/Pose2D", position=point, theta=turn)
    return bag.make("vision_msgs/msg/BoundingBox2D", center=center, size_x=width, size_y=height)


def hypothesis(bag: BagWriter, name: str, score: float):
    pose = bag.make(
        "geometry_msgs/msg/Pose",
        position=bag.make("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0),
        orientation=bag.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )
    return bag.make(
        "vision_msgs/msg/ObjectHypothesisWithPose",
        hypothesis=bag.make("vision_msgs/msg/ObjectHypothesis", class_id=name, score=score),
        pose=bag.make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
    )
