# SPDX-License-Identifier: Apache-2.0
"""``perception bringup``: what ``ros2 launch perception bringup.launch.py`` does, where there is no ros2 launch."""

from __future__ import annotations

import argparse
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perception.errors import InputError, PerceptionError
from perception.ros.node_list import CAMERAS, LIFECYCLE_MANAGER, NodeEntry, nodes, remappings
from perception.ros.prefix import shared_memory_profile

STOP_TIMEOUT_S = 5.0
RESPAWN_DELAY_S = 1.0


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "bringup",
        help="start the ROS 2 nodes",
        description="Start the ROS 2 nodes as processes, take them to active, and stop all of them on Ctrl-C.",
    )
    parser.add_argument("--params-file", action="append", default=[], type=Path, help="YAML file; later ones win")
    parser.add_argument("--param", action="append", default=[], metavar="NAME:=VALUE", help="set one parameter")
    graph = parser.add_mutually_exclusive_group()
    graph.add_argument(
        "--single-process", dest="single_process", action="store_true", default=True, help="one pipeline_node (default)"
    )
    graph.add_argument(
        "--split", dest="single_process", action="store_false", help="one process for each stage, joined by topics"
    )
    parser.add_argument("--detection", action="store_true", help="find objects too (detection_node)")
    parser.add_argument("--simulation", action="store_true", help="simulate robot and house (simulation_node)")
    parser.add_argument("--camera", default="custom", choices=sorted(CAMERAS), help="whose topics to subscribe to")
    parser.add_argument(
        "--namespace", default="", help="namespace of all nodes, their topics and transforms (tf in place of /tf)"
    )
    parser.add_argument("--remap", action="append", default=[], metavar="FROM:=TO", help="remap a name in all nodes")
    parser.add_argument("--use-sim-time", action="store_true", help="take the time from /clock")
    parser.add_argument("--no-autostart", action="store_true", help="leave the nodes unconfigured")
    parser.add_argument("--respawn", action="store_true", help="start a node that ended again")
    parser.add_argument("--log-level", default="", help="debug, info, warn or error")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the nodes until Ctrl-C; 0 then, 1 when a node ended by itself."""
    for path in arguments.params_file:
        if not path.is_file():
            raise InputError(f"--params-file: no file {path}")
    entries = nodes(arguments.single_process, arguments.detection, arguments.simulation)
    processes = ProcessGroup(arguments.respawn)
    interrupted = signal.signal(signal.SIGTERM, raise_interrupt)
    try:
        for entry in entries:
            processes.start(entry.name, node_command(entry, arguments))
        processes.start(LIFECYCLE_MANAGER.name, manager_command(entries, arguments))
        name, code = processes.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        processes.stop()
        signal.signal(signal.SIGTERM, interrupted)
    raise ended(name, code)


def node_command(entry: NodeEntry, arguments: argparse.Namespace) -> list[str]:
    """The command line of one node."""
    extra = [_pair("--remap", text) for text in arguments.remap]
    ros: list[str] = []
    for path in arguments.params_file:
        ros += ["--params-file", str(path)]
    for text in arguments.param:
        ros += ["-p", ":=".join(_pair("--param", text))]
    for source, target in remappings(entry, arguments.camera, extra, arguments.namespace):
        ros += ["-r", f"{source}:={target}"]
    return _command(entry, ros, arguments)


def manager_command(entries: Sequence[NodeEntry], arguments: argparse.Namespace) -> list[str]:
    """The command line of the lifecycle manager."""
    names = ",".join(f"'{entry.name}'" for entry in entries)
    ros = ["-p", f"node_names:=[{names}]", "-p", f"autostart:={str(not arguments.no_autostart).lower()}"]
    return _command(LIFECYCLE_MANAGER, ros, arguments)


def _command(entry: NodeEntry, ros: list[str], arguments: argparse.Namespace) -> list[str]:
    if arguments.namespace:
        ros += ["-r", f"__ns:=/{arguments.namespace.strip('/')}"]
    if arguments.use_sim_time:
        ros += ["-p", "use_sim_time:=true"]
    if arguments.log_level:
        ros += ["--log-level", arguments.log_level]
    return [sys.executable, "-m", entry.module, "--ros-args", *ros]


class ProcessGroup:
    """Child processes that are stopped together.

    Args:
        respawn: start a process that ended again.
        own_sessions: Ctrl-C reaches the processes through ``stop``, once; else they belong to this process's group.
    """

    def __init__(self, respawn: bool = False, own_sessions: bool = True) -> None:
        self._respawn, self._own_sessions = respawn, own_sessions
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        self._ended: queue.SimpleQueue[tuple[str, subprocess.Popen[bytes]]] = queue.SimpleQueue()

    def start(self, name: str, command: list[str]) -> None:
        """Start one process.

        Raises:
            PerceptionError: it cannot be started.
        """
        try:
            process = subprocess.Popen(command, start_new_session=self._own_sessions, env=child_environment())
        except OSError as error:
            raise PerceptionError(f"{name}: cannot be started ({error.strerror})") from error
        self._processes[name], self._commands[name] = process, command
        threading.Thread(target=lambda: (process.wait(), self._ended.put((name, process))), daemon=True).start()

    def check(self) -> None:
        """Raise PerceptionError when a process has ended; does not wait."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise ended(name, process.returncode)

    def wait(self) -> tuple[str, int]:
        """Name and exit code of the first process that ends for good."""
        while True:
            name, process = self._ended.get()
            if not self._respawn:
                return name, process.returncode
            print(f"perception: {name} ended with code {process.returncode}, starting it again", file=sys.stderr)
            time.sleep(RESPAWN_DELAY_S)
            self.start(name, self._commands[name])

    def stop(self) -> None:
        """End all processes: ask, then insist."""
        for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            running = [process for process in self._processes.values() if process.poll() is None]
            for process in running:
                process.send_signal(signal_number)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            for process in running:
                try:
                    process.wait(max(deadline - time.monotonic(), 0))
                except subprocess.TimeoutExpired:
                    continue


def ended(name: str, code: int) -> PerceptionError:
    """What to raise when a node ends by itself."""
    return PerceptionError(f"{name} ended with code {code}; its own messages say why")


def child_environment() -> dict[str, str]:
    """Children find this package even where it is only on this process's path, and share memory for images."""
    path = [entry for entry in sys.path if entry]
    return {**os.environ, **shared_memory_profile(), "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}


def _pair(option: str, text: str) -> tuple[str, str]:
    source, separator, target = text.partition(":=")
    if not separator or not source or not target:
        raise InputError(f"{option}: expected NAME:=VALUE, got {text!r}")
    return source, target


def raise_interrupt(*_: Any) -> None:
    """A signal's handler: what Ctrl-C does."""
    raise KeyboardInterrupt
