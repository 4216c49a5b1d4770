# SPDX-License-Identifier: Apache-2.0
"""octomap_server's parameters, one by one: what each does to the map, the topics and at run time."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from cloud_bench import EAGER, HEIGHT, Robot, at
from geometry_msgs.msg import Point
from nav_msgs.msg import OccupancyGrid
from octomap_msgs.msg import Octomap
from octomap_msgs.srv import BoundingBoxQuery
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy
from ros_bench import LATCHED, RELIABLE, Bench, stamps
from sensor_msgs.msg import PointCloud2, PointField
from visualization_msgs.msg import MarkerArray

from perception.ros.cloud_filters import no_return_ends
from perception.ros.conversions import labeled_cloud_to_point_cloud2, make_header
from perception.ros.map_conversions import octomap_to_bytes
from perception.ros.octomap_node import OctomapNode
from perception.types import LabeledCloud

pytestmark = pytest.mark.timeout(900)
HIT = np.array([(2.05, 0.05, 0.55)], np.float32)
"""One ray along x from the sensor at (0.05, 0.05, 0.55): 20 free voxels and this one."""
TOWER = np.array([(1.05, 0.05, z) for z in (0.05, 0.15, 0.25)] + [(2.05, 1.05, 1.55)], np.float32)
"""Three voxels one above the other, and a single one far away."""


def start(bench: Bench, **parameters) -> tuple[OctomapNode, Robot]:
    node = bench.add(OctomapNode, **{**EAGER, **parameters})
    bench.activate(node)
    return node, Robot(bench, node)


def log_odds(node, *point: float) -> float:
    return float(node.pipeline.tree.log_odds(np.array([point], np.float32))[0])


def change(node, **values) -> None:
    parameters = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
    results = node.set_parameters(parameters)
    assert all(result.successful for result in results), results


def newest(bench, messages, stamp_ns):
    bench.spin_until(lambda: messages and stamps(messages)[-1] >= stamp_ns)
    return messages[-1]


def cubes(message) -> dict[str, int]:
    """Number of cubes by namespace."""
    return {marker.ns: len(marker.points) for marker in message.markers if marker.points}


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def test_sensor_model_hit_miss_and_clamping_at_the_start_and_at_run_time(bench):
    node, robot = start(bench, sensor_model__hit=0.8, sensor_model__miss=0.3)
    robot.send(HIT)
    assert log_odds(node, *HIT[0]) == pytest.approx(logit(0.8), rel=1e-5)
    assert log_odds(node, 1.05, 0.05, 0.55) == pytest.approx(logit(0.3), rel=1e-5)
    change(node, sensor_model__max=0.85, sensor_model__min=0.25, sensor_model__hit=0.7, sensor_model__miss=0.4)
    for _ in range(3):
        robot.send(HIT)
    assert log_odds(node, *HIT[0]) == pytest.approx(logit(0.85), rel=1e-5)
    assert log_odds(node, 1.05, 0.05, 0.55) == pytest.approx(logit(0.25), rel=1e-5)
    refused = node.set_parameters([Parameter("sensor_model.hit", value=0.3)])[0]
    assert not refused.successful and "0.5, Max: 0.999" in refused.reason
    assert node.pipeline.tree.sensor_model.hit == 0.7


def test_max_range_cuts_rays_which_then_only_clear(bench):
    node, robot = start(bench, sensor_model__max_range=1.0)
    robot.send(HIT)
    assert np.isnan(log_odds(node, *HIT[0]))
    assert log_odds(node, 0.55, 0.05, 0.55) < 0
    assert np.isnan(log_odds(node, 1.55, 0.05, 0.55))
    change(node, sensor_model__max_range=-1.0)
    robot.send(HIT)
    assert log_odds(node, *HIT[0]) > 0


def test_frame_id_names_the_frame_of_every_map(bench):
    _, robot = start(bench, frame_id="odom", map_jump__frame_id="")
    full, grids = bench.collect(Octomap, "octomap_full", LATCHED), bench.collect(OccupancyGrid, "projected_map")
    stamp_ns = robot.send(HIT)
    assert newest(bench, full, stamp_ns).header.frame_id == "odom"
    assert newest(bench, grids, stamp_ns).header.frame_id == "odom"
    assert full[-1].resolution == 0.1


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("compress", [False, True])
def test_projection_follows_a_cleared_box_whatever_incremental_and_compress_say(bench, incremental, compress):
    _, robot = start(bench, incremental_2D_projection=incremental, compress_map=compress)
    grids = bench.collect(OccupancyGrid, "projected_map")
    assert max(newest(bench, grids, robot.send(HIT)).data) == 100
    count = len(grids)
    request = BoundingBoxQuery.Request(min=Point(x=1.5, y=-1.0, z=0.0), max=Point(x=3.0, y=1.0, z=1.0))
    bench.call(BoundingBoxQuery, "octomap_node/clear_bbx", request)  # ROS 1's name is answered, with a warning.
    bench.spin_until(lambda: len(grids) > count)
    assert max(grids[-1].data) == 0


def test_max_depth_heights_and_sizes_shape_what_is_shown_and_projected(bench):
    node, robot = start(bench)
    cells, grids = bench.collect(MarkerArray, "occupied_cells_vis_array"), bench.collect(OccupancyGrid, "projected_map")
    bench.spin_until(lambda: True)
    robot.send(TOWER)
    bench.spin_until(lambda: cells and cubes(cells[-1]) == {"map": 4})
    change(node, occupancy_max_z=1.0)
    bench.spin_until(lambda: cubes(cells[-1]) == {"map": 3})
    change(node, occupancy_min_z=0.12)
    bench.spin_until(lambda: cubes(cells[-1]) == {"map": 2})
    change(node, occupancy_min_z=-100.0, occupancy_max_z=100.0, max_depth=15)
    bench.spin_until(lambda: {round(m.scale.x, 3) for m in cells[-1].markers if m.points} == {0.2})
    bench.spin_until(lambda: grids[-1].info.resolution == pytest.approx(0.2))
    change(node, max_depth=16, min_x_size=10.0, min_y_size=8.0)
    bench.spin_until(lambda: (grids[-1].info.width, grids[-1].info.height) == (100, 80))
    refused = node.set_parameters([Parameter("max_depth", value=17)])[0]
    assert not refused.successful and "Max: 16" in refused.reason


def test_speckle_filter_hides_a_single_voxel_and_keeps_the_tower(bench):
    node, robot = start(bench, filter_speckles=True)
    cells, grids = bench.collect(MarkerArray, "occupied_cells_vis_array"), bench.collect(OccupancyGrid, "projected_map")
    stamp_ns = robot.send(TOWER)
    assert cubes(newest_markers(bench, cells)) == {"map": 3}
    assert sum(value == 100 for value in newest(bench, grids, stamp_ns).data) == 1
    change(node, filter_speckles=False)
    bench.spin_until(lambda: cubes(cells[-1]) == {"map": 4})
    assert log_odds(node, *TOWER[-1]) > 0, "it is hidden, not forgotten"


def newest_markers(bench, messages):
    bench.spin_until(lambda: messages and cubes(messages[-1]))
    return messages[-1]


def test_colors_of_markers_by_parameter_and_by_height(bench):
    node, robot = start(bench, **{"color.r": 1.0, "color.b": 0.5, "color.a": 0.25, "color_free.a": 0.5,
                                  "color_free.b": 1.0, "publish_free_space": True})  # fmt: skip
    cells, free = (bench.collect(MarkerArray, f"{name}_cells_vis_array") for name in ("occupied", "free"))
    robot.send(TOWER)
    color = next(m for m in newest_markers(bench, cells).markers if m.points).colors[0]
    assert (color.r, color.g, color.a) == (1.0, 0.0, 0.25) and color.b == pytest.approx(0.5, abs=0.01)
    color = next(m for m in newest_markers(bench, free).markers if m.points).colors[0]
    assert (color.r, color.g, color.b, color.a) == (0.0, 1.0, 1.0, 0.5)
    change(node, use_height_map=True, color_factor=0.5)

    def by_height() -> dict[float, tuple[float, ...]]:
        marker = next(m for m in cells[-1].markers if m.points)
        return {round(p.z, 2): (c.r, c.g, c.b) for p, c in zip(marker.points, marker.colors, strict=True)}

    # Half of the circle: from cyan below to red above.
    bench.spin_until(lambda: by_height()[0.05] == pytest.approx((0, 1, 1), abs=0.02))
    assert by_height()[1.55] == pytest.approx((1, 0, 0), abs=0.02)


def test_free_space_is_published_only_when_asked_for(bench):
    node, robot = start(bench)
    free = bench.collect(MarkerArray, "free_cells_vis_array")
    cells = bench.collect(MarkerArray, "occupied_cells_vis_array")
    robot.send(HIT)
    newest_markers(bench, cells)
    assert not free
    change(node, publish_free_space=True)
    assert sum(cubes(newest_markers(bench, free)).values()) == 20


@pytest.mark.parametrize("latch", [True, False])
def test_latch_decides_whether_a_late_subscriber_is_served_from_what_was_sent(bench, latch):
    _, robot = start(bench, latch=latch)
    for name in ("octomap_binary", "octomap_full", "occupied_cells_vis_array", "projected_map"):
        (info,) = bench.node.get_publishers_info_by_topic(name) or bench.spin_until(
            lambda name=name: bench.node.get_publishers_info_by_topic(name)
        )
        wanted = DurabilityPolicy.TRANSIENT_LOCAL if latch else DurabilityPolicy.VOLATILE
        assert info.qos_profile.durability == wanted, name
    robot.send(HIT)
    late = bench.collect(Octomap, "octomap_full", LATCHED if latch else RELIABLE)
    bench.spin_until(lambda: late)


def test_point_cloud_limits_at_run_time_and_impossible_ones_refused(bench):
    node, robot = start(bench)
    change(node, point_cloud_max_x=1.5, point_cloud_min_y=-1.0, point_cloud_max_y=1.0, point_cloud_min_x=0.0)
    robot.send(TOWER)
    assert np.isnan(log_odds(node, *TOWER[-1])) and log_odds(node, *TOWER[0]) > 0
    change(node, point_cloud_min_z=0.12)
    before = log_odds(node, *TOWER[0])
    robot.send(TOWER)
    assert log_odds(node, *TOWER[0]) <= before < log_odds(node, *TOWER[1])
    for name, value in (("point_cloud_min_z", 200.0), ("occupancy_max_z", -200.0)):
        refused = node.set_parameters([Parameter(name, value=value)])[0]
        assert not refused.successful and "expected less than" in refused.reason


def test_ground_filter_names_with_dots_change_at_run_time(bench):
    node, robot = start(bench, filter_ground_plane=True, point_cloud_min_z=-1.0)
    x, y = np.meshgrid(np.arange(0.5, 2.0, 0.05), np.arange(-0.8, 0.8, 0.05))
    floor = np.column_stack([x.ravel(), y.ravel(), np.full(x.size, -0.12)]).astype(np.float32)
    robot.send(floor)
    assert (node.pipeline.tree.leaves().log_odds >= 0).any(), "12 cm below the base: no ground by default"
    node.reset()
    change(node, ground_filter__plane_distance=0.2, ground_filter__angle=0.2, ground_filter__distance=0.05)
    robot.send(floor)
    assert (node.pipeline.tree.leaves().log_odds < 0).all()
    assert "ground_filter.distance" in str(_undeclared(node))


def _undeclared(node) -> str:
    from perception.ros.parameters import explain_unknown

    return explain_unknown("ground_filter_distance", node.parameters.values())


def organized(width: int, height: int, depth: np.ndarray, stamp_ns: int, frame: str = "lidar") -> PointCloud2:
    """A cloud as depth_image_proc makes it, z forward; what is infinite or NaN in depth is so in all coordinates."""
    v, u = np.mgrid[0:height, 0:width]
    with np.errstate(invalid="ignore"):
        points = np.stack([(u - width / 2) / 20 * depth, (v - height / 2) / 20 * depth, depth], -1).astype(np.float32)
    message = PointCloud2(header=make_header(frame, stamp_ns), width=width, height=height, point_step=12)
    message.row_step = 12 * width
    message.fields = [PointField(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate("xyz")]
    message._data = np.ascontiguousarray(points).reshape(-1).view(np.uint8)
    return message


@pytest.mark.parametrize(
    ("no_return", "expected"), [("inf", (True, False)), ("nan", (True, True)), ("none", (False, False))]
)
def test_pixels_without_return_clear_as_no_return_says(bench, no_return, expected):
    node, robot = start(bench, no_return=no_return, sensor_model__max_range=2.0)
    depth = np.full((12, 16), 1.0)
    depth[6, 3], depth[2, 12] = np.inf, np.nan
    stamp_ns = robot.send(HIT)
    robot.clouds.publish(organized(16, 12, depth, stamp_ns))
    bench.spin_until(lambda: node.statistics.snapshot().processed == 2)
    seen = []
    for row, column in ((6, 3), (2, 12)):
        direction = np.array([(column - 8) / 20, (row - 6) / 20, 1.0])
        point = np.array([0.05, 0.05, 0.55]) + direction / np.linalg.norm(direction) * 1.8
        seen.append(log_odds(node, *point) < 0)
    assert tuple(seen) == expected


def test_a_cloud_that_fits_no_pinhole_gives_no_rays():
    rng = np.random.default_rng(0)
    points = rng.uniform(0.5, 3, (8, 16, 3)).astype(np.float32)
    points[0, 0] = np.inf
    assert len(no_return_ends(points, 2.0)) == 0
    assert len(no_return_ends(np.full((8, 16, 3), np.inf, np.float32), 2.0)) == 0


def test_maps_are_serialized_at_the_rate_asked_for_and_not_once_a_scan(bench):
    _, robot = start(bench, map_publish_rate=1.0)
    full = bench.collect(Octomap, "octomap_full", LATCHED)
    for _ in range(12):
        last = robot.send(HIT)
    assert len(full) <= 3
    newest(bench, full, last)


def test_colored_map_takes_the_colors_of_clouds_without_classes(bench):
    node, robot = start(bench, colored_map=True)
    full, cells = (
        bench.collect(Octomap, "octomap_full", LATCHED),
        bench.collect(MarkerArray, "occupied_cells_vis_array"),
    )
    ones = np.ones(len(TOWER), np.float32)
    colors = np.array([(200, 40, 90)] * 3 + [(255, 255, 255)], np.uint8)
    stamp_ns = robot.send(TOWER)
    assert newest(bench, full, stamp_ns).id == "ColorOcTree"
    inside = (at(0.05, 0.05) @ at(0, 0, HEIGHT)).inverse().apply(TOWER)
    none = np.full(len(TOWER), -1, np.int32)
    for done in (2, 4):
        robot.send(TOWER)
        # A cloud sent before the last one has been taken would supersede it.
        bench.spin_until(lambda done=done: node.statistics.snapshot().processed == done)
        robot.clouds.publish(
            labeled_cloud_to_point_cloud2(
                LabeledCloud(inside, colors, none, ones, np.zeros((0, 3), np.float32), none, stamp_ns, "lidar")
            )
        )
        bench.spin_until(lambda done=done: node.statistics.snapshot().processed == done + 1)
    bench.spin_until(lambda: bytes((204, 44, 92)) in octomap_to_bytes(full[-1]).tobytes())
    assert bytes((252, 252, 252)) in octomap_to_bytes(full[-1]).tobytes(), "not white, which means no color"
    bench.spin_until(lambda: cells and any(c.r > 0.7 for m in cells[-1].markers for c in m.colors))
    assert cubes(cells[-1]) == {"map": 4}
    refused = node.set_parameters([Parameter("colored_map", value=False)])[0]
    assert not refused.successful and "fixed while" in refused.reason
