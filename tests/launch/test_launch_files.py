# SPDX-License-Identifier: Apache-2.0
"""The launch files with the real launch tools, wherever those can be imported."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WHY = "needs the launch tools of a ROS 2 installation; PyPI has none"
launch = pytest.importorskip("launch", reason=WHY)
pytest.importorskip("launch_ros", reason=WHY)
packages = pytest.importorskip("ament_index_python.packages", reason=WHY)

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = """
/**:
  ros__parameters:
    segmentation: {model: "toy_network:build", device: cpu}
    base_frame_id: base_link
    resolution: 0.1
    sensor_model: {max_range: 5.0}
    map_publish_rate: 20.0
    costmap_publish_rate: 20.0
    costmap_full_period: 0.2
"""


@pytest.fixture
def installed() -> str:
    try:
        return packages.get_package_share_directory("perception")
    except (packages.PackageNotFoundError, LookupError):
        pytest.skip("needs the package installed: colcon build, or python -m perception.ros.prefix .ament")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "launch" / f"{name}.launch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(**arguments: str) -> dict[str, Any]:
    """The nodes that bringup would start, by name."""
    bringup = load("bringup")
    context = launch.LaunchContext()
    for name, (default, _) in bringup.ARGUMENTS.items():
        context.launch_configurations[name] = arguments.get(name, default)
    return {node._Node__node_executable: node for node in bringup.start_nodes(context)}


def test_every_argument_of_both_files_is_described(installed):
    for name in ("bringup", "replay"):
        description = load(name).generate_launch_description()
        for argument in description.get_launch_arguments():
            assert argument.description.strip() not in ("", "no description given"), argument.name


def test_bringup_starts_the_nodes_of_the_list(installed):
    assert list(started()) == ["pipeline_node", "lifecycle_manager_perception"]
    assert list(started(single_process="false")) == [
        "segmentation_node", "labeled_cloud_node", "octomap_node", "lifecycle_manager_perception",
    ]  # fmt: skip


def test_launch_test_plays_a_bag_into_bringup(installed, tmp_path):
    pytest.importorskip("launch_testing", reason=WHY)
    sys.path.insert(0, str(ROOT / "tests" / "ros"))
    from ros_bench import room_frames

    from perception.sources.bag_writer import BagLayout, BagWriter

    with BagWriter(tmp_path / "room", BagLayout(depth="32FC1")) as writer:
        for frame in room_frames(20):
            writer.write_frame(frame)
    (tmp_path / "parameters.yaml").write_text(PARAMETERS, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "ros"), os.environ.get("PYTHONPATH", "")]),
        "PERCEPTION_TEST_BAG": str(tmp_path / "room"),
        "PERCEPTION_TEST_PARAMS": str(tmp_path / "parameters.yaml"),
        "ROS_DOMAIN_ID": str(100 + os.getpid() % 30),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds_shm.xml"),
    }
    command = [sys.executable, "-m", "launch_testing.launch_test", str(Path(__file__).parent / "launch_bringup.py")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
