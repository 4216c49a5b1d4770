# SPDX-License-Identifier: Apache-2.0
"""The graph as a user runs it: processes over Fast DDS, a bag that is played, signals."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import OccupancyGrid
from octomap_msgs.msg import Octomap
from ros_bench import LATCHED, Bench, room_frames, stamps
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from perception.config import OctomapConfig, PerceptionConfig, SegmentationConfig, SensorModelConfig
from perception.models import create_segmenter
from perception.pipeline import PerceptionPipeline
from perception.ros.map_conversions import occupancy_grid_to_cost_grid, octomap_to_bytes
from perception.sources import SourceOptions, open_source
from perception.sources.bag_writer import BagLayout, BagWriter

# Kernels that changed are compiled in the nodes, which takes minutes on a small machine.
pytestmark = pytest.mark.timeout(900)
START_TIMEOUT_S = 600.0
NETWORK = "toy_network:build"
FRAMES = 10
END_TIMEOUT_S = 6.0
"""An idle machine needs less than two seconds; the others of a busy one are allowed for."""
TOPICS = {
    "image": "/camera/color/image_raw",
    "depth": "/camera/depth/image_raw",
    "camera_info": "/camera/color/camera_info",
}
PARAMETERS = """
/**:
  ros__parameters:
    segmentation: {model: "toy_network:build", device: cpu}
    base_frame_id: base_link
    resolution: 0.1
    sensor_model: {max_range: 5.0}
    map_publish_rate: 1000.0
    costmap_publish_rate: 1000.0
    costmap_full_period: 0.1
"""


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    """A short recording of the synthetic room."""
    path = tmp_path_factory.mktemp("bags") / "room"
    with BagWriter(path, BagLayout(depth="32FC1")) as writer:
        for frame in room_frames(FRAMES):
            writer.write_frame(frame)
    return path


class Graph:
    """Nodes started by ``perception bringup``."""

    def __init__(self, bench: Bench, environment: dict[str, str], path: Path, *options: str) -> None:
        self.bench, self._environment = bench, environment
        path.write_text(PARAMETERS, encoding="utf-8")
        remaps = [word for name, topic in TOPICS.items() for word in ("--remap", f"{name}:={topic}")]
        self.process = self.start("bringup", "--params-file", str(path), "--use-sim-time", *remaps, *options)
        try:
            bench.spin_until(self._is_active, START_TIMEOUT_S, "bringup: all nodes active")
        except BaseException:
            self.stop()
            raise

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "perception", *words]
        return subprocess.Popen(command, env=self._environment, start_new_session=True)

    def _is_active(self) -> bool:
        assert self.process.poll() is None, "bringup ended"
        return self.bench.call(Trigger, "lifecycle_manager_perception/is_active").success

    def play(self, bag: Path, *options: str) -> None:
        """Play the bag to its end; the player waits until the nodes listen."""
        topics = [word for topic in (*TOPICS.values(), "/tf", "/tf_static") for word in ("--topic", topic)]
        player = self.start("play", str(bag), "--wait-for", "30", *topics, *options)
        self.bench.spin_until(lambda: player.poll() is not None, 120.0, "the end of the bag")
        assert player.returncode == 0

    def stop(self) -> float:
        """Seconds that all took to end."""
        began = time.monotonic()
        family = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(30) == 0
        finally:
            # What does not end would slow all tests that follow.
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        return time.monotonic() - began


def offline(bag: Path, wanted: list[int]) -> PerceptionPipeline:
    """The reference: the frames of these stamps, read from the bag, without ROS."""
    octomap = OctomapConfig(resolution=0.1, sensor_model=SensorModelConfig(max_range=5.0))
    config = PerceptionConfig(segmentation=SegmentationConfig(model=NETWORK, device="cpu"), octomap=octomap)
    pipeline = PerceptionPipeline(config, create_segmenter(NETWORK, device="cpu"))
    for frame in open_source(bag, SourceOptions(fixed_frame="map")):
        if frame.stamp_ns in wanted:
            pipeline.process(replace(frame, labels=None))
    return pipeline


def check_against_offline(bench: Bench, bag: Path, mapped: list, full: list, binary: list, grids: list) -> None:
    """The last messages are the offline pipeline's, over the frames that the nodes mapped."""
    bench.spin_until(lambda: mapped and full and stamps(full)[-1] == stamps(mapped)[-1], what="the last octomap")
    expected = offline(bag, stamps(mapped))
    data = [expected.tree.octomap_data(is_binary, expected.label_set)[1] for is_binary in (False, True)]
    for messages, bytes_wanted in zip((full, binary), data, strict=True):
        bench.spin_until(lambda messages=messages: messages and stamps(messages)[-1] == stamps(mapped)[-1])
        assert octomap_to_bytes(messages[-1]).tobytes() == bytes_wanted
    wanted = expected.costmap()
    bench.spin_until(
        lambda: grids and np.array_equal(occupancy_grid_to_cost_grid(grids[-1]).data, wanted.data), what="the costmap"
    )


def test_recording_played_into_pipeline_node_gives_the_offline_map(bench, ros_environment, bag, tmp_path):
    graph = Graph(bench, ros_environment, tmp_path / "parameters.yaml")
    mapped = bench.collect(PointCloud2, "labeled_points")
    full, binary = (bench.collect(Octomap, name) for name in ("octomap_full", "octomap_binary"))
    grids = bench.collect(OccupancyGrid, "semantic_costmap")
    reports = bench.collect(DiagnosticArray, "/diagnostics")
    graph.play(bag)
    check_against_offline(bench, bag, mapped, full, binary, grids)
    assert len(mapped) >= FRAMES // 2
    values = bench.spin_until(
        lambda: next(
            (
                {entry.key: entry.value for entry in status.values}
                for array in reversed(reports)
                for status in array.status
                if status.name == "pipeline_node" and int(status.values[0].value) == len(mapped)
            ),
            None,
        )
    )
    assert {"latency p95 (ms)", "memory (MB)", "map voxels", "depth received"} <= set(values)
    late = bench.collect(Octomap, "octomap_full", LATCHED)
    bench.spin_until(lambda: late)
    assert late[-1].data == full[-1].data
    check_end_in_the_middle_of_frames(bench, graph, bag, mapped)


def check_end_in_the_middle_of_frames(bench: Bench, graph: Graph, bag: Path, mapped: list) -> None:
    """A recording that loops is mapped on; SIGTERM ends the node, and bringup says so and ends the others."""
    before = len(mapped)
    player = graph.start("play", str(bag), "--loop", "--rate", "2")
    try:
        bench.spin_until(lambda: len(mapped) > before + 15, what="mapping a recording that begins again")
        children = psutil.Process(graph.process.pid).children()
        node = next(child for child in children if "perception.ros.pipeline_node" in child.cmdline())
        began = time.monotonic()
        node.send_signal(signal.SIGTERM)
        assert graph.process.wait(30) == 1
        assert time.monotonic() - began < END_TIMEOUT_S
        assert not any(child.is_running() for child in children)
    finally:
        player.send_signal(signal.SIGINT)
        assert player.wait(30) == 0


def test_recording_played_slowly_through_the_split_graph_gives_the_offline_map(bench, ros_environment, bag, tmp_path):
    for rate in (0.25, 0.1, 0.04):
        graph = Graph(bench, ros_environment, tmp_path / "parameters.yaml", "--split")
        clouds = bench.collect(PointCloud2, "labeled_points")
        full, binary = (bench.collect(Octomap, name) for name in ("octomap_full", "octomap_binary"))
        grids = bench.collect(OccupancyGrid, "semantic_costmap")
        graph.play(bag, "--rate", str(rate))
        # Scans travel as sensor data, best effort: on a busy machine the last one may never reach the map.
        arrived = lambda: len(clouds) > 0 and full and stamps(full)[-1] == stamps(clouds)[-1]  # noqa: B023, E731
        with contextlib.suppress(AssertionError):
            bench.spin_until(arrived)
        # Only a map for each cloud tells which clouds were mapped; on a busy machine two may share one publication, and
        # frames for which the network has no time leave too few.
        if (stamps(full) == stamps(clouds) and len(full) >= FRAMES // 2) or rate == 0.04:
            break
        graph.stop()
    assert len(full) >= FRAMES // 2
    check_against_offline(bench, bag, full, full, binary, grids)
    assert graph.stop() < END_TIMEOUT_S


def test_misspelt_parameter_ends_bringup_with_one_line(ros_environment):
    command = [sys.executable, "-m", "perception", "bringup", "--param", "resolutoin:=0.1"]
    result = subprocess.run(command, env=ros_environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert "did you mean 'resolution'?" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("perception: pipeline_node ended with code 1")
