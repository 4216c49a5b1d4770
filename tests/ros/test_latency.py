# SPDX-License-Identifier: Apache-2.0
"""``perception bench ros``: what it counts, and that it ends, whatever its processes do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from perception.cli.bringup import ProcessGroup
from perception.errors import PerceptionError
from perception.ros import latency
from perception.ros.latency import GRAPHS, LatencyResult, run_group, run_latency_bench, summary
from perception.ros.latency_player import CameraPlayer

FORKS = "import subprocess, sys; child = subprocess.Popen(['sleep', '600']); print(child.pid, file=open({path!r}, 'w'))"
"""A program that starts another one and tells its number."""


@pytest.fixture(autouse=True)
def few_frames(monkeypatch):
    monkeypatch.setattr("perception.ros.latency_player.FRAMES", 2)


def is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    # One that has ended and that nobody has waited for is none.
    with open(f"/proc/{number}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(number: int) -> None:
    deadline = time.monotonic() + 10
    while is_running(number):
        assert time.monotonic() < deadline, "the process is still there"
        time.sleep(0.01)


def test_group_that_hangs_is_ended_at_its_limit_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "STOP_TIMEOUT_S", 0.2)
    path = tmp_path / "number"
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    command = [sys.executable, "-c", deaf + FORKS.format(path=str(path)) + "; time.sleep(600)"]
    began = time.monotonic()
    with pytest.raises(PerceptionError, match="the bench: expected an end within 3 s"):
        run_group(command, 3.0, "the bench")
    assert time.monotonic() - began < 20
    wait_until_gone(int(path.read_text()))


def test_what_a_process_leaves_behind_when_it_crashes_is_ended(tmp_path):
    path = tmp_path / "number"
    command = [sys.executable, "-c", FORKS.format(path=str(path)) + "; sys.stdout.flush(); import os; os._exit(3)"]
    assert run_group(command, 60.0, "the bench") == 3
    wait_until_gone(int(path.read_text()))


def test_terminated_bench_takes_its_processes_along(tmp_path):
    path = tmp_path / "number"
    inner = [sys.executable, "-c", FORKS.format(path=str(path)) + "; import time; time.sleep(600)"]
    outer = f"from perception.ros.latency import run_group; run_group({inner!r}, 600.0, 'the bench')"
    process = subprocess.Popen([sys.executable, "-c", outer], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) != 0
    wait_until_gone(int(path.read_text()))


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("import json; json.dump({'error': 'octomap_node ended'}, open({path!r}, 'w'))", "octomap_node ended"),
        ("raise SystemExit(7)", "the process that plays ended with code 7"),
    ],
)
def test_trouble_of_the_process_that_plays_is_told(monkeypatch, program, sentence):
    def run(command, limit_s, what):
        replaced = [sys.executable, "-c", program.replace("{path!r}", repr(command[-1]))]
        return run_group(replaced, 60.0, what)

    monkeypatch.setattr(latency, "run_group", run)
    with pytest.raises(PerceptionError, match=f"bench ros, geometry: .*{sentence}"):
        run_latency_bench("geometry", 1.0, 30.0)


def test_player_stops_waiting_for_a_node_that_has_ended(nodes):
    group = ProcessGroup()
    player = CameraPlayer(nodes.context, GRAPHS["geometry"], group.check)
    group.start("pipeline_node", [sys.executable, "-c", "raise SystemExit(4)"])
    began = time.monotonic()
    with pytest.raises(PerceptionError, match="pipeline_node ended with code 4"):
        player.wait_until_active(600.0)
    assert time.monotonic() - began < 60
    player.close()


def test_sending_that_takes_far_too_long_is_given_up(nodes, monkeypatch):
    monkeypatch.setattr("perception.ros.latency_player.playing_limit_s", lambda seconds: 0.2)
    player = CameraPlayer(nodes.context, GRAPHS["geometry"], lambda: time.sleep(0.1))
    with pytest.raises(PerceptionError, match=r"expected 60 frames sent at 30 Hz, got \d: too busy"):
        player.play("geometry", 1.0, 30.0)
    player.close()


def test_counts_are_of_the_node_with_the_costmap_and_drops_of_all_nodes(nodes):
    player = CameraPlayer(nodes.context, GRAPHS["split network"], lambda: None)

    def tell(node, **values):
        pairs = [KeyValue(key=key.replace("__", ": ").replace("_", " "), value=value) for key, value in values.items()]
        status = DiagnosticStatus(name=f"robot/{node}", values=pairs)
        player._on_diagnostics(DiagnosticArray(status=[status]))

    tell("octomap_node", frames_processed="5", dropped__superseded="1")
    before = player._counts.copy()
    tell("segmentation_node", frames_processed="20", dropped__superseded="30")
    tell("labeled_cloud_node", frames_processed="18", dropped__sync="2")
    tell("octomap_node", frames_processed="15", dropped__superseded="4", dropped__sync="1")
    tell("detection_node", frames_processed="99", dropped__superseded="99")
    mapped, drops = player._since(before)
    player.close()
    assert mapped == 10
    assert drops == {"superseded": 33, "sync": 3}


def test_line_of_the_table_has_percentiles_and_reasons():
    result = LatencyResult("geometry", 30, [10.0, 20.0, 30.0], [], 27, 2, {"sync": 1})
    assert summary(result) == "| geometry | 30 | 27 | 2 | 1 sync | 20.0 / 29.0 / 30.0 (3) | none |"
    assert "| 0 | none | none |" in summary(SimpleNamespace(**{**vars_of(result), "dropped": {}, "costmaps": []}))


def vars_of(result: LatencyResult) -> dict[str, object]:
    return {name: getattr(result, name) for name in result.__dataclass_fields__}
