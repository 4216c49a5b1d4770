# SPDX-License-Identifier: Apache-2.0
"""Nodes that run in the test's own process, frames as messages, and a node that looks at what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from perception.geometry import Transform
from perception.ros.conversions import array_to_image, make_header, stamp_to_ns, transform_to_transform_stamped
from perception.simulation.boxes import synthetic_room_frames
from perception.types import Frame

FIRST_STAMP_NS = 10**18
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
TIMEOUT_S, ANSWER_S = 30.0, 5.0


def room_frames(count: int, width: int = 160, height: int = 120) -> list[Frame]:
    """Frames of the synthetic room, painted in the colors of their classes, so that the toy network knows them."""
    return [
        replace(
            frame, stamp_ns=frame.stamp_ns + FIRST_STAMP_NS, color=frame.labels.label_set.colors[frame.labels.labels]
        )
        for frame in synthetic_room_frames(count, width, height)
        if frame.labels is not None
    ]


def camera_info(frame: Frame) -> CameraInfo:
    camera = frame.camera
    message = CameraInfo(header=make_header(frame.frame_id, frame.stamp_ns), width=camera.width, height=camera.height)
    message.distortion_model, message.d = "plumb_bob", [0.0] * 5
    message.k = camera.matrix.ravel().tolist()
    message.p = np.hstack([camera.matrix, np.zeros((3, 1))]).ravel().tolist()
    return message


def color_message(frame: Frame) -> Image:
    return array_to_image(frame.color, "rgb8", frame.frame_id, frame.stamp_ns)


def depth_message(frame: Frame) -> Image:
    return array_to_image(frame.depth.astype(np.float32), "32FC1", frame.frame_id, frame.stamp_ns)


def transform_message(map_T_camera: Transform, child: str, stamp_ns: int, parent: str = "map") -> TFMessage:
    stamped: TransformStamped = transform_to_transform_stamped(map_T_camera, parent, child, stamp_ns)
    return TFMessage(transforms=[stamped])


def overrides(**values: Any) -> list[Parameter]:
    """Parameters; a double underscore stands for a dot."""
    return [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]


class Bench:
    """An executor for nodes under test and a node to talk to them."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.executor = SingleThreadedExecutor(context=context)
        self.node = rclpy.create_node("bench", context=context)
        self.executor.add_node(self.node)
        self._tested: list[Any] = []

    def add(self, node_class: Any, **parameters: Any) -> Any:
        """A node under test, not configured."""
        node = node_class(context=self.context, parameter_overrides=overrides(**parameters))
        self.executor.add_node(node)
        self._tested.append(node)
        return node

    def activate(self, node: Any) -> None:
        assert node.trigger_configure().name == "SUCCESS"
        assert node.trigger_activate().name == "SUCCESS"

    def spin_until(
        self, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S, what: str = "what was waited for"
    ) -> Any:
        """Spin until the condition holds; fails the test when it never does."""
        deadline = time.monotonic() + timeout_s
        while not (result := condition()):
            assert time.monotonic() < deadline, f"{what} did not happen"
            self.executor.spin_once(timeout_sec=0.05)
        return result

    def collect(self, message_type: Any, topic: str, qos: QoSProfile = RELIABLE) -> list[Any]:
        """A list that fills with the messages of a topic, once publisher and subscriber know each other."""
        messages: list[Any] = []
        self.node.create_subscription(message_type, topic, messages.append, qos)
        self.spin_until(lambda: self.node.count_publishers(topic))
        return messages

    def publisher(self, message_type: Any, topic: str, qos: QoSProfile = RELIABLE) -> Any:
        """A publisher that somebody listens to."""
        publisher = self.node.create_publisher(message_type, topic, qos)
        self.spin_until(publisher.get_subscription_count)
        return publisher

    def call(self, service_type: Any, name: str, request: Any = None) -> Any:
        """The answer of a service.

        DDS loses the answer to somebody whom the server has yet to find, so what can be asked twice is asked again.
        """
        client = self.node.create_client(service_type, name)
        self.spin_until(client.service_is_ready)
        futures: list[Any] = []
        asked = 0.0

        def answer() -> Any:
            nonlocal asked
            if not futures or (service_type is not ChangeState and time.monotonic() > asked + ANSWER_S):
                futures.append(client.call_async(request or service_type.Request()))
                asked = time.monotonic()
            return next((future for future in futures if future.done()), None)

        answered = self.spin_until(answer, what=f"the answer of {name}")
        self.node.destroy_client(client)
        return answered.result()

    def close(self) -> None:
        for node in self._tested:
            self.executor.remove_node(node)
            node.destroy_node()
        self.executor.remove_node(self.node)
        self.node.destroy_node()
        self.executor.shutdown()


class Camera:
    """Publishes frames as a camera and a localization do."""

    def __init__(self, bench: Bench, name: str = "") -> None:
        self.bench = bench
        prefix = f"{name}/" if name else ""
        self.image = bench.publisher(Image, f"{prefix}image")
        self.depth = bench.publisher(Image, f"{prefix}depth")
        self.info = bench.publisher(CameraInfo, f"{prefix}camera_info")
        self.transforms = bench.publisher(TFMessage, "/tf")

    def send(self, frame: Frame, with_transform: bool = True) -> None:
        if with_transform:
            self.transforms.publish(transform_message(frame.map_T_camera, frame.frame_id, frame.stamp_ns))
        self.info.publish(camera_info(frame))
        self.image.publish(color_message(frame))
        self.depth.publish(depth_message(frame))


def stamps(messages: list[Any]) -> list[int]:
    return [stamp_to_ns(message.header.stamp) for message in messages]
