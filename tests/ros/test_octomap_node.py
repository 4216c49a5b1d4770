# SPDX-License-Identifier: Apache-2.0
"""octomap_node in octomap_server's place: the same map as OctoMap's own library, its services, its filters."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from geometry_msgs.msg import Point
from nav_msgs.msg import OccupancyGrid
from octomap_msgs.msg import Octomap
from octomap_msgs.srv import BoundingBoxQuery, GetOctomap
from rclpy.parameter import Parameter
from ros_bench import FIRST_STAMP_NS, LATCHED, Bench, stamps, transform_message
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Empty
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import LabelInfo
from visualization_msgs.msg import MarkerArray

from perception.geometry import Transform
from perception.labels import LabelSet
from perception.ros.conversions import (
    label_set_to_label_info,
    labeled_cloud_to_point_cloud2,
    point_cloud2_to_points,
    points_to_point_cloud2,
)
from perception.ros.map_conversions import octomap_to_bytes
from perception.ros.octomap_node import OctomapNode
from perception.types import LabeledCloud

pytestmark = pytest.mark.timeout(900)
EAGER = {"map_publish_rate": 1000.0, "costmap_publish_rate": 1000.0, "resolution": 0.1}
SENSOR = Transform.from_translation_quaternion((0.05, 0.05, 0.55), (0.0, 0.0, 0.0, 1.0))


class Lidar:
    """Sends clouds and where the sensor was."""

    def __init__(self, bench: Bench, node: OctomapNode) -> None:
        self.bench, self.node, self.count = bench, node, 0
        self.clouds = bench.publisher(PointCloud2, "cloud_in")
        self.transforms = bench.publisher(TFMessage, "/tf")

    def send(self, cloud, pose: Transform = SENSOR, wait: bool = True) -> int:
        """Send (N, 3) points of the sensor's frame, or a message; returns the stamp."""
        self.count += 1
        stamp_ns = FIRST_STAMP_NS + self.count * 100_000_000
        self.transforms.publish(transform_message(pose, "lidar", stamp_ns))
        message = cloud
        if isinstance(cloud, np.ndarray):
            message = points_to_point_cloud2(cloud.astype(np.float32), "lidar", stamp_ns)
        done = self.node.statistics.snapshot().processed
        self.clouds.publish(message)
        if wait:
            self.bench.spin_until(lambda: self.node.statistics.snapshot().processed > done)
        return stamp_ns


def scans(count: int, points: int = 3000) -> list[tuple[np.ndarray, Transform]]:
    rng = np.random.default_rng(0)
    result = []
    for _ in range(count):
        directions = rng.normal(size=(points, 3))
        ends = directions / np.linalg.norm(directions, axis=1, keepdims=True) * rng.uniform(0.5, 4.0, (points, 1))
        angle = rng.uniform(-3, 3)
        quaternion = (0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2))
        result.append((ends, Transform.from_translation_quaternion(rng.uniform(-1, 1, 3), quaternion)))
    return result


def test_binary_and_full_map_equal_octomaps_own_library(bench, tmp_path):
    octomap = pytest.importorskip("octomap", reason="needs octomap-python as the oracle")
    node = bench.add(OctomapNode, **EAGER, sensor_model__max_range=3.0)
    bench.activate(node)
    binary, full = (bench.collect(Octomap, name) for name in ("octomap_binary", "octomap_full"))
    lidar = Lidar(bench, node)
    oracle = octomap.OcTree(0.1)
    model = {"setProbHit": 0.7, "setProbMiss": 0.4, "setClampingThresMin": 0.12, "setClampingThresMax": 0.97}
    for setter, value in model.items():
        getattr(oracle, setter)(value)
    stamp_ns = 0
    for ends, pose in scans(5):
        stamp_ns = lidar.send(ends, pose)
        points = pose.apply(ends.astype(np.float32)).astype(np.float64)
        oracle.insertPointCloud(points, pose.translation.astype(np.float32).astype(np.float64), 3.0, False, True)
    for messages in (binary, full):
        bench.spin_until(lambda messages=messages: messages and stamps(messages)[-1] == stamp_ns)
    # Every log-odds is OctoMap's, and the full message holds them as the saved file does.
    for x, y, z in np.random.default_rng(1).uniform(-4, 4, (3000, 3)).astype(np.float32).tolist():
        value = node.pipeline.tree.log_odds(np.array([[x, y, z]], np.float32))[0]
        try:
            assert np.float32(oracle.search((x, y, z)).getLogOdds()) == value
        except octomap.NullPointerException:
            assert np.isnan(value)
    node.save_map(tmp_path / "map.ot")
    assert octomap_to_bytes(full[-1]).tobytes() in (tmp_path / "map.ot").read_bytes()
    # Writing binary changes the oracle to its maximum likelihood, so this comes last.
    oracle.writeBinary(str(tmp_path / "map.bt").encode())
    assert octomap_to_bytes(binary[-1]).tobytes() == (tmp_path / "map.bt").read_bytes().split(b"\ndata\n", 1)[1]
    assert (full[-1].id, full[-1].binary, full[-1].resolution) == ("OcTree", False, 0.1)
    assert (binary[-1].id, binary[-1].binary) == ("OcTree", True)
    for name, message in (("octomap_full", full[-1]), ("octomap_binary", binary[-1])):
        answer = bench.call(GetOctomap, name)
        assert answer.map.data == message.data


def test_clear_bbox_frees_a_box_and_reset_forgets_everything(bench):
    node = bench.add(OctomapNode, **EAGER)
    bench.activate(node)
    lidar = Lidar(bench, node)
    for _ in range(3):
        lidar.send(np.array([(2.0, 0.0, 0.0), (0.0, 2.0, 0.0)]))
    tree = node.pipeline.tree
    near, far = np.array([[2.05, 0.05, 0.55]]), np.array([[0.05, 2.05, 0.55]])
    assert tree.log_odds(near) > 0 and tree.log_odds(far) > 0
    request = BoundingBoxQuery.Request(min=Point(x=1.5, y=-1.0, z=0.0), max=Point(x=3.0, y=1.0, z=1.0))
    bench.call(BoundingBoxQuery, "octomap_node/clear_bbox", request)
    assert tree.log_odds(near) < 0 < tree.log_odds(far)
    bench.call(Empty, "octomap_node/reset")
    assert tree.known_voxels() == 0


def test_points_that_are_not_finite_or_filtered_mark_nothing(bench):
    node = bench.add(OctomapNode, **EAGER, point_cloud_max_z=1.0, min_range=0.5)
    bench.activate(node)
    lidar = Lidar(bench, node)
    kept = (2.0, 0.0, 0.0)
    lidar.send(np.array([kept, (np.nan, 0, 0), (np.inf, 0, 0), (0.0, 3.0, 0.6), (0.2, 0.0, 0.0)]))
    leaves = node.pipeline.tree.leaves()
    occupied = leaves.centers[leaves.log_odds >= 0]
    np.testing.assert_allclose(occupied, [(2.05, 0.05, 0.55)], atol=1e-6)


def test_ground_filter_clears_above_the_floor_and_marks_the_rest(bench):
    node = bench.add(OctomapNode, **EAGER, filter_ground_plane=True, base_frame_id="map")
    bench.activate(node)
    x, y = np.meshgrid(np.arange(0.5, 2.0, 0.05), np.arange(-0.8, 0.8, 0.05))
    floor = np.column_stack([x.ravel(), y.ravel(), np.full(x.size, -0.55)])
    box = np.column_stack([np.full(200, 1.5), np.linspace(-0.3, 0.3, 200), np.tile(np.linspace(-0.3, 0.0, 20), 10)])
    Lidar(bench, node).send(np.concatenate([floor, box]))
    leaves = node.pipeline.tree.leaves()
    assert leaves.centers[leaves.log_odds >= 0][:, 2].min() > 0.2
    assert (leaves.log_odds < 0).any()


def test_labels_come_with_label_info_and_color_the_map(bench):
    node = bench.add(OctomapNode, **EAGER)
    bench.activate(node)
    label_set = LabelSet.load("ade20k32")
    chair = label_set["chair"]
    lidar = Lidar(bench, node)
    points = np.array([(2.0, 0.0, 0.0)], np.float32)

    def labeled(stamp_ns):
        ones = np.ones(1, np.float32)
        cloud = LabeledCloud(
            points, np.zeros((1, 3), np.uint8), np.array([chair.id], np.int32), 0.9 * ones,
            np.zeros((0, 3), np.float32), np.zeros(1, np.int32), stamp_ns, "lidar",
        )  # fmt: skip
        return labeled_cloud_to_point_cloud2(cloud)

    lidar.send(labeled(FIRST_STAMP_NS + 100_000_000), wait=False)
    bench.spin_until(lambda: node.statistics.snapshot().drops.get("no_label_info") == 1)
    lidar.send(points)
    info = bench.publisher(LabelInfo, "label_info", LATCHED)
    info.publish(label_set_to_label_info(label_set, "", FIRST_STAMP_NS))
    bench.spin_until(lambda: node.pipeline.label_set is not None)
    assert node.pipeline.tree.known_voxels() > 0, "what was mapped before stays"
    full = bench.collect(Octomap, "octomap_full")
    lidar.send(labeled(FIRST_STAMP_NS + 300_000_000))
    bench.spin_until(lambda: full and full[-1].id == "ColorOcTree" and stamps(full)[-1] > FIRST_STAMP_NS + 250_000_000)
    assert node.pipeline.tree.label_of(np.array([[2.05, 0.05, 0.55]])).tolist() == [chair.id]
    assert bytes(chair.color) in octomap_to_bytes(full[-1]).tobytes()
    cells = bench.collect(MarkerArray, "occupied_cells_vis_array")
    bench.spin_until(lambda: cells)
    assert [marker.ns for marker in cells[-1].markers if marker.points] == ["chair"]


def test_free_ends_of_the_same_stamp_are_one_scan_with_the_cloud(bench):
    node = bench.add(OctomapNode, **EAGER)
    bench.activate(node)
    lidar = Lidar(bench, node)
    free = bench.publisher(PointCloud2, "clear_in")
    bench.spin_until(lambda: node.count_publishers("clear_in"))
    hit, ends = np.array([(2.0, 0.0, 0.0)], np.float32), np.array([(0.0, 2.0, 0.0), (1.0, 0.0, 0.0)], np.float32)
    stamp_ns = lidar.send(hit, wait=False)
    free.publish(points_to_point_cloud2(ends, "lidar", stamp_ns))
    bench.spin_until(lambda: node.statistics.snapshot().processed == 1)
    tree = node.pipeline.tree
    # One miss each, also where both rays went.
    values = tree.log_odds(np.array([[0.05, 1.05, 0.55], [0.55, 0.05, 0.55], [2.05, 0.05, 0.55]]))
    miss, mark = np.log(0.4 / 0.6), np.log(0.7 / 0.3)
    np.testing.assert_allclose(values, [miss, miss, mark], rtol=1e-5)


def test_projected_map_and_centers_show_the_map(bench):
    node = bench.add(OctomapNode, **EAGER)
    bench.activate(node)
    grids, centers = (
        bench.collect(OccupancyGrid, "projected_map"),
        bench.collect(PointCloud2, "octomap_point_cloud_centers"),
    )
    Lidar(bench, node).send(np.array([(2.0, 0.0, 0.0)]))
    bench.spin_until(lambda: grids and centers)
    assert np.array(grids[-1].data).tolist() == [0] * 20 + [100]
    np.testing.assert_allclose(point_cloud2_to_points(centers[-1]).points, [(2.05, 0.05, 0.55)], atol=1e-6)


def test_map_file_is_loaded_at_the_start_and_a_wrong_one_fails_configuration(bench, tmp_path):
    first = bench.add(OctomapNode, **EAGER)
    bench.activate(first)
    Lidar(bench, first).send(np.array([(2.0, 0.0, 0.0)]))
    path = tmp_path / "map.bt"
    first.save_map(path)
    first.trigger_deactivate()
    second = bench.add(OctomapNode, octomap_path=str(path))
    bench.activate(second)
    assert second.pipeline.tree.known_voxels() == 21
    assert second.pipeline.tree.resolution == 0.1
    path.write_bytes(path.read_bytes()[:-2])
    third = bench.add(OctomapNode, octomap_path=str(path))
    assert third.trigger_configure().name == "FAILURE"


def test_sensor_model_changes_between_scans(bench):
    node = bench.add(OctomapNode, **EAGER)
    bench.activate(node)
    lidar = Lidar(bench, node)
    lidar.send(np.array([(2.0, 0.0, 0.0)]))
    assert node.set_parameters([Parameter("sensor_model.hit", value=0.9)])[0].successful
    lidar.send(np.array([(2.0, 0.0, 0.0)]))
    expected = np.log(0.7 / 0.3) + np.log(0.9 / 0.1)
    assert node.pipeline.tree.log_odds(np.array([[2.05, 0.05, 0.55]]))[0] == pytest.approx(expected, rel=1e-5)


def test_ten_thousand_hostile_clouds_neither_crash_nor_change_the_map(bench):
    node = bench.add(OctomapNode, **EAGER, transform_timeout=0.0)
    bench.activate(node)
    lidar = Lidar(bench, node)
    lidar.send(np.array([(2.0, 0.0, 0.0)]))
    known = node.pipeline.tree.known_voxels()
    rng = np.random.default_rng(0)
    good = points_to_point_cloud2(np.zeros((4, 3), np.float32), "lidar", FIRST_STAMP_NS + 100_000_000)
    reasons: dict[str, int] = {}
    for _ in range(10_000):
        message = hostile(good, rng)
        try:
            # The worker's own steps, without the middleware, which would need minutes for so many.
            scan = node_messages(message)
            node.process(scan, node.resolve(scan))
        except Exception as error:
            reason = getattr(error, "reason", None)
            assert reason is not None, f"{type(error).__name__}: {error}"
            reasons[reason] = reasons.get(reason, 0) + 1
    assert {"malformed", "no_tf"} <= set(reasons), reasons
    assert node.pipeline.tree.known_voxels() == known


def node_messages(message):
    from perception.ros.cloud_input import CloudMessages

    return CloudMessages(message)


def hostile(good: PointCloud2, rng: np.random.Generator) -> PointCloud2:
    """A copy of a message with one to three fields that lie; never one that is right."""
    message = PointCloud2(
        header=good.header, height=good.height, width=good.width, fields=good.fields, point_step=good.point_step,
        row_step=good.row_step, is_bigendian=good.is_bigendian,
    )  # fmt: skip
    message._data = good._data
    huge = int(rng.choice([2**31, 2**32 - 1, 10**9, 10**6]))
    lies = {
        "width": huge,
        "height": huge,
        "point_step": int(rng.choice([0, 1, 11, 2**31])),
        "fields": good.fields[: int(rng.integers(0, 3))],
    }
    for name in rng.choice(sorted(lies), int(rng.integers(1, 4)), replace=False):
        setattr(message, str(name), lies[str(name)])
    if rng.random() < 0.2:
        message.header = type(good.header)(stamp=good.header.stamp, frame_id=str(rng.choice(["", "nowhere", "/"])))
    return message
