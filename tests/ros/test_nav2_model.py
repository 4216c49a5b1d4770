# SPDX-License-Identifier: Apache-2.0
"""What Nav2 ends up with: its layers, modeled in nav2_model, fed with our messages and points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from cloud_bench import EAGER, LABELS, Robot, box, floor, floor_with_rug, scene
from map_msgs.msg import OccupancyGridUpdate
from nav2_model import (
    FREE,
    LETHAL,
    UNKNOWN,
    ObservationBuffer,
    StaticLayer,
    VoxelLayer,
    combine,
    interpret,
    keepout,
    speed_limit,
)
from nav_msgs.msg import OccupancyGrid
from ros_bench import LATCHED
from test_costmap_output import Board, grid_of

from perception.cloud import label_cloud
from perception.config import CloudConfig
from perception.costmap import clearing_points, cost_from_raw, obstacle_points, raw_from_cost
from perception.geometry import PinholeCamera, Transform
from perception.ros.costmap_output import CostmapOutput
from perception.ros.octomap_node import OctomapNode
from perception.types import LabelImage

pytestmark = pytest.mark.timeout(900)
CONFIG = Path(__file__).resolve().parents[2] / "config"
SIZE = 10


def layer_parameters(file: str, costmap: str) -> dict[str, Any]:
    document = yaml.safe_load((CONFIG / file).read_text(encoding="utf-8"))
    return document[costmap][costmap]["ros__parameters"]


# The global costmap: StaticLayer.


def test_model_reads_a_cost_as_our_table_expects():
    for cost in range(255):
        read = interpret(raw_from_cost(cost))
        assert read in (cost_from_raw(raw_from_cost(cost)), 253)
        assert abs(read - cost) <= (1 if cost <= 249 else 4)
    assert interpret(-1) == UNKNOWN


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, SIZE - 1), st.integers(0, SIZE - 1), st.sampled_from([-1, 0, 30, 100]),
            st.booleans(), st.booleans(), st.floats(0, 2),
        ),
        min_size=1, max_size=25,
    )
)  # fmt: skip
def test_static_layer_is_right_after_the_last_whole_grid_whatever_was_lost_or_overtaken(steps):
    with pytest.MonkeyPatch.context() as patch:
        now = [0.0]
        patch.setattr("perception.ros.costmap_output.monotonic", lambda: now[0])
        board = Board()
        output, layer = CostmapOutput(board, True, lambda: None), StaticLayer()  # type: ignore[arg-type]
        grids, updates = (board.topics[name].messages for name in ("semantic_costmap", "semantic_costmap_updates"))
        data, seen_grids, seen_updates = np.zeros((SIZE, SIZE), np.int8), 0, 0

        def deliver(arrives: bool) -> None:
            nonlocal seen_grids, seen_updates
            for message in grids[seen_grids:]:
                layer.grid(message)  # Reliable and transient local: none is lost.
            if arrives and seen_updates < len(updates):
                layer.patch(updates[-1])  # Only the newest is kept.
            seen_grids, seen_updates = len(grids), len(updates)

        for number, (x, y, value, arrives, cycles, seconds) in enumerate(steps):
            data[y, x] = value
            now[0] += seconds
            output.publish(grid_of(data), "map", number, 1.5)
            deliver(arrives)
            if cycles:
                layer.update()
        # What changed last is followed by a whole grid within the period, though nothing changes any more.
        now[0] += 1.6
        output.publish(grid_of(data), "map", 99, 1.5)
        deliver(True)
        layer.update()
        expected = np.array([[interpret(int(v)) for v in row] for row in data], np.uint8)
        np.testing.assert_array_equal(layer.costs, expected)
        assert layer.resized == 1


def test_late_static_layer_is_right_after_the_latched_grid_and_one_update(bench):
    node = bench.add(OctomapNode, **{**EAGER, "label_set": "ade20k32", "costmap.geometry": "fixed",
                                     "costmap_full_period": 3600.0})  # fmt: skip
    bench.activate(node)
    early = bench.collect(OccupancyGrid, "semantic_costmap", LATCHED)
    robot = Robot(bench, node)
    robot.send(*floor_with_rug())
    bench.spin_until(lambda: early)
    robot.send(*scene(floor_with_rug(), box("cabinet", 2.0, -0.5)))
    late, layer = bench.collect(OccupancyGrid, "semantic_costmap", LATCHED), StaticLayer()
    updates = bench.collect(OccupancyGridUpdate, "semantic_costmap_updates")
    bench.spin_until(lambda: late)
    layer.grid(late[-1])
    assert layer.cost(2.1, -0.4) != LETHAL, "the latched grid is older than the cabinet"
    robot.send(*scene(floor(x=(-1.0, 0.5)), box("chair", 0.0, 0.3)))
    bench.spin_until(lambda: updates)
    layer.patch(updates[-1])
    layer.update()
    assert [layer.cost(*xy) for xy in ((2.1, -0.4), (0.1, 0.4), (0.5, -0.5))] == [LETHAL, LETHAL, FREE]
    assert 0 < layer.cost(1.2, 0.2) < 50
    assert layer.cost(2.9, 3.0) == UNKNOWN


def test_box_that_the_network_calls_floor_is_lethal_in_the_global_costmap(bench):
    parameters = layer_parameters("nav2_global.yaml", "global_costmap")
    assert parameters["trinary_costmap"] is False and parameters["use_maximum"] is True
    node = bench.add(OctomapNode, **{**EAGER, "label_set": "ade20k32", "costmap.geometry": "from_map"})
    bench.activate(node)
    grids = bench.collect(OccupancyGrid, "semantic_costmap", LATCHED)
    robot = Robot(bench, node)
    mislabeled = box("floor", 1.0, 0.3)
    robot.send(*scene(floor(), mislabeled))
    slam = OccupancyGrid()
    slam.header.frame_id, slam.info.resolution, slam.info.width, slam.info.height = "map", 0.1, 60, 30
    slam.info.origin.position.x = slam.info.origin.position.y = -1.5
    occupied = np.full((30, 60), -1, np.int8)
    occupied[:, 45:], occupied[5:25, 10:45] = 100, 0
    slam.data = occupied.ravel().tolist()
    bench.publisher(OccupancyGrid, "map", LATCHED).publish(slam)
    bench.spin_until(lambda: grids)
    static, semantic = StaticLayer(), StaticLayer()
    static.grid(slam)
    semantic.grid(grids[-1])
    assert semantic.place == pytest.approx(static.place), "one geometry: the master is not resized to and fro"
    master = combine(np.full((30, 60), UNKNOWN, np.uint8), static.costs, use_maximum=False)
    master = combine(master, semantic.costs, use_maximum=True)
    assert master[int(1.85 / 0.1), int(2.65 / 0.1)] == LETHAL, "the box"
    assert master[15, 50] == LETHAL, "the wall that only /map knows"
    assert master[28, 20] == UNKNOWN
    overwritten = combine(static.costs, semantic.costs, use_maximum=False)
    assert overwritten[15, 50] == UNKNOWN, "without use_maximum the wall is gone"


def test_filters_read_our_masks_as_meant():
    master = np.array([[FREE, UNKNOWN, LETHAL]], np.uint8)
    assert keepout(master, np.array([[-1, -1, -1]])).tolist() == [[FREE, UNKNOWN, LETHAL]]
    assert keepout(master, np.array([[100, 100, 100]])).tolist() == [[LETHAL, LETHAL, LETHAL]]
    assert keepout(master, np.array([[0, 0, 0]])).tolist() == [[FREE, FREE, LETHAL]], "why we say -1 and not 0"
    assert [speed_limit(value, 0.0, 1.0) for value in (0, 40, -1)] == [0.0, 40.0, None]


# The local costmap: VoxelLayer.

CAMERA = PinholeCamera(80, 60, 60.0, 60.0, 39.5, 29.5)
EYE = Transform(
    np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.0], [0, 0, 0, 1]])
)  # One meter above the origin, looking along x.
WALL_X, FLOOR = 3.0, LABELS["floor"].id


def look(standing_x: float | None, label: str = "person") -> tuple[np.ndarray, np.ndarray]:
    """Points for marking and for clearing: a floor, a wall, and something 0.8 m high and 0.4 m wide or nothing."""
    v, u = np.mgrid[0:60, 0:80]
    right, down = (u - 39.5) / 60.0, (v - 29.5) / 60.0
    with np.errstate(divide="ignore"):
        depth = np.minimum(np.where(down > 0, 1.0 / down, np.inf), WALL_X).astype(np.float32)
    ids = np.where(depth < WALL_X, FLOOR, LABELS["wall"].id).astype(np.int32)
    if standing_x is not None:
        height, side = 1.0 - down * standing_x, right * standing_x
        hit = (np.abs(side) < 0.2) & (height > 0) & (height < 0.8)
        depth, ids = np.where(hit, np.float32(standing_x), depth), np.where(hit, LABELS[label].id, ids)
    labels = LabelImage(ids.astype(np.int32), np.full(ids.shape, 0.9, np.float32), LABELS)
    color = np.zeros((60, 80, 3), np.uint8)
    cloud = label_cloud(depth, CAMERA, labels, color, CloudConfig(), no_return_range=5.0, frame_id="eye")
    return obstacle_points(cloud, EYE), clearing_points(cloud)


class LocalCostmap:
    """nav2_local.yaml's voxel layer, and its two sources."""

    def __init__(self) -> None:
        layer = layer_parameters("nav2_local.yaml", "local_costmap")["voxel_layer"]
        assert layer["observation_sources"].split() == ["obstacles", "clearing"]
        marks, clears = layer["obstacles"], layer["clearing"]
        assert (marks["marking"], marks["clearing"], clears["marking"], clears["clearing"]) == (
            True,
            False,
            False,
            True,
        )
        self.sources = [
            ObservationBuffer(
                source["min_obstacle_height"], source["max_obstacle_height"],
                expected_update_rate=source["expected_update_rate"],
            )
            for source in (marks, clears)
        ]  # fmt: skip
        self.layer = VoxelLayer(
            (-0.5, -2.0), (90, 80), 0.05, layer["origin_z"], layer["z_resolution"], layer["z_voxels"],
            layer["max_obstacle_height"], marks["obstacle_max_range"], clears["raytrace_max_range"],
            layer["mark_threshold"],
        )  # fmt: skip

    def see(self, points: tuple[np.ndarray, np.ndarray], now_s: float) -> None:
        for source, cloud in zip(self.sources, points, strict=True):
            source.take(cloud, EYE, now_s)
        self.layer.update(self.sources[:1], self.sources[1:])

    def lethal_near(self, x: float) -> bool:
        return any(self.layer.cost(x + dx, dy) == LETHAL for dx in (-0.06, 0.0, 0.06) for dy in (-0.1, 0.0, 0.1))


def test_person_is_lethal_while_there_and_gone_two_frames_after_leaving():
    costmap = LocalCostmap()
    costmap.see(look(1.5), 0.0)
    assert costmap.lethal_near(1.5)
    costmap.see(look(None), 0.1)
    costmap.see(look(None), 0.2)
    assert not costmap.lethal_near(1.5)
    assert costmap.layer.cost(1.5, 0.0) == FREE


def test_person_who_walks_away_leaves_no_trace_and_one_who_comes_only_in_the_shadow():
    costmap = LocalCostmap()
    for number, x in enumerate((1.1, 1.4, 1.7, 2.0)):
        costmap.see(look(x), number * 0.1)
        assert costmap.lethal_near(x)
    assert not any(costmap.lethal_near(x) for x in (1.1, 1.4, 1.7))
    costmap.see(look(1.1), 0.5)
    assert costmap.lethal_near(2.0), "nobody can see there now"
    for number in range(2):
        costmap.see(look(None), 0.6 + number * 0.1)
    assert not any(costmap.lethal_near(x) for x in (1.1, 2.0))


def test_box_that_the_network_calls_floor_is_marked_and_the_floor_is_not():
    costmap = LocalCostmap()
    costmap.see(look(1.5, "floor"), 0.0)
    assert costmap.lethal_near(1.5)
    assert costmap.layer.cost(2.0, 1.0) != LETHAL
    costmap.see(look(1.5, "floor"), 0.1)
    assert costmap.lethal_near(1.5), "its own rays do not clear it"


def test_costmap_is_no_longer_current_half_a_second_after_the_last_cloud():
    costmap = LocalCostmap()
    costmap.see(look(None), 10.0)
    assert all(source.is_current(10.4) for source in costmap.sources)
    assert not any(source.is_current(10.6) for source in costmap.sources)


def test_default_height_limit_of_a_source_would_let_nothing_through():
    buffer = ObservationBuffer()
    buffer.take(look(1.5)[0], EYE, 0.0)
    assert (buffer.observations[0][2][:, 2] <= 0.0).all()


def test_clearing_with_the_obstacles_height_limits_would_leave_the_person_standing():
    costmap = LocalCostmap()
    costmap.sources[1].min_obstacle_height = 0.05
    costmap.sources[1].max_obstacle_height = 0.5
    costmap.see(look(1.5), 0.0)
    for number in range(3):
        costmap.see(look(None), 0.1 * number)
    assert costmap.lethal_near(1.5), "floor and upper wall are cut off, and with them the rays through the person"
