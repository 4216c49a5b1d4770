# SPDX-License-Identifier: Apache-2.0
"""What Nav2 reads from a node with a map: costmaps at the place asked for, masks, the local map, clearing."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from cloud_bench import EAGER, LABELS, Robot, at, box, floor, floor_with_rug, scene, tell_labels
from map_msgs.msg import OccupancyGridUpdate
from nav2_msgs.msg import CostmapFilterInfo
from nav_msgs.msg import OccupancyGrid
from rclpy.parameter import Parameter
from ros_bench import LATCHED, Bench, stamps
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Empty

from perception.cloud_codec import decode_point_cloud
from perception.ros.conversions import image_to_color, point_cloud2_to_points
from perception.ros.map_conversions import cost_grid_to_occupancy_grid, occupancy_grid_to_cost_grid
from perception.ros.octomap_node import OctomapNode
from perception.types import CostGrid

pytestmark = pytest.mark.timeout(900)


def start(bench: Bench, **parameters) -> OctomapNode:
    node = bench.add(OctomapNode, **{**EAGER, "label_set": "ade20k32", **parameters})
    bench.activate(node)
    return node


def cell(message, x: float, y: float) -> int:
    grid = occupancy_grid_to_cost_grid(message)
    column, row = (int((v - o) // grid.resolution) for v, o in zip((x, y), grid.origin, strict=True))
    return int(grid.data[row, column])


def newest(bench: Bench, messages, stamp_ns: int):
    bench.spin_until(lambda: messages and stamps(messages)[-1] >= stamp_ns)
    return messages[-1]


def test_fixed_costmap_keeps_its_place_and_shows_graded_costs(bench):
    place = {"costmap.geometry": "fixed", "costmap.width": 5.0, "costmap.height": 3.0}
    node = start(bench, **place, **{"costmap.origin_x": -1.5, "costmap.origin_y": -1.5})
    grids = bench.collect(OccupancyGrid, "semantic_costmap", LATCHED)
    robot = Robot(bench, node)
    stamp_ns = robot.send(*scene(floor_with_rug(), box("cabinet", 2.0, -0.5)))
    message = newest(bench, grids, stamp_ns)
    assert (message.info.width, message.info.height) == (50, 30)
    assert (message.info.origin.position.x, message.info.origin.position.y) == (-1.5, -1.5)
    assert cell(message, 0.5, 0.5) == 0
    assert 0 < cell(message, 1.2, 0.2) < 50
    assert cell(message, 2.1, -0.4) == 100
    assert cell(message, 3.2, 1.2) == -1
    robot.send(np.array([(4.5, 0.0, 0.5)], np.float32), [-1])
    assert {(grid.info.width, grid.info.height) for grid in grids} == {(50, 30)}


def test_rolling_costmap_follows_the_robot_in_whole_meters(bench):
    node = start(bench, **{"costmap.geometry": "rolling", "costmap.width": 4.0})
    grids = bench.collect(OccupancyGrid, "semantic_costmap", LATCHED)
    robot = Robot(bench, node)
    origins = []
    for x in (0.05, 0.3, 1.2, 5.6):
        stamp_ns = robot.send(*floor(x=(x - 1, x + 1)), odom_T_base=at(x, 0.05))
        bench.spin_until(lambda: node._costmap._sent is not None)
        origins.append(node._costmap._sent.origin)
    assert origins == [(-2.0, -2.0), (-2.0, -2.0), (-1.0, -2.0), (4.0, -2.0)]
    message = newest(bench, grids, stamp_ns)
    assert message.info.origin.position.x == 4.0
    assert message.info.width == 40


def test_costmap_takes_the_cells_of_a_growing_slam_map_and_waits_for_the_first(bench):
    node = start(bench, **{"costmap.geometry": "from_map"})
    grids = bench.collect(OccupancyGrid, "semantic_costmap", LATCHED)
    robot = Robot(bench, node)
    robot.send(*floor())
    assert "frame map on topic map" in node.details()["semantic_costmap waits for"]
    assert not grids
    slam = bench.publisher(OccupancyGrid, "map", LATCHED)
    for width, origin in ((40, (-1.0, -1.0)), (80, (-3.0, -1.0))):
        empty = CostGrid(np.full((20, width), -1, np.int8), 0.05, origin)
        slam.publish(cost_grid_to_occupancy_grid(empty, "map", 0))
        bench.spin_until(lambda width=width: grids and grids[-1].info.width == width)
        assert grids[-1].info.resolution == pytest.approx(0.05)
        assert grids[-1].info.origin.position.x == pytest.approx(origin[0])
        assert cell(grids[-1], -0.5, -0.5) == 0
    assert "semantic_costmap waits for" not in node.details()
    elsewhere = cost_grid_to_occupancy_grid(CostGrid(np.zeros((2, 2), np.int8), 0.05, (0.0, 0.0)), "odom", 0)
    slam.publish(elsewhere)
    robot.send(*floor())
    assert grids[-1].info.width == 80, "a grid of another frame is refused"


def test_class_cost_changes_the_costmap_without_a_scan(bench):
    node = start(bench)
    grids, updates = (bench.collect(OccupancyGrid, "semantic_costmap", LATCHED),
                      bench.collect(OccupancyGridUpdate, "semantic_costmap_updates"))  # fmt: skip
    robot = Robot(bench, node)
    robot.send(*floor_with_rug())
    bench.spin_until(lambda: grids)
    before = cell(grids[-1], 1.2, 0.2)
    scans = node.statistics.snapshot().processed
    assert node.set_parameters([Parameter("classes.rug.cost", value=200)])[0].successful
    bench.spin_until(lambda: updates or len(grids) > 1)
    assert node.statistics.snapshot().processed == scans
    value = max(updates[-1].data) if updates else cell(grids[-1], 1.2, 0.2)
    assert before < value == 79
    assert not node.set_parameters([Parameter("classes.rug.cost", value=255)])[0].successful


def test_keepout_and_speed_masks_come_with_their_info_and_change_live(bench):
    node = start(bench, **{"filters.keepout_classes": "rug", "filters.speed_limits": "floor=60"})
    infos = {name: bench.collect(CostmapFilterInfo, f"{name}_filter_info", LATCHED) for name in ("keepout", "speed")}
    masks = {name: bench.collect(OccupancyGrid, f"{name}_filter_mask", LATCHED) for name in ("keepout", "speed")}
    bench.spin_until(lambda: all(infos.values()))
    assert {name: (i[-1].type, i[-1].filter_mask_topic, i[-1].base, i[-1].multiplier) for name, i in infos.items()} == {
        "keepout": (0, "/keepout_filter_mask", 0.0, 1.0),
        "speed": (1, "/speed_filter_mask", 0.0, 1.0),
    }
    robot = Robot(bench, node)
    robot.send(*scene(floor_with_rug(), box("cabinet", 2.0, -0.5)))
    bench.spin_until(lambda: all(masks.values()))
    assert [cell(masks["keepout"][-1], *xy) for xy in ((1.2, 0.2), (0.5, 0.5), (2.1, -0.4))] == [100, -1, -1]
    assert [cell(masks["speed"][-1], *xy) for xy in ((1.2, 0.2), (0.5, 0.5))] == [0, 60]
    robot.send(*floor())
    assert len(masks["keepout"]) == 1, "an unchanged mask is not sent again"
    assert node.set_parameters([Parameter("filters.keepout_classes", value="floor")])[0].successful
    bench.spin_until(lambda: cell(masks["keepout"][-1], 0.5, 0.5) == 100)
    refused = node.set_parameters([Parameter("filters.keepout_classes", value="lava")])[0]
    assert not refused.successful and "no class 'lava'" in refused.reason


def test_mask_of_an_unknown_class_fails_configuration_with_a_sentence(bench):
    node = bench.add(OctomapNode, **{**EAGER, "label_set": "ade20k32", "filters.speed_limits": "floor=fast"})
    assert node.trigger_configure().name == "FAILURE"


def test_local_costmap_rolls_in_odom_whatever_the_map_does_and_forgets_what_it_sees_no_more(bench):
    node = start(bench, **{"local_map.resolution": 0.1, "local_map.size": 4.0, "local_map.decay_time": 0.5,
                           "local_map.publish_rate": 1000.0, "map_jump.distance": 100.0})  # fmt: skip
    robot = Robot(bench, node)
    jump = at(10.0, 5.0)

    def send(part, **where):
        points, labels = part
        return robot.send(points + np.float32((10.0, 5.0, 0.0)), labels, map_T_odom=jump, **where)

    send(floor())
    assert node._local_map._tree is None, "nobody listens: nothing is mapped"
    grids = bench.collect(OccupancyGrid, "semantic_costmap_local", LATCHED)
    bench.spin_until(lambda: node._local_map._output.is_wanted)
    send(scene(floor(), box("chair", 1.0, 0.3)))
    send(scene(floor(), box("chair", 1.0, 0.3)))
    bench.spin_until(lambda: grids and cell(grids[-1], 1.1, 0.4) == 100)
    assert grids[-1].header.frame_id == "odom"
    assert (grids[-1].info.width, grids[-1].info.origin.position.x) == (40, -2.0)
    # Half a second is one time constant: five of them without seeing the chair.
    robot.count += 25
    send(floor(x=(-1.0, 0.9)))
    node._local_map._due = 0.0
    send(floor(x=(-1.0, 0.9)))
    assert node._local_map._output._sent.data.max() < 100
    assert node.pipeline.tree.log_odds(np.array([(11.15, 5.45, 0.35)], np.float32))[0] > 0, "the map keeps it"
    send(floor(x=(7.0, 8.0)), odom_T_base=at(8.0, 0.05))
    assert node._local_map._tree.log_odds(np.array([(0.05, 0.05, -0.05)], np.float32))[0] != 0
    tree = node._local_map._tree
    assert np.isnan(tree.log_odds(np.array([(-0.95, 0.05, -0.05)], np.float32))[0]), "far behind: forgotten"


def test_local_costmap_of_a_map_without_labels_shows_what_stands(bench):
    node = bench.add(OctomapNode, **EAGER, **{"local_map.resolution": 0.1, "local_map.publish_rate": 1000.0})
    bench.activate(node)
    grids = bench.collect(OccupancyGrid, "semantic_costmap_local", LATCHED)
    bench.spin_until(lambda: node._local_map._output.is_wanted)
    robot = Robot(bench, node)
    for _ in range(2):
        robot.send(scene(floor(), box("chair", 1.0, 0.3))[0])
    bench.spin_until(lambda: grids and cell(grids[-1], 1.1, 0.4) == 100)
    assert cell(grids[-1], 0.5, -0.5) == 0


def test_clear_around_robot_frees_what_stands_near_and_keeps_the_floor_and_the_rest(bench):
    node = start(bench)
    grids = bench.collect(OccupancyGrid, "semantic_costmap", LATCHED)
    robot = Robot(bench, node)
    stamp_ns = robot.send(*scene(floor(), box("chair", 0.6, 0.2), box("chair", 2.0, 0.2)))
    message = newest(bench, grids, stamp_ns)
    assert [cell(message, x, 0.35) for x in (0.75, 2.15)] == [100, 100]
    node._costmap._full_due = 0.0
    bench.call(Empty, "octomap_node/clear_around_robot")
    bench.spin_until(lambda: cell(grids[-1], 0.75, 0.35) != 100)
    assert cell(grids[-1], 0.75, 0.35) == 0
    assert cell(grids[-1], 2.15, 0.35) == 100


def test_distance_field_is_a_cloud_with_the_distance_as_intensity(bench):
    node = start(bench, distance_field_range=0.5)
    clouds = bench.collect(PointCloud2, "distance_field", LATCHED)
    Robot(bench, node).send(*scene(floor(), box("cabinet", 1.0, 0.0, 0.1)))
    bench.spin_until(lambda: clouds)
    message = clouds[-1]
    assert [field.name for field in message.fields] == ["x", "y", "z", "intensity"]
    records = np.frombuffer(bytes(message.data), np.float32).reshape(-1, 4)
    assert records[:, 3].max() == pytest.approx(0.5)
    lethal = records[records[:, 3] == 0][:, :2]
    row = records[np.argmin(np.abs(records[:, :2] - (1.35, 0.05)).sum(axis=1))]
    assert row[3] == pytest.approx(np.linalg.norm(lethal - row[:2], axis=1).min(), abs=1e-3)
    assert decode_point_cloud(
        message.height, message.width, message.fields, message.is_bigendian, message.point_step, message.row_step,
        message.data,
    ).labels is None  # fmt: skip


def test_legend_shows_every_class_in_its_color_and_centers_carry_classes(bench):
    node = bench.add(OctomapNode, **EAGER)
    bench.activate(node)
    legends, centers = (bench.collect(Image, "label_legend", LATCHED),
                        bench.collect(PointCloud2, "octomap_point_cloud_centers", LATCHED))  # fmt: skip
    tell_labels(bench, node)
    Robot(bench, node).send(*scene(floor(), box("chair", 1.0, 0.3)))
    bench.spin_until(lambda: legends and centers and point_cloud2_to_points(centers[-1]).labels is not None)
    picture = image_to_color(legends[-1])
    shown = set(map(tuple, picture.reshape(-1, 3).tolist()))
    assert {label.color for label in LABELS.classes} <= shown
    fields = point_cloud2_to_points(centers[-1])
    chair = fields.labels == LABELS["chair"].id
    assert chair.any() and (fields.colors[chair] == LABELS["chair"].color).all()


@pytest.mark.parametrize("policy", ["warn", "reset", "pause"])
def test_jump_of_the_localization_is_counted_and_the_policy_followed(bench, policy):
    node = start(bench, **{"map_jump.policy": policy})
    robot = Robot(bench, node)
    robot.send(*floor())
    robot.send(*floor(), map_T_odom=at(0.2, 0.0))
    assert node.details()["jumps of the localization"] == 0
    known = node.pipeline.tree.known_voxels()
    robot.send(*scene(floor(x=(3.0, 3.5))), map_T_odom=at(2.0, 0.0))
    assert node.details()["jumps of the localization"] == 1
    drops = node.statistics.snapshot().drops
    if policy == "warn":
        assert node.pipeline.tree.known_voxels() > known and not drops
    if policy == "reset":
        assert 0 < node.pipeline.tree.known_voxels() < known and not drops
    if policy == "pause":
        assert node.pipeline.tree.known_voxels() == known and drops == {"map_jump": 1}
        robot.send(*floor(), map_T_odom=at(2.0, 0.0))
        assert node.statistics.snapshot().drops == {"map_jump": 2}
        bench.call(Empty, "octomap_node/reset")
        robot.send(*floor(), map_T_odom=at(2.0, 0.0))
        assert node.pipeline.tree.known_voxels() > 0
