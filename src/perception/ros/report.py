# SPDX-License-Identifier: Apache-2.0
"""Listens to a running graph and writes what came of it when it ends: for recordings that are played into the nodes.

``python -m perception.ros.report --ros-args -p output:=FOLDER`` writes ``FOLDER/live.json``: of each node the worst
state and the last numbers of its diagnostics (rates, drops by reason, latency, memory), of each map topic how often it
came, and how the last costmap looks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import OccupancyGrid
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from perception.errors import InputError
from perception.ros.qos import latched_qos
from perception.ros.running import run_node

HARDWARE_ID = "perception"
LETHAL, UNKNOWN = 100, -1


class Reporter(Node):
    """Collects; writes the file when it is destroyed.

    Raises:
        InputError: no folder for the results.
    """

    def __init__(self, **node_arguments: Any) -> None:
        from map_msgs.msg import OccupancyGridUpdate
        from octomap_msgs.msg import Octomap

        super().__init__("perception_report", **node_arguments)
        described = ParameterDescriptor(description="Folder for live.json; made where it is missing")
        output = self.declare_parameter("output", "", described).value
        if not output:
            Node.destroy_node(self)
            raise InputError("parameter output: expected a folder for the report, got none")
        self._path = Path(output) / "live.json"
        self._nodes: dict[str, dict[str, Any]] = {}
        self._topics: dict[str, int] = {}
        self._grid: Any = None
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self._count("octomap_binary", Octomap, latched_qos())
        self._count("semantic_costmap_updates", OccupancyGridUpdate, latched_qos(False, 10))
        self.create_subscription(OccupancyGrid, "semantic_costmap", self._on_grid, latched_qos())

    def destroy_node(self) -> None:
        """Write the report, then end."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.report(), indent=1), encoding="utf-8")
        super().destroy_node()

    def report(self) -> dict[str, Any]:
        """What was seen until now."""
        result: dict[str, Any] = {"nodes": self._nodes, "messages": self._topics}
        if self._grid is not None:
            result["costmap"] = describe_grid(self._grid)
        return result

    def _count(self, topic: str, message_type: Any, qos: Any) -> None:
        def count(_: Any) -> None:
            self._topics[topic] = self._topics.get(topic, 0) + 1

        self.create_subscription(message_type, topic, count, qos)

    def _on_grid(self, message: Any) -> None:
        self._topics["semantic_costmap"] = self._topics.get("semantic_costmap", 0) + 1
        self._grid = message

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.hardware_id != HARDWARE_ID:
                continue
            level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
            node = self._nodes.setdefault(status.name, {"worst_level": level, "worst_message": status.message})
            if level > node["worst_level"]:
                node.update(worst_level=level, worst_message=status.message)
            node["values"] = {entry.key: entry.value for entry in status.values}


def describe_grid(grid: Any) -> dict[str, Any]:
    """Size of an OccupancyGrid, and the shares of its cells that are unknown, free and lethal."""
    data = np.asarray(grid.data, np.int8)
    shares = {"unknown": UNKNOWN, "free": 0, "lethal": LETHAL}
    return {
        "width": int(grid.info.width),
        "height": int(grid.info.height),
        "resolution": round(float(grid.info.resolution), 6),
        **{name: round(float((data == value).mean()), 4) if data.size else 0.0 for name, value in shares.items()},
    }


def main(arguments: list[str] | None = None) -> int:
    """Run until told to end."""
    return run_node(Reporter, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
