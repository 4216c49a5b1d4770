# SPDX-License-Identifier: Apache-2.0
"""For ``launch_test``: starts bringup.launch.py, plays a bag into it, looks at the topics.

Environment: PERCEPTION_TEST_BAG (a bag), PERCEPTION_TEST_PARAMS (a parameter file).
"""

import os
import sys
import time
import unittest

import launch_testing.actions
import launch_testing.asserts
import launch_testing.markers
import rclpy
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from nav_msgs.msg import OccupancyGrid
from octomap_msgs.msg import Octomap
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TOPICS = {
    "octomap_full": (Octomap, LATCHED),
    "octomap_binary": (Octomap, LATCHED),
    "semantic_costmap": (OccupancyGrid, LATCHED),
    "projected_map": (OccupancyGrid, LATCHED),
    "labeled_points": (PointCloud2, QoSProfile(depth=100)),
    "obstacle_points": (PointCloud2, QoSProfile(depth=100)),
}
TIMEOUT_S = 300.0


@launch_testing.markers.keep_alive
def generate_test_description():
    bringup = os.path.join(get_package_share_directory("perception"), "launch", "bringup.launch.py")
    arguments = {
        "params_file": os.environ["PERCEPTION_TEST_PARAMS"],
        "use_sim_time": "true",
        "image": "/camera/color/image_raw",
        "depth": "/camera/depth/image_raw",
        "camera_info": "/camera/color/camera_info",
    }
    player = [sys.executable, "-m", "perception", "play", os.environ["PERCEPTION_TEST_BAG"], "--wait-for", "300"]
    for topic in ("/camera/color/image_raw", "/camera/depth/image_raw", "/camera/color/camera_info", "/tf"):
        player += ["--topic", topic]
    return LaunchDescription(
        [
            IncludeLaunchDescription(PythonLaunchDescriptionSource(bringup), launch_arguments=arguments.items()),
            ExecuteProcess(cmd=[*player, "--topic", "/tf_static"], output="screen"),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestTopics(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rclpy.init()
        cls.node = rclpy.create_node("launch_test")
        cls.received = {name: [] for name in TOPICS}
        for name, (kind, qos) in TOPICS.items():
            cls.node.create_subscription(kind, name, cls.received[name].append, qos)

    @classmethod
    def tearDownClass(cls):
        cls.node.destroy_node()
        rclpy.shutdown()

    def spin_until(self, condition):
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            self.assertLess(time.monotonic(), deadline, {name: len(m) for name, m in self.received.items()})
            rclpy.spin_once(self.node, timeout_sec=0.1)

    def test_topics_types_qos_and_values(self):
        self.spin_until(lambda: all(self.received.values()) and len(self.received["labeled_points"]) >= 3)
        for name in ("octomap_full", "octomap_binary", "semantic_costmap", "projected_map"):
            (info,) = self.node.get_publishers_info_by_topic(name)
            self.assertEqual(info.qos_profile.durability, DurabilityPolicy.TRANSIENT_LOCAL, name)
            self.assertEqual(info.qos_profile.reliability, ReliabilityPolicy.RELIABLE, name)
            self.assertEqual(self.received[name][-1].header.frame_id, "map", name)
        self.assertEqual(self.received["octomap_full"][-1].id, "ColorOcTree")
        self.assertFalse(self.received["octomap_full"][-1].binary)
        self.assertEqual(self.received["octomap_binary"][-1].id, "OcTree")
        self.assertGreater(len(self.received["octomap_full"][-1].data), 1000)
        # The first frames may see little of the floor.
        self.spin_until(lambda: {0, 100} <= set(self.received["semantic_costmap"][-1].data))
        self.assertEqual(self.received["labeled_points"][-1].header.frame_id, "camera_optical_frame")


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_all_processes_end_cleanly(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info, allowable_exit_codes=[0, -2])
