# SPDX-License-Identifier: Apache-2.0
"""``perception bench ros``: how long after its stamp a camera frame is in the costmap, over real processes and DDS.

One process plays a camera in real time and listens to what comes out; the nodes run in processes of their own. All of
them are one process group, which ends when its time is over, whatever any of them is waiting for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perception.cli.bringup import ProcessGroup, child_environment, raise_interrupt
from perception.errors import PerceptionError
from perception.ros.node_list import LIFECYCLE_MANAGER
from perception.ros.prefix import shared_memory_profile

START_TIMEOUT_S = 600.0
"""Kernels that changed are compiled first."""
SETTLE_S = 2.0
WARM_UP_S = 2.0
SLACK_S = 30.0
"""Beside twice the time that playing should take: for making frames, discovery and the end of all processes."""
STOP_TIMEOUT_S = 16.0
PARAMETERS = """
/**:
  ros__parameters:
    segmentation: {{model: {model}, device: cpu}}
    label_source: {source}
    use_color: false
    resolution: 0.05
    sensor_model: {{max_range: 5.0}}
    costmap_publish_rate: 1000.0
"""


@dataclass(frozen=True)
class Graph:
    """What is measured.

    Attributes:
        nodes: their names; the last one publishes the costmap.
        topics: what is sent, in this order.
        model: parameter ``segmentation.model``.
        label_source: parameter ``label_source`` of pipeline_node.
        with_obstacles: whether somebody listens to obstacle_points, too; without, nothing is done for them.
    """

    nodes: tuple[str, ...]
    topics: tuple[str, ...]
    model: str = "none"
    label_source: str = "network"
    with_obstacles: bool = True


SPLIT = ("labeled_cloud_node", "octomap_node")
GRAPHS = {
    "costmap": Graph(("pipeline_node",), ("camera_info", "depth"), with_obstacles=False),
    "geometry": Graph(("pipeline_node",), ("camera_info", "depth")),
    "labels": Graph(("pipeline_node",), ("camera_info", "depth", "labels", "label_confidence"), label_source="topic"),
    "network": Graph(("pipeline_node",), ("camera_info", "image", "depth"), "default"),
    "split labels": Graph(SPLIT, ("camera_info", "depth", "labels", "label_confidence")),
    "split network": Graph(("segmentation_node", *SPLIT), ("camera_info", "image", "depth"), "default"),
}
"""By name. "costmap" and "geometry" are a depth camera alone, without and with obstacle_points; with "labels" the
camera sends label images in place of a network."""


@dataclass(frozen=True)
class LatencyResult:
    """What was measured on one graph.

    Attributes:
        graph: key of ``GRAPHS``.
        sent: frames published.
        costmaps: latency of each costmap message, milliseconds from the camera's stamp to its receipt.
        obstacles: latency of each obstacle_points message, milliseconds.
        mapped: frames that the node with the costmap processed.
        superseded: frames that gave way to newer ones, in any node.
        dropped: frames dropped for other reasons, in any node.
        stages: p50 and p95 of what the nodes measured of their own work, milliseconds, warm-up included.
    """

    graph: str
    sent: int
    costmaps: list[float]
    obstacles: list[float]
    mapped: int = 0
    superseded: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)


def run_latency_bench(graph: str, seconds: float, rate: float) -> LatencyResult:
    """Start the nodes of a graph, play a camera into them and measure, in a group of processes of its own.

    Args:
        graph: key of ``GRAPHS``.
        seconds: how long to play, after a warm-up.
        rate: frames per second.

    Raises:
        PerceptionError: a node ends, the nodes do not become active, or anything takes longer than it may; nothing
            that was started is left behind.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "perception.ros.latency", graph, str(seconds), str(rate), str(path)]
        limit_s = START_TIMEOUT_S + playing_limit_s(seconds) + STOP_TIMEOUT_S
        code = run_group(command, limit_s, f"bench ros, {graph}")
        answer = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "error" in answer:
        raise PerceptionError(f"bench ros, {graph}: {answer['error']}")
    if not answer:
        raise PerceptionError(f"bench ros, {graph}: expected a result, the process that plays ended with code {code}")
    return LatencyResult(**answer)


def run_group(command: list[str], limit_s: float, what: str) -> int:
    """Run a command in a process group of its own, of which nothing is left afterwards; returns its exit code.

    Raises:
        PerceptionError: it took longer than the limit; names what.
    """
    # Whoever ends this program with SIGTERM (timeout does) means all that it started.
    before = signal.signal(signal.SIGTERM, raise_interrupt)
    try:
        process = subprocess.Popen(command, start_new_session=True, env=child_environment())
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            sentence = f"{what}: expected an end within {limit_s:.0f} s, so all its processes were ended"
            raise PerceptionError(sentence) from None
        finally:
            _end_group(process)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_group(leader: subprocess.Popen[bytes]) -> None:
    """Ask a group to end where its first process still runs, then kill what is left of it."""
    if leader.poll() is None:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(leader.pid, signal.SIGINT)
            leader.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def playing_limit_s(seconds: float) -> float:
    """How long playing may take at most, warm-up and all."""
    return 2 * (WARM_UP_S + seconds + 2 * SETTLE_S) + SLACK_S


def measure(graph: str, seconds: float, rate: float) -> LatencyResult:
    """:func:`run_latency_bench` in this process and its group; changes its environment."""
    import rclpy

    from perception.ros.latency_player import CameraPlayer

    wanted = GRAPHS[graph]
    # Discovery is kept to this host and to a domain of its own.
    domain = 100 + os.getpid() % 100
    os.environ.update(shared_memory_profile(), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", ROS_DOMAIN_ID=str(domain))
    context = rclpy.Context()  # pyright: ignore[reportPrivateImportUsage]
    rclpy.init(context=context, domain_id=domain)
    processes = ProcessGroup(own_sessions=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "parameters.yaml"
        path.write_text(PARAMETERS.format(model=wanted.model, source=wanted.label_source), encoding="utf-8")
        player = CameraPlayer(context, wanted, processes.check)
        try:
            for name in wanted.nodes:
                processes.start(name, _command(name, path))
            listed = ",".join(f"'{name}'" for name in wanted.nodes)
            manager = _command(LIFECYCLE_MANAGER.name, path, "-p", f"node_names:=[{listed}]")
            processes.start(LIFECYCLE_MANAGER.name, manager)
            player.wait_until_active(START_TIMEOUT_S)
            return player.play(graph, seconds, rate)
        finally:
            player.close()
            processes.stop()
            context.try_shutdown()


def main(arguments: list[str]) -> int:
    """Measure one graph; the result, or what went wrong, is written as JSON."""
    graph, seconds, rate, path = arguments
    try:
        answer: dict[str, Any] = asdict(measure(graph, float(seconds), float(rate)))
    except PerceptionError as error:
        answer = {"error": str(error)}
    Path(path).write_text(json.dumps(answer), encoding="utf-8")
    return 1 if "error" in answer else 0


def summary(result: LatencyResult) -> str:
    """One line of Markdown: graph, frames, latency of costmap and obstacle_points."""
    cells = [
        result.graph,
        f"{result.sent}",
        f"{result.mapped}",
        f"{result.superseded}",
        ", ".join(f"{count} {reason}" for reason, count in sorted(result.dropped.items())) or "0",
        _percentiles(result.costmaps),
        _percentiles(result.obstacles),
    ]
    return f"| {' | '.join(cells)} |"


HEADING = (
    "| graph | frames sent | mapped | superseded | otherwise dropped | stamp to costmap p50 / p95 / max ms "
    "| stamp to obstacle_points p50 / p95 / max ms |\n|---|---|---|---|---|---|---|"
)


def _percentiles(values: list[float]) -> str:
    if not values:
        return "none"
    p50, p95 = np.percentile(values, (50, 95))
    return f"{p50:.1f} / {p95:.1f} / {max(values):.1f} ({len(values)})"


def _command(name: str, parameters: Path, *words: str) -> list[str]:
    ros = ["--params-file", str(parameters), "--log-level", "warn", *words]
    if name == "octomap_node":
        ros += ["-r", "cloud_in:=labeled_points", "-r", "clear_in:=free_points"]
    return [sys.executable, "-m", f"perception.ros.{name}", "--ros-args", *ros]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
