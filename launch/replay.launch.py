# SPDX-License-Identifier: Apache-2.0
"""Plays a bag into the perception nodes, ends with it, and writes what came of it."""

from __future__ import annotations

import os
import sys

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from perception.ros.node_list import CAMERA_TOPICS, CAMERAS


def play(context: LaunchContext) -> list[ExecuteProcess | RegisterEventHandler]:
    """The player, which waits until the nodes listen to the camera, and the end some time after it."""
    names = ("bag", "rate", "linger", "output", "camera", "namespace", *CAMERA_TOPICS)
    values = {name: LaunchConfiguration(name).perform(context) for name in names}
    command = [sys.executable, "-m", "perception", "play", values["bag"], "--rate", values["rate"], "--wait-for", "120"]
    presets = dict(CAMERAS[values["camera"]])
    for name in ("image", "depth"):
        topic = values[name] or presets.get(name, name)
        command += ["--wait-topic", topic if topic.startswith("/") else f"/{topic}"]
    player = ExecuteProcess(cmd=command, output="screen")
    end = TimerAction(period=float(values["linger"]), actions=[Shutdown(reason="the bag is over")])
    actions = [player, RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[end]))]
    if values["output"]:
        report = [sys.executable, "-m", "perception.ros.report", "--ros-args", "-p", f"output:={values['output']}"]
        if values["namespace"]:
            report += ["-r", f"__ns:=/{values['namespace'].strip('/')}"]
        actions.insert(0, ExecuteProcess(cmd=report, output="screen"))
    return actions


def generate_launch_description() -> LaunchDescription:
    """Nodes in the time of the bag, then the player."""
    bringup = os.path.join(get_package_share_directory("perception"), "launch", "bringup.launch.py")
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="Bag to play (.mcap, .db3, its folder)"),
            DeclareLaunchArgument("rate", default_value="1.0", description="Times real time"),
            DeclareLaunchArgument("linger", default_value="5.0", description="Seconds until the end, after the bag"),
            DeclareLaunchArgument(
                "output", default_value="", description="Folder for live.json: rates, drops, latency, costmap; or empty"
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(bringup), launch_arguments={"use_sim_time": "true"}.items()
            ),
            OpaqueFunction(function=play),
        ]
    )
