# SPDX-License-Identifier: Apache-2.0
"""Ten thousand messages that lie, per input topic: each is dropped with a reason, and the map stays as it was."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("octomap_msgs", reason="needs the message packages of src/ros_msgs")

from ros_bench import Bench, camera_info, depth_message, room_frames, transform_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import LabelInfo, VisionClass

from perception.errors import InputError, TransformError
from perception.geometry import Transform
from perception.ros.camera_input import CameraMessages
from perception.ros.cloud_input import CloudMessages
from perception.ros.conversions import confidence_to_image, labels_to_image, make_header, points_to_point_cloud2
from perception.ros.octomap_node import OctomapNode
from perception.ros.pipeline_node import PipelineNode
from perception.ros.statistics import REASONS

# Kernels that changed are compiled here, which takes minutes on a small machine.
pytestmark = pytest.mark.timeout(900)
COUNT = 10_000
HUGE = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 10**9, 10**6, 65536)
ENCODINGS = (
    "", "rgb8", "bgra8", "mono8", "mono16", "16UC1", "32FC1", "64FC1", "8UC3", "32SC1", "bayer_rggb8", "yuv422",
    "32FC0", "8UC99", "rgb8; jpeg compressed", "\x00", "☃" * 50, "x" * 5000,
)  # fmt: skip
NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, np.inf, -np.inf, np.nan, 5.0)


@pytest.fixture
def bench(nodes) -> Iterator[Bench]:
    bench = Bench(nodes.context)
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def frame():
    return room_frames(1, 16, 12)[0]


@pytest.fixture
def pipeline(bench, frame) -> PipelineNode:
    """Takes labels from a topic, so that every kind of image is looked at; a first frame is mapped."""
    node = bench.add(PipelineNode, label_source="topic", label_set="ade20k32", resolution=0.1)
    bench.activate(node)
    process(node, good(frame))
    assert node.pipeline.tree.known_voxels() > 0
    return node


def good(frame) -> CameraMessages:
    labels = frame.labels
    return CameraMessages(
        frame.stamp_ns,
        frame.frame_id,
        None,
        depth_message(frame),
        camera_info(frame),
        None,
        labels_to_image(labels.labels, 32, frame.frame_id, frame.stamp_ns),
        confidence_to_image(labels.confidence, frame.frame_id, frame.stamp_ns),
    )


def process(node: Any, messages: Any) -> None:
    """The worker's own steps, without the middleware, which would need minutes for so many."""
    pose = transform_message(Transform.identity(), "camera_optical_frame", 0).transforms[0]
    node.transforms.insert("map", pose.child_frame_id, 0, Transform.identity(), static=True)
    node.process(messages, node.resolve(messages))


def reasons_of(node: Any, make: Callable[[np.random.Generator], Any], count: int = COUNT) -> Counter[str]:
    """Why each message was dropped; "" for those that were mapped. Anything but a named drop fails the test."""
    rng, reasons = np.random.default_rng(0), Counter()
    for _ in range(count):
        messages = make(rng)
        try:
            process(node, messages)
            reasons[""] += 1
        except (InputError, TransformError) as error:
            reasons[getattr(error, "reason", f"unnamed: {error}")] += 1
    assert set(reasons) <= {*REASONS, ""}, reasons
    return reasons


def lies(message: Any, rng: np.random.Generator, changes: dict[str, Callable[[], Any]], most: int = 3) -> Any:
    """A copy of a message with some fields changed, past the setters' own checks, as the wire brings them."""
    result = copy.copy(message)
    names = sorted(changes)
    for name in rng.choice(names, int(rng.integers(1, most + 1)), replace=False):
        setattr(result, f"_{name}", changes[str(name)]())
    return result


def hostile_image(message: Image, rng: np.random.Generator) -> Image:
    length = len(message.data)
    return lies(
        message,
        rng,
        {
            "height": lambda: int(rng.choice(HUGE)),
            "width": lambda: int(rng.choice(HUGE)),
            "step": lambda: int(rng.choice(HUGE)),
            "encoding": lambda: str(rng.choice(ENCODINGS)),
            "data": lambda: rng.bytes(int(rng.integers(0, length))),
        },
    )


@pytest.mark.parametrize("topic", ["depth", "labels", "confidence"])
def test_images_whose_sizes_and_encodings_lie(pipeline, frame, topic):
    messages = good(frame)
    before = pipeline.pipeline.tree.known_voxels()
    drops = reasons_of(pipeline, lambda rng: replace(messages, **{topic: hostile_image(getattr(messages, topic), rng)}))
    # A copy may be right by chance: the same encoding, or a step that does not matter.
    assert drops[""] < COUNT // 10
    assert drops["malformed"] > COUNT // 10 and drops["encoding"] > COUNT // 10
    if topic != "depth":
        # What is seen as depth by chance, as meters read as millimeters, cannot be told from a measurement.
        assert pipeline.pipeline.tree.known_voxels() == before


def test_color_images_whose_sizes_and_encodings_lie(bench, frame):
    node = bench.add(PipelineNode, segmentation__model="none", resolution=0.1)
    bench.activate(node)
    image = Image(header=make_header(frame.frame_id, frame.stamp_ns), height=12, width=16, encoding="rgb8", step=48)
    image._data = frame.color.tobytes()
    messages = replace(good(frame), image=image, labels=None, confidence=None)
    drops = reasons_of(node, lambda rng: replace(messages, image=hostile_image(image, rng)))
    assert drops[""] < COUNT // 10 and {"malformed", "encoding"} <= set(drops)


def test_compressed_images_that_are_damaged(pipeline, frame):
    cv2 = pytest.importorskip("cv2")
    messages = good(frame)
    png = cv2.imencode(".png", np.rint(frame.depth * 1000).astype(np.uint16))[1].tobytes()
    formats = ("16UC1; compressedDepth png", "16UC1; compressedDepth", "png", "jpeg", "", "16UC1; compressedDepth rvl")

    def damaged(rng):
        data = bytearray(bytes(12) + png)
        for _ in range(int(rng.integers(1, 40))):
            data[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
        message = CompressedImage(header=messages.depth.header, format=str(rng.choice(formats)))
        message._data = bytes(data[: int(rng.integers(0, len(data)))])
        return replace(messages, depth=message)

    drops = reasons_of(pipeline, damaged, COUNT // 4)
    assert drops[""] < COUNT // 100


def test_depth_of_random_bits_is_mapped_within_the_range_or_not_at_all(pipeline, frame):
    messages = good(frame)

    def noise(rng):
        message = copy.copy(messages.depth)
        message._data = rng.bytes(len(messages.depth.data))
        return replace(messages, depth=message)

    drops = reasons_of(pipeline, noise, COUNT // 20)
    assert drops == {"": COUNT // 20}


def test_calibrations_that_make_no_sense(pipeline, frame):
    messages = good(frame)

    def nonsense(rng):
        numbers = lambda count: [float(value) for value in rng.choice(NUMBERS, count)]  # noqa: E731
        info = copy.deepcopy(messages.info)
        changes = {
            "k": lambda: np.array(numbers(9)),
            "d": lambda: numbers(int(rng.integers(0, 20))),
            "distortion_model": lambda: str(rng.choice(["", "plumb_bob", "rational_polynomial", "equidistant", "☃"])),
            "width": lambda: int(rng.choice(HUGE)),
            "height": lambda: int(rng.choice(HUGE)),
            "binning_x": lambda: int(rng.choice(HUGE)),
            "binning_y": lambda: int(rng.choice(HUGE)),
        }
        info.roi.width, info.roi.x_offset = (int(rng.choice((0, 0, 0, *HUGE))) for _ in range(2))
        return replace(messages, info=lies(info, rng, changes, 4))

    drops = reasons_of(pipeline, nonsense)
    assert drops[""] < COUNT // 4
    assert drops["camera_info"] > COUNT // 4 and drops["wrong_size"] > COUNT // 100


def test_frames_that_are_nowhere(pipeline, frame):
    def nowhere(rng):
        messages = good(frame)
        name = str(rng.choice(["", "/", "nowhere", "map2", "☃" * 100]))
        return replace(messages, frame_id=name)

    drops = reasons_of(pipeline, nowhere, COUNT // 10)
    assert drops == {"no_tf": COUNT // 10}


@pytest.fixture
def octomap(bench) -> OctomapNode:
    node = bench.add(OctomapNode, resolution=0.1, sensor_model__max_range=5.0)
    bench.activate(node)
    return node


def test_laser_scans_whose_numbers_lie(octomap):
    header = make_header("camera_optical_frame", 10**18)

    def scan(rng):
        number = lambda: float(np.float32(rng.choice(np.array(NUMBERS))))  # noqa: E731
        message = LaserScan(header=header)
        for name in ("angle_min", "angle_increment", "range_min", "range_max"):
            setattr(message, f"_{name}", number())
        message._ranges = rng.choice(np.array(NUMBERS), int(rng.integers(0, 50))).astype(np.float32)
        return CloudMessages(message)

    with np.errstate(over="ignore"):
        drops = reasons_of(octomap, scan)
    assert drops["malformed"] > COUNT // 4
    leaves = octomap.pipeline.tree.leaves()
    assert np.abs(leaves.centers).max() <= 5.2, "no ray is longer than max_range"


def test_ends_of_free_rays_that_lie(octomap):
    cloud = points_to_point_cloud2(np.ones((4, 3), np.float32), "camera_optical_frame", 10**18)

    def ends(rng):
        changes = {
            "height": lambda: int(rng.choice(HUGE)),
            "width": lambda: int(rng.choice(HUGE)),
            "point_step": lambda: int(rng.choice(HUGE)),
            "row_step": lambda: int(rng.choice(HUGE)),
            "fields": lambda: cloud.fields[: int(rng.integers(0, 3))],
            "data": lambda: rng.bytes(int(rng.integers(0, 48))),
        }
        return CloudMessages(cloud, lies(cloud, rng, changes))

    drops = reasons_of(octomap, ends)
    assert drops["malformed"] > COUNT // 2


def test_label_infos_that_contradict_themselves(bench):
    rng = np.random.default_rng(0)
    names = ("floor", "", "☃", "a" * 3000, "wall", "floor\n")
    node = bench.add(OctomapNode, resolution=0.1)
    bench.activate(node)
    errors = []
    node.get_logger().error = errors.append
    for _ in range(COUNT // 10):
        count = int(rng.integers(0, 5))
        classes = [
            VisionClass(class_id=int(rng.integers(0, 2**16)), class_name=str(rng.choice(names))) for _ in range(count)
        ]
        if count:
            classes.append(classes[0])
        node._on_label_info(LabelInfo(class_map=classes))
    assert len(errors) == COUNT // 10 and node.pipeline.label_set is None


def test_transforms_that_make_no_sense_are_counted_and_known_ones_stay(octomap):
    rng = np.random.default_rng(0)
    buffer, listener = octomap.transforms, octomap._listener
    buffer.insert("map", "base", 10**18, Transform.identity())
    for _ in range(COUNT):
        message = transform_message(Transform.identity(), str(rng.choice(["base", "map", "", "/"])), 10**18)
        rotation, translation = message.transforms[0].transform.rotation, message.transforms[0].transform.translation
        rotation._x, rotation._w = (float(value) for value in rng.choice([0.0, np.nan, np.inf, 1e300, 0.3], 2))
        translation._x = float(rng.choice([np.nan, np.inf, -np.inf]))
        listener._on_tf(message)
    assert listener.rejected == COUNT
    assert buffer.lookup("map", "base", 10**18).matrix.tolist() == np.eye(4).tolist()


def test_hostile_messages_over_the_middleware_leave_the_node_working(bench, frame):
    node = bench.add(PipelineNode, segmentation__model="none", resolution=0.1, use_color=False)
    bench.activate(node)
    rng = np.random.default_rng(0)
    publishers = {name: bench.publisher(kind, name) for name, kind in (("depth", Image), ("camera_info", CameraInfo))}
    transforms = bench.publisher(TFMessage, "/tf")
    messages = good(frame)
    for step in range(200):
        stamp = make_header(frame.frame_id, frame.stamp_ns + step * 1000).stamp
        depth, info = hostile_image(messages.depth, rng), copy.deepcopy(messages.info)
        depth.header = make_header(frame.frame_id, frame.stamp_ns + step * 1000)
        info.header.stamp = stamp
        publishers["camera_info"].publish(info)
        publishers["depth"].publish(depth)
        bench.executor.spin_once(timeout_sec=0.001)
    # The next good frame is mapped.
    stamp_ns = frame.stamp_ns + 10**9
    last = replace(frame, stamp_ns=stamp_ns)
    transforms.publish(transform_message(frame.map_T_camera, frame.frame_id, frame.stamp_ns))
    transforms.publish(transform_message(frame.map_T_camera, frame.frame_id, stamp_ns))
    publishers["camera_info"].publish(camera_info(last))
    publishers["depth"].publish(depth_message(last))
    bench.spin_until(lambda: node.pipeline.tree.known_voxels() > 0)
    assert set(node.statistics.snapshot().drops) <= set(REASONS)
