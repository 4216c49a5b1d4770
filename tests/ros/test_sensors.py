# SPDX-License-Identifier: Apache-2.0
"""Several cameras, clouds and laser scans in one map; obstacles that wait for nobody; the robot's own body."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from ros_bench import (
    FIRST_STAMP_NS,
    LATCHED,
    Bench,
    Camera,
    camera_info,
    color_message,
    depth_message,
    room_frames,
    stamps,
    transform_message,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import LabelInfo

from perception.config import OctomapConfig, PerceptionConfig, SegmentationConfig, SensorModelConfig
from perception.errors import InputError, TransformError
from perception.geometry import Transform
from perception.mapping import SemanticOcTree
from perception.models import create_segmenter
from perception.pipeline import PerceptionPipeline
from perception.ros.cloud_input import topics_of
from perception.ros.conversions import (
    label_set_to_label_info,
    labels_to_image,
    make_header,
    ns_to_stamp,
    point_cloud2_to_points,
    points_to_point_cloud2,
)
from perception.ros.octomap_node import OctomapNode
from perception.ros.pipeline_node import PipelineNode, camera_names

# Kernels that changed are compiled here, which takes minutes on a small machine.
pytestmark = pytest.mark.timeout(900)
NETWORK = "toy_network:build"
EAGER = {
    "segmentation__model": NETWORK,
    "segmentation__device": "cpu",
    "sensor_model__max_range": 5.0,
    "resolution": 0.1,
    "base_frame_id": "base_link",
}
CLOUDS = {"resolution": 0.1, "sensor_model__max_range": 5.0}
LEVEL = (0.0, 0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def frames():
    return room_frames(6)


def offline(frames, model: str = NETWORK) -> PerceptionPipeline:
    """The reference: the same frames through the pipeline, without ROS."""
    octomap = OctomapConfig(resolution=0.1, sensor_model=SensorModelConfig(max_range=5.0))
    config = PerceptionConfig(segmentation=SegmentationConfig(model=model, device="cpu"), octomap=octomap)
    if model == "none":
        pipeline = PerceptionPipeline(config, None, frames[0].labels.label_set if frames[0].labels else None)
    else:
        pipeline = PerceptionPipeline(config, create_segmenter(model, device="cpu"))
    for frame in frames:
        pipeline.process(frame)
    return pipeline


def map_of(node) -> bytes:
    return node.pipeline.tree.octomap_data(False, node.pipeline.label_set)[1]


def wait_for(bench, node, count: int) -> None:
    bench.spin_until(lambda: node.statistics.snapshot().processed >= count, what=f"{count} frames mapped")


def test_two_cameras_share_network_and_map_and_each_has_its_own_origin_and_topics(bench, frames):
    node = bench.add(PipelineNode, **EAGER, cameras="front, rear")
    bench.activate(node)
    sent = [
        replace(frames[0], labels=None, frame_id="front_optical_frame"),
        replace(frames[3], labels=None, frame_id="rear_optical_frame"),
    ]
    outputs = {name: bench.collect(PointCloud2, f"{name}/obstacle_points") for name in ("front", "rear")}
    labels = bench.collect(Image, "rear/labels")
    for count, (name, frame) in enumerate(zip(("front", "rear"), sent, strict=True), start=1):
        Camera(bench, name).send(frame)
        wait_for(bench, node, count)
    expected = offline(sent)
    assert map_of(node) == expected.tree.octomap_data(False, expected.label_set)[1]
    bench.spin_until(lambda: all(outputs.values()) and labels)
    for (_, clouds), frame in zip(outputs.items(), sent, strict=True):
        assert clouds[0].header.frame_id == frame.frame_id, "Nav2 takes the origin of the rays from it"
        assert stamps(clouds) == [frame.stamp_ns]
    assert stamps(labels) == [sent[1].stamp_ns]
    assert node.statistics.snapshot().sources == {"front": {"processed": 1}, "rear": {"processed": 1}}
    assert node.details()["rear frames"] == "processed 1"


class BatchNetwork:
    """The toy network, which notes how many images it saw at once."""

    def __init__(self, segmenter):
        self.one, self.seen = segmenter, []
        self.name, self.device, self.label_set = segmenter.name, segmenter.device, segmenter.label_set

    def __call__(self, rgb):
        self.seen.append(1)
        return self.one(rgb)

    def predict_batch(self, images):
        self.seen.append(len(images))
        return [self.one(rgb) for rgb in images]


def frames_ready(node) -> int:
    """Frames that wait for the worker with all their transforms known."""
    count = 0
    for _, frame in list(node.worker._pending):
        with suppress(TransformError):
            node.resolve(frame)
            count += 1
    return count


def test_frames_of_two_cameras_that_wait_go_through_the_network_together_where_asked_for(bench, frames):
    node = bench.add(PipelineNode, **EAGER, cameras="front, rear", batch_cameras=True)
    network = node._segmenter = BatchNetwork(node._segmenter)
    bench.activate(node)
    sent = [replace(frames[0], labels=None, frame_id="front_eye"), replace(frames[3], labels=None, frame_id="rear_eye")]
    cameras = [Camera(bench, name) for name in ("front", "rear")]
    gate = threading.Event()
    node.worker.post(lambda: gate.wait(60))
    for camera, frame in zip(cameras, sent, strict=True):
        camera.send(frame)
    bench.spin_until(lambda: frames_ready(node) == 2)
    gate.set()
    wait_for(bench, node, 2)
    assert network.seen == [2]
    # Whoever came first is mapped first.
    either = [offline(order) for order in (sent, sent[::-1])]
    assert map_of(node) in [expected.tree.octomap_data(False, expected.label_set)[1] for expected in either]
    gate.clear()
    node.worker.post(lambda: gate.wait(60))
    cameras[0].send(replace(frames[1], labels=None, frame_id="front_eye"))
    rear, depth = replace(frames[4], labels=None, frame_id="rear_eye"), depth_message(frames[4])
    depth.header.frame_id, depth.encoding = "rear_eye", "rgb8"
    cameras[1].transforms.publish(transform_message(rear.map_T_camera, rear.frame_id, rear.stamp_ns))
    cameras[1].info.publish(camera_info(rear))
    cameras[1].image.publish(color_message(rear))
    cameras[1].depth.publish(depth)
    bench.spin_until(lambda: frames_ready(node) == 2)
    gate.set()
    wait_for(bench, node, 3)
    bench.spin_until(lambda: node.statistics.snapshot().sources["rear"].get("encoding"))
    assert network.seen == [2, 1], "the frame that can be labeled is, alone"


def test_trouble_of_one_camera_is_told_with_its_name_and_the_other_goes_on(bench, frames):
    node = bench.add(PipelineNode, **EAGER, cameras="front,rear", transform_timeout=0.05)
    bench.activate(node)
    Camera(bench, "rear").send(replace(frames[0], frame_id="nowhere"), with_transform=False)
    bench.spin_until(lambda: node.statistics.snapshot().drops.get("no_tf"))
    Camera(bench, "front").send(frames[1])
    wait_for(bench, node, 1)
    snapshot = node.statistics.snapshot()
    assert snapshot.sources == {"rear": {"no_tf": 1}, "front": {"processed": 1}}
    assert snapshot.details["no_tf"].startswith("rear: ")


def test_obstacles_come_at_the_rate_of_depth_while_the_network_is_busy(bench, frames):
    node = bench.add(PipelineNode, **EAGER)
    bench.activate(node)
    free, asked = threading.Event(), threading.Event()
    network = node.pipeline.segmenter

    def slow(color):
        asked.set()
        assert free.wait(60)
        return network(color)

    slow.label_set, slow.name, slow.device = network.label_set, network.name, network.device
    node.pipeline.segmenter = slow
    obstacles, clearing = (bench.collect(PointCloud2, f"{name}_points") for name in ("obstacle", "clearing"))
    camera = Camera(bench)
    camera.send(frames[0])
    bench.spin_until(asked.is_set)
    for count, frame in enumerate(frames[1:], start=2):
        camera.send(frame)
        bench.spin_until(lambda count=count: len(obstacles) >= count, what="obstacles of every frame")
    assert node.statistics.snapshot().processed == 0
    bench.spin_until(lambda: len(clearing) == len(frames))
    assert stamps(obstacles) == stamps(clearing) == [frame.stamp_ns for frame in frames]
    free.set()
    bench.spin_until(lambda: node.statistics.snapshot().processed >= 2)


def test_obstacles_need_neither_image_nor_localization_and_keep_off_the_floor(bench, frames):
    node = bench.add(PipelineNode, **EAGER, obstacles__stride=1)
    bench.activate(node)
    obstacles = bench.collect(PointCloud2, "obstacle_points")
    depth, info = bench.publisher(Image, "depth"), bench.publisher(CameraInfo, "camera_info")
    transforms = bench.publisher(TFMessage, "/tf")
    frame = frames[0]
    # The robot's base is on the floor under the camera; nobody knows where that is in the map.
    transforms.publish(transform_message(frame.map_T_camera, frame.frame_id, frame.stamp_ns, "base_link"))
    info.publish(camera_info(frame))
    bench.spin_until(lambda: node.statistics.snapshot().received.get("camera_info"))
    depth.publish(depth_message(frame))
    bench.spin_until(lambda: obstacles)
    heights = frame.map_T_camera.apply(point_cloud2_to_points(obstacles[0]).points)[:, 2]
    assert len(heights) > 100
    assert heights.min() > 0.08 and heights.max() <= 1.5 + 1e-4
    assert node.statistics.snapshot().processed == 0


def test_labels_of_another_node_stand_in_for_the_network(bench, frames):
    node = bench.add(PipelineNode, **EAGER, label_source="topic", use_confidence=False, use_color=False)
    bench.activate(node)
    assert node._segmenter is None
    camera, labels = Camera, bench.publisher(Image, "labels")
    depth, info = bench.publisher(Image, "depth"), bench.publisher(CameraInfo, "camera_info")
    transforms = bench.publisher(TFMessage, "/tf")
    label_set = frames[0].labels.label_set

    def send(frame):
        transforms.publish(transform_message(frame.map_T_camera, frame.frame_id, frame.stamp_ns))
        info.publish(camera_info(frame))
        depth.publish(depth_message(frame))
        ids = frame.labels.labels
        labels.publish(labels_to_image(ids, label_set.num_classes, frame.frame_id, frame.stamp_ns))

    assert camera is Camera
    send(frames[0])
    bench.spin_until(lambda: node.statistics.snapshot().drops.get("no_label_info") == 1)
    bench.publisher(LabelInfo, "label_info", LATCHED).publish(label_set_to_label_info(label_set, "", 0))
    bench.spin_until(lambda: node.pipeline.label_set is not None)
    for count, frame in enumerate(frames[1:4], start=1):
        send(frame)
        wait_for(bench, node, count)
    expected = offline(frames[1:4], "none")
    assert map_of(node) == expected.tree.octomap_data(False, expected.label_set)[1]


def test_robots_own_body_is_neither_mapped_nor_an_obstacle(bench, frames):
    # Everything within 1.5 m of the camera is the robot.
    node = bench.add(PipelineNode, **EAGER, self_filter__spheres=f"{frames[0].frame_id}: 0 0 0 1.5")
    bench.activate(node)
    obstacles, clearing = (bench.collect(PointCloud2, f"{name}_points") for name in ("obstacle", "clearing"))
    near = np.where(np.arange(frames[0].depth.shape[1]) < 60, np.float32(0.8), frames[0].depth).astype(np.float32)
    Camera(bench).send(replace(frames[0], depth=near))
    wait_for(bench, node, 1)
    bench.spin_until(lambda: obstacles and clearing)
    for cloud in (obstacles[0], clearing[0]):
        points = point_cloud2_to_points(cloud).points
        assert len(points) and np.linalg.norm(points, axis=1).min() > 1.5
    leaves = node.pipeline.tree.leaves()
    occupied = leaves.centers[leaves.log_odds >= 0]
    assert np.linalg.norm(occupied - frames[0].map_T_camera.translation, axis=1).min() > 1.3
    assert node.details()["points on the robot"] >= 60 * frames[0].depth.shape[0] * 0.7


def test_wrong_self_filter_fails_configuration_with_a_sentence(bench):
    node = bench.add(PipelineNode, **EAGER, self_filter__boxes="arm: 1 2")
    assert node.trigger_configure().name == "FAILURE"


def test_depth_that_is_not_registered_though_it_should_be_is_dropped_by_name(bench, frames):
    node = bench.add(PipelineNode, **EAGER)
    bench.activate(node)
    own = bench.publisher(CameraInfo, "depth_camera_info")
    other = camera_info(frames[0])
    other.k[0] *= 1.2
    own.publish(other)
    bench.spin_until(lambda: node.statistics.snapshot().received.get("depth_camera_info"))
    Camera(bench).send(frames[0])
    bench.spin_until(lambda: node.statistics.snapshot().drops.get("not_registered") == 1)
    assert "set depth_registered to false" in node.statistics.snapshot().details["not_registered"]


def test_budget_thins_points_and_rests_while_the_camera_stands_still(bench, frames):
    node = bench.add(PipelineNode, **EAGER, budget__max_points=2000, budget__still_distance=0.02)
    bench.activate(node)
    camera = Camera(bench)
    clouds = bench.collect(PointCloud2, "labeled_points")
    camera.send(frames[0])
    wait_for(bench, node, 1)
    camera.send(replace(frames[0], stamp_ns=frames[0].stamp_ns + 50_000_000))
    bench.spin_until(lambda: node.statistics.snapshot().drops.get("standing_still") == 1)
    camera.send(frames[1])
    wait_for(bench, node, 2)
    bench.spin_until(lambda: len(clouds) == 2)
    assert all(1000 < cloud.width <= 2000 for cloud in clouds)
    assert node.details()["points left out by budget.max_points"] > 2 * 15000


def test_clock_that_jumps_back_clears_waiting_frames(bench, frames):
    node = bench.add(PipelineNode, **EAGER, use_sim_time=True, transform_timeout=60.0)
    bench.activate(node)
    clock = bench.publisher(Clock, "/clock")
    clock.publish(Clock(clock=ns_to_stamp(FIRST_STAMP_NS)))
    bench.spin_until(lambda: node.now_ns() == FIRST_STAMP_NS)
    camera = Camera(bench)
    camera.send(frames[0], with_transform=False)
    bench.spin_until(lambda: node.worker._pending)
    clock.publish(Clock(clock=ns_to_stamp(FIRST_STAMP_NS - 10**10)))
    bench.spin_until(lambda: not node.worker._pending)
    camera.send(frames[1])
    wait_for(bench, node, 1)


class Sensors:
    """Sends clouds and scans of several sensors and where each was."""

    def __init__(self, bench: Bench, node: OctomapNode) -> None:
        self.bench, self.node, self.count = bench, node, 0
        self.transforms = bench.publisher(TFMessage, "/tf")
        self.publishers: dict[str, object] = {}

    def send(self, topic, message, poses: dict[str, Transform]) -> None:
        self.count += 1
        stamp_ns = FIRST_STAMP_NS + self.count * 100_000_000
        message.header.stamp = ns_to_stamp(stamp_ns)
        for child, pose in poses.items():
            self.transforms.publish(transform_message(pose, child, stamp_ns))
        if topic not in self.publishers:
            self.publishers[topic] = self.bench.publisher(type(message), topic)
        done = self.node.statistics.snapshot().processed
        self.publishers[topic].publish(message)
        self.bench.spin_until(lambda: self.node.statistics.snapshot().processed > done, what=topic)


def directions(seed: int, count: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 3))
    ends = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * rng.uniform(0.5, 4.0, (count, 1))
    return ends.astype(np.float32)


def test_clouds_of_several_sensors_have_their_own_origins(bench):
    node = bench.add(OctomapNode, **CLOUDS, cloud_topics="left, merged@right_lidar")
    bench.activate(node)
    sensors = Sensors(bench, node)
    left = Transform.from_translation_quaternion((1.0, 0.5, 0.5), (0.0, 0.0, 1.0, 0.0))
    right = Transform.from_translation_quaternion((-1.0, 0.0, 1.0), LEVEL)
    top = Transform.from_translation_quaternion((0.0, 0.0, 0.55), LEVEL)
    points = [directions(seed) for seed in range(3)]
    sensors.send("left", points_to_point_cloud2(points[0], "left_lidar", 0), {"left_lidar": left})
    # A driver may bring its cloud to the base already; the rays still begin at the sensor.
    in_base = points_to_point_cloud2(points[1], "base_link", 0)
    sensors.send("merged", in_base, {"base_link": top, "right_lidar": right})
    sensors.send("cloud_in", points_to_point_cloud2(points[2], "top_lidar", 0), {"top_lidar": top})
    expected = SemanticOcTree(0.1, SensorModelConfig(max_range=5.0))
    expected.insert_cloud(left.apply(points[0]), left.translation)
    right_T_base = right.inverse() @ top
    expected.insert_cloud(right.apply(right_T_base.apply(points[1])), right.translation)
    expected.insert_cloud(top.apply(points[2]), top.translation)
    assert node.pipeline.tree.octomap_data(False) == expected.octomap_data(False)
    assert set(node.statistics.snapshot().sources) == {"left", "merged", "cloud_in"}


def laser_scan(ranges) -> LaserScan:
    return LaserScan(
        header=make_header("laser", 0), angle_min=0.0, angle_increment=np.pi / 2, range_min=0.2, range_max=3.0,
        ranges=[float(value) for value in ranges],
    )  # fmt: skip


@pytest.mark.parametrize("clears", [True, False])
def test_laser_scan_marks_hits_and_clears_where_nothing_came_back(bench, clears):
    node = bench.add(OctomapNode, **CLOUDS, scan_topics="scan", scan_no_return=clears)
    bench.activate(node)
    pose = Transform.from_translation_quaternion((0.05, 0.05, 0.25), LEVEL)
    # Ahead a hit, to the left nothing, behind nonsense, to the right nearer than range_min.
    Sensors(bench, node).send("scan", laser_scan([2.0, np.inf, np.nan, 0.1]), {"laser": pose})
    leaves = node.pipeline.tree.leaves()
    occupied = leaves.centers[leaves.log_odds >= 0]
    np.testing.assert_allclose(occupied, [(2.05, 0.05, 0.25)], atol=1e-5)
    left = node.pipeline.tree.log_odds(np.array([(0.05, 2.5, 0.25), (0.05, 3.3, 0.25)], np.float32))
    assert (left[0] < 0) == clears and np.isnan(left[1])
    others = node.pipeline.tree.log_odds(np.array([(-0.5, 0.05, 0.25), (0.05, -0.15, 0.25)], np.float32))
    assert np.isnan(others).all()


def test_min_range_and_self_filter_hold_for_scans_too(bench):
    node = bench.add(
        OctomapNode, **CLOUDS, scan_topics="scan", min_range=0.5, self_filter__boxes="laser: -3 -1 -1 -0.1 1 1"
    )
    bench.activate(node)
    pose = Transform.from_translation_quaternion((0.05, 0.05, 0.25), LEVEL)
    Sensors(bench, node).send("scan", laser_scan([2.0, 0.4, 1.0, 2.0]), {"laser": pose})
    leaves = node.pipeline.tree.leaves()
    occupied = leaves.centers[leaves.log_odds >= 0]
    np.testing.assert_allclose(sorted(occupied.tolist()), [(0.05, -1.95, 0.25), (2.05, 0.05, 0.25)], atol=1e-5)
    assert node.details()["points on the robot"] == 1


def test_camera_and_lidar_share_the_map_of_pipeline_node(bench, frames):
    node = bench.add(PipelineNode, **EAGER, cloud_topics="points")
    bench.activate(node)
    Camera(bench).send(frames[0])
    wait_for(bench, node, 1)
    labeled = node.pipeline.tree.known_voxels()
    pose = Transform.from_translation_quaternion((20.05, 0.05, 0.55), LEVEL)
    Sensors(bench, node).send("points", points_to_point_cloud2(directions(0), "lidar", 0), {"lidar": pose})
    assert node.pipeline.tree.known_voxels() > labeled
    assert node.pipeline.tree.label_of(pose.apply(directions(0))).max() == -1, "a cloud without labels is geometry"


@pytest.mark.parametrize("text", ["a, a", "a@f, @g", "cloud_in"])
def test_topics_must_differ_and_have_names(text):
    with pytest.raises(InputError, match="cloud_topics: expected different topics"):
        topics_of("cloud_topics", text)


@pytest.mark.parametrize("text", ["front, front", "front camera", "1st", "/front"])
def test_names_of_cameras_must_differ_and_fit_into_topics(text):
    with pytest.raises(InputError, match="cameras: expected different names"):
        camera_names(text)


def test_camera_without_a_name_has_plain_topics():
    assert camera_names("") == [""]
    assert camera_names("front, arm/wrist") == ["front", "arm/wrist"]
