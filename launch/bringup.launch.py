# SPDX-License-Identifier: Apache-2.0
"""Starts the perception nodes and takes them to active."""

from __future__ import annotations

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, PushRosNamespace, SetParameter

from perception.ros.node_list import CAMERA_TOPICS, CAMERAS, LIFECYCLE_MANAGER, nodes, remappings
from perception.ros.prefix import PROFILE_VARIABLE

SHARE = get_package_share_directory("perception")
ARGUMENTS = {
    "params_file": (os.path.join(SHARE, "config", "perception.yaml"), "YAML file with the parameters of the nodes"),
    "namespace": ("", "Namespace of all nodes, their topics and transforms (tf in place of /tf)"),
    "shared_tf": ("false", "Take /tf and /tf_static in spite of a namespace: robots whose frames have distinct names"),
    "use_sim_time": ("false", "Take the time from /clock, for recordings and simulations"),
    "single_process": ("true", "One pipeline_node; false for one process per stage"),
    "detection": ("false", "Find objects too (detection_node)"),
    "simulation": ("false", "Simulate robot and house (simulation_node)"),
    "camera": ("custom", "Whose topics to subscribe to"),
    "model": ("", "Network, in place of segmentation.model of params_file"),
    "autostart": ("true", "Take the nodes to active; false leaves that to another lifecycle manager"),
    "respawn": ("false", "Start a node that ended again"),
    "rviz": ("false", "Show the map in RViz"),
    "log_level": ("info", "debug, info, warn or error"),
    "image": ("", "Topic of color images, in place of the camera's"),
    "depth": ("", "Topic of depth images, in place of the camera's"),
    "camera_info": ("", "Topic of the calibration of color images, in place of the camera's"),
    "depth_camera_info": ("", "Topic of the calibration of depth images, in place of the camera's"),
}
"""Default and description of each argument."""
CHOICES = {
    "camera": sorted(CAMERAS),
    "shared_tf": ["true", "false"],
    "use_sim_time": ["true", "false"],
    "single_process": ["true", "false"],
    "detection": ["true", "false"],
    "simulation": ["true", "false"],
    "autostart": ["true", "false"],
    "respawn": ["true", "false"],
    "rviz": ["true", "false"],
}


def start_nodes(context: LaunchContext) -> list[Node]:
    """The nodes of the graph that the arguments ask for, and their lifecycle manager."""
    values = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    topics = [(name, values[name]) for name in CAMERA_TOPICS if values[name]]
    own_tf = "" if values["shared_tf"] == "true" else values["namespace"]
    entries = nodes(*(values[name] == "true" for name in ("single_process", "detection", "simulation")))
    overrides = [{"segmentation.model": values["model"]}] if values["model"] else []
    common = {
        "package": "perception",
        "output": "screen",
        "ros_arguments": ["--log-level", values["log_level"]],
        "respawn": values["respawn"] == "true",
        "respawn_delay": 1.0,
    }
    actions = [
        Node(
            executable=entry.name,
            name=entry.name,
            parameters=[values["params_file"], *overrides],
            remappings=list(remappings(entry, values["camera"], topics if entry.is_sensor_input else (), own_tf)),
            **common,
        )
        for entry in entries
    ]
    settings = {"node_names": [entry.name for entry in entries], "autostart": values["autostart"] == "true"}
    manager = LIFECYCLE_MANAGER.name
    return [*actions, Node(executable=manager, name=manager, parameters=[settings], **common)]


def generate_launch_description() -> LaunchDescription:
    """Arguments, environment, nodes."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=CHOICES.get(name))
        for name, (default, text) in ARGUMENTS.items()
    ]
    environment = []
    if PROFILE_VARIABLE not in os.environ:
        profile = os.path.join(SHARE, "config", "fastdds_shm.xml")
        environment.append(SetEnvironmentVariable(PROFILE_VARIABLE, profile))
    group = GroupAction(
        [
            PushRosNamespace(LaunchConfiguration("namespace")),
            SetParameter("use_sim_time", LaunchConfiguration("use_sim_time")),
            OpaqueFunction(function=start_nodes),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", os.path.join(SHARE, "config", "perception.rviz")],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
    return LaunchDescription([*arguments, *environment, group])
