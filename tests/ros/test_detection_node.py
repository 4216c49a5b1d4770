# SPDX-License-Identifier: Apache-2.0
"""detection_node on live topics, and its messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("vision_msgs.msg", reason="needs vision_msgs")

from geometry_msgs.msg import TransformStamped
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo
from visualization_msgs.msg import Marker, MarkerArray

from perception.labels import LabelSet
from perception.ros.conversions import array_to_image, make_header
from perception.ros.detection_conversions import (
    detections_to_detection3d_array,
    detections_to_markers,
    draw_detections,
)
from perception.ros.detection_node import DetectionNode
from perception.ros.node import latched_qos
from perception.types import Detections, Detections3D

COCO = LabelSet.load("coco")
SECOND = 10**9


def picture():
    """Depth 4 m, and 2 m where a red thing of 40×30 pixels is."""
    color, depth = np.full((120, 160, 3), 90, np.uint8), np.full((120, 160), 4, np.float32)
    color[45:75, 60:100], depth[45:75, 60:100] = (250, 0, 0), 2
    return color, depth


@pytest.fixture
def start(nodes, monkeypatch):
    """Makes an active detection node with the toy detector."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    started = []

    def make(**parameters):
        values = {"detection.model": "toy_detector:build", "detection.device": "cpu", **parameters}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = DetectionNode(context=nodes.offering.context, parameter_overrides=overrides)
        nodes.executor.add_node(node)
        started.append(node)
        node.trigger_configure()
        node.trigger_activate()
        return node

    yield make
    for node in started:
        nodes.executor.remove_node(node)
        node.destroy_node()


def collect(nodes, message_type, topic, qos=5):
    received = []
    nodes.asking.create_subscription(message_type, topic, received.append, qos)
    return received


def camera_info(stamp_ns):
    message = CameraInfo(header=make_header("optical", stamp_ns), height=120, width=160)
    message.k = [100.0, 0.0, 79.5, 0.0, 100.0, 59.5, 0.0, 0.0, 1.0]
    message.p = [100.0, 0.0, 79.5, 0.0, 0.0, 100.0, 59.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def publish_until(nodes, publish, condition):
    for step in range(200):
        publish(step)
        if nodes.spin_until(condition, 0.1):
            return True
    return False


def test_objects_have_the_images_stamp_and_frame(nodes, start):
    start()
    found = collect(nodes, Detection2DArray, "detections")
    overlays = collect(nodes, Image, "detections_overlay")
    infos = collect(nodes, LabelInfo, "detections_label_info", latched_qos())
    publisher = nodes.asking.create_publisher(Image, "image", 5)
    color, _ = picture()

    def publish(step):
        publisher.publish(array_to_image(color, "rgb8", "optical", (step + 1) * SECOND))

    assert publish_until(nodes, publish, lambda: bool(found and overlays and infos))
    message = found[0]
    assert message.header.frame_id == "optical"
    assert message.header.stamp.nanosec == 0
    assert message.header.stamp.sec >= 1
    (detection,) = message.detections
    assert detection.results[0].hypothesis.class_id == "chair"
    assert detection.results[0].hypothesis.score == pytest.approx(0.75)
    box = detection.bbox
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (80, 60, 40, 30)
    assert len(infos[0].class_map) == 80
    assert (overlays[0].height, overlays[0].width, overlays[0].encoding) == (120, 160, "rgb8")


def test_with_depth_objects_are_numbered_boxes_in_the_map(nodes, start):
    pytest.importorskip("norfair")
    start(use_3d=True)
    found = collect(nodes, Detection3DArray, "detections_3d")
    markers = collect(nodes, MarkerArray, "detections_markers")
    topics = {"image": Image, "depth": Image, "camera_info": CameraInfo, "/tf": TFMessage}
    send = {name: nodes.asking.create_publisher(kind, name, 10) for name, kind in topics.items()}
    color, depth = picture()

    def publish(step):
        stamp_ns = SECOND + step * SECOND // 10
        pose = TransformStamped(header=make_header("map", stamp_ns), child_frame_id="optical")
        pose.transform.translation.x, pose.transform.rotation.w = 10.0, 1.0
        send["/tf"].publish(TFMessage(transforms=[pose]))
        send["camera_info"].publish(camera_info(stamp_ns))
        send["depth"].publish(array_to_image(depth, "32FC1", "optical", stamp_ns))
        send["image"].publish(array_to_image(color, "rgb8", "optical", stamp_ns))

    assert publish_until(nodes, publish, lambda: bool(found and markers and found[-1].detections[0].id))
    (detection,) = found[-1].detections
    assert found[-1].header.frame_id == "map"
    assert (detection.id, detection.results[0].hypothesis.class_id) == ("1", "chair")
    center, size = detection.bbox.center.position, detection.bbox.size
    # Two meters before the camera, which is at x = 10; 40 and 30 pixels of 2 cm, nine tenths of them.
    np.testing.assert_allclose([center.x, center.y, center.z], [10, 0, 2], atol=0.03)
    np.testing.assert_allclose([size.x, size.y], [0.72, 0.54], atol=0.04)
    assert markers[-1].markers[0].action == Marker.DELETEALL


def test_a_bad_image_is_dropped_and_the_next_one_counts(nodes, start):
    node = start()
    found = collect(nodes, Detection2DArray, "detections")
    publisher = nodes.asking.create_publisher(Image, "image", 5)
    color, _ = picture()

    def publish(step):
        header = make_header("optical", (2 * step + 1) * SECOND)
        publisher.publish(Image(header=header, height=120, width=160, encoding="rgb8", step=480, data=b"123"))
        nodes.spin_until(lambda: False, 0.05)
        publisher.publish(array_to_image(color, "rgb8", "optical", (2 * step + 2) * SECOND))

    assert publish_until(nodes, publish, lambda: len(found) > 1)
    assert all(len(message.detections) == 1 for message in found)
    assert all(message.header.stamp.sec % 2 == 0 for message in found)
    assert node.worker is not None


def boxes():
    return Detections3D(
        np.array([[1, 2, 3], [4, 5, 6]], np.float32),
        np.array([[0.5, 0.25, 1], [2, 2, 2]], np.float32),
        np.array([0, np.pi / 2], np.float32),
        np.array([0.75, 0.5], np.float32),
        np.array([COCO["chair"].id, COCO["person"].id]),
        COCO,
        np.array([7, -1]),
        5 * SECOND + 3,
        "map",
    )


def test_message_of_boxes_in_space():
    message = detections_to_detection3d_array(boxes())
    assert (message.header.frame_id, message.header.stamp.sec, message.header.stamp.nanosec) == ("map", 5, 3)
    first, second = message.detections
    assert (first.id, second.id) == ("7", "")
    assert [item.results[0].hypothesis.class_id for item in message.detections] == ["chair", "person"]
    assert (first.bbox.center.position.z, first.bbox.size.y, first.bbox.center.orientation.w) == (3, 0.25, 1)
    assert second.bbox.center.orientation.z == pytest.approx(np.sqrt(0.5))


def test_markers_of_boxes_in_space():
    delete, cube, text, _, other = detections_to_markers(boxes()).markers
    assert delete.action == Marker.DELETEALL
    assert (cube.type, cube.ns, cube.scale.x, cube.pose.position.x) == (Marker.CUBE, "chair", 0.5, 1)
    assert (text.type, text.text) == (Marker.TEXT_VIEW_FACING, "chair 7")
    assert text.pose.position.z > 3.5
    assert other.text == "person (0.50)"


def test_drawn_boxes_leave_the_image_as_it_was():
    image = np.zeros((40, 60, 3), np.uint8)
    found = Detections(np.array([[5, 6, 50, 30]], np.float32), np.array([0.5], np.float32), np.array([0]), COCO)
    drawn = draw_detections(image, found)
    assert not image.any()
    np.testing.assert_array_equal(drawn[30, 20:40], [COCO.classes[0].color] * 20)
