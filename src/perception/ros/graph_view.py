# SPDX-License-Identifier: Apache-2.0
"""Looks at a running graph for some seconds: who publishes what, how fast, with which stamps and frames."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from perception.errors import InputError
from perception.geometry import PinholeCamera
from perception.ros.clock import clock_to_ns
from perception.ros.conversions import camera_info_to_camera, stamp_to_ns
from perception.ros.qos import sensor_qos
from perception.ros.transforms import TransformListener
from perception.tf_buffer import TransformBuffer

DISCOVERY_S = 1.0
ANSWER_S = 1.0
TYPES: dict[str, Any] = {"image": Image, "depth": Image, "camera_info": CameraInfo, "depth_camera_info": CameraInfo}
LIFECYCLE_SERVICE, PARAMETER_SERVICE = "lifecycle_msgs/srv/GetState", "rcl_interfaces/srv/GetParameters"


@dataclass
class Stream:
    """What came on a topic of the camera.

    Attributes:
        name: full name of the topic.
        types: types that its publishers have.
        publishers: how many there are.
        stamps_ns: of the messages.
        ages_s: how far each stamp was behind the clock when its message came; negative for the future.
        last: the last message.
        camera: intrinsics of the last camera_info, or None.
        problem: why the last camera_info makes no sense; empty when it does.
        bad_stamp: why a stamp makes no sense; empty when all did.
    """

    name: str
    types: list[str] = field(default_factory=list)
    publishers: int = 0
    stamps_ns: list[int] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    last: Any = None
    camera: PinholeCamera | None = None
    problem: str = ""
    bad_stamp: str = ""


@dataclass
class GraphView:
    """What was seen of a graph.

    Attributes:
        seconds: how long was listened.
        streams: topics of the camera by role: image, depth, camera_info.
        topics: types of all topics, by name.
        nodes: full names of all nodes, as often as there are nodes of this name.
        states: lifecycle state of each of our nodes, "" for one that did not answer.
        sim_time: use_sim_time of each node that answered.
        clocks: number of publishers of /clock.
        mismatches: topic, publisher, subscriber and reason of each pair that cannot talk.
        transforms: all that came.
        transform_ages_s: how late transforms that move came, by child frame, the newest of each.
        statuses: level and message of our nodes' own diagnostics, by name.
    """

    seconds: float
    streams: dict[str, Stream] = field(default_factory=dict)
    topics: dict[str, list[str]] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    sim_time: dict[str, bool] = field(default_factory=dict)
    clocks: int = 0
    mismatches: list[tuple[str, str, str, str]] = field(default_factory=list)
    transforms: TransformBuffer = field(default_factory=TransformBuffer)
    transform_ages_s: dict[str, float] = field(default_factory=dict)
    statuses: dict[str, tuple[int, str]] = field(default_factory=dict)


class Observer:
    """Looks at the graph from a node of its own.

    Args:
        names: topic of each role, as the nodes would subscribe to it; relative ones are in the namespace.
        namespace: of the perception nodes.
        our_nodes: names of the perception nodes that may run there.
        context: rclpy context; None for the default one.
    """

    def __init__(
        self, names: Mapping[str, str], namespace: str, our_nodes: tuple[str, ...], context: Any = None
    ) -> None:
        self._node = Node("perception_doctor", namespace=namespace, context=context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._ours = {f"/{namespace.strip('/')}/{name}".replace("//", "/") for name in our_nodes}
        self._streams = {role: Stream(self._node.resolve_topic_name(name)) for role, name in names.items()}
        self._clock_ns: int | None = None
        self._view = GraphView(0.0, self._streams)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()

    def look(self, seconds: float) -> GraphView:
        """Listen for some seconds, after a second for discovery."""
        view = self._view
        self._spin(DISCOVERY_S)
        self._read_graph()
        self._subscribe()
        began = time.monotonic()
        self._spin(seconds)
        view.seconds = time.monotonic() - began
        self._read_graph()
        self._ask_nodes()
        return view

    def _spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self._node.context.ok():
            # A stamp that is none: of a stream it is told, of transforms and /clock there will be others.
            with suppress(InputError):
                self._executor.spin_once(timeout_sec=left)

    def _read_graph(self) -> None:
        view, node = self._view, self._node
        view.topics = dict(node.get_topic_names_and_types())
        own = node.get_fully_qualified_name()
        names = [f"{space.rstrip('/')}/{name}" for name, space in node.get_node_names_and_namespaces()]
        view.nodes = sorted(name for name in names if name != own)
        view.clocks = node.count_publishers("/clock")
        for stream in self._streams.values():
            stream.publishers = node.count_publishers(stream.name)
            stream.types = sorted({info.topic_type for info in node.get_publishers_info_by_topic(stream.name)})
        view.mismatches = [
            found for topic in view.topics for found in self._mismatches(topic) if self._ours & set(found[1:3])
        ]

    def _mismatches(self, topic: str) -> list[tuple[str, str, str, str]]:
        result = []
        subscriptions = self._node.get_subscriptions_info_by_topic(topic)
        for publisher in self._node.get_publishers_info_by_topic(topic):
            for subscription in subscriptions:
                verdict, reason = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
                if verdict == QoSCompatibility.ERROR:
                    ends = (_full_name(publisher), _full_name(subscription))
                    result.append((topic, *ends, " ".join(reason.split())))
        return result

    def _subscribe(self) -> None:
        node = self._node
        for role, stream in self._streams.items():
            kind = TYPES[role.rpartition("/")[2]]
            if kind is Image and "sensor_msgs/msg/CompressedImage" in stream.types:
                kind = CompressedImage
            if f"sensor_msgs/msg/{kind.__name__}" in stream.types:
                node.create_subscription(
                    kind, stream.name, lambda message, stream=stream: self._on_message(stream, message), sensor_qos()
                )
        if self._view.clocks:
            node.create_subscription(Clock, "/clock", self._on_clock, sensor_qos())
        self._listener = TransformListener(node, self._view.transforms)
        self._watch_transforms()
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _watch_transforms(self) -> None:
        from tf2_msgs.msg import TFMessage

        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
        self._node.create_subscription(TFMessage, "/tf", self._on_tf, qos)

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds if self._clock_ns is None else self._clock_ns

    def _on_clock(self, message: Any) -> None:
        self._clock_ns = clock_to_ns(message)

    def _on_message(self, stream: Stream, message: Any) -> None:
        try:
            stamp_ns = stamp_to_ns(message.header.stamp)
        except InputError as error:
            stream.bad_stamp = str(error)
            return
        stream.stamps_ns.append(stamp_ns)
        stream.ages_s.append((self._now_ns() - stamp_ns) / 1e9)
        stream.last = message
        if isinstance(message, CameraInfo):
            try:
                stream.camera, stream.problem = camera_info_to_camera(message), ""
            except InputError as error:
                stream.camera, stream.problem = None, str(error)

    def _on_tf(self, message: Any) -> None:
        for stamped in message.transforms:
            age_s = (self._now_ns() - stamp_to_ns(stamped.header.stamp)) / 1e9
            self._view.transform_ages_s[stamped.child_frame_id] = age_s

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if f"/{status.name}" in self._ours:
                level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
                self._view.statuses[f"/{status.name}"] = (level, status.message)

    def _ask_nodes(self) -> None:
        """Ask all nodes at once for use_sim_time, and ours for their state; who does not answer is left out."""
        names = sorted(set(self._view.nodes))
        services = dict(self._node.get_service_names_and_types())
        calls = []
        for name in names:
            if PARAMETER_SERVICE in services.get(f"{name}/get_parameters", ()):
                client = self._node.create_client(GetParameters, f"{name}/get_parameters")
                calls.append((name, client, GetParameters.Request(names=["use_sim_time"])))
            if name in self._ours and LIFECYCLE_SERVICE in services.get(f"{name}/get_state", ()):
                calls.append((name, self._node.create_client(GetState, f"{name}/get_state"), GetState.Request()))
        ready_by = time.monotonic() + ANSWER_S
        while not all(call[1].service_is_ready() for call in calls) and time.monotonic() < ready_by:
            self._spin(0.05)
        futures = [(name, call.call_async(request)) for name, call, request in calls if call.service_is_ready()]
        answered_by = time.monotonic() + ANSWER_S
        while not all(future.done() for _, future in futures) and time.monotonic() < answered_by:
            self._spin(0.05)
        self._view.states.update((name, "") for name in names if name in self._ours)
        for name, future in futures:
            if future.done() and future.exception() is None:
                self._note_answer(name, future.result())

    def _note_answer(self, name: str, answer: Any) -> None:
        if isinstance(answer, GetState.Response):
            self._view.states[name] = answer.current_state.label
        elif len(answer.values) == 1:
            self._view.sim_time[name] = bool(answer.values[0].bool_value)


def observe(
    names: Mapping[str, str], namespace: str, our_nodes: tuple[str, ...], seconds: float, context: Any = None
) -> GraphView:
    """Look at the graph; see :class:`Observer`."""
    own = context is None
    if own:
        context = rclpy.Context()  # pyright: ignore[reportPrivateImportUsage]
        rclpy.init(context=context)
    observer = Observer(names, namespace, our_nodes, context)
    try:
        return observer.look(seconds)
    finally:
        observer.close()
        if own:
            context.try_shutdown()


def _full_name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
