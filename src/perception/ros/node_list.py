# SPDX-License-Identifier: Apache-2.0
"""Which nodes make up the graph, as data: the launch file and ``perception bringup`` both start from here.

Imports nothing of ROS, so that a launch file may read it anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Remappings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class NodeEntry:
    """One process.

    Attributes:
        name: of the node and of its executable.
        remappings: (from, to) names.
        is_sensor_input: it subscribes to a camera's topics.
    """

    name: str
    remappings: Remappings = ()
    is_sensor_input: bool = False

    @property
    def module(self) -> str:
        """What ``python -m`` runs."""
        return f"perception.ros.{self.name}"


SINGLE_PROCESS = (NodeEntry("pipeline_node", is_sensor_input=True),)
"""All stages in one process: nothing is serialized between them."""
SPLIT = (
    NodeEntry("segmentation_node", is_sensor_input=True),
    NodeEntry("labeled_cloud_node", is_sensor_input=True),
    NodeEntry("octomap_node", (("cloud_in", "labeled_points"), ("clear_in", "free_points"))),
)
"""One process for each stage."""
DETECTION = NodeEntry("detection_node", is_sensor_input=True)
"""Objects as boxes, beside either graph; it feeds nothing else unless its label images are remapped."""
SIMULATION = NodeEntry("simulation_node")
"""A robot that drives through a house, in place of a real one."""
LIFECYCLE_MANAGER = NodeEntry("lifecycle_manager_perception")

CAMERA_TOPICS = ("image", "depth", "camera_info", "depth_camera_info")
CAMERAS: dict[str, Remappings] = {
    "realsense": (
        ("image", "camera/camera/color/image_raw"),
        ("depth", "camera/camera/aligned_depth_to_color/image_raw"),
        ("camera_info", "camera/camera/color/camera_info"),
        ("depth_camera_info", "camera/camera/aligned_depth_to_color/camera_info"),
    ),
    "oak": (
        ("image", "oak/rgb/image_raw"),
        ("depth", "oak/stereo/image_raw"),
        ("camera_info", "oak/rgb/camera_info"),
        ("depth_camera_info", "oak/stereo/camera_info"),
    ),
    "custom": (),
}
"""Topics of camera drivers as they come (RealSense with align_depth.enable and enable_sync, depthai_ros_driver_v3 with
depth aligned to rgb), in the namespace of the robot; ``custom`` leaves the names to the user."""
RELATIVE_TF: Remappings = (("/tf", "tf"), ("/tf_static", "tf_static"))
"""Each robot has transforms of its own in its namespace, as with Nav2."""


def nodes(single_process: bool = True, detection: bool = False, simulation: bool = False) -> tuple[NodeEntry, ...]:
    """The nodes of a graph, in the order in which they are brought up."""
    graph = SINGLE_PROCESS if single_process else SPLIT
    return (*graph, *((DETECTION,) if detection else ()), *((SIMULATION,) if simulation else ()))


def remappings(
    entry: NodeEntry, camera: str = "custom", extra: Sequence[tuple[str, str]] = (), namespace: str = ""
) -> Remappings:
    """All remappings of a node; later ones win, as each name keeps only one."""
    result = dict(RELATIVE_TF) if namespace.strip("/") else {}
    result.update(entry.remappings)
    if entry.is_sensor_input:
        result.update(CAMERAS[camera])
    result.update(extra)
    return tuple(result.items())
