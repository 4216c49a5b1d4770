# SPDX-License-Identifier: Apache-2.0
"""A node as a process: next to no CPU while nothing comes, and a quick, quiet end on signals, whatever it is at."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from ros_bench import Bench, color_message, room_frames
from sensor_msgs.msg import Image

END_TIMEOUT_S = 2.0
IDLE_S = 2.0
MAX_IDLE_LOAD = 0.1
"""Share of a core; heartbeats, diagnostics and timers are what remains."""


@pytest.fixture
def process(ros_environment, tmp_path) -> Iterator[subprocess.Popen[str]]:
    """segmentation_node with a network that is slower than anybody waits."""
    environment = {**ros_environment, "SLOW_NETWORK_FILE": str(tmp_path / "busy")}
    command = [sys.executable, "-m", "perception.ros.segmentation_node", "--ros-args"]
    command += ["-p", "segmentation.model:=slow_network:build", "-p", "segmentation.device:=cpu"]
    started = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    yield started
    started.kill()
    started.communicate()


def change(bench: Bench, name: str) -> None:
    request = ChangeState.Request()
    request.transition.id = getattr(Transition, f"TRANSITION_{name}")
    assert bench.call(ChangeState, "segmentation_node/change_state", request).success


def end(process: Any, number: signal.Signals) -> tuple[float, str]:
    """Seconds until the process was gone, and what it wrote."""
    began = time.monotonic()
    process.send_signal(number)
    text = process.communicate(timeout=20)[1]
    return time.monotonic() - began, text


def start_program(program: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A Python program whose output is read."""
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_active_node_idles_and_ends_in_time_in_the_middle_of_a_frame(bench, process, tmp_path, number):
    change(bench, "CONFIGURE")
    change(bench, "ACTIVATE")
    usage = psutil.Process(process.pid)
    before = usage.cpu_times()
    time.sleep(IDLE_S)
    after = usage.cpu_times()
    load = (after.user - before.user + after.system - before.system) / IDLE_S
    assert load < MAX_IDLE_LOAD, f"{load:.0%} of a core while nothing comes"
    images = bench.publisher(Image, "image")
    images.publish(color_message(room_frames(1)[0]))
    bench.spin_until((tmp_path / "busy").exists, what="the network at work")
    seconds, text = end(process, number)
    assert seconds < END_TIMEOUT_S
    assert process.returncode == 0
    assert "Traceback" not in text and "terminate" not in text


def test_second_signal_changes_nothing(bench, process):
    change(bench, "CONFIGURE")
    process.send_signal(signal.SIGINT)
    seconds, text = end(process, signal.SIGINT)
    assert (process.returncode, seconds < END_TIMEOUT_S) == (0, True)
    assert "Traceback" not in text


def test_signal_while_the_node_loads_ends_it_at_once(process):
    time.sleep(0.7)
    seconds, text = end(process, signal.SIGTERM)
    assert seconds < END_TIMEOUT_S
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signal_during_the_imports_ends_a_node_without_a_traceback(ros_environment, number):
    command = [sys.executable, "-v", "-m", "perception.ros.segmentation_node"]
    started = subprocess.Popen(command, env=ros_environment, stderr=subprocess.PIPE, text=True)
    try:
        # Python says what it imports: the nodes' package comes first, rclpy and all that is slow after it.
        for line in started.stderr:
            if line.startswith("import 'perception.ros' "):
                break
        seconds, text = end(started, number)
    finally:
        started.kill()
    assert (started.returncode, "Traceback" in text) == (0, False)
    assert seconds < END_TIMEOUT_S and "import 'rclpy.node'" not in text


def test_a_node_that_does_not_come_to_its_end_is_ended_in_time(ros_environment):
    """A callback that no signal reaches: the process has to go all the same."""
    program = (
        "import time, rclpy\n"
        "from rclpy.node import Node\n"
        "from perception.ros.running import run_node\n"
        "class Stuck(Node):\n"
        "    end_timeout_s = 0.5\n"
        "    def __init__(self):\n"
        "        super().__init__('stuck')\n"
        "        print('ready', flush=True)\n"
        "    def destroy_node(self):\n"
        "        time.sleep(60)\n"
        "raise SystemExit(run_node(Stuck))\n"
    )
    started = start_program(program, ros_environment)
    try:
        started.stdout.readline()
        time.sleep(0.3)
        seconds, text = end(started, signal.SIGTERM)
    finally:
        started.kill()
    assert (started.returncode, "Traceback" in text) == (0, False)
    assert 0.4 < seconds < END_TIMEOUT_S


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_what_a_node_is_at_when_the_signal_comes_is_brought_to_its_end(ros_environment, number):
    program = (
        "import time\n"
        "from rclpy.node import Node\n"
        "from perception.ros.running import run_node\n"
        "from std_msgs.msg import String\n"
        "class Busy(Node):\n"
        "    def __init__(self):\n"
        "        super().__init__('busy')\n"
        "        self.topic = self.create_publisher(String, 'topic', 1)\n"
        "        self.create_timer(0.01, self.work)\n"
        "    def work(self):\n"
        "        print('working', flush=True)\n"
        "        time.sleep(0.3)\n"
        "        self.topic.publish(String(data='done'))\n"
        "        print('published', self.count_subscribers('topic'), flush=True)\n"
        "    def destroy_node(self):\n"
        "        self.topic.publish(String(data='end'))\n"
        "        print('ended', flush=True)\n"
        "raise SystemExit(run_node(Busy))\n"
    )
    started = start_program(program, ros_environment)
    try:
        assert started.stdout.readline() == "working\n"
        started.send_signal(number)
        output, errors = started.communicate(timeout=20)
    finally:
        started.kill()
    assert (started.returncode, output.split(), errors) == (0, ["published", "0", "ended"], "")
