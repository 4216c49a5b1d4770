# SPDX-License-Identifier: Apache-2.0
"""The robot's own body is found in depth images and clouds, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.self_filter import PlacedBody, SelfFilter, SelfFilterConfig, parse_bodies, read_mask

CAMERA = PinholeCamera(8, 6, 4.0, 4.0, 3.5, 2.5)
IDENTITY = Transform.identity()


def filter_of(**values) -> SelfFilter:
    return SelfFilter(SelfFilterConfig(padding=0.0, **values), "base")


def placed(self_filter: SelfFilter, pose: Transform = IDENTITY):
    return self_filter.place("camera", lambda target, source: pose)


def test_box_removes_the_points_inside_it_and_keeps_the_others():
    arm = filter_of(boxes="arm: -1 -1 0 1 1 2")
    points = np.array([[0, 0, 1], [0, 0, 2.5], [1.5, 0, 1], [np.nan, 0, 1], [1, 1, 2]], np.float32)
    assert arm.outside(points, placed(arm)).tolist() == [False, True, True, True, False]


def test_box_moves_with_its_frame():
    arm = filter_of(boxes="arm: -1 -1 -1 1 1 1")
    arm_T_camera = Transform.from_translation_quaternion((-5.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    points = np.array([[0, 0, 0], [5, 0, 0], [6.5, 0, 0]], np.float32)
    assert arm.outside(points, placed(arm, arm_T_camera)).tolist() == [True, False, True]


def test_ball_is_round_and_padding_makes_it_larger():
    points = np.array([[0.9, 0, 0], [0.8, 0.8, 0], [1.05, 0, 0]], np.float32)
    ball = filter_of(spheres="head: 0 0 0 1")
    assert ball.outside(points, placed(ball)).tolist() == [False, True, True]
    padded = SelfFilter(SelfFilterConfig(spheres="head: 0 0 0 1", padding=0.1), "base")
    assert padded.outside(points, placed(padded)).tolist() == [False, True, False]


def test_footprint_is_a_prism_over_any_polygon():
    # An L: the corner that it leaves out is not the robot.
    robot = filter_of(footprint="[[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]]", footprint_height=0.5)
    points = np.array([[0.5, 1.5, 0.2], [1.5, 1.5, 0.2], [1.5, 0.5, 0.2], [0.5, 0.5, 0.7]], np.float32)
    assert robot.outside(points, placed(robot)).tolist() == [False, True, False, True]
    assert {body.frame_id for body in robot.bodies} == {"base"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-3, 3, width=32)] * 3), min_size=1, max_size=40))
def test_depth_image_and_cloud_lose_the_same_points(corners):
    body = filter_of(boxes="arm: -0.5 -0.5 0.2 0.5 0.5 1.5", spheres="arm: 0 0 2.2 0.3")
    rng = np.random.default_rng(len(corners))
    depth = rng.uniform(0.1, 3.0, CAMERA.size).astype(np.float32)
    x, y, z = corners[0]
    pose = Transform.from_translation_quaternion((x / 10, y / 10, z / 10), (0.0, 0.0, 0.0, 1.0))
    bodies = placed(body, pose)
    masked, removed = body.mask_depth(depth, CAMERA, bodies)
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    points = np.stack([(u - CAMERA.cx) / CAMERA.fx * depth, (v - CAMERA.cy) / CAMERA.fy * depth, depth], axis=-1)
    outside = body.outside(points.reshape(-1, 3).astype(np.float32), bodies)
    np.testing.assert_array_equal(np.isnan(masked).reshape(-1), ~outside)
    assert removed == int((~outside).sum())


def test_depth_without_the_robot_is_handed_on_as_it_is():
    body = filter_of(boxes="arm: 10 10 10 11 11 11")
    depth = np.full(CAMERA.size, 2.0, np.float32)
    masked, removed = body.mask_depth(depth, CAMERA, placed(body))
    assert masked is depth and removed == 0


def test_pixels_without_measurement_are_neither_removed_nor_counted():
    body = filter_of(boxes="arm: -9 -9 -9 9 9 9")
    depth = np.array([[0, np.nan, np.inf, 1.0]], np.float32)
    camera = PinholeCamera(4, 1, 4.0, 4.0, 1.5, 0.0)
    masked, removed = body.mask_depth(depth, camera, placed(body))
    assert removed == 1
    np.testing.assert_array_equal(masked, np.array([[0, np.nan, np.inf, np.nan]], np.float32))


def test_ignore_mask_of_the_camera_hides_its_pixels(tmp_path):
    cv2 = pytest.importorskip("cv2")
    mask = np.zeros(CAMERA.size, np.uint8)
    mask[:2] = 255
    cv2.imwrite(str(tmp_path / "front.png"), mask)
    body = filter_of(mask=str(tmp_path / "{camera}.png"))
    depth = np.full(CAMERA.size, 2.0, np.float32)
    depth[0, 0] = np.inf
    masked, removed = body.mask_depth(depth, CAMERA, (), "front")
    assert np.isnan(masked[:2]).all() and (masked[2:] == 2).all()
    assert removed == 16 and np.isinf(depth[0, 0])
    with pytest.raises(InputError, match=r"expected an image file, got .*rear\.png"):
        body.mask_depth(depth, CAMERA, (), "rear")
    with pytest.raises(InputError, match=r"expected \(3, 3\) as the depth, got \(6, 8\)"):
        body.mask_depth(np.ones((3, 3), np.float32), CAMERA, (), "front")


def test_file_that_is_no_image_is_named(tmp_path):
    path = tmp_path / "mask.png"
    path.write_text("no image")
    with pytest.raises(InputError, match="cannot be decoded"):
        read_mask(path)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"boxes": "arm: 1 2 3"}, "with 6 numbers, got 'arm: 1 2 3'"),
        ({"boxes": "1 2 3 4 5 6"}, "with 6 numbers"),
        ({"boxes": "arm: 1 1 1 0 0 0"}, "lowest corner first"),
        ({"boxes": "arm: 0 0 0 1 1 nan"}, "with 6 numbers"),
        ({"spheres": "head: 0 0 0 -1"}, "radius above 0"),
        ({"spheres": "head: a b c d"}, "with 4 numbers"),
        ({"footprint": "[[0, 0], [1, 1]]"}, "three corners or more"),
        ({"footprint": "round"}, "three corners or more"),
        ({"footprint": "[[0, 0], [1"}, "three corners or more"),
    ],
)
def test_part_that_is_not_written_as_it_should_be_is_an_error(values, sentence):
    with pytest.raises(InputError, match=sentence):
        parse_bodies(SelfFilterConfig(**values), "base")


def test_every_frame_is_looked_up_once():
    asked = []
    body = filter_of(boxes="arm: 0 0 0 1 1 1; arm: 2 2 2 3 3 3", spheres="head: 0 0 0 1")
    result = body.place("camera", lambda *frames: asked.append(frames) or IDENTITY)
    assert sorted(asked) == [("arm", "camera"), ("head", "camera")]
    assert all(isinstance(item, PlacedBody) for item in result) and len(result) == 3
