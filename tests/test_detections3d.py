# SPDX-License-Identifier: Apache-2.0
"""Boxes in space from detections and depth."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.config import BoxConfig
from perception.detections3d import lift_detections
from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelClass, LabelSet
from perception.types import Detections, Detections3D

LABELS = LabelSet("things", (LabelClass(0, "chair", (1, 2, 3)), LabelClass(1, "person", (4, 5, 6), moves=True)))
CAMERA = PinholeCamera(200, 160, 100.0, 100.0, 99.5, 79.5)
IDENTITY = Transform(np.eye(4))
# Camera looks along +x of the map, 1 m above its origin: optical z → x, x → −y, y → −z.
MAP_T_CAMERA = Transform(np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]], float))


def found(boxes, labels=None, masks=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int32) if labels is None else np.array(labels, np.int32)
    return Detections(boxes, np.linspace(0.9, 0.5, len(boxes)).astype(np.float32), labels, LABELS, masks)


def wall_with_plate(distance=2.0, behind=5.0):
    """A plate of 80×60 pixels in the middle of the image before a wall."""
    depth = np.full((160, 200), behind, np.float32)
    depth[50:110, 60:140] = distance
    return depth


def test_box_of_a_plate_by_hand():
    # 80 pixels at 2 m with a focal length of 100 pixels: 1.6 m wide, 1.2 m high (one pixel less from center to center).
    boxes = lift_detections(found([[60, 50, 140, 110]]), wall_with_plate(), CAMERA, IDENTITY, BoxConfig(percentile=0))
    np.testing.assert_allclose(boxes.centers, [[0, 0, 2]], atol=0.03)
    np.testing.assert_allclose(boxes.sizes, [[1.58, 1.18, 0.01]], atol=0.03)
    assert (boxes.yaws.tolist(), boxes.ids.tolist(), boxes.labels.tolist()) == ([0], [-1], [0])
    np.testing.assert_allclose(boxes.scores, [0.9])


def test_box_lies_along_the_axes_of_the_map():
    boxes = lift_detections(found([[60, 50, 140, 110]]), wall_with_plate(), CAMERA, MAP_T_CAMERA, stamp_ns=7)
    np.testing.assert_allclose(boxes.centers, [[2, 0, 1]], atol=0.03)
    # Percentiles 5 and 95 leave nine tenths of a plate.
    np.testing.assert_allclose(boxes.sizes, [[0.01, 1.42, 1.06]], atol=0.04)
    assert (boxes.frame_id, boxes.stamp_ns) == ("map", 7)


def test_background_inside_a_loose_box_is_left_out():
    tight = lift_detections(found([[60, 50, 140, 110]]), wall_with_plate(), CAMERA, IDENTITY, BoxConfig(percentile=0))
    loose = lift_detections(found([[45, 40, 155, 120]]), wall_with_plate(), CAMERA, IDENTITY, BoxConfig(percentile=0))
    np.testing.assert_allclose(loose.centers, tight.centers, atol=0.05)
    np.testing.assert_allclose(loose.sizes, tight.sizes, atol=0.05)


def test_mask_decides_where_the_box_would_not():
    depth = wall_with_plate()
    mask = np.zeros((1, 160, 200), bool)
    mask[0, 50:110, 60:70] = True
    # The middle of this box is wall; the mask shows a strip of the plate at its edge.
    boxes = [[60, 50, 200, 160]]
    with_mask = lift_detections(found(boxes, masks=mask), depth, CAMERA, IDENTITY)
    np.testing.assert_allclose(with_mask.centers[0, 2], 2.0, atol=1e-5)
    np.testing.assert_allclose(with_mask.centers[0, 0], (64.5 - 99.5) / 100 * 2, atol=0.05)
    # A tenth of the mask bleeds over the edge onto the wall.
    mask[0, 44:50, 60:70] = True
    bled = lift_detections(found(boxes, masks=mask), depth, CAMERA, IDENTITY)
    np.testing.assert_allclose(bled.centers, with_mask.centers, atol=0.05)
    np.testing.assert_allclose(bled.sizes, with_mask.sizes, atol=0.05)


def test_objects_without_enough_depth_get_no_box():
    depth = wall_with_plate()
    depth[:, :100] = np.nan
    depth[:10, 100:] = 0
    depth[10:20, 100:] = np.inf
    depth[20:30, 100:] = -np.inf
    depth[30:40, 100:] = -2
    depth[40:44, 100:104] = 2
    areas = [[0, 0, 100, 160], [100, 0, 200, 40], [100, 40, 104, 44], [60, 50, 140, 110]]
    boxes = lift_detections(found(areas, [0, 0, 0, 1]), depth, CAMERA, IDENTITY)
    assert boxes.labels.tolist() == [1]
    assert len(lift_detections(found(areas[2:3]), depth, CAMERA, IDENTITY, BoxConfig(min_points=16))) == 1
    assert len(lift_detections(found([]), depth, CAMERA, IDENTITY)) == 0


def test_ranges_bound_the_depth_that_counts():
    depth = wall_with_plate()
    area = found([[60, 50, 140, 110]])
    assert len(lift_detections(area, depth, CAMERA, IDENTITY, BoxConfig(max_range=1.9))) == 0
    assert len(lift_detections(area, depth, CAMERA, IDENTITY, BoxConfig(min_range=2.1))) == 0
    assert len(lift_detections(area, depth, CAMERA, IDENTITY, BoxConfig(max_range=2.1))) == 1


def test_boxes_outside_of_the_image_or_upside_down_are_empty():
    odd = [[-50, -50, -1, -1], [300, 10, 400, 20], [90, 90, 80, 80], [np.nan, 0, np.inf, 9], [1e30, 0, 1e31, 5]]
    assert len(lift_detections(found(odd), wall_with_plate(), CAMERA, IDENTITY)) <= 1


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    box=st.tuples(*[st.integers(0, 199), st.integers(0, 159)] * 2).filter(lambda b: b[2] > b[0] and b[3] > b[1]),
)
def test_box_contains_only_depth_within_its_pixels(seed, box):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 6, (160, 200)).astype(np.float32)
    depth[rng.uniform(size=depth.shape) < 0.3] = np.nan
    boxes = lift_detections(found([box]), depth, CAMERA, IDENTITY, BoxConfig(min_points=1))
    if len(boxes):
        lower, upper = boxes.centers[0] - boxes.sizes[0] / 2, boxes.centers[0] + boxes.sizes[0] / 2
        assert 0.48 <= lower[2] <= upper[2] <= 6.02
        assert lower[0] >= min((box[0] - 99.5) / 100 * z for z in (0.5, 6)) - 0.02
        assert upper[0] <= max((box[2] - 99.5) / 100 * z for z in (0.5, 6)) + 0.02


def test_what_does_not_fit_is_refused():
    area, depth = found([[60, 50, 140, 110]]), wall_with_plate()
    with pytest.raises(InputError, match=r"depth: expected \(160, 200\) floating point meters, got \(10, 10\)"):
        lift_detections(area, np.ones((10, 10), np.float32), CAMERA, IDENTITY)
    with pytest.raises(InputError, match=r"floating point meters, got .* uint16"):
        lift_detections(area, depth.astype(np.uint16), CAMERA, IDENTITY)
    with pytest.raises(InputError, match=r"masks: expected \(160, 200\) as the depth"):
        lift_detections(found([[0, 0, 1, 1]], masks=np.ones((1, 5, 5), bool)), depth, CAMERA, IDENTITY)
    distorted = PinholeCamera(200, 160, 100.0, 100.0, 99.5, 79.5, "plumb_bob", (0.1, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="expected a rectified image"):
        lift_detections(area, depth, distorted, IDENTITY)


def test_a_hundred_objects_as_large_as_the_image_take_a_bounded_time():
    camera = PinholeCamera(1280, 720, 900.0, 900.0, 640, 360)
    depth = np.random.default_rng(0).uniform(1, 2, (720, 1280)).astype(np.float32)
    many = found(np.tile(np.array([0, 0, 1280, 720], np.float32), (100, 1)))
    start = time.perf_counter()
    assert len(lift_detections(many, depth, camera, IDENTITY)) == 100
    assert time.perf_counter() - start < 2


def test_boxes_with_wrong_shapes_or_sizes_are_refused():
    good = {
        "centers": np.zeros((1, 3), np.float32),
        "sizes": np.ones((1, 3), np.float32),
        "yaws": np.zeros(1, np.float32),
        "scores": np.full(1, 0.5, np.float32),
        "labels": np.zeros(1, np.int32),
        "label_set": LABELS,
        "ids": np.full(1, -1, np.int64),
    }
    assert len(Detections3D(**good)) == 1
    for name, value, message in (
        ("centers", np.zeros((2, 3), np.float32), r"expected centers \(1, 3\), got \(2, 3\)"),
        ("ids", np.zeros(0, np.int64), r"expected ids \(1,\), got \(0,\)"),
        ("sizes", np.zeros((1, 3), np.float32), "positive finite sizes"),
        ("centers", np.full((1, 3), np.nan, np.float32), "expected finite centers"),
    ):
        with pytest.raises(InputError, match=message):
            Detections3D(**{**good, name: value})


def test_chair_of_a_photograph_has_the_size_of_a_chair(shared):
    from perception.models import create_detector
    from perception.sources import open_source

    frames = list(open_source(shared / "data/rgbd/slambook2_ch5"))
    frame = frames[0]
    things = create_detector("default", "cpu")(frame.color)
    boxes = lift_detections(things, frame.depth, frame.camera, frame.map_T_camera)
    chairs = boxes.sizes[boxes.labels == things.label_set["chair"].id]
    assert len(chairs) >= 3
    assert (chairs.max(1) > 0.2).all()
    assert (chairs.max(1) < 2.0).all()
