# SPDX-License-Identifier: Apache-2.0
"""Pictures drawn from the messages that a real node publishes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

import cv2
from cloud_bench import EAGER, LABELS, Robot, box, floor_with_rug, labeled_cloud, scene
from rclpy.qos import DurabilityPolicy
from ros_bench import LATCHED
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import LabelInfo

from perception.ros.conversions import label_set_to_label_info, labeled_cloud_to_point_cloud2
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


def test_labeled_points_have_the_colors_of_their_classes_where_somebody_tells_them(bench, tmp_path):
    points, labels = scene(box("cabinet", 0.0, 0.0, 0.5, 0.5), box("chair", 1.0, 0.0))
    labels[:10] = -1
    cloud = replace(labeled_cloud(points, labels, 1), colors=np.full((len(points), 3), (255, 0, 255), np.uint8))
    message = labeled_cloud_to_point_cloud2(cloud)
    clouds = bench.node.create_publisher(PointCloud2, "labeled_points", 5)
    tell = bench.node.create_publisher(LabelInfo, "label_info", LATCHED)
    seen = []
    for told in (False, True):
        if told:
            tell.publish(label_set_to_label_info(LABELS, "", 0))
        folder = tmp_path / str(told)
        save_snapshot(
            bench.node, lambda: (clouds.publish(message), bench.executor.spin_once(timeout_sec=0.05)), folder, 1.0
        )
        seen.append(colors_in(folder / "labeled_points.png"))
    assert (255, 0, 255) in seen[0] and LABELS["chair"].color not in seen[0]
    assert {LABELS["cabinet"].color, LABELS["chair"].color, (150, 150, 150)} <= seen[1]
    assert (255, 0, 255) not in seen[1]


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
