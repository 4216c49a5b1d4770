# SPDX-License-Identifier: Apache-2.0
"""The camera of ``perception bench ros``: sends frames in real time and notes when what comes of them arrives."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from map_msgs.msg import OccupancyGridUpdate
from nav_msgs.msg import OccupancyGrid
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import LabelInfo

from perception.errors import PerceptionError
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.ros.conversions import (
    array_to_image,
    confidence_to_image,
    label_set_to_label_info,
    labels_to_image,
    make_header,
    ns_to_stamp,
    stamp_to_ns,
    transform_to_transform_stamped,
)
from perception.ros.latency import SETTLE_S, WARM_UP_S, Graph, LatencyResult, playing_limit_s
from perception.ros.qos import latched_qos
from perception.simulation.boxes import synthetic_room_frames
from perception.types import Frame

STAMP_OFFSET = 4
"""A serialized message begins with four bytes about its encoding; the stamp is the first thing in a header."""
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
FRAMES = 60
"""Played forth and back."""
BASE, CAMERA = "base_footprint", "camera_optical_frame"
PROCESSED, DROPPED, STAGE = "frames processed", "dropped: ", " p50, p95 (ms)"
"""Keys, or parts of keys, of the nodes' diagnostics."""

Messages = tuple[Transform, dict[str, bytearray]]


class CameraPlayer:
    """Publishes frames with the time of now as their stamps, serialized before, and notes when results arrive.

    Args:
        context: of rclpy, initialized.
        graph: what to send, and whose diagnostics to keep.
        check: called again and again; raises an error when going on makes no sense.
    """

    def __init__(self, context: Any, graph: Graph, check: Callable[[], None]) -> None:
        self._check, self._nodes = check, graph.nodes
        self._node = rclpy.create_node("latency_bench", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._costmaps: dict[int, float] = {}
        self._obstacles: dict[int, float] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._stages: dict[str, str] = {}
        kinds = {name: CameraInfo if name == "camera_info" else Image for name in graph.topics}
        self._publishers = {name: self._node.create_publisher(kind, name, RELIABLE) for name, kind in kinds.items()}
        with_labels = "labels" in graph.topics
        self._tf = self._node.create_publisher(TFMessage, "/tf", RELIABLE)
        self._info = self._node.create_publisher(LabelInfo, "label_info", latched_qos()) if with_labels else None
        self._frames = [self._serialized(replace(frame, frame_id=CAMERA)) for frame in synthetic_room_frames(FRAMES)]
        self._listen(graph.with_obstacles)

    def _listen(self, with_obstacles: bool) -> None:
        def note(times: dict[int, float]) -> Callable[[Any], Any]:
            return lambda message: times.setdefault(stamp_to_ns(message.header.stamp), time.time())

        self._node.create_subscription(OccupancyGrid, "semantic_costmap", note(self._costmaps), latched_qos())
        self._node.create_subscription(OccupancyGridUpdate, "semantic_costmap_updates", note(self._costmaps), RELIABLE)
        if with_obstacles:
            self._node.create_subscription(PointCloud2, "obstacle_points", note(self._obstacles), RELIABLE)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _serialized(self, frame: Frame) -> Messages:
        assert frame.labels is not None
        camera = frame.camera
        info = CameraInfo(header=make_header(CAMERA, 0), width=camera.width, height=camera.height)
        info.k = camera.matrix.ravel().tolist()
        info.d, info.distortion_model = [0.0] * 5, "plumb_bob"
        millimeters = np.rint(frame.depth * 1000).astype(np.uint16)
        label_set = frame.labels.label_set
        messages = {
            "camera_info": info,
            "image": array_to_image(frame.color, "rgb8", CAMERA, 0),
            "depth": array_to_image(millimeters, "16UC1", CAMERA, 0),
            "labels": labels_to_image(frame.labels.labels, label_set.num_classes, CAMERA, 0),
            "label_confidence": confidence_to_image(frame.labels.confidence, CAMERA, 0),
        }
        return frame.map_T_camera, {name: bytearray(serialize_message(messages[name])) for name in self._publishers}

    def wait_until_active(self, timeout_s: float) -> None:
        """Wait for the lifecycle manager to say that all nodes are active.

        Raises:
            PerceptionError: they are not within the timeout, or what ``check`` raises.
        """
        client = self._node.create_client(Trigger, "lifecycle_manager_perception/is_active")
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._check()
            if client.wait_for_service(0.5):
                future = client.call_async(Trigger.Request())
                self._executor.spin_until_future_complete(future, 2.0)
                answer = future.result() if future.done() else None
                if answer is not None and answer.success:
                    return
        raise PerceptionError(f"expected active nodes within {timeout_s:.0f} s, got none")

    def play(self, graph: str, seconds: float, rate: float) -> LatencyResult:
        """Play and listen; the first frames, which draw the first map, do not count.

        Raises:
            PerceptionError: sending takes far longer than it should, or what ``check`` raises.
        """
        deadline = time.monotonic() + playing_limit_s(seconds)
        if self._info is not None:
            self._info.publish(label_set_to_label_info(LabelSet.load("ade20k32"), "", 0))
        frames = self._forth_and_back()
        self._send(frames, round(WARM_UP_S * rate), rate, deadline)
        self._spin_until(time.monotonic() + SETTLE_S)
        before = Counter(self._counts)
        sent = self._send(frames, round(seconds * rate), rate, deadline)
        self._spin_until(time.monotonic() + SETTLE_S)
        mapped, drops = self._since(before)
        return LatencyResult(
            graph,
            len(sent),
            self._latencies(self._costmaps, sent),
            self._latencies(self._obstacles, sent),
            mapped,
            drops.pop("superseded", 0),
            dict(drops),
            self._stages,
        )

    def _since(self, before: Counter[tuple[str, str]]) -> tuple[int, Counter[str]]:
        """Frames that the last node has processed, and drops of all nodes by reason."""
        counts = self._counts - before
        drops: Counter[str] = Counter()
        for (_, key), count in counts.items():
            if key.startswith(DROPPED):
                drops[key.removeprefix(DROPPED)] += count
        return counts[self._nodes[-1], PROCESSED], drops

    def _send(self, frames: Iterator[Messages], count: int, rate: float, deadline: float) -> list[int]:
        """Publish frames at a steady rate; returns their stamps."""
        stamps, due = [], time.monotonic()
        for pose, messages in islice(frames, count):
            self._check()
            self._spin_until(due)
            if time.monotonic() > deadline:
                raise PerceptionError(f"expected {count} frames sent at {rate:g} Hz, got {len(stamps)}: too busy")
            stamps.append(time.time_ns())
            self._publish(pose, messages, stamps[-1])
            due += 1 / rate
        return stamps

    def close(self) -> None:
        """End the node."""
        self._executor.shutdown()
        self._node.destroy_node()

    def _publish(self, pose: Transform, messages: dict[str, bytearray], stamp_ns: int) -> None:
        stamp = ns_to_stamp(stamp_ns)
        poses = [
            transform_to_transform_stamped(Transform.identity(), "map", BASE, stamp_ns),
            transform_to_transform_stamped(pose, BASE, CAMERA, stamp_ns),
        ]
        self._tf.publish(TFMessage(transforms=poses))
        raw = np.array([stamp.sec, stamp.nanosec], "<u4").tobytes()
        for name, content in messages.items():
            content[STAMP_OFFSET : STAMP_OFFSET + 8] = raw
            self._publishers[name].publish(bytes(content))

    def _forth_and_back(self) -> Iterator[Messages]:
        while True:
            yield from self._frames
            yield from reversed(self._frames)

    def _spin_until(self, moment: float) -> None:
        """Listen until then; at least once, so that a sender that is late hears of what comes, too."""
        self._executor.spin_once(timeout_sec=max(moment - time.monotonic(), 0.0))
        while (left := moment - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            node = status.name.split("/")[-1]
            for item in status.values if node in self._nodes else ():
                if item.key == PROCESSED or item.key.startswith(DROPPED):
                    self._counts[node, item.key] = int(item.value)
                elif item.key.endswith(STAGE):
                    own = f"{node} " if len(self._nodes) > 1 else ""
                    self._stages[own + item.key.removesuffix(STAGE)] = item.value

    @staticmethod
    def _latencies(arrivals: dict[int, float], sent: list[int]) -> list[float]:
        return [(arrivals[stamp] - stamp / 1e9) * 1e3 for stamp in sent if stamp in arrivals]
