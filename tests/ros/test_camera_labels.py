# SPDX-License-Identifier: Apache-2.0
"""Clouds of a LiDAR get labels where a camera of the same node sees them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from ros_bench import Camera, room_frames, transform_message
from sensor_msgs.msg import PointCloud2

from perception.cloud_codec import PointFields
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelSet
from perception.ros.camera_labels import CameraLabels
from perception.ros.conversions import points_to_point_cloud2
from perception.ros.pipeline_node import PipelineNode
from perception.types import Frame, LabelImage

pytestmark = pytest.mark.timeout(900)
LABELS = LabelSet.load("ade20k32")
PERSON, WALL = LABELS["person"].id, LABELS["wall"].id
NONE = np.zeros((0, 3), np.float32)


def lidar_points(frame: Frame, every: int = 7) -> np.ndarray:
    """What a LiDAR in the camera's place would measure: pixels' points, in the camera's frame."""
    rows, columns = np.mgrid[3 : frame.camera.height : every, 3 : frame.camera.width : every]
    z = frame.depth[rows, columns].ravel()
    rays = np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)]).T @ np.linalg.inv(frame.camera.matrix).T
    return (rays * z[:, None])[np.isfinite(z) & (z > 0)].astype(np.float32)


def test_points_of_a_lidar_that_the_camera_sees_are_mapped_with_its_labels(bench):
    parameters = {
        "segmentation.model": "toy_network:build", "cloud_topics": "lidar", "cloud_label_age": 0.5,
        "resolution": 0.1, "sensor_model.max_range": 8.0,
    }  # fmt: skip
    node = bench.add(PipelineNode, **parameters)
    bench.activate(node)
    camera, lidar = Camera(bench), bench.publisher(PointCloud2, "lidar")
    first, second = room_frames(2)
    camera.send(first)
    bench.spin_until(lambda: node.statistics.snapshot().processed == 1)
    # Only what the cloud brings is looked at.
    node.reset()
    camera.transforms.publish(transform_message(first.map_T_camera, first.frame_id, second.stamp_ns))
    points = lidar_points(first)
    lidar.publish(points_to_point_cloud2(points, first.frame_id, second.stamp_ns))
    bench.spin_until(lambda: node.statistics.snapshot().processed == 2)
    ids = node.pipeline.tree.label_of(first.map_T_camera.apply(points))
    assert (ids >= 0).mean() > 0.95
    assert 0.9 * len(points) < node.details()["points of clouds labeled"] <= len(points)
    truth = first.labels.labels[3::7, 3::7].ravel()
    z = first.depth[3::7, 3::7].ravel()
    agree = ids == truth[np.isfinite(z) & (z > 0)]
    assert agree.mean() > 0.9, "voxels at the borders of things hold two classes"


def test_a_cloud_that_is_too_old_or_unasked_gets_no_labels(bench):
    node = bench.add(
        PipelineNode, **{"segmentation.model": "toy_network:build", "cloud_topics": "lidar", "resolution": 0.1}
    )
    bench.activate(node)
    cloud = PointFields(np.ones((2, 3), np.float32))
    assert node.labeled(0, cloud, NONE, Transform.identity()) == (cloud, NONE)
    labels = CameraLabels()
    labels.keep("", seen(WALL), image(WALL))
    assert labels.label(cloud, NONE, Transform.identity(), 21 * 10**8, 1.0, 0.0)[0].labels is None


def image(number: int, confidence: float = 0.9) -> LabelImage:
    return LabelImage(np.full((4, 4), number, np.int32), np.full((4, 4), confidence, np.float32), LABELS)


def seen(number: int) -> Frame:
    """Four by four pixels, 2 m away, all of one class."""
    camera = PinholeCamera.from_matrix([[2.0, 0, 1.5], [0, 2.0, 1.5], [0, 0, 1]], 4, 4)
    depth = np.full((4, 4), 2.0, np.float32)
    return Frame(10**9, np.zeros((4, 4, 3), np.uint8), depth, camera, Transform.identity(), labels=image(number))


def test_points_on_things_that_move_only_clear():
    labels = CameraLabels()
    labels.keep("", seen(PERSON), image(PERSON))
    cloud = PointFields(np.array([(0.0, 0.0, 2.0), (0.0, 0.0, 5.0)], np.float32))
    rest, free = labels.label(cloud, NONE, Transform.identity(), 10**9, 0.1, 0.0)
    assert rest.points.tolist() == [[0.0, 0.0, 5.0]] and rest.labels.tolist() == [-1]
    assert free.tolist() == [[0.0, 0.0, 2.0]]


def test_of_two_cameras_the_surer_one_labels():
    labels = CameraLabels()
    labels.keep("left", seen(WALL), image(WALL, 0.6))
    labels.keep("right", seen(WALL), image(LABELS["floor"].id, 0.7))
    cloud = PointFields(np.array([(0.0, 0.0, 2.0)], np.float32))
    rest, _ = labels.label(cloud, NONE, Transform.identity(), 10**9, 0.1, 0.0)
    assert rest.labels.tolist() == [LABELS["floor"].id]
    assert labels.labeled == 1
    labels.forget()
    assert labels.label(cloud, NONE, Transform.identity(), 10**9, 0.1, 0.0)[0].labels is None
