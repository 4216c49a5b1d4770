# SPDX-License-Identifier: Apache-2.0
"""labeled_cloud_node: labels that come late find their depth, and colors are taken only where asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from ros_bench import camera_info, color_message, depth_message, room_frames, stamps
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from perception.ros.conversions import confidence_to_image, labels_to_image, point_cloud2_to_points
from perception.ros.labeled_cloud_node import LabeledCloudNode

# Kernels that changed are compiled here, which takes minutes on a small machine.
pytestmark = pytest.mark.timeout(900)
STEP_NS = 200_000_000


@pytest.fixture(scope="module")
def frames():
    """Three seconds of a camera, five frames a second."""
    return [
        replace(frame, stamp_ns=10**18 + number * STEP_NS) for number, frame in enumerate(room_frames(1, 64, 48) * 16)
    ]


def publishers(bench, *names):
    kinds = {name: CameraInfo if name == "camera_info" else Image for name in names}
    return {name: bench.publisher(kind, name) for name, kind in kinds.items()}


def send_labels(topics, frame):
    labels = frame.labels
    topics["labels"].publish(labels_to_image(labels.labels, 32, frame.frame_id, frame.stamp_ns))
    topics["label_confidence"].publish(confidence_to_image(labels.confidence, frame.frame_id, frame.stamp_ns))


def test_labels_two_seconds_behind_their_images_are_no_jump_of_the_clock(bench, frames):
    node = bench.add(LabeledCloudNode, label_set="ade20k32")
    bench.activate(node)
    clouds = bench.collect(PointCloud2, "labeled_points")
    topics = publishers(bench, "camera_info", "image", "depth", "labels", "label_confidence")
    received = node.statistics.snapshot
    for number, frame in enumerate(frames):
        topics["camera_info"].publish(camera_info(frame))
        topics["image"].publish(color_message(frame))
        topics["depth"].publish(depth_message(frame))
        bench.spin_until(lambda count=number + 1: received().received.get("depth", 0) >= count)
        if number >= 10:
            send_labels(topics, frames[number - 10])
            bench.spin_until(lambda count=number - 9: received().processed >= count)
    assert "clock_jump" not in received().drops
    bench.spin_until(lambda: len(clouds) == 6)
    assert stamps(clouds) == [frame.stamp_ns for frame in frames[:6]]


def test_labels_that_come_after_their_depth_is_forgotten_are_dropped_with_the_parameter_to_change(bench, frames):
    node = bench.add(LabeledCloudNode, label_set="ade20k32", sync_queue_size=3, use_color=False)
    bench.activate(node)
    topics = publishers(bench, "camera_info", "depth", "labels", "label_confidence")
    received = node.statistics.snapshot
    for number, frame in enumerate(frames[:8]):
        topics["camera_info"].publish(camera_info(frame))
        topics["depth"].publish(depth_message(frame))
        bench.spin_until(lambda count=number + 1: received().received.get("depth", 0) >= count)
    send_labels(topics, frames[0])
    send_labels(topics, frames[7])
    bench.spin_until(lambda: received().processed == 1)
    assert received().drops == {"sync": 1}
    assert received().details["sync"] == (
        "labels found no label_confidence, depth within 0.02 s (sync_tolerance) among the last 3 of each "
        "(sync_queue_size)"
    )


def test_without_colors_the_image_is_not_waited_for(bench, frames):
    node = bench.add(LabeledCloudNode, label_set="ade20k32", use_color=False)
    bench.activate(node)
    clouds = bench.collect(PointCloud2, "labeled_points")
    assert "/image" not in {subscription.topic_name for subscription in node.subscriptions}
    topics = publishers(bench, "camera_info", "depth", "labels", "label_confidence")
    topics["camera_info"].publish(camera_info(frames[0]))
    topics["depth"].publish(depth_message(frames[0]))
    send_labels(topics, frames[0])
    bench.spin_until(lambda: clouds)
    fields = point_cloud2_to_points(clouds[0])
    assert fields.colors is not None and not fields.colors.any()
    assert fields.labels is not None and fields.labels.max() > 0
