# SPDX-License-Identifier: Apache-2.0
"""Messages that lie, on every topic that any node listens to: each drop has a name, and the node goes on.

Every test sends a few hundred; ``HOSTILE_MESSAGES=10000 python -m pytest tests/ros/test_hostile_messages.py -s`` sends
ten thousand per topic and prints what became of them.
"""

from __future__ import annotations

import copy
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from hostile_messages import hostile, hostile_image
from nav_msgs.msg import MapMetaData, OccupancyGrid
from rclpy.logging import LoggingSeverity
from ros_bench import Bench, camera_info, color_message, depth_message, room_frames, transform_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan
from tf2_msgs.msg import TFMessage

from perception.errors import TransformError
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.ros.conversions import (
    confidence_to_image,
    label_set_to_label_info,
    labels_to_image,
    make_header,
    points_to_point_cloud2,
)
from perception.ros.detection_node import DetectionNode
from perception.ros.labeled_cloud_node import LabeledCloudNode
from perception.ros.octomap_node import OctomapNode
from perception.ros.pipeline_node import PipelineNode
from perception.ros.segmentation_node import SegmentationNode
from perception.ros.statistics import REASONS
from perception.ros.worker import FrameWorker, source_of

# Kernels that changed are compiled here, which takes minutes on a small machine.
pytestmark = pytest.mark.timeout(900)
COUNT = int(os.environ.get("HOSTILE_MESSAGES", "300"))
WIDTH, HEIGHT = 16, 12
FRAME = "camera_optical_frame"
MAX_RANGE_M = 5.0
COMMON = {"resolution": 0.1, "sensor_model__max_range": MAX_RANGE_M, "transform_timeout": 0.0}
SENSORS = {"cloud_topics": "lidar", "scan_topics": "scan", "costmap__geometry": "from_map"}


@dataclass(frozen=True)
class Graph:
    """A node that listens to as many topics as it can.

    Attributes:
        node_class: its class.
        parameters: of the node.
        frame: topics that make up a frame.
        counted: of these, the one whose messages are frames or drops.
        alone: topics whose messages are frames on their own.
        told: topics that bring no frames; what is refused counts as a drop.
    """

    node_class: Any
    parameters: dict[str, Any]
    frame: tuple[str, ...]
    counted: str
    alone: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


GRAPHS = {
    "pipeline": Graph(
        PipelineNode,
        {**COMMON, **SENSORS, "label_source": "topic", "label_set": "ade20k32"},
        ("camera_info", "depth_camera_info", "image", "depth", "labels", "label_confidence"),
        "labels",
        ("lidar", "scan"),
        ("map",),
    ),
    "pipeline, compressed": Graph(
        PipelineNode,
        {**COMMON, "segmentation__model": "toy_network:build", "image_transport": "compressed",
         "depth_transport": "compressedDepth"},
        ("camera_info", "depth_camera_info", "image/compressed", "depth/compressedDepth"),
        "depth/compressedDepth",
    ),
    "pipeline, unregistered": Graph(
        PipelineNode,
        {**COMMON, "segmentation__model": "toy_network:build", "depth_registered": False},
        ("camera_info", "depth_camera_info", "image", "depth"),
        "depth",
    ),
    "octomap": Graph(
        OctomapNode, {**COMMON, **SENSORS}, ("cloud_in",), "cloud_in", ("lidar", "scan"), ("map", "label_info")
    ),
    "octomap, free rays": Graph(OctomapNode, COMMON, ("clear_in", "cloud_in"), "cloud_in", (), ("label_info",)),
    "labeled cloud": Graph(
        LabeledCloudNode,
        {"transform_timeout": 0.0},
        ("camera_info", "depth_camera_info", "image", "depth", "labels", "label_confidence"),
        "labels",
        (),
        ("label_info",),
    ),
    "segmentation": Graph(SegmentationNode, {"segmentation__model": "toy_network:build"}, ("image",), "image"),
    "detection": Graph(
        DetectionNode,
        {"detection__model": "toy_detector:build", "use_3d": True, "use_tracking": False, "transform_timeout": 0.0},
        ("camera_info", "depth_camera_info", "image", "depth"),
        "depth",
    ),
}  # fmt: skip
CASES = [(name, topic) for name, graph in GRAPHS.items() for topic in (*graph.frame, *graph.alone, *graph.told)]
GEOMETRY = ("depth", "depth/compressedDepth", "camera_info", "depth_camera_info", "cloud_in", "clear_in", "lidar",
            "scan")  # fmt: skip
"""Topics that may bring geometry that is wrong, yet cannot be told from a measurement."""


class PromptWorker(FrameWorker):
    """Does the work in the caller's thread, at once: no frame supersedes another."""

    def submit(self, frame: Any) -> None:
        source = source_of(frame)
        try:
            needs = self._resolve(frame)
        except TransformError as error:
            self._dropped(error.reason, str(error), source)
            return
        self._run_job(lambda: self._process(frame, needs), source)


class Fed:
    """A node whose subscriptions' callbacks are called without the middleware, which would need minutes for so many."""

    def __init__(self, bench: Bench, graph: Graph) -> None:
        self.graph = graph
        self.node = bench.add(graph.node_class, **graph.parameters)
        bench.activate(self.node)
        self.node.get_logger().set_level(LoggingSeverity.FATAL)
        self.node.transforms.insert("map", FRAME, 0, Transform.identity(), static=True)
        if graph.node_class is OctomapNode and "clear_in" in graph.frame:
            self.node.count_publishers = lambda topic: 1
        self._topics = {subscription.topic_name: subscription for subscription in self.node.subscriptions}
        self._step = 0

    def names(self) -> set[str]:
        return {name.lstrip("/") for name in self._topics}

    def send(self, topic: str, message: Any) -> None:
        self._topics[f"/{topic}"].callback(message)

    def send_set(self, liar: str = "", rng: np.random.Generator | None = None) -> None:
        """A moment's messages, that of topic ``liar`` a lie; it comes last."""
        self._step += 1
        stamp_ns = 10**18 + self._step * 10**6
        names = self.graph.frame if liar in (*self.graph.frame, "") else ()
        for name in (name for name in names if name != liar):
            self.send(name, good_message(name, stamp_ns))
        if liar:
            self.send(liar, hostile(good_message(liar, stamp_ns), rng))

    def counts(self) -> Counter[str]:
        """Messages received, frames done and drops by reason since the start."""
        snapshot = self.node.statistics.snapshot()
        received = {f"received {topic.lstrip('/')}": count for topic, count in snapshot.received.items()}
        return Counter({"": snapshot.processed, **snapshot.drops, **received})

    def waiting(self) -> int:
        """Frames whose messages are not complete."""
        inputs = [*getattr(self.node, "_cameras", {}).values()]
        inputs += [getattr(self.node, name, None) for name in ("_camera", "_input", "_clouds")]
        inputs = [one for one in inputs if hasattr(one, "_sync")]
        return sum(len(one._sync._stamps[one._sync._leader]) for one in inputs) + sum(
            getattr(one, "_waiting", None) is not None for one in inputs
        )


def good_message(topic: str, stamp_ns: int) -> Any:
    """What a topic brings, with another stamp."""
    message = copy.copy(good_messages()[topic])
    message._header = make_header(message.header.frame_id, stamp_ns)
    return message


@cache
def good_messages() -> dict[str, Any]:
    """By topic."""
    frame, header = room(), make_header(FRAME, 0)
    points = np.array([(1, 0, 2), (0, 1, 2), (-1, 0, 2), (0, 0, 2)], np.float32)
    scan = LaserScan(header=header, angle_min=-0.5, angle_max=0.5, angle_increment=0.1, range_min=0.1, range_max=4.0)
    scan.ranges = [2.0] * 11
    info, cloud = camera_info(frame), points_to_point_cloud2(points, FRAME, 0)
    grid = OccupancyGrid(header=make_header("map", 0), info=MapMetaData(width=20, height=20, resolution=0.5))
    grid.data = [0] * 400
    return {
        "camera_info": info,
        "depth_camera_info": info,
        "image": color_message(frame),
        "depth": depth_message(frame),
        "labels": labels_to_image(frame.labels.labels, 32, FRAME, 0),
        "label_confidence": confidence_to_image(frame.labels.confidence, FRAME, 0),
        "image/compressed": compressed(frame.color[..., ::-1], ".png", "rgb8; png compressed bgr8", header),
        "depth/compressedDepth": compressed(
            np.rint(frame.depth * 1000).astype(np.uint16), ".png", "16UC1; compressedDepth png", header, bytes(12)
        ),
        "lidar": cloud,
        "cloud_in": cloud,
        "clear_in": cloud,
        "scan": scan,
        "map": grid,
        "label_info": label_set_to_label_info(LabelSet.load("ade20k32"), FRAME, 0),
    }


def compressed(array: Any, suffix: str, kind: str, header: Any, before: bytes = b"") -> CompressedImage:
    import cv2

    message = CompressedImage(header=header, format=kind)
    message._data = before + cv2.imencode(suffix, array)[1].tobytes()
    return message


@cache
def room() -> Any:
    """A frame of the synthetic room."""
    return replace(room_frames(1, WIDTH, HEIGHT)[0], frame_id=FRAME)


@pytest.fixture(scope="module")
def fed(nodes) -> Iterator[Any]:
    """Nodes by the name of their graph, made when they are asked for."""
    bench, made = Bench(nodes.context), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perception.ros.node.FrameWorker", PromptWorker)

        def get(name: str) -> Fed:
            if name not in made:
                made[name] = Fed(bench, GRAPHS[name])
            return made[name]

        yield get
        bench.close()


@pytest.mark.parametrize("name", GRAPHS)
def test_every_topic_that_a_node_listens_to_gets_hostile_messages(fed, name):
    topics = {topic for graph, topic in CASES if graph == name}
    others = {topic for graph, topic in CASES if GRAPHS[graph].node_class is GRAPHS[name].node_class}
    assert fed(name).names() - {"tf", "tf_static"} - others == set()
    assert topics <= fed(name).names()


@pytest.mark.parametrize(("name", "topic"), CASES, ids=[": ".join(case) for case in CASES])
def test_hostile_messages_are_dropped_by_name_and_the_node_goes_on(fed, name, topic):
    one, rng = fed(name), np.random.default_rng(0)
    graph, tree = one.graph, getattr(getattr(one.node, "pipeline", None), "tree", None)
    if "label_info" in graph.told and topic != "label_info" and graph.node_class is LabeledCloudNode:
        one.send("label_info", good_message("label_info", 10**18))
    one.send_set()
    known = None if tree is None else tree.known_voxels()
    before, waiting = one.counts(), one.waiting()
    with np.errstate(all="ignore"):
        for _ in range(COUNT):
            one.send_set(topic, rng)
    counts = one.counts() - before
    reasons = {key: value for key, value in counts.items() if not key.startswith("received")}
    if COUNT >= 1000:
        print(f"\n{name}: {topic}: {dict(sorted(reasons.items()))}")
    assert counts[f"received {topic}"] == COUNT
    assert set(reasons) <= {*REASONS, ""} - {"internal"}, one.node.statistics.snapshot().details
    frames = counts[f"received {graph.counted}"] if topic in graph.frame else COUNT if topic in graph.alone else 0
    if topic not in graph.told:
        # A message that is refused by itself counts beside the frame that it belonged to.
        alone = 0 if topic == graph.counted else reasons.get("malformed", 0)
        accounted = sum(reasons.values()) + one.waiting() - waiting
        assert frames <= accounted <= frames + alone, "every frame is done, dropped or waits"
        assert reasons.get("", 0) < frames, "some are dropped"
    else:
        assert reasons.get("malformed", 0) > COUNT // 2
    if tree is not None:
        if topic not in GEOMETRY:
            assert tree.known_voxels() == known
        assert np.abs(tree.leaves().centers).max() <= MAX_RANGE_M + 0.2, "no ray is longer than max_range"
    done = one.counts()[""]
    # A clock that came from the future is believed until the next message tells another time.
    one.send_set()
    one.send_set()
    assert one.counts()[""] > done, "the node goes on"


@pytest.mark.parametrize("topic", ["tf", "tf_static"])
def test_hostile_transforms_are_counted_and_known_ones_stay(fed, topic):
    one, rng = fed("octomap"), np.random.default_rng(0)
    buffer, listener = one.node.transforms, one.node._listener
    buffer.insert("map", "base", 10**18, Transform.identity())
    before = listener.rejected
    for _ in range(COUNT):
        one.send(topic, hostile(transform_message(Transform.identity(), "base", 10**18), rng))
    assert listener.rejected - before == COUNT
    assert buffer.lookup("map", "base", 10**18).matrix.tolist() == np.eye(4).tolist()


def test_worker_outlives_a_frame_whose_transforms_cannot_even_be_asked_for():
    drops, done = [], []

    def resolve(frame):
        if frame == "odd":
            raise AttributeError("no header")

    worker = FrameWorker(resolve, lambda frame, needs: done.append(frame), lambda *drop: drops.append(drop))
    worker.submit("odd")
    wait_for(lambda: drops)
    worker.submit("good")
    wait_for(lambda: done)
    worker.stop()
    assert drops[0][0] == "internal" and done == ["good"]


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_hostile_messages_over_the_middleware_leave_the_node_working(nodes):
    bench, frame = Bench(nodes.context), room()
    node = bench.add(PipelineNode, segmentation__model="none", resolution=0.1, use_color=False)
    bench.activate(node)
    node.get_logger().set_level(LoggingSeverity.FATAL)
    rng = np.random.default_rng(0)
    publishers = {name: bench.publisher(kind, name) for name, kind in (("depth", Image), ("camera_info", CameraInfo))}
    transforms = bench.publisher(TFMessage, "/tf")
    for step in range(200):
        stamp_ns = frame.stamp_ns + step * 1000
        depth = hostile_image(depth_message(replace(frame, stamp_ns=stamp_ns)), rng)
        publishers["camera_info"].publish(camera_info(replace(frame, stamp_ns=stamp_ns)))
        publishers["depth"].publish(depth)
        bench.executor.spin_once(timeout_sec=0.001)
    # A later good frame is mapped.
    stamp_ns = frame.stamp_ns + 10**9
    last = replace(frame, stamp_ns=stamp_ns)
    transforms.publish(transform_message(frame.map_T_camera, frame.frame_id, frame.stamp_ns))
    transforms.publish(transform_message(frame.map_T_camera, frame.frame_id, stamp_ns))
    publishers["camera_info"].publish(camera_info(last))
    publishers["depth"].publish(depth_message(last))
    bench.spin_until(lambda: node.pipeline.tree.known_voxels() > 0)
    assert set(node.statistics.snapshot().drops) <= set(REASONS) - {"internal"}
    bench.close()
