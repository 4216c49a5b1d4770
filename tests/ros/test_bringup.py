# SPDX-License-Identifier: Apache-2.0
"""Starting the nodes: command lines, remappings, the prefix for ros2 run, processes that end together."""

from __future__ import annotations

import argparse
import signal
import sys
import time

import pytest

from perception.cli import bringup
from perception.cli.bringup import ProcessGroup, manager_command, node_command
from perception.errors import InputError, PerceptionError
from perception.ros import prefix
from perception.ros.node_list import CAMERAS, DETECTION, LIFECYCLE_MANAGER, nodes, remappings
from perception.ros.prefix import make_prefix


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bringup.add_parser(parser.add_subparsers())
    return parser.parse_args(["bringup", *words])


def options_of(command: list[str], flag: str) -> list[str]:
    return [command[i + 1] for i, word in enumerate(command) if word == flag]


def test_single_process_is_one_node_and_split_three_in_order_of_the_data():
    assert [entry.name for entry in nodes(True)] == ["pipeline_node"]
    assert [entry.name for entry in nodes(False)] == ["segmentation_node", "labeled_cloud_node", "octomap_node"]


def test_detection_joins_either_graph_only_when_asked_for():
    assert [entry.name for entry in nodes(True, detection=True)] == ["pipeline_node", "detection_node"]
    assert [entry.name for entry in nodes(False, detection=True)][-1] == "detection_node"
    assert arguments("--detection").detection and not arguments().detection
    assert dict(remappings(DETECTION, "realsense"))["image"] == "camera/camera/color/image_raw"


def test_every_node_of_the_list_is_a_module_with_a_main():
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    import importlib

    for entry in (*nodes(True), *nodes(False), DETECTION, LIFECYCLE_MANAGER):
        assert callable(importlib.import_module(entry.module).main)


def test_camera_preset_names_the_topics_and_own_remappings_win():
    entry = nodes(True)[0]
    assert dict(remappings(entry, "realsense"))["image"] == "camera/camera/color/image_raw"
    assert dict(remappings(entry, "realsense", [("image", "/mine")]))["image"] == "/mine"
    octomap = nodes(False)[2]
    assert dict(remappings(octomap, "realsense")) == {"cloud_in": "labeled_points", "clear_in": "free_points"}
    assert set(CAMERAS) == {"realsense", "oak", "custom"}


def test_command_line_carries_parameters_remappings_namespace_and_time(tmp_path):
    path = tmp_path / "parameters.yaml"
    path.touch()
    parsed = arguments(
        "--params-file", str(path), "--param", "resolution:=0.1", "--remap", "image:=/cam/image",
        "--namespace", "robot1", "--use-sim-time", "--log-level", "warn",
    )  # fmt: skip
    command = node_command(nodes(True)[0], parsed)
    assert command[:4] == [sys.executable, "-m", "perception.ros.pipeline_node", "--ros-args"]
    assert options_of(command, "--params-file") == [str(path)]
    assert options_of(command, "-p") == ["resolution:=0.1", "use_sim_time:=true"]
    assert options_of(command, "-r") == [
        "/tf:=tf", "/tf_static:=tf_static", "image:=/cam/image", "__ns:=/robot1",
    ]  # fmt: skip
    assert options_of(command, "--log-level") == ["warn"]


def test_robot_with_a_namespace_has_transforms_of_its_own_unless_told_otherwise():
    entry = nodes(False)[2]
    assert dict(remappings(entry, namespace="robot1"))["/tf"] == "tf"
    assert "/tf" not in dict(remappings(entry, namespace="/"))
    shared = node_command(entry, arguments("--namespace", "robot1", "--remap", "/tf:=/tf"))
    assert "/tf:=/tf" in options_of(shared, "-r")


def test_manager_is_told_the_nodes_and_whether_to_start_them():
    command = manager_command(nodes(False), arguments("--no-autostart"))
    assert "node_names:=['segmentation_node','labeled_cloud_node','octomap_node']" in command
    assert "autostart:=false" in command


@pytest.mark.parametrize("words", [("--remap", "image"), ("--param", "resolution=0.1")])
def test_malformed_assignment_is_an_input_error(words):
    with pytest.raises(InputError, match="expected NAME:=VALUE"):
        node_command(nodes(True)[0], arguments(*words))


def test_missing_parameter_file_is_named_before_anything_starts(tmp_path):
    with pytest.raises(InputError, match=r"no file .*nowhere\.yaml"):
        bringup.run(arguments("--params-file", str(tmp_path / "nowhere.yaml")))


def test_first_process_to_end_is_told_and_the_others_are_stopped():
    group = ProcessGroup()
    group.start("steady", ["sleep", "60"])
    group.start("short", [sys.executable, "-c", "raise SystemExit(3)"])
    assert group.wait() == ("short", 3)
    began = time.monotonic()
    group.stop()
    assert time.monotonic() - began < 5
    assert group._processes["steady"].poll() == -signal.SIGINT


def test_process_that_cannot_start_is_named():
    with pytest.raises(PerceptionError, match="ghost: cannot be started"):
        ProcessGroup().start("ghost", ["/nowhere/ghost"])


def test_prefix_links_marker_files_and_scripts_and_may_be_made_again(tmp_path, monkeypatch):
    share, scripts = tmp_path / "share", tmp_path / "bin"
    for name in ("package.xml", "launch/bringup.launch.py", "config/labels/x.yaml"):
        (share / name).parent.mkdir(parents=True, exist_ok=True)
        (share / name).write_text(name)
    scripts.mkdir()
    (scripts / "octomap_node").touch()
    monkeypatch.setattr(prefix, "console_scripts", lambda: ["octomap_node"])
    for _ in range(2):
        make_prefix(tmp_path / "ament", scripts, share)
    assert (tmp_path / "ament/share/ament_index/resource_index/packages/perception").is_file()
    linked = tmp_path / "ament/share/perception/config/labels/x.yaml"
    assert linked.is_symlink() and linked.read_text() == "config/labels/x.yaml"
    # ros2 launch does not follow linked folders.
    assert not (tmp_path / "ament/share/perception/launch").is_symlink()
    assert (tmp_path / "ament/lib/perception/octomap_node").is_symlink()


def test_prefix_without_console_scripts_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(prefix, "console_scripts", lambda: ["octomap_node"])
    with pytest.raises(InputError, match="octomap_node; run pip install first"):
        make_prefix(tmp_path / "ament", tmp_path)
