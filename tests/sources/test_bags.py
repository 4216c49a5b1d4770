# SPDX-License-Identifier: Apache-2.0
"""Rosbags: what is written is read back; topics, poses and times are chosen as promised."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perception.errors import InputError, PerceptionError
from perception.geometry import PinholeCamera, Transform
from perception.sources import SourceOptions, bag_writer, describe, open_source
from perception.sources.bag_reader import BagReader
from perception.sources.bag_writer import BASE_T_OPTICAL, BagLayout, BagWriter, write_bag

sys.path.insert(0, str(Path(__file__).parent))
from bag_frames import CAMERA, SECOND, START, frame, frames, pose

LAYOUTS = [
    BagLayout(),
    BagLayout(depth="32FC1"),
    BagLayout(compressed=True, color="png", depth="compressedDepth"),
    BagLayout(storage="sqlite3"),
    BagLayout(storage="sqlite3", compressed=True, color="jpeg", depth="compressedDepth"),
]


def read(path, **options):
    """Frames, drops and warnings of a bag."""
    with open_source(path, SourceOptions(**options)) as source:
        found = list(source)
        return found, dict(source.drops), dict(source.warnings)


class Script(BagWriter):
    """A bag written message by message; times are seconds after START."""

    def color(
        self, t: float, stamp: float | None = None, frame_id: str = "cam", topic: str = "/camera/color/image_raw"
    ):
        at, stamp = START + round(t * SECOND), START + round((t if stamp is None else stamp) * SECOND)
        self._as(at, lambda: self.write_image(topic, stamp, frame_id, "rgb8", frame(round(t * 10)).color))

    def depth(
        self, t: float, stamp: float | None = None, frame_id: str = "cam", topic: str = "/camera/depth/image_raw"
    ):
        at, stamp = START + round(t * SECOND), START + round((t if stamp is None else stamp) * SECOND)
        image = np.full((12, 16), round(1000 + 100 * t), np.uint16)
        self._as(at, lambda: self.write_image(topic, stamp, frame_id, "16UC1", image))

    def info(self, t: float = 0, name: str = "color/camera_info", camera: PinholeCamera = CAMERA):
        self.write_camera_info(name, START + round(t * SECOND), "cam", camera)

    def tf(self, t: float, parent: str, child: str, x: float = 0.0, static: bool = False, stamp: float | None = None):
        at, stamp = START + round(t * SECOND), START + round((t if stamp is None else stamp) * SECOND)
        transform = Transform.from_translation_quaternion((x, 0, 0), (0, 0, 0, 1))
        self._as(at, lambda: self.write_transforms(stamp, [(parent, child, transform)], static))

    def _as(self, log_ns: int, write) -> None:
        self._log_ns = log_ns
        write()
        self._log_ns = None

    _log_ns: int | None = None

    def write_raw(self, topic, msgtype, log_ns, data):
        super().write_raw(topic, msgtype, self._log_ns if self._log_ns is not None else log_ns, data)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_frames_written_are_the_frames_read(tmp_path, layout):
    written = frames(5, labels=True)
    assert write_bag(tmp_path / "bag", iter(written), layout) == 5
    with open_source(tmp_path / "bag") as source:
        assert len(source) == 5 and source.fixed_frame == "map"
        found = list(source)
        assert not source.drops and not source.warnings
        assert [label.name for label in source.label_set.classes] == ["floor", "chair"]
    for a, b in zip(written, found, strict=True):
        assert a.stamp_ns == b.stamp_ns and a.frame_id == b.frame_id and a.camera == b.camera
        assert np.allclose(a.map_T_camera.matrix, b.map_T_camera.matrix, atol=1e-9)
        assert b.depth_camera is None
        assert np.allclose(a.depth, b.depth, atol=0.00051)
        assert np.abs(a.color.astype(int) - b.color).max() <= (6 if layout.color == "jpeg" else 0)
        assert (a.labels.labels == b.labels.labels).all()


def test_special_depths_survive_as_32fc1_and_become_none_in_millimeters(tmp_path):
    depth = np.full((12, 16), 2.0, np.float32)
    depth[0, :4] = np.nan, np.inf, -np.inf, 70.0
    one = frame(0, depth=depth)
    write_bag(tmp_path / "a", [one], BagLayout(depth="32FC1"))
    write_bag(tmp_path / "b", [one])
    assert np.array_equal(read(tmp_path / "a")[0][0].depth, depth, equal_nan=True)
    assert read(tmp_path / "b")[0][0].depth[0, :5].tolist() == [0, 0, 0, 0, 2]


def test_poses_are_interpolated_at_the_stamp_of_the_image(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.tf(0, "base", "cam", x=0.5, static=True)
        bag.tf(0, "map", "base", x=1)
        bag.color(0.25)
        bag.depth(0.25)
        bag.tf(1, "map", "base", x=3)
    found, drops, _ = read(tmp_path / "bag")
    assert found[0].map_T_camera.translation.tolist() == [2.0, 0, 0]
    assert not drops


def test_transforms_that_come_late_are_waited_for_within_the_lookahead(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.tf(0, "map", "cam", x=0)
        for i in range(20):
            bag.color(i / 10)
            bag.depth(i / 10)
            if i >= 15:
                bag.tf(i / 10, "map", "cam", x=i - 10, stamp=i / 10 - 1)
    found, drops, _ = read(tmp_path / "bag")
    assert [round(f.map_T_camera.translation[0], 6) for f in found] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert drops == {"extrapolation_future": 10}
    found, drops, _ = read(tmp_path / "bag", lookahead_s=1.2)
    # The second transform comes at 1.5 s: too late for the images at 0.1 and 0.2 s, and 0 s has one of its own.
    assert [round((f.stamp_ns - START) / 1e8) for f in found] == [0, 3, 4, 5, 6, 7, 8, 9]
    found, drops, _ = read(tmp_path / "bag", lookahead_s=0.3)
    assert [f.stamp_ns - START for f in found] == [0]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_color_and_depth_pair_one_to_one_with_the_nearest_stamp(tmp_path, storage):
    color = [0.000, 0.100, 0.200, 0.300, 0.400]
    depth = [0.005, 0.112, 0.185, 0.215, 0.350]
    with Script(tmp_path / "bag", BagLayout(storage=storage)) as bag:
        bag.info()
        bag.tf(0, "map", "cam", static=True)
        for t in sorted(color + depth):
            bag.color(t) if t in color else bag.depth(t)
    found, drops, _ = read(tmp_path / "bag", tolerance_s=0.02)
    millimeters = [round(float(f.depth[0, 0]) * 1000) for f in found]
    # 0.200 is as far from 0.185 as from 0.215: the earlier one.
    assert millimeters == [1000, 1011, 1018]
    assert drops == {"no_depth": 2}
    found, drops, _ = read(tmp_path / "bag", tolerance_s=0.012)
    assert len(found) == 2 and drops == {"no_depth": 3}


def test_unregistered_depth_gets_its_camera_and_pose_from_tf(tmp_path):
    depth_camera = PinholeCamera(8, 6, 5.0, 5.0, 3.5, 2.5)
    camera_T_depth = Transform.from_translation_quaternion((0.05, 0, 0), (0, 0, 0, 1))
    small = np.full((6, 8), 1.5, np.float32)
    write_bag(
        tmp_path / "bag", [frame(0, depth=small, depth_camera=depth_camera, camera_T_depth=camera_T_depth)], BagLayout()
    )
    found = read(tmp_path / "bag")[0][0]
    assert found.depth_camera == depth_camera and found.depth.shape == (6, 8)
    assert np.allclose(found.camera_T_depth.matrix, camera_T_depth.matrix)


def test_depth_of_another_size_in_the_same_frame_has_its_own_camera(tmp_path):
    with Script(tmp_path / "bag") as bag:
        half = CAMERA.scaled(8, 6)
        bag.info()
        bag.info(name="depth/camera_info", camera=half)
        bag.tf(0, "map", "cam", static=True)
        bag.color(0)
        bag.write_image("/camera/depth/image_raw", START, "cam", "16UC1", np.full((6, 8), 900, np.uint16))
    found = read(tmp_path / "bag")[0][0]
    assert found.depth_camera == half
    assert np.array_equal(found.camera_T_depth.matrix, np.eye(4))


def test_depth_in_another_frame_without_intrinsics_is_dropped_not_guessed(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.tf(0, "map", "cam", static=True)
        bag.color(0)
        bag.depth(0, frame_id="ir")
    with pytest.raises(InputError, match=r"'ir'.*depth_camera_info"):
        read(tmp_path / "bag")


def test_region_of_interest_and_binning_of_camera_info_are_honored(tmp_path):
    with Script(tmp_path / "bag") as bag:
        roi = bag.make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=4, y_offset=2, width=32, height=24, do_rectify=False
        )
        message = bag.make(
            "sensor_msgs/msg/CameraInfo",
            header=bag.header(START, "cam"),
            width=64,
            height=48,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=np.array([40.0, 0, 31.5, 0, 40, 23.5, 0, 0, 1]),
            r=np.eye(3).ravel(),
            p=np.zeros(12),
            binning_x=2,
            binning_y=2,
            roi=roi,
        )
        bag.write("/camera/color/camera_info", "sensor_msgs/msg/CameraInfo", START, message)
        bag.tf(0, "map", "cam", static=True)
        bag.color(0)
        bag.depth(0)
    # Region: cx = 31.5 − 4 = 27.5; two by two: (27.5 + 0.5) / 2 − 0.5 = 13.5; fx 20.
    camera = read(tmp_path / "bag")[0][0].camera
    assert (camera.width, camera.height, camera.fx, camera.cx, camera.cy) == (16, 12, 20, 13.5, 10.5)


def test_rectified_images_take_their_intrinsics_from_the_projection_matrix(tmp_path):
    with Script(tmp_path / "bag") as bag:
        plain = bag.make
        bag.tf(0, "map", "cam", static=True)
        bag.color(0, topic="/camera/color/image_rect_color")
        bag.depth(0)
        roi = plain("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
        message = plain(
            "sensor_msgs/msg/CameraInfo",
            header=bag.header(START, "cam"),
            width=16,
            height=12,
            distortion_model="plumb_bob",
            d=np.array([0.1, 0, 0, 0, 0]),
            k=np.array([10.0, 0, 7, 0, 10, 5, 0, 0, 1]),
            r=np.eye(3).ravel(),
            p=np.array([9.0, 0, 6, 0, 0, 9, 4, 0, 0, 0, 1, 0]),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )
        bag.write("/camera/color/camera_info", "sensor_msgs/msg/CameraInfo", START, message)
    camera = read(tmp_path / "bag")[0][0].camera
    assert (camera.fx, camera.cx, camera.cy, camera.is_distorted) == (9, 6, 4, False)


def test_intrinsics_that_change_apply_from_then_on(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.tf(0, "map", "cam", static=True)
        for i, fx in enumerate((10.0, 10.0, 20.0)):
            bag.info(i / 10, camera=replace(CAMERA, fx=fx))
            bag.color(i / 10)
            bag.depth(i / 10)
    found, _, _ = read(tmp_path / "bag")
    assert [f.camera.fx for f in found] == [10, 10, 20]


def test_start_duration_and_every_choose_part_of_the_bag(tmp_path):
    write_bag(tmp_path / "bag", frames(30))
    found, drops, _ = read(tmp_path / "bag", start_s=1.0, duration_s=1.0, every=3)
    assert [round((f.stamp_ns - START) / 1e8) for f in found] == [10, 13, 16, 19]
    assert np.allclose(found[1].map_T_camera.matrix, pose(1.3).matrix)
    assert not drops
    with open_source(tmp_path / "bag", SourceOptions(every=4)) as source:
        assert len(source) == len(list(source)) == 8
    with open_source(tmp_path / "bag", SourceOptions(start_s=1.0)) as source:
        assert source.frame_count is None
        with pytest.raises(TypeError):
            len(source)
        assert len(list(source)) == 20


def test_a_start_behind_the_end_of_the_bag_names_its_length(tmp_path):
    write_bag(tmp_path / "bag", frames(30))
    with pytest.raises(InputError, match=r"start: expected at most the 2\.9 s of the bag, got 3"):
        read(tmp_path / "bag", start_s=3)
    assert len(read(tmp_path / "bag", start_s=2.9)[0]) == 1


def test_a_bag_can_be_read_twice(tmp_path):
    write_bag(tmp_path / "bag", frames(3))
    with open_source(tmp_path / "bag") as source:
        assert [f.stamp_ns for f in source] == [f.stamp_ns for f in source]


def test_poses_file_replaces_tf(tmp_path):
    write_bag(tmp_path / "bag", frames(3))
    poses = tmp_path / "poses.tum"
    poses.write_text(f"{START // SECOND} 7 0 0 0 0 0 1\n{START // SECOND + 1} 8 0 0 0 0 0 1\n")
    found, drops, _ = read(tmp_path / "bag", poses=poses)
    assert np.allclose([f.map_T_camera.translation[0] for f in found], [7, 7.1, 7.2])
    assert not drops


def _odometry(bag: BagWriter, t: float, x: float, child: str = "base") -> None:
    make = bag.make
    at = START + round(t * SECOND)
    pose_ = make(
        "geometry_msgs/msg/Pose",
        position=make("geometry_msgs/msg/Point", x=x, y=0.0, z=0.0),
        orientation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )
    zero = make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    twist = make("geometry_msgs/msg/Twist", linear=zero, angular=zero)
    message = make(
        "nav_msgs/msg/Odometry",
        header=bag.header(at, "odom"),
        child_frame_id=child,
        pose=make("geometry_msgs/msg/PoseWithCovariance", pose=pose_, covariance=np.zeros(36)),
        twist=make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )
    bag.write("/odom", "nav_msgs/msg/Odometry", at, message)


def test_odometry_and_extrinsics_give_poses_without_tf(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        _odometry(bag, 0, x=1)
        for t in (0.2, 0.4):
            bag.color(t)
            bag.depth(t)
        _odometry(bag, 1, x=2)
    with pytest.raises(InputError, match="--poses FILE or --odometry"):
        open_source(tmp_path / "bag")
    extrinsics = tmp_path / "extrinsics.yaml"
    extrinsics.write_text("- {parent: base, child: cam, translation: [0, 0, 0.5], rotation: [-0.5, 0.5, -0.5, 0.5]}\n")
    found, drops, _ = read(tmp_path / "bag", odometry="/odom", extrinsics=extrinsics)
    assert not drops
    # 2 m before the camera lie along x of the robot.
    assert np.allclose(found[0].map_T_camera.apply(np.array([[0, 0, 2.0]])), [[3.2, 0, 0.5]])
    with pytest.raises(InputError, match=r"--odometry /x: expected one of \['/odom'\]"):
        open_source(tmp_path / "bag", SourceOptions(odometry="/x"))


def test_odometry_stands_in_place_of_the_transform_of_the_same_robot(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.tf(0, "base", "cam", static=True)
        for t, x in ((0.0, 1.0), (0.5, 2.0)):
            bag.tf(t, "odom", "base", x=100)
            _odometry(bag, t, x)
        bag.color(0.25)
        bag.depth(0.25)
    assert read(tmp_path / "bag")[0][0].map_T_camera.translation[0] == 100
    assert read(tmp_path / "bag", odometry="/odom")[0][0].map_T_camera.translation[0] == 1.5


def test_fixed_frame_is_the_root_above_the_camera_or_the_one_asked_for(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.tf(0, "base", "cam", static=True)
        bag.tf(0, "lonely", "thing", static=True)
        for t in (0, 1):
            bag.tf(t, "odom", "base", x=1)
            bag.tf(t, "map", "odom", x=10)
        bag.color(0.5)
        bag.depth(0.5)
    with open_source(tmp_path / "bag") as source:
        assert source.fixed_frame == "map"
        assert next(iter(source)).map_T_camera.translation[0] == 11
    assert read(tmp_path / "bag", fixed_frame="odom")[0][0].map_T_camera.translation[0] == 1


def test_transforms_of_the_robot_alone_are_no_poses_of_it(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.tf(0, "base_link", "cam", x=0.1, static=True)
        _odometry(bag, 0, 5.0)
        bag.color(0)
        bag.depth(0)
    with pytest.raises(InputError, match=r"'base_link' \(/tf_static\), but not where that is.*--fixed-frame base_link"):
        open_source(tmp_path / "bag")
    assert read(tmp_path / "bag", fixed_frame="base_link")[0][0].map_T_camera.translation[0] == pytest.approx(0.1)


def test_a_camera_whose_link_to_the_robot_is_missing_does_not_seem_to_stand_still(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.tf(0, "camera_link", "cam", x=0.1, static=True)
        for t in (0, 1):
            bag.tf(t, "odom", "base_link", x=2 * t)
        bag.color(0.5)
        bag.depth(0.5)
    expected = r"'camera_link', but not where that is: .* to 'odom'.*--extrinsics FILE.*--poses FILE.*--fixed-frame"
    with pytest.raises(InputError, match=expected):
        open_source(tmp_path / "bag")
    extrinsics = tmp_path / "extrinsics.yaml"
    extrinsics.write_text("- {parent: base_link, child: camera_link, translation: [3, 0, 0], rotation: [0, 0, 0, 1]}\n")
    found, drops, _ = read(tmp_path / "bag", extrinsics=extrinsics)
    assert found[0].map_T_camera.translation[0] == pytest.approx(4.1) and not drops


def test_a_camera_tree_beside_the_one_of_the_world_is_not_taken_for_it(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        for t in (0, 1):
            bag.tf(t, "pan_base", "cam", x=t)
            bag.tf(t, "robot1/odom", "base_link", x=2 * t)
        bag.color(0.5)
        bag.depth(0.5)
    with pytest.raises(InputError, match=r"'pan_base', but not where that is: .* to 'robot1/odom'"):
        open_source(tmp_path / "bag")
    found, _, _ = read(tmp_path / "bag", fixed_frame="pan_base")
    assert found[0].map_T_camera.translation[0] == 0.5


@pytest.mark.parametrize(
    ("root", "other"),
    [("t265_odom_frame", ("odom", "base")), ("robot1_odom", ("world", "map")), ("odom_combined", ("map", "dock"))],
)
def test_a_camera_in_a_tree_of_odometry_is_read_beside_another_tree(tmp_path, root, other):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        for t in (0, 1):
            bag.tf(t, root, "base_link", x=2 * t)
            bag.tf(t, *other, x=t)
        bag.tf(0, "base_link", "cam", x=1, static=True)
        bag.color(0.5)
        bag.depth(0.5)
    found, drops, _ = read(tmp_path / "bag")
    assert found[0].map_T_camera.translation[0] == 2.0 and not drops


@pytest.mark.parametrize("with_joint", [False, True])
def test_odometry_that_begins_after_the_camera_is_found(tmp_path, with_joint):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        if with_joint:
            for t in range(8):
                bag.tf(t, "base_link", "cam", x=1)
        else:
            bag.tf(0, "base_link", "cam", x=1, static=True)
        for t in (0.5, 5.5):
            bag.color(t)
            bag.depth(t)
        for t in (4, 5, 6, 7):
            bag.tf(t, "odom", "base_link", x=2 * t)
    found, drops, _ = read(tmp_path / "bag")
    assert [one.map_T_camera.translation[0] for one in found] == [12.0] and sum(drops.values()) == 1


def test_frames_without_a_transform_name_the_options_that_give_it(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        for t in (0, 1):
            bag.tf(t, "map", "base_link")
        bag.color(0.5)
        bag.depth(0.5)
    with pytest.raises(
        InputError, match=r"no_tf: 1 \(.*'cam' to 'map'.*no /tf_static.*--extrinsics FILE.*--poses FILE"
    ):
        read(tmp_path / "bag")
    with pytest.raises(InputError, match=r"'cam' to 'nowhere'.*--fixed-frame"):
        read(tmp_path / "bag", fixed_frame="nowhere")


def test_a_depth_frame_without_a_transform_is_answered_by_extrinsics_alone(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.info(name="depth/camera_info")
        bag.tf(0, "map", "cam", static=True)
        bag.color(0)
        bag.depth(0, frame_id="ir")
    with pytest.raises(InputError, match=r"'ir' to 'cam'.*--extrinsics FILE") as caught:
        read(tmp_path / "bag")
    assert "--poses" not in str(caught.value)


def test_a_camera_outside_of_the_tree_is_an_error_that_names_the_roots(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.tf(0, "map", "base", static=True)
        bag.tf(0, "other_map", "other_base", static=True)
        bag.color(0)
        bag.depth(0)
    with pytest.raises(InputError, match=r"'cam'.*\['map', 'other_map'\]"):
        open_source(tmp_path / "bag")


def test_topics_are_chosen_by_type_and_content_and_asked_for_when_ambiguous(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.info(name="right/camera_info", camera=replace(CAMERA, fx=30.0))
        bag.tf(0, "map", "cam", static=True)
        bag.color(0)
        bag.depth(0)
        bag.write_image("/camera/ir/image_raw", START, "ir", "mono8", np.zeros((12, 16), np.uint8))
        bag.write_image("/perception/labels", START, "cam", "mono8", np.zeros((12, 16), np.uint8))
        bag.color(0, topic="/camera/right/image_raw")
    with pytest.raises(InputError, match=r"/camera/color/image_raw, /camera/right/image_raw.*--topic color="):
        open_source(tmp_path / "bag")
    found, _, _ = read(tmp_path / "bag", topics={"color": "/camera/right/image_raw"})
    assert found[0].camera.fx == 30 and found[0].labels is None
    with pytest.raises(InputError, match=r"no such topic; it has .*/tf_static"):
        open_source(tmp_path / "bag", SourceOptions(topics={"depth": "/nothing"}))
    with pytest.raises(InputError, match=r"expected a topic of type .*CameraInfo, got sensor_msgs/msg/Image"):
        open_source(tmp_path / "bag", SourceOptions(topics={"camera_info": "/camera/color/image_raw"}))


def test_of_raw_and_compressed_twins_the_raw_one_is_read(tmp_path):
    with Script(tmp_path / "bag") as bag:
        bag.info()
        bag.tf(0, "map", "cam", static=True)
        bag.color(0)
        bag.depth(0)
        bag.write_compressed("/camera/color/image_raw/compressed", START, "cam", "jpeg", b"\xff\xd8")
    with open_source(tmp_path / "bag") as source:
        assert source.topics.color == "/camera/color/image_raw"


def test_describe_names_topics_counts_and_length(tmp_path):
    write_bag(tmp_path / "bag", frames(11, labels=True))
    facts = describe(tmp_path / "bag")
    assert facts["storage"] == "mcap" and facts["duration_s"] == 1.0 and facts["complete"]
    topics = {topic["name"]: (topic["type"], topic["count"]) for topic in facts["topics"]}
    assert topics["/camera/color/image_raw"] == ("sensor_msgs/msg/Image", 11)
    assert topics["/tf"] == ("tf2_msgs/msg/TFMessage", 11)
    assert facts["messages"] == sum(count for _, count in topics.values()) == 68


def test_single_files_and_folders_without_metadata_are_bags_too(tmp_path):
    write_bag(tmp_path / "a", frames(3))
    write_bag(tmp_path / "b", frames(3), BagLayout(storage="sqlite3"))
    for path in (tmp_path / "a" / "a.mcap", tmp_path / "b" / "b.db3"):
        assert len(read(path)[0]) == 3
        (path.parent / "metadata.yaml").unlink()
        assert len(read(path.parent)[0]) == 3


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_split_bags_are_read_as_one(tmp_path, storage):
    suffix = "mcap" if storage == "mcap" else "db3"
    everything = frames(22)
    whole = tmp_path / "whole"
    whole.mkdir()
    for part in range(11):  # As text 10 comes before 2.
        write_bag(tmp_path / f"part{part}", everything[2 * part : 2 * part + 2], BagLayout(storage=storage))
        shutil.copy(tmp_path / f"part{part}" / f"part{part}.{suffix}", whole / f"whole_{part}.{suffix}")
    found, drops, _ = read(whole)
    assert [f.stamp_ns for f in found] == [f.stamp_ns for f in everything]
    assert not drops


def test_bags_of_other_names_in_a_folder_are_not_one(tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    for name in ("kitchen", "hall"):
        write_bag(tmp_path / name, frames(2))
        shutil.copy(tmp_path / name / f"{name}.mcap", both / f"{name}.mcap")
    with pytest.raises(InputError, match=r"got hall\.mcap, kitchen\.mcap; give one of them"):
        open_source(both)
    assert len(read(both / "hall.mcap")[0]) == 2


def test_ros1_bags_are_read(tmp_path):
    from rosbags.rosbag1 import Writer

    from perception.sources.bag_reader import typestore

    store = typestore(ros1=True)
    with Writer(tmp_path / "old.bag") as writer:
        connections = {}

        def write(topic, kind, message):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], START, store.serialize_ros1(message, kind))

        def make(kind, **fields):
            return store.types[kind](**fields)

        time = make("builtin_interfaces/msg/Time", sec=START // SECOND, nanosec=0)
        header = make("std_msgs/msg/Header", seq=0, stamp=time, frame_id="/cam")
        zeros = {"distortion_model": "plumb_bob", "D": np.zeros(5), "R": np.zeros(9), "P": np.zeros(12)}
        roi = make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
        k = CAMERA.matrix.ravel()
        info = make(
            "sensor_msgs/msg/CameraInfo",
            header=header, height=12, width=16, K=k, binning_x=0, binning_y=0, roi=roi, **zeros,
        )  # fmt: skip
        for name, encoding, image in (
            ("color", "rgb8", frame(0).color),
            ("depth", "16UC1", np.full((12, 16), 1234, np.uint16)),
        ):
            write(f"/camera/{name}/camera_info", "sensor_msgs/msg/CameraInfo", info)
            message = make(
                "sensor_msgs/msg/Image",
                header=header, height=12, width=16, encoding=encoding, is_bigendian=0,
                step=image[0].nbytes, data=np.frombuffer(image.tobytes(), np.uint8),
            )  # fmt: skip
            write(f"/camera/{name}/image_raw", "sensor_msgs/msg/Image", message)
        transform = make(
            "geometry_msgs/msg/Transform",
            translation=make("geometry_msgs/msg/Vector3", x=4.0, y=0.0, z=0.0),
            rotation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        )
        root = make("std_msgs/msg/Header", seq=0, stamp=time, frame_id="/world")
        stamped = make("geometry_msgs/msg/TransformStamped", header=root, child_frame_id="/cam", transform=transform)
        write("/tf", "tf2_msgs/msg/TFMessage", make("tf2_msgs/msg/TFMessage", transforms=[stamped]))
    with open_source(tmp_path / "old.bag") as source:
        assert source.fixed_frame == "world"
        found = next(iter(source))
    assert found.camera == CAMERA and found.frame_id == "cam"
    assert found.map_T_camera.translation[0] == 4
    assert (found.depth == np.float32(1.234)).all()


def test_recorded_frames_survive_a_bag(shared, tmp_path):
    written = list(
        open_source(shared / "data" / "label_fusion" / "masks", SourceOptions(config="label_fusion_masks", every=5))
    )
    write_bag(tmp_path / "bag", written, BagLayout(compressed=True, color="png", depth="compressedDepth"))
    found, drops, _ = read(tmp_path / "bag")
    assert not drops
    for a, b in zip(written, found, strict=True):
        assert np.array_equal(a.color, b.color) and np.array_equal(a.labels.labels, b.labels.labels)
        assert np.abs(a.depth - b.depth).max() < 0.00051
        assert np.allclose(a.map_T_camera.matrix, b.map_T_camera.matrix, atol=1e-6)
    assert np.allclose(BASE_T_OPTICAL.apply(np.array([[0, 0, 1.0]])), [[1, 0, 0]])


def test_writer_refuses_an_existing_folder_and_unknown_codings(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_bag(tmp_path, frames(1))
    with pytest.raises(InputError, match="expected one of"):
        BagLayout(color="webp")


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_color_when_asked_and_left_out_labels_change_nothing_else(tmp_path, layout):
    write_bag(tmp_path / "bag", frames(4, labels=True), layout)
    with open_source(tmp_path / "bag") as source:
        whole = list(source)
        source.color_when_asked, source.with_labels = True, False
        found = list(source)
        assert not source.drops and not source.warnings
    for a, b in zip(whole, found, strict=True):
        assert a.stamp_ns == b.stamp_ns and np.array_equal(a.depth, b.depth)
        assert np.array_equal(a.color, b.color)
        assert a.labels is not None and b.labels is None


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("end", [KeyboardInterrupt, InputError])
def test_a_bag_whose_writing_is_interrupted_keeps_what_was_written(tmp_path, storage, end):
    with pytest.raises(end), BagWriter(tmp_path / "bag", BagLayout(storage=storage)) as bag:
        for one in frames(3):
            bag.write_frame(one)
        raise end("stop")
    found, drops, warnings = read(tmp_path / "bag")
    assert len(found) == 3 and not drops and not warnings
    assert describe(tmp_path / "bag")["complete"]


def test_a_chunk_that_was_half_written_is_not_written_again(tmp_path):
    class Interrupted(list):
        def append(self, chunk):
            if not self:
                super().append(chunk)
                raise KeyboardInterrupt
            super().append(chunk)

    with pytest.raises(KeyboardInterrupt), BagWriter(tmp_path / "bag", BagLayout(storage="mcap")) as bag:
        storage = bag._writer.storage
        storage.chunks = Interrupted()
        write = storage.write
        storage.write = lambda *arguments: (write(*arguments), storage.close_chunk())
        bag.write_frame(frame(0))
    reader = BagReader(tmp_path / "bag")
    assert len(list(reader.messages(set(reader.topics)))) == 1
    reader.close()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_into_which_nothing_was_written_is_removed_after_an_error(tmp_path, storage):
    with pytest.raises(InputError), BagWriter(tmp_path / "bag", BagLayout(storage=storage)):
        raise InputError("nothing to write")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("storage", "error"),
    [
        ("mcap", OSError(28, "No space left on device")),
        ("sqlite3", sqlite3.OperationalError("database or disk is full")),
    ],
)
def test_a_full_disk_is_one_sentence_and_what_reached_it_stays(tmp_path, storage, error, monkeypatch):
    def full(*_):
        raise error

    # Larger than a chunk of an MCAP.
    large = {"color": np.zeros((480, 640, 3), np.uint8), "depth": np.ones((480, 640), np.float32)}
    monkeypatch.setattr(bag_writer, "COMMIT_BYTES", 1 << 20)
    with (
        pytest.raises(PerceptionError, match=r"bag .*bag: cannot be written \(.*(disk is full|No space left)"),
        BagWriter(tmp_path / "bag", BagLayout(storage=storage)) as bag,
    ):
        for i in range(3):
            bag.write_frame(frame(i, camera=CAMERA.scaled(640, 480), **large))
        bag._writer.storage.write = full
        bag.write_frame(frame(3))
    assert not (tmp_path / "bag" / "metadata.yaml").exists()
    assert len(read(tmp_path / "bag")[0]) == 3


def test_an_sqlite_bag_of_which_nothing_reached_the_full_disk_is_removed(tmp_path):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    with (
        pytest.raises(PerceptionError, match="disk is full"),
        BagWriter(tmp_path / "bag", BagLayout(storage="sqlite3")) as bag,
    ):
        bag.write_frame(frame(0))
        bag._writer.storage.write = full
        bag.write_frame(frame(1))
    assert list(tmp_path.iterdir()) == []
