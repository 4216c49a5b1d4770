# SPDX-License-Identifier: Apache-2.0
"""``perception doctor``: looks at the machine and the running graph, and says what is wrong and what to do."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from perception.errors import InputError
from perception.ros.findings import Finding
from perception.ros.node_list import CAMERA_TOPICS, CAMERAS, DETECTION, nodes

MARKS = {"ok": "  ok     ", "warning": "  WARNING", "error": "  ERROR  "}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what is wrong",
        description="Look at the libraries, kernels, weights and, where ROS 2 is, at the running graph: topics, types, "
        "rates, stamps, QoS, transforms. Exit code 0 without errors, 1 with some.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--no-graph", action="store_true", help="look at the machine alone")
    what.add_argument("--only-graph", action="store_true", help="look at the graph alone")
    graph = parser.add_argument_group("graph")
    graph.add_argument("--seconds", type=float, default=5.0, help="how long to listen (default: %(default)s)")
    graph.add_argument("--namespace", default="", help="namespace of the nodes")
    graph.add_argument("--camera", default="custom", choices=sorted(CAMERAS), help="whose topics to expect")
    graph.add_argument("--remap", action="append", default=[], metavar="FROM:=TO", help="as given to bringup")
    graph.add_argument("--frame-id", default="map", help="fixed frame of the map (default: %(default)s)")
    graph.add_argument("--base-frame-id", default="base_footprint", help="frame of the robot (default: %(default)s)")
    graph.add_argument("--sync-tolerance", type=float, default=0.02, help="as the parameter, s (default: %(default)s)")
    graph.add_argument(
        "--transform-timeout", type=float, default=0.2, help="as the parameter, s (default: %(default)s)"
    )
    graph.add_argument("--depth-unregistered", action="store_true", help="depth_registered is false")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Look, and print one line for each finding; 1 when one is an error."""
    names = camera_topics(arguments)
    if not 0 < arguments.seconds <= 600:
        raise InputError(f"--seconds: expected more than 0 and at most 600, got {arguments.seconds}")
    found = []
    for finding in _findings(arguments, names):
        found.append(finding)
        if not arguments.json:
            print(_line(finding), flush=True)
    counts = {level: sum(finding.level == level for finding in found) for level in MARKS}
    if arguments.json:
        json.dump({"counts": counts, "findings": [asdict(finding) for finding in found]}, sys.stdout, indent=1)
        print()
    else:
        print(f"{counts['error']} errors, {counts['warning']} warnings, {counts['ok']} ok")
    return 1 if counts["error"] else 0


def camera_topics(arguments: argparse.Namespace) -> dict[str, str]:
    """Topic of each role, as the nodes would subscribe to it."""
    names = {role: role for role in CAMERA_TOPICS if role != "depth_camera_info" or arguments.depth_unregistered}
    changes = dict(CAMERAS[arguments.camera])
    for text in arguments.remap:
        source, separator, target = text.partition(":=")
        if not separator or not target:
            raise InputError(f"--remap: expected FROM:=TO, got {text!r}")
        changes[source] = target
    return {role: changes.get(role, name) for role, name in names.items()}


def _findings(arguments: argparse.Namespace, names: dict[str, str]) -> Iterator[Finding]:
    if not arguments.only_graph:
        from perception.cli.environment import check_environment

        yield from check_environment()
    if not arguments.no_graph and (find_spec("rclpy") is not None or arguments.only_graph):
        yield from _graph(arguments, names)


def _graph(arguments: argparse.Namespace, names: dict[str, str]) -> list[Finding]:
    if find_spec("rclpy") is None:
        raise InputError("--only-graph: needs ROS 2 (rclpy), which is not installed")
    from perception.ros.graph_judge import Expected, judge
    from perception.ros.graph_view import observe

    ours = tuple(entry.name for entry in (*nodes(True), *nodes(False), DETECTION))
    view = observe(names, arguments.namespace, ours, arguments.seconds)
    expected = Expected(
        arguments.frame_id,
        arguments.base_frame_id,
        arguments.sync_tolerance,
        arguments.transform_timeout,
        not arguments.depth_unregistered,
    )
    return judge(view, expected)


def _line(finding: Finding) -> str:
    advice = f"\n             → {finding.advice}" if finding.advice else ""
    return f"{MARKS[finding.level]} {finding.check}: {finding.text}{advice}"
