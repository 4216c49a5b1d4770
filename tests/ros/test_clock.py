# SPDX-License-Identifier: Apache-2.0
"""Times on /clock that are none, or that nobody will live to see: every node keeps its time and goes on."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from builtin_interfaces.msg import Time
from node_kinds import NODES
from rclpy.logging import LoggingSeverity
from rclpy.parameter import Parameter
from ros_bench import FIRST_STAMP_NS, Camera, overrides, room_frames
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from perception.ros.conversions import make_header, ns_to_stamp
from perception.ros.graph_judge import Expected, judge
from perception.ros.graph_view import Observer
from perception.ros.lifecycle_manager_perception import LifecycleManager
from perception.ros.octomap_node import OctomapNode
from perception.ros.pipeline_node import PipelineNode
from perception.ros.simulation_node import SimulationNode
from perception.ros.statistics import REASONS

# Kernels that changed are compiled here, which takes minutes on a small machine.
pytestmark = pytest.mark.timeout(900)
COUNT = int(os.environ.get("HOSTILE_MESSAGES", "300"))
NONE = [(-1, 0), (-(2**31), 0), (-(2**31), 5), (-1, 999_999_999), (0, 10**9), (2**31 - 1, 2**32 - 1), (-5, 2**32 - 1)]
"""Seconds and nanoseconds that are no time."""
FAR = [(0, 0), (0, 1), (2**31 - 1, 0), (2**31 - 1, 999_999_999), (1, 0)]
"""Times that are none of today's."""
SIMULATION = {"simulation__scene": "boxes", "simulation__width": 80, "simulation__height": 60}
ALL = {**NODES, "simulation_node": (SimulationNode, SIMULATION)}


def clock_message(seconds: int, nanoseconds: int) -> Clock:
    """Past the setters' checks, as the wire brings it."""
    time = Time()
    time._sec, time._nanosec = seconds, nanoseconds
    return Clock(clock=time)


def take(node, message) -> None:
    """What the executor does with a message of /clock."""
    next(subscription for subscription in node.subscriptions if subscription.topic_name == "/clock").callback(message)


@pytest.mark.parametrize("name", ALL)
def test_node_passes_over_times_that_are_none_and_lives_through_far_ones(bench, name):
    kind, parameters = ALL[name]
    node = bench.add(kind, use_sim_time=True, **parameters)
    node.get_logger().set_level(LoggingSeverity.FATAL)
    bench.activate(node)
    good, rng = clock_message(10**9, 5), np.random.default_rng(0)
    take(node, good)
    assert node.now_ns() == FIRST_STAMP_NS + 5
    for _ in range(COUNT):
        take(node, clock_message(*NONE[rng.integers(len(NONE))]))
    assert node.now_ns() == FIRST_STAMP_NS + 5
    counts = node.statistics.snapshot()
    assert counts.drops["malformed"] == COUNT
    assert "stamp: expected" in counts.details["malformed"] or "/clock: expected" in counts.details["malformed"]
    for _ in range(min(COUNT, 300)):
        seconds, nanoseconds = FAR[rng.integers(len(FAR))]
        take(node, clock_message(seconds, nanoseconds))
        assert node.now_ns() == seconds * 10**9 + nanoseconds
        node._diagnostics.publish()
        bench.executor.spin_once(timeout_sec=0)
    assert set(node.statistics.snapshot().drops) <= {*REASONS} - {"internal"}
    take(node, good)
    assert node.trigger_deactivate().name == "SUCCESS"
    assert node.trigger_activate().name == "SUCCESS"


def test_frames_are_mapped_after_times_that_are_none_came_over_the_middleware(bench):
    node = bench.add(PipelineNode, segmentation__model="none", resolution=0.1, use_sim_time=True)
    node.get_logger().set_level(LoggingSeverity.FATAL)
    bench.activate(node)
    clock = bench.publisher(Clock, "/clock")
    for seconds, nanoseconds in NONE:
        dropped = node.statistics.snapshot().drops.get("malformed", 0)
        clock.publish(clock_message(seconds, nanoseconds))
        bench.spin_until(lambda before=dropped: node.statistics.snapshot().drops.get("malformed", 0) > before)
    clock.publish(Clock(clock=ns_to_stamp(FIRST_STAMP_NS)))
    bench.spin_until(lambda: node.now_ns() == FIRST_STAMP_NS)
    Camera(bench).send(room_frames(1)[0])
    bench.spin_until(lambda: node.statistics.snapshot().processed)
    assert node.pipeline.tree.known_voxels() > 0


def test_use_sim_time_that_is_set_later_is_guarded_too(bench):
    node = bench.add(OctomapNode)
    node.get_logger().set_level(LoggingSeverity.FATAL)
    node.set_parameters([Parameter("use_sim_time", value=True)])
    take(node, clock_message(7, 0))
    take(node, clock_message(-1, 0))
    assert node.now_ns() == 7 * 10**9


def test_lifecycle_manager_lives_through_them_too(nodes):
    manager = LifecycleManager(
        context=nodes.context, parameter_overrides=overrides(use_sim_time=True, node_names=["nobody"])
    )
    manager.get_logger().set_level(LoggingSeverity.FATAL)
    for seconds, nanoseconds in (*NONE, *FAR):
        take(manager, clock_message(seconds, nanoseconds))
    manager.destroy_node()


def test_doctor_keeps_looking_and_tells_of_stamps_that_are_none(nodes):
    observer = Observer({"image": "image"}, "", (), nodes.context)
    observer._streams["image"].types, observer._streams["image"].publishers = ["sensor_msgs/msg/Image"], 1
    observer._view.clocks = 1
    observer._subscribe()
    image = Image(header=make_header("camera", 0))
    image.header.stamp = clock_message(5, 2**32 - 1).clock
    senders = [(nodes.offering.create_publisher(Image, "image", 10), [image])]
    clocks = [clock_message(*time) for time in (*NONE, (8, 0))]
    senders.append((nodes.offering.create_publisher(Clock, "/clock", 10), clocks))
    for _ in range(100):
        for publisher, messages in senders:
            for message in messages:
                publisher.publish(message)
        observer._spin(0.05)
        if observer._clock_ns is not None and observer._streams["image"].bad_stamp:
            break
    assert observer._now_ns() == 8 * 10**9
    found = [finding.text for finding in judge(observer._view, Expected()) if finding.check == "image"]
    assert found == ["/image: stamp: expected less than 1000000000 nanoseconds, got 4294967295"]
    for publisher, _ in senders:
        nodes.offering.destroy_publisher(publisher)
    observer.close()
