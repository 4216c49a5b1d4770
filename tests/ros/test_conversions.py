# SPDX-License-Identifier: Apache-2.0
import contextlib
import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="needs ROS 2 (sensor_msgs)")

from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2, PointField

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelClass, LabelSet
from perception.ros import conversions
from perception.types import Detections, LabeledCloud

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
LABEL_SET = LabelSet("room", (LabelClass(0, "floor", (9, 9, 9)), LabelClass(7, "chair", (200, 30, 40))))


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def as_bag_message(message):
    """The message as a bag reader makes it: other classes, arrays for data."""
    stores = pytest.importorskip("rosbags.typesys", reason="needs rosbags")
    store = stores.get_typestore(stores.Stores.ROS2_JAZZY)
    package, _, _ = type(message).__module__.partition(".")
    return store.deserialize_cdr(serialize_message(message), f"{package}/msg/{type(message).__name__}")


WAYS = pytest.mark.parametrize("travel", [lambda m: m, over_the_wire, as_bag_message], ids=["same", "wire", "bag"])


@given(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
def test_stamps_keep_every_nanosecond(stamp_ns):
    stamp = conversions.ns_to_stamp(stamp_ns)
    assert 0 <= stamp.nanosec < 10**9
    assert conversions.stamp_to_ns(stamp) == stamp_ns


def test_stamp_before_1970_counts_up_within_its_second():
    assert conversions.ns_to_stamp(-1) == Time(sec=-1, nanosec=999_999_999)


@pytest.mark.parametrize("stamp_ns", [2**31 * 10**9, -(2**31) * 10**9 - 1])
def test_stamp_beyond_32_bits_of_seconds_is_refused(stamp_ns):
    with pytest.raises(InputError, match="32 bits"):
        conversions.ns_to_stamp(stamp_ns)


@WAYS
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_color_image_travels(travel, encoding):
    array = COLOR if encoding == "rgb8" else COLOR[..., ::-1]
    message = travel(conversions.array_to_image(array, encoding, "camera", 1_500_000_000))
    assert (message.width, message.height, message.step, message.header.frame_id) == (6, 4, 18, "camera")
    assert conversions.stamp_to_ns(message.header.stamp) == 1_500_000_000
    assert np.array_equal(conversions.image_to_color(message), COLOR)


@WAYS
def test_depth_image_travels_as_meters_and_as_millimeters(travel):
    meters = np.array([[0.5, np.inf], [np.nan, 0.0]], np.float32)
    message = travel(conversions.array_to_image(meters, "32FC1", "camera", 0))
    assert np.array_equal(conversions.image_to_depth(message), meters, equal_nan=True)
    millimeters = travel(conversions.array_to_image(np.array([[500, 0]], np.uint16), "16UC1", "camera", 0))
    assert conversions.image_to_depth(millimeters).tolist() == [[0.5, 0.0]]


@WAYS
def test_compressed_images_travel(travel):
    png = cv2.imencode(".png", COLOR[..., ::-1])[1].tobytes()
    assert np.array_equal(conversions.image_to_color(travel(CompressedImage(format="png", data=png))), COLOR)
    depth = bytes(12) + cv2.imencode(".png", np.array([[1500, 0]], np.uint16))[1].tobytes()
    message = travel(CompressedImage(format="16UC1; compressedDepth png", data=depth))
    assert conversions.image_to_depth(message).tolist() == [[1.5, 0.0]]


@pytest.mark.parametrize("num_classes", [255, 256])
def test_label_image_travels_and_keeps_pixels_without_label(num_classes):
    labels = np.array([[-1, 0], [num_classes - 1, 3]], np.int32)
    message = over_the_wire(conversions.labels_to_image(labels, num_classes, "camera", 0))
    assert message.encoding == ("mono8" if num_classes == 255 else "16UC1")
    assert int(np.asarray(message.data)[0]) == 255
    assert np.array_equal(conversions.image_to_labels(message), labels)


def test_label_image_as_png_is_read_and_as_jpeg_refused():
    labels = np.array([[0, 255, 4]], np.uint8)
    message = CompressedImage(format="mono8; png compressed ", data=cv2.imencode(".png", labels)[1].tobytes())
    assert conversions.image_to_labels(message).tolist() == [[0, -1, 4]]
    message.format = "mono8; jpeg compressed "
    with pytest.raises(InputError, match="lossless"):
        conversions.image_to_labels(message)


def test_negative_ids_of_signed_label_images_are_no_label():
    message = conversions.array_to_image(np.array([[-7, 300]], np.int32), "32SC1", "camera", 0)
    assert conversions.image_to_labels(message).tolist() == [[-1, 300]]


@pytest.mark.parametrize("convert", [conversions.image_to_labels, conversions.image_to_confidence])
def test_color_image_is_neither_labels_nor_confidence(convert):
    with pytest.raises(InputError, match="'rgb8'"):
        convert(conversions.array_to_image(COLOR, "rgb8", "camera", 0))


def test_confidence_image_is_right_to_half_a_step():
    confidence = np.array([[0.0, 0.25, 1.0, np.nan, 7.0]], np.float32)
    message = over_the_wire(conversions.confidence_to_image(confidence, "camera", 0))
    assert list(message.data) == [0, 64, 255, 0, 255]
    read = conversions.image_to_confidence(message)
    assert np.abs(read - [[0, 0.25, 1, 0, 1]]).max() <= 0.5 / 255 + 1e-7


@pytest.mark.parametrize(
    ("array", "encoding"),
    [
        (COLOR, "mono8"),
        (COLOR[..., 0], "rgb8"),
        (COLOR.astype(np.float32), "rgb8"),
        (COLOR[..., 0], "16UC1"),
        (COLOR[0, 0], "mono8"),
        (COLOR, "rgb9"),
    ],
)
def test_array_that_does_not_fit_the_encoding_is_refused(array, encoding):
    with pytest.raises(InputError, match=f"fits encoding '{encoding}'"):
        conversions.array_to_image(array, encoding, "camera", 0)


def test_other_encodings_need_cv_bridge_and_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    message = Image(height=1, width=1, encoding="rgb16", step=6, data=bytes(6))
    with pytest.raises(InputError, match="cv_bridge, got 'rgb16'"):
        conversions.image_to_color(message)


def test_other_encodings_go_to_cv_bridge_where_it_is_installed(monkeypatch):
    calls = []

    class CvBridge:
        def imgmsg_to_cv2(self, message, desired_encoding):
            calls.append((message.encoding, desired_encoding))
            if message.encoding == "broken":
                raise RuntimeError("boost")
            return COLOR

    module = ModuleType("cv_bridge")
    module.CvBridge = CvBridge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv_bridge", module)
    message = Image(height=1, width=1, encoding="rgb16", step=6, data=bytes(6))
    assert np.array_equal(conversions.image_to_color(message), COLOR)
    assert calls == [("rgb16", "rgb8")]
    message.encoding = "broken"
    with pytest.raises(InputError, match="'broken': cv_bridge cannot"):
        conversions.image_to_color(message)
    message.height = 2**31
    with pytest.raises(InputError, match="got 6"):
        conversions.image_to_color(message)


def camera_info() -> CameraInfo:
    info = CameraInfo(width=640, height=480, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0.0, 0.0])
    info.k = [500.0, 0, 320, 0, 510, 240, 0, 0, 1]
    info.p = [450.0, 0, 310, -35, 0, 460, 230, 0, 0, 0, 1, 0]
    return info


@WAYS
def test_camera_info_gives_the_raw_or_the_rectified_camera(travel):
    info = travel(camera_info())
    raw = conversions.camera_info_to_camera(info)
    assert raw == PinholeCamera(640, 480, 500, 510, 320, 240, "plumb_bob", (0.1, 0, 0, 0, 0))
    assert conversions.camera_info_to_camera(info, rectified=True) == PinholeCamera(640, 480, 450, 460, 310, 230)


@WAYS
def test_region_of_interest_and_binning_of_camera_info_are_applied(travel):
    info = camera_info()
    info.d = []
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 20, 40, 600, 400
    info.binning_x = info.binning_y = 2
    camera = conversions.camera_info_to_camera(travel(info))
    # Cropped: 300, 200. Binned by 2: (300 + 0.5) / 2 - 0.5.
    assert (camera.width, camera.height, camera.fx, camera.cx, camera.cy) == (300, 200, 250, 149.75, 99.75)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": [0.0] * 9}, "calibrated"),
        ({"k": [np.nan] * 9}, "expected"),
        ({"k": [-5.0, 0, 1, 0, 5, 1, 0, 0, 1]}, "fx, fy > 0"),
        ({"width": 0}, "positive image size, got 0x480"),
        ({"d": [0.1] * 1000}, "1000 coefficients"),
        ({"distortion_model": "fancy"}, "fancy"),
    ],
)
def test_camera_info_without_sense_is_refused(change, words):
    info = camera_info()
    for name, value in change.items():
        setattr(info, name, value)
    with pytest.raises(InputError, match=words):
        conversions.camera_info_to_camera(info)


@WAYS
def test_transform_travels(travel):
    map_T_base = Transform.from_translation_quaternion((1, -2, 3), (0, 0, 0.6, 0.8))
    message = travel(conversions.transform_to_transform_stamped(map_T_base, "map", "base", 5))
    assert (message.header.frame_id, message.child_frame_id) == ("map", "base")
    assert np.allclose(conversions.transform_stamped_to_transform(message).matrix, map_T_base.matrix, atol=1e-12)


def labeled_cloud() -> LabeledCloud:
    return LabeledCloud(
        points=RNG.normal(size=(20, 3)).astype(np.float32),
        colors=RNG.integers(0, 256, (20, 3), dtype=np.uint8),
        labels=RNG.integers(-1, 9, 20).astype(np.int32),
        confidence=RNG.random(20, dtype=np.float32),
        clear_points=np.empty((0, 3), np.float32),
        pixels=np.arange(20, dtype=np.int32),
        stamp_ns=12,
        frame_id="camera",
    )


@WAYS
def test_labeled_cloud_travels(travel):
    cloud = labeled_cloud()
    message = travel(conversions.labeled_cloud_to_point_cloud2(cloud))
    assert [(f.name, f.offset, f.datatype) for f in message.fields] == [
        ("x", 0, PointField.FLOAT32),
        ("y", 4, PointField.FLOAT32),
        ("z", 8, PointField.FLOAT32),
        ("rgb", 12, PointField.FLOAT32),
        ("label", 16, PointField.UINT32),
        ("confidence", 20, PointField.FLOAT32),
    ]
    assert (message.point_step, message.row_step, message.width, message.height) == (24, 480, 20, 1)
    assert message.is_dense and message.header.frame_id == "camera"
    read = conversions.point_cloud2_to_points(message)
    for name in ("points", "colors", "labels", "confidence"):
        assert np.array_equal(getattr(read, name), getattr(cloud, name)), name


@WAYS
def test_cloud_of_bare_points_travels_and_says_whether_it_is_dense(travel):
    points = np.array([[1, 2, 3], [np.nan, 0, 0]], np.float32)
    message = travel(conversions.points_to_point_cloud2(points, "map", 0))
    assert not message.is_dense
    read = conversions.point_cloud2_to_points(message)
    assert np.array_equal(read.points, points, equal_nan=True) and read.labels is None
    assert len(conversions.point_cloud2_to_points(conversions.points_to_point_cloud2(points[:0], "map", 0)).points) == 0


@WAYS
def test_laser_scan_gives_hits_and_free_rays(travel):
    scan = LaserScan(angle_min=0.0, angle_increment=np.pi / 2, range_min=0.5, range_max=10.0)
    scan.ranges = [2.0, 3.0, float("inf"), float("nan"), float("-inf"), 0.4, 10.5]
    points, free = conversions.laser_scan_to_points(travel(scan))
    assert np.allclose(points, [[2, 0, 0], [0, 3, 0]], atol=1e-6)
    assert np.allclose(free, [[-10, 0, 0]], atol=1e-5)
    assert points.dtype == free.dtype == np.float32


@pytest.mark.parametrize("name", ["angle_min", "angle_increment", "range_min", "range_max"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_laser_scan_with_limits_that_are_no_numbers_is_refused(name, value):
    scan = LaserScan(ranges=[1.0], range_max=5.0)
    setattr(scan, name, value)
    with pytest.raises(InputError, match="laser scan"):
        conversions.laser_scan_to_points(scan)


def test_label_info_lists_ids_and_names():
    pytest.importorskip("vision_msgs", reason="needs vision_msgs: pip install ./src/ros_msgs")
    message = over_the_wire(conversions.label_set_to_label_info(LABEL_SET, "camera", 0, 0.5))
    assert [(c.class_id, c.class_name) for c in message.class_map] == [(0, "floor"), (7, "chair")]
    assert message.threshold == 0.5


def test_detections_have_centers_sizes_names_and_scores():
    pytest.importorskip("vision_msgs", reason="needs vision_msgs: pip install ./src/ros_msgs")
    boxes = np.array([[10, 20, 30, 60], [0, 0, 1, 1]], np.float32)
    found = Detections(boxes, np.array([0.75, 0.5], np.float32), np.array([7, 0]), LABEL_SET)
    message = over_the_wire(conversions.detections_to_detection2d_array(found, "camera", 3))
    first, second = message.detections
    box = first.bbox
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (20, 40, 20, 40)
    assert (first.results[0].hypothesis.class_id, first.results[0].hypothesis.score) == ("chair", 0.75)
    assert second.results[0].hypothesis.class_id == "floor"
    assert first.header == message.header and message.header.stamp.nanosec == 3


UINT = st.one_of(st.integers(0, 30), st.integers(0, 2**32 - 1))


@given(height=UINT, width=UINT, step=UINT, encoding=st.text(max_size=9), data=st.binary(max_size=200))
def test_any_image_message_converts_or_is_refused(height, width, step, encoding, data):
    for name in (encoding, "rgb8", "32FC1", "mono8"):
        message = Image(height=height, width=width, encoding=name, step=step, data=data)
        for convert in (
            conversions.image_to_color,
            conversions.image_to_depth,
            conversions.image_to_labels,
            conversions.image_to_confidence,
        ):
            try:
                assert convert(message).shape[:2] == (height, width)
            except InputError:
                continue


@given(height=UINT, width=UINT, point_step=UINT, row_step=UINT, offset=UINT, data=st.binary(max_size=200))
def test_any_cloud_message_converts_or_is_refused(height, width, point_step, row_step, offset, data):
    fields = [PointField(name=n, offset=o, datatype=7, count=1) for n, o in (("x", 0), ("y", 4), ("z", offset))]
    message = PointCloud2(
        height=height, width=width, fields=fields, point_step=point_step, row_step=row_step, data=data
    )
    with contextlib.suppress(InputError):
        assert len(conversions.point_cloud2_to_points(message).points) == height * width


def test_message_of_another_kind_of_object_is_read_by_its_attributes():
    message = SimpleNamespace(height=1, width=2, encoding="mono8", step=2, is_bigendian=0, data=[5, 6])
    with pytest.raises(InputError, match="got list"):
        conversions.image_to_labels(message)
    message.data = bytes(message.data)
    assert conversions.image_to_labels(message).tolist() == [[5, 6]]
