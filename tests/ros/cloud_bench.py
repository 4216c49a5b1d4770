# SPDX-License-Identifier: Apache-2.0
"""A sensor that sends labeled clouds, with the frames of a robot: map, odom, base_footprint, lidar."""

from __future__ import annotations

from typing import Any

import numpy as np
from ros_bench import FIRST_STAMP_NS, LATCHED, Bench, transform_message
from sensor_msgs.msg import PointCloud2
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import LabelInfo

from perception.geometry import Transform
from perception.labels import LabelSet
from perception.ros.conversions import (
    label_set_to_label_info,
    labeled_cloud_to_point_cloud2,
    points_to_point_cloud2,
)
from perception.types import LabeledCloud

LABELS = LabelSet.load("ade20k32")
EAGER = {"map_publish_rate": 1000.0, "costmap_publish_rate": 1000.0, "resolution": 0.1}
HEIGHT = 0.55


def at(x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> Transform:
    return Transform.from_translation_quaternion((x, y, z), (0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)))


class Robot:
    """Sends clouds of the frame ``lidar``, 0.55 m above ``base_footprint``, and all transforms."""

    def __init__(self, bench: Bench, node: Any, first: int = 0) -> None:
        self.bench, self.node, self.count = bench, node, first
        self.clouds = bench.publisher(PointCloud2, "cloud_in")
        self.transforms = bench.publisher(TFMessage, "/tf")

    def send(
        self,
        points: Any,
        labels: Any = None,
        odom_T_base: Transform | None = None,
        map_T_odom: Transform | None = None,
        seconds: float = 0.1,
        wait: bool = True,
    ) -> int:
        """Send (N, 3) points given in the map frame; returns the stamp."""
        self.count += 1
        stamp_ns = FIRST_STAMP_NS + round(self.count * seconds * 1e9)
        odom_T_base, map_T_odom = odom_T_base or at(0.05, 0.05), map_T_odom or at(0.0, 0.0)
        base_T_lidar = at(0.0, 0.0, HEIGHT)
        for pose, child, parent in (
            (map_T_odom, "odom", "map"),
            (odom_T_base, "base_footprint", "odom"),
            (base_T_lidar, "lidar", "base_footprint"),
        ):
            self.transforms.publish(transform_message(pose, child, stamp_ns, parent))
        inside = (map_T_odom @ odom_T_base @ base_T_lidar).inverse().apply(np.asarray(points, np.float32))
        message = points_to_point_cloud2(inside, "lidar", stamp_ns)
        if labels is not None:
            message = labeled_cloud_to_point_cloud2(labeled_cloud(inside, labels, stamp_ns))
        if not wait:
            self.clouds.publish(message)
            return stamp_ns
        snapshot = self.node.statistics.snapshot
        done = snapshot().processed + sum(snapshot().drops.values())
        self.clouds.publish(message)
        self.bench.spin_until(lambda: snapshot().processed + sum(snapshot().drops.values()) > done)
        return stamp_ns


def labeled_cloud(points: Any, labels: Any, stamp_ns: int) -> LabeledCloud:
    count = len(points)
    return LabeledCloud(
        points, np.zeros((count, 3), np.uint8), np.asarray(labels, np.int32), np.full(count, 0.9, np.float32),
        np.zeros((0, 3), np.float32), np.zeros(count, np.int32), stamp_ns, "lidar",
    )  # fmt: skip


def tell_labels(bench: Bench, node: Any, label_set: LabelSet = LABELS) -> None:
    """Publish label_info and wait until the node's map has the classes."""
    info = bench.publisher(LabelInfo, "label_info", LATCHED)
    info.publish(label_set_to_label_info(label_set, "", FIRST_STAMP_NS))
    bench.spin_until(lambda: node.pipeline.label_set is not None)


def floor(name: str = "floor", x: tuple[float, float] = (-1.0, 3.0), y: tuple[float, float] = (-1.0, 1.0)):
    """Points on a plane at z = −0.05, 0.1 m apart, and their labels."""
    grid = np.stack(np.meshgrid(np.arange(*x, 0.1) + 0.05, np.arange(*y, 0.1) + 0.05), axis=-1).reshape(-1, 2)
    points = np.column_stack([grid, np.full(len(grid), -0.05)]).astype(np.float32)
    return points, np.full(len(points), LABELS[name].id, np.int32)


def floor_with_rug():
    """A floor with a rug from (1, 0) to (1.5, 0.5)."""
    points, labels = floor()
    on_rug = (points[:, 0] > 1.0) & (points[:, 0] < 1.5) & (points[:, 1] > 0.0) & (points[:, 1] < 0.5)
    return points, np.where(on_rug, LABELS["rug"].id, labels).astype(np.int32)


def box(name: str, x: float, y: float, size: float = 0.3, height: float = 0.6):
    """Points on the sides and top of a box that stands on the floor, and their labels."""
    steps = np.arange(0.0, size, 0.1) + 0.05
    grid = np.stack(np.meshgrid(x + steps, y + steps, np.arange(0.0, height, 0.1) + 0.05), axis=-1).reshape(-1, 3)
    return grid.astype(np.float32), np.full(len(grid), LABELS[name].id, np.int32)


def scene(*parts: Any) -> tuple[Any, Any]:
    """Parts joined: points and labels."""
    points, labels = zip(*parts, strict=True)
    return np.concatenate(points), np.concatenate(labels)
