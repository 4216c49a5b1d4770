# SPDX-License-Identifier: Apache-2.0
"""The octree of the local map on its topics, and what becomes of it when odometry jumps."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from cloud_bench import EAGER, Robot, at, box, floor, scene
from diagnostic_msgs.msg import DiagnosticStatus
from octomap_msgs.msg import Octomap
from ros_bench import LATCHED, Bench

from perception.mapping.octomap_stream import decode_binary, decode_full_prefix
from perception.ros.diagnostics import Activity, assess
from perception.ros.map_conversions import octomap_to_bytes
from perception.ros.octomap_node import OctomapNode

pytestmark = pytest.mark.timeout(900)
LOCAL = {"local_map.resolution": 0.1, "local_map.size": 6.0, "local_map.publish_rate": 1000.0}


def start(bench: Bench) -> OctomapNode:
    node = bench.add(OctomapNode, **{**EAGER, "label_set": "ade20k32", **LOCAL})
    bench.activate(node)
    return node


def log_odds(message: Octomap, point: tuple[float, float, float]) -> float:
    """What the message's tree knows of a point, by the reader of map files; 0 where nothing."""
    data = octomap_to_bytes(message)
    leaves = decode_binary(data) if message.binary else decode_full_prefix(data, colored=True)[0]
    sizes = message.resolution * 2.0 ** (16 - leaves.depths.astype(float))
    low = (leaves.keys.astype(float) - 32768) * message.resolution
    inside = ((low <= point) & (np.array(point) < low + sizes[:, None])).all(axis=1)
    return float(leaves.log_odds[inside].sum())


@pytest.mark.parametrize(
    ("topic", "kind", "binary"),
    [("octomap_full_local", "ColorOcTree", False), ("octomap_binary_local", "OcTree", True)],
)
def test_local_octree_is_published_in_odom_once_somebody_listens(bench, topic, kind, binary):
    node = start(bench)
    robot = Robot(bench, node)
    robot.send(*scene(floor(), box("chair", 1.0, 0.3)), map_T_odom=at(3.0, 0.0))
    assert node._local_map._tree is None, "nobody listens: nothing is mapped"
    messages = bench.collect(Octomap, topic, LATCHED)
    bench.spin_until(lambda: node._local_map._is_wanted)
    for _ in range(2):
        points, labels = scene(floor(), box("chair", 1.0, 0.3))
        robot.send(points + np.float32((3.0, 0.0, 0.0)), labels, map_T_odom=at(3.0, 0.0))
    bench.spin_until(lambda: messages)
    message = messages[-1]
    assert (message.header.frame_id, message.id, message.binary) == ("odom", kind, binary)
    # The chair stands 1 m ahead in odom, 4 m in the map.
    assert log_odds(message, (1.05, 0.45, 0.35)) > 0
    assert log_odds(message, (4.05, 0.45, 0.35)) == 0


def test_jump_of_odometry_forgets_the_local_map_and_is_an_error(bench):
    node = start(bench)
    robot = Robot(bench, node)
    bench.collect(Octomap, "octomap_full_local", LATCHED)
    bench.spin_until(lambda: node._local_map._is_wanted)
    robot.send(*scene(floor(), box("chair", 1.0, 0.3)))
    before = np.array([(1.15, 0.45, 0.35)], np.float32)
    assert node._local_map._tree.log_odds(before)[0] > 0
    # Two meters sideways within a tenth of a second.
    robot.send(*floor(y=(5.0, 6.0)), odom_T_base=at(0.0, 2.0))
    assert np.isnan(node._local_map._tree.log_odds(before)[0])
    assert node.details()["local map: jumps of odometry"] == 1
    level, text = assess(node.statistics.snapshot(), Activity(3.0))
    assert level == DiagnosticStatus.ERROR and "jumped in odom" in text
