# SPDX-License-Identifier: Apache-2.0
"""``perception bench ros``: how long after its stamp a camera frame is in the costmap, over real processes and DDS.

This process plays a camera in real time and listens to what comes out; the nodes run in processes of their own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from map_msgs.msg import OccupancyGridUpdate
from nav_msgs.msg import OccupancyGrid
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import LabelInfo

from perception.cli.bringup import ProcessGroup
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
from perception.ros.node import latched_qos
from perception.ros.node_list import LIFECYCLE_MANAGER
from perception.ros.prefix import shared_memory_profile
from perception.simulation.boxes import synthetic_room_frames
from perception.types import Frame

START_TIMEOUT_S = 600.0
"""Kernels that changed are compiled first."""
SETTLE_S = 2.0
WARM_UP_S = 2.0
STAMP_OFFSET = 4
"""A serialized message begins with four bytes about its encoding; the stamp is the first thing in a header."""
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
BASE, CAMERA = "base_footprint", "camera_optical_frame"
PARAMETERS = """
/**:
  ros__parameters:
    segmentation: {{model: {model}, device: cpu}}
    label_source: {source}
    use_color: false
    resolution: 0.05
    sensor_model: {{max_range: 5.0}}
    costmap_publish_rate: 1000.0
"""
GRAPHS = {
    "geometry": (("pipeline_node",), "none", "network"),
    "labels": (("pipeline_node",), "none", "topic"),
    "network": (("pipeline_node",), "default", "network"),
    "split labels": (("labeled_cloud_node", "octomap_node"), "none", "topic"),
    "split network": (("segmentation_node", "labeled_cloud_node", "octomap_node"), "default", "network"),
}
"""Name: nodes, network, where pipeline_node takes labels from. "geometry" is a depth camera alone; with "labels" this
process sends label images in place of a network."""
TOPICS = {
    "geometry": ("camera_info", "depth"),
    "labels": ("camera_info", "depth", "labels", "label_confidence"),
    "network": ("camera_info", "image", "depth"),
    "split labels": ("camera_info", "image", "depth", "labels", "label_confidence"),
    "split network": ("camera_info", "image", "depth"),
}
"""What is sent to each graph, in this order."""


@dataclass(frozen=True)
class LatencyResult:
    """What was measured on one graph.

    Attributes:
        graph: key of ``GRAPHS``.
        sent: frames published.
        costmaps: latency of each costmap message, milliseconds from the camera's stamp to its receipt here.
        obstacles: latency of each obstacle_points message, milliseconds.
        counts: what the node that takes depth counted: frames processed and drops by reason.
        stages: p50 and p95 of what that node measured of its own work, milliseconds, warm-up included.
    """

    graph: str
    sent: int
    costmaps: list[float]
    obstacles: list[float]
    counts: dict[str, int] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)


def run_latency_bench(graph: str, seconds: float, rate: float) -> LatencyResult:
    """Start the nodes of a graph, play a camera into them and measure.

    Args:
        graph: key of ``GRAPHS``.
        seconds: how long to play, after a warm-up.
        rate: frames per second.

    Raises:
        PerceptionError: the nodes do not become active.
    """
    names, model, source = GRAPHS[graph]
    # Discovery is kept to this host and to a domain of its own.
    os.environ.update(shared_memory_profile(), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    domain = 100 + os.getpid() % 100
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    context = rclpy.Context()  # pyright: ignore[reportPrivateImportUsage]
    rclpy.init(context=context, domain_id=domain)
    processes = ProcessGroup()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "parameters.yaml"
        path.write_text(PARAMETERS.format(model=model, source=source), encoding="utf-8")
        player = _Player(context, TOPICS[graph])
        try:
            for name in names:
                processes.start(name, _command(name, path))
            listed = ",".join(f"'{name}'" for name in names)
            manager = _command(LIFECYCLE_MANAGER.name, path, "-p", f"node_names:=[{listed}]")
            processes.start(LIFECYCLE_MANAGER.name, manager)
            player.wait_until_active()
            return player.play(graph, seconds, rate)
        finally:
            player.close()
            processes.stop()
            context.try_shutdown()


def summary(result: LatencyResult) -> str:
    """One line of Markdown: graph, frames, latency of costmap and obstacle_points."""
    done, superseded = result.counts.get("frames processed", 0), result.counts.get("superseded", 0)
    lost = {
        name: count for name, count in result.counts.items() if name not in ("frames processed", "superseded") and count
    }
    cells = [
        result.graph,
        f"{result.sent}",
        f"{done}",
        f"{superseded}",
        f"{lost or 0}",
        _percentiles(result.costmaps),
        _percentiles(result.obstacles),
    ]
    return f"| {' | '.join(cells)} |"


HEADING = (
    "| graph | frames sent | mapped | superseded | otherwise dropped | stamp to costmap p50 / p95 / max ms "
    "| stamp to obstacle_points p50 / p95 / max ms |\n|---|---|---|---|---|---|---|"
)


def _percentiles(values: list[float]) -> str:
    if not values:
        return "none"
    p50, p95 = np.percentile(values, (50, 95))
    return f"{p50:.1f} / {p95:.1f} / {max(values):.1f} ({len(values)})"


def _command(name: str, parameters: Path, *words: str) -> list[str]:
    ros = ["--params-file", str(parameters), "--log-level", "warn", *words]
    if name == "octomap_node":
        ros += ["-r", "cloud_in:=labeled_points", "-r", "clear_in:=free_points"]
    return [sys.executable, "-m", f"perception.ros.{name}", "--ros-args", *ros]


class _Player:
    """Publishes frames with the time of now as their stamps, serialized before, and notes when results arrive."""

    def __init__(self, context: Any, topics: tuple[str, ...]) -> None:
        self._node = rclpy.create_node("latency_bench", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._costmaps: dict[int, float] = {}
        self._obstacles: dict[int, float] = {}
        self._counts: dict[str, int] = {}
        self._stages: dict[str, str] = {}
        kinds = {name: CameraInfo if name == "camera_info" else Image for name in topics}
        self._publishers = {name: self._node.create_publisher(kind, name, RELIABLE) for name, kind in kinds.items()}
        with_labels = "labels" in topics
        self._tf = self._node.create_publisher(TFMessage, "/tf", RELIABLE)
        self._info = self._node.create_publisher(LabelInfo, "label_info", latched_qos()) if with_labels else None
        self._frames = [self._serialized(frame) for frame in _frames()]
        self._listen()

    def _listen(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray

        def note(times: dict[int, float]) -> Callable[[Any], Any]:
            return lambda message: times.setdefault(stamp_to_ns(message.header.stamp), time.time())

        self._node.create_subscription(OccupancyGrid, "semantic_costmap", note(self._costmaps), latched_qos())
        self._node.create_subscription(OccupancyGridUpdate, "semantic_costmap_updates", note(self._costmaps), RELIABLE)
        self._node.create_subscription(PointCloud2, "obstacle_points", note(self._obstacles), RELIABLE)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _serialized(self, frame: Frame) -> tuple[Transform, dict[str, bytearray]]:
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

    def wait_until_active(self) -> None:
        """Wait for the lifecycle manager to say that all nodes are active."""
        client = self._node.create_client(Trigger, "lifecycle_manager_perception/is_active")
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if client.wait_for_service(0.5):
                future = client.call_async(Trigger.Request())
                self._executor.spin_until_future_complete(future, 2.0)
                answer = future.result() if future.done() else None
                if answer is not None and answer.success:
                    return
        raise PerceptionError(f"bench: expected active nodes within {START_TIMEOUT_S:.0f} s, got none")

    def play(self, graph: str, seconds: float, rate: float) -> LatencyResult:
        """Play and listen; the first frames, which draw the first map, do not count."""
        if self._info is not None:
            self._info.publish(label_set_to_label_info(LabelSet.load("ade20k32"), "", 0))
        frames = self._forth_and_back()
        self._send(frames, round(WARM_UP_S * rate), rate)
        self._spin_until(time.monotonic() + SETTLE_S)
        before = dict(self._counts)
        sent = self._send(frames, round(seconds * rate), rate)
        self._spin_until(time.monotonic() + SETTLE_S)
        counts = {name: count - before.get(name, 0) for name, count in self._counts.items()}
        return LatencyResult(
            graph,
            len(sent),
            self._latencies(self._costmaps, sent),
            self._latencies(self._obstacles, sent),
            counts,
            self._stages,
        )

    def _send(self, frames: Iterator[tuple[Transform, dict[str, bytearray]]], count: int, rate: float) -> list[int]:
        """Publish frames at a steady rate; returns their stamps."""
        stamps, due = [], time.monotonic()
        for pose, messages in islice(frames, count):
            self._spin_until(due)
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

    def _forth_and_back(self) -> Iterator[tuple[Transform, dict[str, bytearray]]]:
        while True:
            yield from self._frames
            yield from reversed(self._frames)

    def _spin_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if not status.name.endswith(("pipeline_node", "labeled_cloud_node")):
                continue
            for item in status.values:
                name = item.key.removeprefix("dropped: ")
                if item.key == "frames processed" or name != item.key:
                    self._counts[name] = int(item.value)
                elif item.key.endswith(("p50, p95 (ms)", "(% of one core)")):
                    self._stages[item.key.removesuffix(" p50, p95 (ms)")] = item.value

    @staticmethod
    def _latencies(arrivals: dict[int, float], sent: list[int]) -> list[float]:
        return [(arrivals[stamp] - stamp / 1e9) * 1e3 for stamp in sent if stamp in arrivals]


def _frames() -> list[Frame]:
    return [replace(frame, frame_id=CAMERA) for frame in synthetic_room_frames(60)]
