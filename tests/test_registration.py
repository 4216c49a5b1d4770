# SPDX-License-Identifier: Apache-2.0
"""Rectification and the registration of depth to color."""

from __future__ import annotations

import numpy as np
import pytest

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform, rectification_maps
from perception.labels import LabelClass, LabelSet
from perception.registration import rectify, register_depth, warm_up
from perception.types import LabelImage

CAMERA = PinholeCamera(40, 30, 40.0, 40.0, 19.5, 14.5)
DISTORTED = PinholeCamera(40, 30, 40.0, 40.0, 19.5, 14.5, "plumb_bob", (-0.2, 0.05, 0.001, -0.001, 0.0))


def moved(x=0.0, y=0.0, z=0.0, axis=(0, 0, 1), degrees=0.0) -> Transform:
    half = np.radians(degrees) / 2
    return Transform.from_translation_quaternion((x, y, z), (*(np.sin(half) * np.array(axis)), np.cos(half)))


def plane_depth(camera: PinholeCamera, normal, distance) -> np.ndarray:
    """Depth of the plane normal · p = distance in front of a camera; +inf where its rays miss."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1)
    with np.errstate(divide="ignore"):
        depth = distance / (rays @ np.asarray(normal, float))
    return np.where(depth > 0, depth, np.inf).astype(np.float32)


def test_the_same_camera_gives_the_same_depth():
    depth = np.random.default_rng(0).uniform(1, 2, CAMERA.size).astype(np.float32)
    result = register_depth(depth, CAMERA, CAMERA, Transform.identity())
    assert np.array_equal(result, depth)


def test_a_baseline_shifts_by_the_disparity_and_the_nearest_wins():
    depth = np.full(CAMERA.size, 4.0, np.float32)
    depth[10:20, 10:20] = 1.0
    # 40 px · 0.1 m / 1 m = 4 px to the right for the near square, 1 px for the wall.
    result = register_depth(depth, CAMERA, CAMERA, moved(x=0.1))
    assert (result[10:20, 14:24] == 1.0).all()
    assert (result[:10, 1:] == 4.0).all() and np.isnan(result[:, 0]).all()
    # The strip that the square hid is seen by no ray.
    assert np.isnan(result[10:20, 11:14]).all()


def test_a_coarse_depth_image_leaves_no_holes_in_a_fine_color_image():
    fine = CAMERA.scaled(130, 110)
    result = register_depth(np.full(CAMERA.size, 2.0, np.float32), CAMERA, fine, Transform.identity())
    assert (result == 2.0).all()


@pytest.mark.parametrize("slope", [0.0, 1.0, -1.0, 1.4])
@pytest.mark.parametrize("roll", [0.0, 3.0, 45.0])
def test_a_slanted_plane_has_no_holes_and_the_right_depth(slope, roll):
    wide = PinholeCamera(160, 120, 60.0, 60.0, 79.5, 59.5)
    normal, distance = np.array([slope, 0.2, 1.0]), 2.0
    color_T_depth = moved(0.05, -0.02, 0.01, degrees=roll)
    result = register_depth(plane_depth(wide, normal, distance), wide, CAMERA, color_T_depth)
    inverse = color_T_depth.inverse()
    expected = plane_depth(CAMERA, inverse.rotation.T @ normal, distance - normal @ inverse.translation)
    inner = result[3:-3, 3:-3]
    assert np.isfinite(inner).all()
    np.testing.assert_allclose(inner, expected[3:-3, 3:-3], rtol=0.06)


def test_rays_without_return_and_without_measurement_stay_where_no_surface_falls():
    depth = np.full(CAMERA.size, np.inf, np.float32)
    depth[:, :10] = 0.0
    depth[12:15, 20:23] = 1.0
    depth[0, 39], depth[1, 39] = np.nan, -np.inf
    result = register_depth(depth, CAMERA, CAMERA, moved(x=0.1))
    assert (result[12:15, 24:27] == 1.0).all()
    assert np.isinf(result[20, 10:]).all() and (result[20, :10] == 0).all()
    assert np.isnan(result[:2, 39]).all()


def test_points_behind_the_color_camera_are_dropped():
    result = register_depth(np.full(CAMERA.size, 1.0, np.float32), CAMERA, CAMERA, moved(z=-2.0))
    assert np.isnan(result).all()


def test_register_depth_refuses_wrong_input_by_name():
    depth = np.ones(CAMERA.size, np.float32)
    with pytest.raises(InputError, match="depth_camera: expected a rectified"):
        register_depth(depth, DISTORTED, CAMERA, Transform.identity())
    with pytest.raises(InputError, match=r"expected \(30, 40\).*got \(20, 40\)"):
        register_depth(depth[:20], CAMERA, CAMERA, Transform.identity())
    with pytest.raises(InputError, match="floating point meters"):
        register_depth(depth.astype(np.uint16), CAMERA, CAMERA, Transform.identity())


def test_rectify_without_distortion_returns_the_image_itself():
    depth = np.ones(CAMERA.size, np.float32)
    assert rectify(depth, CAMERA) is depth


def test_rectified_depth_is_the_nearest_pixel_of_the_map_and_nan_outside():
    depth = np.random.default_rng(0).uniform(1, 2, DISTORTED.size).astype(np.float32)
    result = rectify(depth, DISTORTED)
    x, y = rectification_maps(DISTORTED)
    for v, u in [(0, 0), (14, 19), (20, 33), (29, 39)]:
        column, row = round(float(x[v, u])), round(float(y[v, u]))
        inside = 0 <= column < 40 and 0 <= row < 30
        assert result[v, u] == depth[row, column] if inside else np.isnan(result[v, u])
    assert set(np.unique(result[np.isfinite(result)])) <= set(np.unique(depth))


def test_rectified_depth_has_nan_where_the_distorted_image_does_not_reach():
    pincushion = PinholeCamera(40, 30, 40.0, 40.0, 19.5, 14.5, "plumb_bob", (0.4, 0.0, 0.0, 0.0))
    result = rectify(np.ones(CAMERA.size, np.float32), pincushion)
    assert np.isnan(result[0, 0]) and result[14, 19] == 1.0


def test_rectified_labels_are_never_mixed_and_unlabeled_outside():
    classes = LabelSet("two", (LabelClass(0, "a", (1, 1, 1)), LabelClass(7, "b", (2, 2, 2))))
    pincushion = PinholeCamera(40, 30, 40.0, 40.0, 19.5, 14.5, "plumb_bob", (0.4, 0.0, 0.0, 0.0))
    ids = np.where(np.arange(40) < 20, 0, 7)[None].repeat(30, 0).astype(np.uint8)
    result = rectify(LabelImage.certain(ids, classes), pincushion)
    assert set(np.unique(result.labels)) == {-1, 0, 7}
    assert result.labels[0, 0] == -1 and result.confidence[0, 0] == 0


def test_rectified_color_of_a_constant_image_is_constant_inside():
    result = rectify(np.full((30, 40, 3), 90, np.uint8), DISTORTED)
    assert (result[5:25, 5:35] == 90).all()


def test_rectify_maps_are_kept_per_camera():
    from perception import registration

    registration._nearest_index.cache_clear()
    depth = np.ones(DISTORTED.size, np.float32)
    rectify(depth, DISTORTED)
    rectify(depth, DISTORTED)
    assert registration._nearest_index.cache_info().hits == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("coefficients", [(1e300, 0.0, 0.0, 0.0), (1e9, 1e9, 1e9, 1e9), (1e38, 1e38, 1e38, 1e38)])
@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_a_distortion_that_leaves_nothing_of_the_image_is_refused_by_name(model, coefficients):
    camera = PinholeCamera(40, 30, 40.0, 40.0, 19.2, 14.3, model, coefficients)
    for image in (np.ones((30, 40), np.float32), np.zeros((30, 40, 3), np.uint8)):
        with pytest.raises(InputError, match="expected a distortion that leaves something of the image, got"):
            rectify(image, camera)


@pytest.mark.filterwarnings("error")
def test_pixels_that_come_from_far_outside_are_invalid_and_the_others_stay():
    # Barely bent at the center, by 10³⁰ at the corners: r⁶ there is 0.058.
    camera = PinholeCamera(41, 31, 40.0, 40.0, 20.0, 15.0, "plumb_bob", (0.0, 0.0, 0.0, 0.0, 1e30))
    depth = rectify(np.full((31, 41), 2.0, np.float32), camera)
    assert depth[15, 20] == 2
    assert np.isnan(depth).sum() == depth.size - 1


def test_rectify_refuses_wrong_sizes_and_types():
    with pytest.raises(InputError, match=r"expected \(30, 40\)"):
        rectify(np.ones((10, 10), np.float32), DISTORTED)
    with pytest.raises(InputError, match="uint16"):
        rectify(np.ones((30, 40), np.uint16), DISTORTED)


def test_warm_up_runs():
    warm_up()
