# SPDX-License-Identifier: Apache-2.0
"""Two robots in one graph, each in its namespace; quality of service set from outside."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_bench import Bench, overrides
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from perception.geometry import Transform
from perception.ros.conversions import transform_to_transform_stamped
from perception.ros.node import PerceptionNode, latched_qos
from perception.ros.node_list import nodes as graph
from perception.ros.node_list import remappings

ROBOTS = ("robot1", "robot2")


class Echo(PerceptionNode):
    """Repeats what it hears, with one of each kind of topic."""

    single_parameters = ("cloud.transform_timeout",)

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("echo", **node_arguments)

    def setup(self) -> None:
        self.out = self.advertise(String, "said", latched_qos())

    def start(self) -> None:
        self.listen(String, "heard", lambda message: self.out.publish(message))


def make(bench: Bench, robot: str, **parameters: Any) -> Echo:
    """A node as bringup starts it in a namespace."""
    words = [
        word
        for pair in (*remappings(graph(False)[2], namespace=robot), ("__ns", f"/{robot}"))
        for word in ("-r", ":=".join(pair))
    ]
    node = Echo(context=bench.context, cli_args=["--ros-args", *words], parameter_overrides=overrides(**parameters))
    bench.executor.add_node(node)
    bench._tested.append(node)
    bench.activate(node)
    return node


def test_robots_hear_only_their_own_topics_and_transforms(bench):
    robots = {robot: make(bench, robot) for robot in ROBOTS}
    said = {robot: bench.collect(String, f"/{robot}/said") for robot in ROBOTS}
    words = bench.publisher(String, "/robot1/heard")
    transforms = bench.publisher(TFMessage, "/robot2/tf")
    words.publish(String(data="one"))
    stamped: TransformStamped = transform_to_transform_stamped(Transform.identity(), "map", "base", 10**18)
    transforms.publish(TFMessage(transforms=[stamped]))
    bench.spin_until(lambda: said["robot1"] and robots["robot2"].transforms.frames())
    assert [message.data for message in said["robot1"]] == ["one"]
    assert said["robot2"] == []
    assert robots["robot1"].transforms.frames() == set()
    assert robots["robot2"].transforms.frames() == {"map", "base"}
    assert not any(topic in ("/tf", "/tf_static") for topic, _ in bench.node.get_topic_names_and_types())


def test_diagnostics_of_both_robots_are_on_one_topic_under_their_names(bench):
    from diagnostic_msgs.msg import DiagnosticArray

    for robot in ROBOTS:
        make(bench, robot)
    arrays = bench.collect(DiagnosticArray, "/diagnostics")
    bench.spin_until(
        lambda: {status.name for array in arrays for status in array.status} >= {"robot1/echo", "robot2/echo"}
    )


def test_qos_of_publishers_and_subscribers_can_be_set_from_outside(bench):
    make(
        bench,
        "robot1",
        **{
            "qos_overrides./robot1/heard.subscription.reliability": "reliable",
            "qos_overrides./robot1/heard.subscription.depth": 50,
            "qos_overrides./robot1/said.publisher.reliability": "best_effort",
        },
    )
    bench.spin_until(lambda: bench.node.count_publishers("/robot1/said"))
    bench.spin_until(lambda: bench.node.count_subscribers("/robot1/heard"))
    (publisher,) = bench.node.get_publishers_info_by_topic("/robot1/said")
    (subscription,) = bench.node.get_subscriptions_info_by_topic("/robot1/heard")
    assert publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_publisher_that_cannot_serve_a_subscription_is_told_by_the_node(bench):
    node = make(bench, "robot2", **{"qos_overrides./robot2/heard.subscription.reliability": "reliable"})
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    bench.node.create_publisher(String, "/robot2/heard", best_effort)
    bench.spin_until(lambda: node.statistics.snapshot().mismatched)
    assert node.statistics.snapshot().mismatched == {
        "heard": "a publisher of /robot2/heard offers less reliability than is asked for"
    }
