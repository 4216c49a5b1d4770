# SPDX-License-Identifier: Apache-2.0
"""pipeline_node: the same map and costmap as offline, every bad frame dropped with its reason, nothing lost."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from nav_msgs.msg import OccupancyGrid
from octomap_msgs.msg import Octomap
from rclpy.parameter import Parameter
from ros_bench import (
    LATCHED,
    Camera,
    camera_info,
    color_message,
    depth_message,
    room_frames,
    stamps,
    transform_message,
)
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_srvs.srv import Empty, Trigger
from vision_msgs.msg import LabelInfo

from perception.config import OctomapConfig, PerceptionConfig, SegmentationConfig, SensorModelConfig
from perception.mapping import SemanticOcTree
from perception.models import create_segmenter
from perception.pipeline import PerceptionPipeline
from perception.ros.conversions import image_to_labels
from perception.ros.map_conversions import occupancy_grid_to_cost_grid, octomap_to_bytes
from perception.ros.pipeline_node import PipelineNode

# Kernels that changed are compiled here, which takes minutes on a small machine.
pytestmark = pytest.mark.timeout(900)

NETWORK = "toy_network:build"
EAGER = {
    "segmentation__model": NETWORK,
    "segmentation__device": "cpu",
    "sensor_model__max_range": 5.0,
    "resolution": 0.1,
    "map_publish_rate": 1000.0,
    "costmap_publish_rate": 1000.0,
    "costmap_full_period": 0.1,
    "base_frame_id": "base_link",
}


@pytest.fixture(scope="module")
def frames():
    return room_frames(6)


def offline(frames) -> PerceptionPipeline:
    """The reference: the same frames through the pipeline, without ROS."""
    octomap = OctomapConfig(resolution=0.1, sensor_model=SensorModelConfig(max_range=5.0))
    config = PerceptionConfig(segmentation=SegmentationConfig(model=NETWORK, device="cpu"), octomap=octomap)
    pipeline = PerceptionPipeline(config, create_segmenter(NETWORK, device="cpu"))
    for frame in frames:
        pipeline.process(replace(frame, labels=None))
    return pipeline


def send_all(bench, camera, frames, node):
    """Frame by frame, each once the one before is done, so that none is superseded on a slow machine."""
    for count, frame in enumerate(frames, start=1 + node.statistics.snapshot().processed):
        camera.send(frame)
        bench.spin_until(lambda count=count: node.statistics.snapshot().processed >= count)


def drops(node) -> dict[str, int]:
    return node.statistics.snapshot().drops


def test_map_and_costmap_equal_the_offline_pipelines(bench, frames):
    node = bench.add(PipelineNode, **EAGER)
    bench.activate(node)
    full = bench.collect(Octomap, "octomap_full")
    binary = bench.collect(Octomap, "octomap_binary")
    grids = bench.collect(OccupancyGrid, "semantic_costmap")
    labels = bench.collect(Image, "labels")
    clouds = {
        name: bench.collect(PointCloud2, name) for name in ("labeled_points", "obstacle_points", "clearing_points")
    }
    infos = bench.collect(LabelInfo, "label_info", LATCHED)
    send_all(bench, Camera(bench), frames, node)
    expected = offline(frames)
    last = frames[-1].stamp_ns
    for messages, is_binary in ((full, False), (binary, True)):
        bench.spin_until(lambda messages=messages: messages and stamps(messages)[-1] == last)
        tree_id, data = expected.tree.octomap_data(is_binary, expected.label_set)
        assert (messages[-1].id, messages[-1].binary) == (tree_id, is_binary)
        assert messages[-1].header.frame_id == "map"
        assert octomap_to_bytes(messages[-1]).tobytes() == data
    assert tree_id == "OcTree"
    assert full[-1].id == "ColorOcTree"
    bench.spin_until(
        lambda: grids and occupancy_grid_to_cost_grid(grids[-1]).data.shape == expected.costmap().data.shape
    )
    wanted = expected.costmap()
    bench.spin_until(lambda: np.array_equal(occupancy_grid_to_cost_grid(grids[-1]).data, wanted.data))
    grid = occupancy_grid_to_cost_grid(grids[-1])
    assert grid.origin == pytest.approx(wanted.origin)
    assert {0, 100} < set(np.unique(grid.data).tolist()), "a room has free and lethal cells"
    bench.spin_until(lambda: all(len(messages) >= len(frames) for messages in (labels, *clouds.values())))
    for messages in (labels, *clouds.values()):
        assert stamps(messages) == [frame.stamp_ns for frame in frames], "stamps are the images'"
        assert {message.header.frame_id for message in messages} == {frames[0].frame_id}
    np.testing.assert_array_equal(image_to_labels(labels[-1]), expected.segmenter(frames[-1].color).labels)
    assert clouds["obstacle_points"][-1].width > 0
    # Of every other pixel in both directions.
    assert clouds["clearing_points"][-1].width * 4 >= clouds["labeled_points"][-1].width
    bench.spin_until(lambda: infos)
    assert {entry.class_id: entry.class_name for entry in infos[-1].class_map} == {
        label.id: label.name for label in expected.label_set.classes
    }
    assert set(drops(node)) <= {"superseded"}


def test_nothing_is_published_without_a_subscriber_and_a_late_one_gets_the_map(bench, frames):
    node = bench.add(PipelineNode, **EAGER)
    bench.activate(node)
    send_all(bench, Camera(bench), frames[:2], node)
    assert node._outputs._published == {}
    late = bench.collect(Octomap, "octomap_full")
    bench.spin_until(lambda: late)
    assert stamps(late) == [frames[1].stamp_ns]
    # The worker notes what it published after it did.
    bench.spin_until(lambda: node._outputs._published)
    assert set(node._outputs._published) == {"octomap_full"}


def test_bad_frames_are_dropped_with_their_reasons_and_the_map_stays(bench, frames):
    node = bench.add(PipelineNode, **EAGER, transform_timeout=0.05)
    bench.activate(node)
    camera = Camera(bench)
    send_all(bench, camera, frames[:1], node)
    before = node.pipeline.tree.known_voxels()
    counts = iter(range(1, 100))

    def send(reason, image=None, depth=None, info=None, transform=None, shift=0):
        frame = replace(frames[1], stamp_ns=frames[1].stamp_ns + next(counts) * 50_000_000)
        expected = drops(node).get(reason, 0) + 1
        pose = transform_message(frame.map_T_camera, frame.frame_id, frame.stamp_ns)
        if transform is not False:
            camera.transforms.publish(pose)
        camera.info.publish((info or camera_info)(frame))
        camera.image.publish((image or color_message)(frame))
        camera.depth.publish((depth or depth_message)(frame))
        bench.spin_until(lambda: drops(node).get(reason, 0) >= expected, what=f"{reason}, got {drops(node)}")

    def changed(make, **fields):
        def build(frame):
            message = make(frame)
            for name, value in fields.items():
                setattr(message, name, value)
            return message

        return build

    def other_frame(frame):
        message = depth_message(frame)
        message.header.frame_id = "elsewhere"
        return message

    send("encoding", image=changed(color_message, encoding="rgb565"))
    send("encoding", depth=changed(depth_message, encoding="rgb8"))
    send("malformed", image=changed(color_message, step=7))
    send("malformed", depth=changed(depth_message, height=5000))
    send("wrong_size", info=changed(camera_info, width=80))
    send("camera_info", info=changed(camera_info, k=[0.0] * 9))
    send("wrong_frame", depth=other_frame)
    send("extrapolation_future", transform=False)
    assert node.pipeline.tree.known_voxels() == before
    snapshot = node.statistics.snapshot()
    assert snapshot.processed == 1
    assert "expected frame 'camera_optical_frame'" in snapshot.details["wrong_frame"]
    assert set(snapshot.drops) <= {
        "encoding", "malformed", "wrong_size", "camera_info", "wrong_frame", "extrapolation_future", "superseded",
    }  # fmt: skip


def test_depth_without_any_measurement_maps_nothing_and_is_no_error(bench, frames):
    node = bench.add(PipelineNode, **EAGER)
    bench.activate(node)
    empty = [
        replace(frames[i], depth=np.full_like(frames[i].depth, value)) for i, value in enumerate((0.0, np.nan, -np.inf))
    ]
    send_all(bench, Camera(bench), empty, node)
    assert node.pipeline.tree.known_voxels() == 0
    assert drops(node) == {}


def test_frame_waits_for_a_late_transform(bench, frames):
    node = bench.add(PipelineNode, **EAGER, transform_timeout=20.0)
    bench.activate(node)
    camera = Camera(bench)
    camera.send(frames[0], with_transform=False)
    bench.spin_until(lambda: node.statistics.snapshot().received.get("depth"))
    camera.transforms.publish(transform_message(frames[0].map_T_camera, frames[0].frame_id, frames[0].stamp_ns))
    bench.spin_until(lambda: node.statistics.snapshot().processed == 1)
    assert drops(node) == {}


def test_recording_that_begins_again_clears_buffers_and_is_mapped(bench, frames):
    node = bench.add(PipelineNode, **EAGER)
    bench.activate(node)
    camera = Camera(bench)
    later = [replace(frame, stamp_ns=frame.stamp_ns + 60_000_000_000) for frame in frames[:2]]
    send_all(bench, camera, later, node)
    known = node.pipeline.tree.known_voxels()
    camera.send(frames[2])
    camera.send(frames[3])
    bench.spin_until(lambda: node.statistics.snapshot().processed >= 3)
    assert node.pipeline.tree.known_voxels() >= known


def test_compressed_topics_give_the_same_map(bench, frames):
    cv2 = pytest.importorskip("cv2")
    node = bench.add(PipelineNode, **EAGER, image_transport="compressed", depth_transport="compressedDepth")
    bench.activate(node)
    millimeters = [np.rint(frame.depth * 1000).astype(np.uint16) for frame in frames[:3]]
    image = bench.publisher(CompressedImage, "image/compressed")
    depth = bench.publisher(CompressedImage, "depth/compressedDepth")
    info = bench.publisher(type(camera_info(frames[0])), "camera_info")
    transforms = bench.publisher(type(transform_message(frames[0].map_T_camera, "c", 0)), "/tf")
    rounded = []
    for count, (frame, mm) in enumerate(zip(frames, millimeters, strict=False), start=1):
        rounded.append(replace(frame, depth=np.divide(mm, np.float32(1000), dtype=np.float32)))
        header = color_message(frame).header
        png = cv2.imencode(".png", frame.color[..., ::-1])[1].tobytes()
        packed = bytes(12) + cv2.imencode(".png", mm)[1].tobytes()
        transforms.publish(transform_message(frame.map_T_camera, frame.frame_id, frame.stamp_ns))
        info.publish(camera_info(frame))
        image.publish(CompressedImage(header=header, format="rgb8; png compressed bgr8", data=png))
        depth.publish(CompressedImage(header=header, format="16UC1; compressedDepth png", data=packed))
        bench.spin_until(lambda count=count: node.statistics.snapshot().processed >= count)
    expected = offline(rounded).tree.octomap_data(False, node.pipeline.label_set)
    assert node.pipeline.tree.octomap_data(False, node.pipeline.label_set) == expected


def test_lifecycle_can_go_round_in_any_order_without_leaks(bench, frames):
    node = bench.add(PipelineNode, **EAGER)
    for _ in range(3):
        bench.activate(node)
        node.trigger_deactivate()
        node.trigger_activate()
        node.trigger_deactivate()
        node.trigger_cleanup()
    kinds = ("publishers", "subscriptions", "timers", "services", "clients")
    counts = [{kind: len(list(getattr(node, kind))) for kind in kinds}]
    threads = threading.active_count()
    for _ in range(5):
        bench.activate(node)
        node.trigger_deactivate()
        node.trigger_cleanup()
    counts.append({kind: len(list(getattr(node, kind))) for kind in kinds})
    assert counts[0] == counts[1]
    assert threading.active_count() == threads
    bench.activate(node)
    send_all(bench, Camera(bench), frames[:1], node)
    assert node.pipeline.tree.known_voxels() > 0
    assert node.trigger_shutdown().name == "SUCCESS"


def test_deactivated_node_keeps_its_map_and_a_cleaned_one_forgets_it(bench, frames):
    node = bench.add(PipelineNode, **EAGER)
    bench.activate(node)
    camera = Camera(bench)
    send_all(bench, camera, frames[:1], node)
    known = node.pipeline.tree.known_voxels()
    node.trigger_deactivate()
    assert node.pipeline.tree.known_voxels() == known > 0
    node.trigger_cleanup()
    assert node.pipeline is None
    bench.activate(node)
    assert node.pipeline.tree.known_voxels() == 0


def test_missing_network_fails_configuration_with_a_sentence_and_can_be_put_right(bench):
    node = bench.add(PipelineNode, segmentation__model="no_such_module:build")
    assert node.trigger_configure().name == "FAILURE"
    assert node.set_parameters([Parameter("segmentation.model", value="none")])[0].successful
    assert node.trigger_configure().name == "SUCCESS"


def test_reset_map_save_load_and_map_on(bench, frames, tmp_path):
    path = tmp_path / "map.ot"
    node = bench.add(PipelineNode, **EAGER, octomap_path="", save_path=str(path))
    bench.activate(node)
    camera = Camera(bench)
    send_all(bench, camera, frames[:3], node)
    bench.call(Empty, "pipeline_node/reset")
    assert node.pipeline.tree.known_voxels() == 0
    send_all(bench, camera, frames[3:5], node)
    known = node.pipeline.tree.known_voxels()
    answer = bench.call(Trigger, "pipeline_node/save_map")
    assert answer.success and f"{known} voxels" in answer.message
    refused = bench.call(Trigger, "pipeline_node/load_map")
    assert not refused.success and "octomap_path" in refused.message
    assert node.set_parameters([Parameter("octomap_path", value=str(tmp_path / "absent.ot"))])[0].successful
    assert not bench.call(Trigger, "pipeline_node/load_map").success
    assert node.pipeline.tree.known_voxels() == known, "a file that cannot be read costs nothing"
    bench.call(Empty, "pipeline_node/reset")
    node.set_parameters([Parameter("octomap_path", value=str(path))])
    assert bench.call(Trigger, "pipeline_node/load_map").success
    saved = SemanticOcTree.read(path)
    assert node.pipeline.tree.known_voxels() == saved.known_voxels() == known
    send_all(bench, camera, frames[5:], node)
    assert node.pipeline.tree.known_voxels() >= known


def test_cost_of_a_class_changes_while_running_without_mapping_anew(bench, frames):
    node = bench.add(PipelineNode, **EAGER, classes__floor__cost=0)
    bench.activate(node)
    grids = bench.collect(OccupancyGrid, "semantic_costmap")
    send_all(bench, Camera(bench), frames[:3], node)
    bench.spin_until(lambda: grids and stamps(grids)[-1] == frames[2].stamp_ns)
    before = np.array(grids[-1].data)
    assert 50 not in before
    voxels = node.pipeline.tree.known_voxels()
    assert node.set_parameters([Parameter("classes.floor.cost", value=127)])[0].successful
    bench.spin_until(lambda: 50 in grids[-1].data)
    after = np.array(grids[-1].data)
    assert set(before[after == 50]) == {0}
    np.testing.assert_array_equal(before[after != 50], after[after != 50])
    assert node.pipeline.tree.known_voxels() == voxels
    refused = node.set_parameters([Parameter("resolution", value=0.2)])[0]
    assert not refused.successful and "fixed while" in refused.reason
