# SPDX-License-Identifier: Apache-2.0
"""Pictures drawn from the messages that a real node publishes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

import cv2
from cloud_bench import EAGER, LABELS, Robot, box, floor_with_rug, scene
from rclpy.qos import DurabilityPolicy

from perception.ros.octomap_node import OctomapNode
from perception.ros.snapshot import save_snapshot

pytestmark = pytest.mark.timeout(900)


def colors_in(path) -> set[tuple[int, ...]]:
    return set(map(tuple, cv2.imread(str(path))[..., ::-1].reshape(-1, 3).tolist()))


def test_pictures_show_classes_costs_and_the_legend(bench, tmp_path):
    node = bench.add(OctomapNode, **{**EAGER, "label_set": "ade20k32", "publish_free_space": True,
                                     "filters.keepout_classes": "rug", "local_map.resolution": 0.1})  # fmt: skip
    bench.activate(node)
    robot = Robot(bench, node)
    robot.send(*scene(floor_with_rug(), box("cabinet", 2.0, -0.5, 0.5, 0.8), box("chair", 0.5, 0.3)))
    files = save_snapshot(bench.node, lambda: bench.executor.spin_once(timeout_sec=0.05), tmp_path, 3.0)
    names = {path.stem for path in files}
    assert {"occupied_cells_vis_array", "free_cells_vis_array", "octomap_point_cloud_centers", "projected_map",
            "semantic_costmap", "keepout_filter_mask", "label_legend"} <= names  # fmt: skip
    # The top faces of cubes keep their color; from above every point is a top face.
    for name in ("floor", "rug", "cabinet", "chair"):
        color = np.array(LABELS[name].color)
        for picture in ("octomap_point_cloud_centers", "occupied_cells_vis_array"):
            shown = np.array(sorted(colors_in(tmp_path / f"{picture}.png")))
            assert np.abs(shown - color).max(axis=1).min() <= 1, (name, picture)
    assert (25, 20, 30) in colors_in(tmp_path / "semantic_costmap.png"), "something is lethal"
    assert (25, 20, 30) in colors_in(tmp_path / "keepout_filter_mask.png")


def test_rviz_shows_every_map_topic_with_a_profile_that_matches(bench):
    document = yaml.safe_load((Path(__file__).resolve().parents[2] / "config" / "perception.rviz").read_text())
    shown = {}
    for display in document["Visualization Manager"]["Displays"]:
        for key in ("Topic", "Update Topic"):
            if key in display:
                shown[display[key]["Value"].lstrip("/")] = display[key]
    node = bench.add(OctomapNode, **EAGER)
    assert node.trigger_configure().name == "SUCCESS"
    hidden = {"octomap_binary", "octomap_binary_local", "parameter_events", "rosout", "diagnostics",
              "keepout_filter_info", "speed_filter_info"}  # fmt: skip
    published = {publisher.topic.lstrip("/"): publisher.qos_profile for publisher in node.publishers}
    published = {name: qos for name, qos in published.items() if name not in hidden and "octomap_node" not in name}
    assert {name for name in published if not name.startswith("bond")} <= set(shown)
    for name, qos in published.items():
        if shown.get(name, {}).get("Durability Policy") == "Transient Local":
            assert qos.durability == DurabilityPolicy.TRANSIENT_LOCAL, name
