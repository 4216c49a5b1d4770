# SPDX-License-Identifier: Apache-2.0
"""Depth, labels and color to a labeled cloud."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.cloud import label_cloud, moving_mask, warm_up
from perception.config import CloudConfig
from perception.errors import InputError
from perception.geometry import PinholeCamera
from perception.labels import LabelClass, LabelSet
from perception.types import LabeledCloud, LabelImage

CAMERA = PinholeCamera(8, 6, 4.0, 5.0, 3.5, 2.5)
CLASSES = LabelSet(
    "test",
    (
        LabelClass(0, "floor", (10, 10, 10), cost=0),
        LabelClass(1, "wall", (20, 20, 20)),
        LabelClass(2, "person", (30, 30, 30), moves=True),
    ),
)
NO_EDGES = CloudConfig(edge_threshold=0.0)


def labels_of(ids, confidence=0.9) -> LabelImage:
    return LabelImage.certain(np.asarray(ids, np.int32), CLASSES, confidence)


def test_a_pixel_becomes_the_point_on_its_ray_with_its_label_confidence_and_color():
    depth = np.full((6, 8), np.nan, np.float32)
    depth[4, 1] = 2.0
    ids = np.zeros((6, 8), np.int32)
    ids[4, 1] = 1
    color = np.zeros((6, 8, 3), np.uint8)
    color[4, 1] = (1, 2, 3)
    cloud = label_cloud(depth, CAMERA, labels_of(ids), color, stamp_ns=7, frame_id="optical")
    # x = (1 − 3.5) / 4 · 2, y = (4 − 2.5) / 5 · 2
    np.testing.assert_allclose(cloud.points, [[-1.25, 0.6, 2.0]], rtol=1e-6)
    assert cloud.labels.tolist() == [1]
    np.testing.assert_allclose(cloud.confidence, [0.9], rtol=1e-6)
    assert cloud.colors.tolist() == [[1, 2, 3]]
    assert cloud.pixels.tolist() == [4 * 8 + 1]
    assert (cloud.stamp_ns, cloud.frame_id) == (7, "optical")
    assert cloud.clear_points.shape == (0, 3) and cloud.moving_points.shape == (0, 3)


def test_without_labels_and_color_points_are_unlabeled_and_black():
    cloud = label_cloud(np.ones((6, 8), np.float32), CAMERA)
    assert len(cloud) == 48
    assert (cloud.labels == -1).all() and (cloud.confidence == 0).all() and (cloud.colors == 0).all()


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, -np.inf])
def test_pixels_without_measurement_give_neither_point_nor_clearing_ray(value):
    cloud = label_cloud(np.full((6, 8), value, np.float32), CAMERA, no_return_range=5.0)
    assert len(cloud) == 0 and len(cloud.clear_points) == 0


def test_no_return_clears_up_to_the_maximum_range_along_its_ray():
    depth = np.full((6, 8), np.nan, np.float32)
    depth[2, 3] = np.inf
    cloud = label_cloud(depth, CAMERA, config=CloudConfig(max_range=4.0), no_return_range=9.0)
    ray = np.array([(3 - 3.5) / 4, (2 - 2.5) / 5, 1.0])
    np.testing.assert_allclose(cloud.clear_points, [4.0 * ray / np.linalg.norm(ray)], rtol=1e-6)


def test_no_return_without_any_limit_has_no_end_and_is_dropped():
    depth = np.full((6, 8), np.inf, np.float32)
    assert len(label_cloud(depth, CAMERA).clear_points) == 0
    assert len(label_cloud(depth, CAMERA, no_return_range=-1.0).clear_points) == 0
    assert len(label_cloud(depth, CAMERA, no_return_range=3.0).clear_points) == 48
    off = CloudConfig(clear_no_return=False)
    assert len(label_cloud(depth, CAMERA, config=off, no_return_range=3.0).clear_points) == 0


def test_zero_depth_clears_only_on_request():
    depth = np.zeros((6, 8), np.float32)
    assert len(label_cloud(depth, CAMERA, no_return_range=3.0).clear_points) == 0
    cloud = label_cloud(depth, CAMERA, config=CloudConfig(clear_zero=True), no_return_range=3.0)
    np.testing.assert_allclose(np.linalg.norm(cloud.clear_points, axis=1), 3.0, rtol=1e-6)


def test_points_beyond_the_maximum_range_only_clear_and_near_ones_are_dropped():
    depth = np.full((6, 8), np.nan, np.float32)
    depth[2, 3], depth[3, 3], depth[3, 4] = 6.0, 0.05, 2.0
    cloud = label_cloud(depth, CAMERA, config=CloudConfig(min_range=0.1, max_range=5.0))
    assert cloud.points[:, 2].tolist() == [2.0]
    np.testing.assert_allclose(np.linalg.norm(cloud.clear_points, axis=1), [5.0], rtol=1e-6)


def test_ranges_count_along_the_ray():
    depth = np.full((6, 8), 1.0, np.float32)
    limit = 1.2
    cloud = label_cloud(depth, CAMERA, config=CloudConfig(max_range=limit))
    assert 0 < len(cloud) < 48
    assert np.linalg.norm(cloud.points, axis=1).max() <= limit


def test_stride_takes_every_nth_row_and_column():
    cloud = label_cloud(np.ones((6, 8), np.float32), CAMERA, config=CloudConfig(stride=3))
    assert cloud.pixels.tolist() == [0, 3, 6, 24, 27, 30]


def test_the_wall_behind_an_edge_loses_its_label_and_the_object_keeps_it():
    depth = np.full((6, 8), 2.0, np.float32)
    depth[:, :3] = 1.0
    cloud = label_cloud(depth, CAMERA, labels_of(np.ones((6, 8))), config=CloudConfig(edge_radius=1))
    unlabeled = (cloud.labels == -1).reshape(6, 8)
    assert len(cloud) == 48
    assert unlabeled[:, 3].all() and unlabeled.sum() == 6
    assert (cloud.confidence.reshape(6, 8)[:, 3] == 0).all()


def test_a_wider_edge_radius_eats_into_the_far_side_only():
    depth = np.full((6, 8), 2.0, np.float32)
    depth[:, :3] = 1.0
    cloud = label_cloud(depth, CAMERA, labels_of(np.ones((6, 8))), config=CloudConfig(edge_radius=3))
    unlabeled = (cloud.labels == -1).reshape(6, 8)
    assert unlabeled[:, 3:6].all() and unlabeled.sum() == 18


@pytest.mark.parametrize("hole", [0.0, np.nan, np.inf, -np.inf])
def test_an_invalid_neighbor_is_no_edge(hole):
    depth = np.full((6, 8), 2.0, np.float32)
    depth[::2, ::2] = hole
    cloud = label_cloud(depth, CAMERA, labels_of(np.ones((6, 8))))
    assert len(cloud) == 48 - 12
    assert (cloud.labels == 1).all()


def test_a_slope_below_the_threshold_is_no_edge():
    depth = np.tile(np.float32(2.0) * np.float32(1.04) ** np.arange(8, dtype=np.float32), (6, 1))
    assert (label_cloud(depth, CAMERA, labels_of(np.ones((6, 8)))).labels == 1).all()
    steep = label_cloud(depth, CAMERA, labels_of(np.ones((6, 8))), config=CloudConfig(edge_threshold=0.03))
    assert (steep.labels.reshape(6, 8)[:, 1:] == -1).all()


def test_labels_below_the_least_confidence_are_dropped_and_their_points_stay():
    confidence = np.full((6, 8), 0.4, np.float32)
    confidence[0] = 0.6
    labels = LabelImage(np.ones((6, 8), np.int32), confidence, CLASSES)
    cloud = label_cloud(np.ones((6, 8), np.float32), CAMERA, labels, min_confidence=0.5)
    assert len(cloud) == 48
    assert (cloud.labels[:8] == 1).all() and (cloud.labels[8:] == -1).all()


def test_things_that_move_leave_the_cloud_and_their_rays_clear():
    ids = np.zeros((6, 8), np.int32)
    ids[2, 3] = 2
    depth = np.full((6, 8), 2.0, np.float32)
    depth[0, 0] = np.inf
    cloud = label_cloud(depth, CAMERA, labels_of(ids), config=CloudConfig(moving_margin=0, max_range=4.0))
    mover = [[(3 - 3.5) / 4 * 2, (2 - 2.5) / 5 * 2, 2.0]]
    np.testing.assert_allclose(cloud.moving_points, mover, rtol=1e-6)
    np.testing.assert_allclose(cloud.clear_points[1:], mover, rtol=1e-6)
    assert len(cloud) == 46 and len(cloud.clear_points) == 2
    assert 2 * 8 + 3 not in cloud.pixels


def test_the_mask_of_moving_things_is_widened_by_the_margin():
    ids = np.zeros((6, 8), np.int32)
    ids[2, 3] = 2
    cloud = label_cloud(np.ones((6, 8), np.float32), CAMERA, labels_of(ids), config=CloudConfig(moving_margin=1))
    assert len(cloud.moving_points) == 9 and len(cloud) == 39


def test_an_edge_does_not_bring_a_moving_thing_back_into_the_map():
    ids = np.zeros((6, 8), np.int32)
    ids[:, :4] = 2
    depth = np.full((6, 8), 2.0, np.float32)
    depth[:, :2] = 1.0
    cloud = label_cloud(depth, CAMERA, labels_of(ids), config=CloudConfig(moving_margin=0))
    assert len(cloud.moving_points) == 24


def test_moving_mask_counts_unlabeled_and_unsure_pixels_as_static():
    ids = np.array([[-1, 2, 2]], np.int32)
    labels = LabelImage(ids, np.array([[0.9, 0.9, 0.3]], np.float32), CLASSES)
    assert moving_mask(labels, 0.5).tolist() == [[0, 1, 0]]
    assert moving_mask(labels_of([[0, 1, -1]])).size == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
def test_label_images_of_any_integer_type_give_the_same(dtype):
    ids = np.arange(48).reshape(6, 8) % 2
    cloud = label_cloud(np.ones((6, 8)), CAMERA, LabelImage.certain(ids.astype(dtype), CLASSES), config=NO_EDGES)
    assert cloud.labels.tolist() == (np.arange(48) % 2).tolist()


def test_wrong_sizes_types_and_distortion_are_refused_by_name():
    good = np.ones((6, 8), np.float32)
    with pytest.raises(InputError, match=r"depth: expected \(6, 8\).*got \(5, 8\)"):
        label_cloud(good[:5], CAMERA)
    with pytest.raises(InputError, match="floating point meters"):
        label_cloud(good.astype(np.uint16), CAMERA)
    with pytest.raises(InputError, match=r"labels: expected \(6, 8\)"):
        label_cloud(good, CAMERA, labels_of(np.zeros((3, 4))))
    with pytest.raises(InputError, match=r"color: expected \(6, 8, 3\) uint8"):
        label_cloud(good, CAMERA, color=np.zeros((6, 8, 4), np.uint8))
    with pytest.raises(InputError, match="without distortion"):
        label_cloud(good, PinholeCamera(8, 6, 4, 5, 3.5, 2.5, "plumb_bob", (0.1, 0, 0, 0)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "changes", [{"fx": 1e-300}, {"fy": 1e-4}, {"cx": 1e308}, {"cy": -1e6}, {"cx": 1e300, "fx": 1e-300}]
)
def test_a_calibration_that_looks_sideways_is_refused_before_it_is_used(changes):
    camera = replace(PinholeCamera(4, 3, 4.0, 4.0, 1.5, 1.0), **changes)
    with pytest.raises(InputError, match="camera: expected rays less than 1000 times as far aside as ahead, got fx"):
        label_cloud(np.ones((3, 4), np.float32), camera)


def test_arguments_are_left_as_they_were():
    depth = np.random.default_rng(0).uniform(1, 3, (6, 8)).astype(np.float32)
    ids = labels_of(np.full((6, 8), 2))
    before = depth.copy(), ids.labels.copy()
    label_cloud(depth, CAMERA, ids)
    assert np.array_equal(before[0], depth) and np.array_equal(before[1], ids.labels)


def reference(depth, labels, config, min_confidence, no_return_range) -> tuple[dict, dict]:
    """Pixel by pixel in plain Python: pixel → (point, label), and pixel → end of a clearing ray."""
    points, clear = {}, {}
    moves = (labels.labels == 2) & (labels.confidence >= min_confidence)
    size = 2 * config.moving_margin + 1
    moves = cv2.dilate(moves.astype(np.uint8), np.ones((size, size), np.uint8))
    limit = config.max_range or max(no_return_range, 0)
    for v in range(0, depth.shape[0], config.stride):
        for u in range(0, depth.shape[1], config.stride):
            z = depth[v, u]
            ray = np.array([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, 1.0])
            unit = ray / np.linalg.norm(ray)
            if z == np.inf and limit:
                clear[v, u] = unit * limit
            if not (np.isfinite(z) and z > 0) or z * np.linalg.norm(ray) < config.min_range:
                continue
            if config.max_range and z * np.linalg.norm(ray) > config.max_range:
                clear[v, u] = unit * config.max_range
            elif moves[v, u]:
                clear[v, u] = ray * z
            else:
                keep = labels.confidence[v, u] >= min_confidence
                points[v, u] = ray * z, labels.labels[v, u] if keep else -1
    return points, clear


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    stride=st.integers(1, 4),
    margin=st.integers(0, 2),
    max_range=st.sampled_from([0.0, 2.5]),
    no_return_range=st.sampled_from([-1.0, 0.0, 3.5]),
)
def test_label_cloud_equals_the_plain_reference(seed, stride, margin, max_range, no_return_range):
    rng = np.random.default_rng(seed)
    depth = rng.choice([0.05, 1.0, 2.0, 3.0, 0.0, np.nan, np.inf, -np.inf], (6, 8)).astype(np.float32)
    labels = LabelImage(
        rng.integers(-1, 3, (6, 8)).astype(np.int32), rng.choice([0.2, 0.8], (6, 8)).astype(np.float32), CLASSES
    )
    config = CloudConfig(stride=stride, moving_margin=margin, max_range=max_range, edge_threshold=0.0)
    cloud = label_cloud(depth, CAMERA, labels, config=config, min_confidence=0.5, no_return_range=no_return_range)
    points, clear = reference(depth, labels, config, 0.5, no_return_range)
    assert cloud.pixels.tolist() == [v * 8 + u for v, u in points]
    assert cloud.labels.tolist() == [int(label) for _, label in points.values()]
    expected = np.array([point for point, _ in points.values()]).reshape(-1, 3)
    np.testing.assert_allclose(cloud.points, expected, rtol=1e-5, atol=1e-6)
    ends = np.array(list(clear.values())).reshape(-1, 3)
    order = np.lexsort(cloud.clear_points.round(3).T), np.lexsort(ends.round(3).T)
    np.testing.assert_allclose(cloud.clear_points[order[0]], ends[order[1]], rtol=1e-5, atol=1e-6)


def test_points_project_back_to_their_pixels():
    depth = np.random.default_rng(0).uniform(0.5, 4, (6, 8)).astype(np.float32)
    cloud = label_cloud(depth, CAMERA)
    pixels = CAMERA.project(cloud.points)
    np.testing.assert_allclose(pixels[:, 1] * 8 + pixels[:, 0], cloud.pixels, atol=1e-3)


def test_warm_up_runs():
    warm_up()


def test_labeled_cloud_refuses_moving_points_of_another_shape():
    none = np.zeros((0, 3), np.float32)
    flat = np.zeros(0, np.int32)
    with pytest.raises(InputError, match="moving_points"):
        LabeledCloud(none, none.astype(np.uint8), flat, flat.astype(np.float32), none, flat, 0, "optical", flat)
