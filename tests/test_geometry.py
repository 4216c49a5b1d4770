# SPDX-License-Identifier: Apache-2.0
"""Transforms and cameras against numbers worked out by hand, and against the laws they must keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform, rectification_maps

HALF = float(np.sqrt(0.5))
numbers = st.floats(-100, 100, allow_nan=False)


@st.composite
def transforms(draw) -> Transform:
    quaternion = np.array([draw(st.floats(-1, 1)) for _ in range(4)])
    norm = np.linalg.norm(quaternion)
    if norm < 1e-3:
        quaternion, norm = np.array([0, 0, 0, 1.0]), 1.0
    return Transform.from_translation_quaternion([draw(numbers) for _ in range(3)], quaternion / norm)


def test_quarter_turn_about_z_takes_x_to_y():
    turn = Transform.from_translation_quaternion((1, 2, 3), (0, 0, HALF, HALF))
    assert np.allclose(turn.apply(np.array([[1.0, 0, 0], [0, 1, 0]])), [[1, 3, 3], [0, 2, 3]])
    assert np.allclose(turn.rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert turn.translation.tolist() == [1, 2, 3]


def test_quarter_turn_about_x_takes_y_to_z():
    turn = Transform.from_translation_quaternion((0, 0, 0), (HALF, 0, 0, HALF))
    assert np.allclose(turn.apply(np.array([[0, 1.0, 0]])), [[0, 0, 1]], atol=1e-7)


def test_composition_reads_from_right_to_left():
    map_T_base = Transform.from_translation_quaternion((10, 0, 0), (0, 0, HALF, HALF))
    base_T_camera = Transform.from_translation_quaternion((1, 0, 0), (0, 0, 0, 1))
    # One meter ahead of a robot that looks along y.
    assert np.allclose((map_T_base @ base_T_camera).translation, [10, 1, 0])


def test_apply_keeps_float32_and_refuses_other_shapes():
    result = Transform.identity().apply(np.ones((5, 3)))
    assert result.dtype == np.float32 and result.shape == (5, 3)
    with pytest.raises(InputError, match=r"\(N, 3\)"):
        Transform.identity().apply(np.ones((3, 5)))


def test_apply_takes_read_only_points_and_leaves_them_alone():
    points = np.frombuffer(np.arange(6, dtype=np.float32).tobytes(), np.float32).reshape(-1, 3)
    moved = Transform.from_translation_quaternion((1, 0, 0), (0, 0, 0, 1)).apply(points)
    np.testing.assert_array_equal(moved, [[1, 1, 2], [4, 4, 5]])
    np.testing.assert_array_equal(points, [[0, 1, 2], [3, 4, 5]])


def test_transforms_cannot_be_changed_and_do_not_share_their_input():
    matrix = np.eye(4)
    transform = Transform(matrix)
    matrix[0, 3] = 5
    assert transform.translation[0] == 0
    for made in (transform, transform.inverse(), transform @ transform, Transform.identity()):
        with pytest.raises(ValueError, match="read-only"):
            made.matrix[0, 0] = 2


@settings(max_examples=60, deadline=None)
@given(transforms())
def test_inverse_undoes_a_transform(transform):
    assert np.allclose((transform @ transform.inverse()).matrix, np.eye(4), atol=1e-9)
    assert np.allclose((transform.inverse() @ transform).matrix, np.eye(4), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(transforms(), transforms(), transforms())
def test_composition_is_associative_and_stays_rigid(a, b, c):
    left, right = (a @ b) @ c, a @ (b @ c)
    assert np.allclose(left.matrix, right.matrix, atol=1e-9)
    assert np.allclose(left.rotation @ left.rotation.T, np.eye(3), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(transforms())
def test_quaternion_and_matrix_are_each_others_inverse(transform):
    quaternion = transform.quaternion_xyzw
    assert abs(np.linalg.norm(quaternion) - 1) < 1e-12 and quaternion[3] >= 0
    again = Transform.from_translation_quaternion(transform.translation, quaternion)
    assert np.allclose(again.matrix, transform.matrix, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quaternions_of_half_turns_are_exact(axis):
    expected = np.zeros(4)
    expected[axis] = 1
    transform = Transform.from_translation_quaternion((0, 0, 0), expected)
    assert np.allclose(np.abs(transform.quaternion_xyzw), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(transforms(), transforms())
def test_interpolation_meets_both_ends(a, b):
    assert np.allclose(a.interpolate(b, 0.0).matrix, a.matrix, atol=1e-6)
    assert np.allclose(a.interpolate(b, 1.0).matrix, b.matrix, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, np.pi), st.floats(0, 1))
def test_interpolated_rotation_turns_in_proportion(angle, ratio):
    start = Transform.identity()
    end = Transform.from_translation_quaternion((2, 0, 0), (0, np.sin(angle / 2), 0, np.cos(angle / 2)))
    between = start.interpolate(end, ratio)
    assert np.allclose(between.translation, [2 * ratio, 0, 0], atol=1e-12)
    turned = ratio * angle
    assert np.allclose(between.rotation[0], [np.cos(turned), 0, np.sin(turned)], atol=1e-6)


def test_interpolation_takes_the_short_way_round():
    a = Transform.from_translation_quaternion((0, 0, 0), (0, 0, 0, 1))
    b = Transform.from_translation_quaternion((0, 0, 0), (0, 0, -HALF, -HALF))  # Also a quarter turn.
    assert np.allclose(a.interpolate(b, 0.5).rotation[0, 0], np.cos(np.pi / 4))


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.eye(3), r"\(4, 4\)"),
        (np.full((4, 4), np.nan), "finite"),
        (np.full((4, 4), np.inf), "finite"),
        (np.ones((4, 4)), "last row"),
        (np.diag([1.1, 1, 1, 1]), "orthonormal"),
        (np.diag([-1.0, 1, 1, 1]), "determinant"),
    ],
)
def test_what_is_not_rigid_is_refused(matrix, expected):
    with pytest.raises(InputError, match=expected):
        Transform(matrix)


def test_rounding_of_a_log_is_made_orthonormal():
    noisy = np.eye(4)
    noisy[0, 1] = 0.001
    rotation = Transform(noisy).rotation
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.allclose(rotation, np.eye(3), atol=0.001)


@pytest.mark.parametrize(
    ("translation", "quaternion"),
    [
        ((0, 0, 0), (0, 0, 0, 0)),
        ((0, 0, 0), (0, 0, 0, 2)),
        ((0, 0, 0), (0, 0, 1)),
        ((0, 0, 0), (np.nan, 0, 0, 1)),
        ((0, np.inf, 0), (0, 0, 0, 1)),
        ((0, 0), (0, 0, 0, 1)),
        (0, (0, 0, 0, 1)),
    ],
)
def test_wrong_translations_and_quaternions_are_refused(translation, quaternion):
    with pytest.raises(InputError):
        Transform.from_translation_quaternion(translation, quaternion)


def test_projection_of_a_point_by_hand():
    camera = PinholeCamera(640, 480, 500, 400, 320, 240)
    # u = 500 · 1/2 + 320, v = 400 · (−0.5)/2 + 240.
    assert camera.project(np.array([[1, -0.5, 2]])).tolist() == [[570, 140]]
    assert camera.size == (480, 640)
    assert camera.matrix.tolist() == [[500, 0, 320], [0, 400, 240], [0, 0, 1]]


def test_camera_from_a_matrix_and_what_it_refuses():
    camera = PinholeCamera.from_matrix([5, 0, 3, 0, 6, 2, 0, 0, 1], 8, 4)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (5, 6, 3, 2)
    with pytest.raises(InputError, match="skew"):
        PinholeCamera.from_matrix([5, 1, 3, 0, 6, 2, 0, 0, 1], 8, 4)
    with pytest.raises(InputError, match="3x3"):
        PinholeCamera.from_matrix([5, 0, 3, 0], 8, 4)
    for values in ((0, 4, 5, 5), (8, 4, 0, 5), (8, 4, np.nan, 5), (8, 4, 5, -5)):
        with pytest.raises(InputError):
            PinholeCamera(*values, 1, 1)


def test_region_of_interest_then_binning_by_hand():
    k = [400, 0, 319.5, 0, 400, 239.5, 0, 0, 1]
    camera = PinholeCamera.from_info(640, 480, k, binning=(2, 4), roi=(100, 40, 320, 240))
    # cx: 319.5 − 100 = 219.5, then (219.5 + 0.5) / 2 − 0.5; cy: 239.5 − 40 = 199.5, then (199.5 + 0.5) / 4 − 0.5.
    assert (camera.width, camera.height) == (160, 60)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (200, 100, 109.5, 49.5)


def test_zero_region_and_zero_binning_mean_the_whole_image():
    k = [400, 0, 319.5, 0, 400, 239.5, 0, 0, 1]
    assert PinholeCamera.from_info(640, 480, k, binning=(0, 0), roi=(0, 0, 0, 0)) == PinholeCamera.from_matrix(
        k, 640, 480
    )


@pytest.mark.parametrize("roi", [(-1, 0, 10, 10), (600, 0, 100, 10), (0, 400, 10, 100)])
def test_region_outside_of_the_image_is_refused(roi):
    with pytest.raises(InputError, match="region of interest"):
        PinholeCamera.from_info(640, 480, [400, 0, 320, 0, 400, 240, 0, 0, 1], roi=roi)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.floats(0.1, 5), st.floats(-1, 1), st.floats(-1, 1))
def test_a_binned_pixel_is_the_mean_of_its_pixels(bx, by, z, x, y):
    camera = PinholeCamera(640, 480, 500, 510, 320, 240)
    point = np.array([[x, y, z]])
    u, v = camera.project(point)[0]
    binned = camera.binned(bx, by).project(point)[0]
    # Pixel i of the binned image covers pixels i·b … i·b + b − 1, whose middle is i·b + (b − 1) / 2.
    assert np.allclose(binned * (bx, by) + ((bx - 1) / 2, (by - 1) / 2), (u, v), atol=1e-6)


def test_scaling_by_the_inverse_of_binning_agrees_with_it():
    camera = PinholeCamera(640, 480, 500, 510, 320, 240)
    assert camera.scaled(320, 240) == camera.binned(2, 2)


@pytest.mark.parametrize(
    ("model", "count"), [("plumb_bob", 4), ("plumb_bob", 5), ("rational_polynomial", 8), ("equidistant", 4)]
)
def test_known_distortion_models_are_taken(model, count):
    k = [400, 0, 320, 0, 400, 240, 0, 0, 1]
    camera = PinholeCamera.from_info(640, 480, k, [0.01] * count, model)
    assert camera.is_distorted and not camera.rectified().is_distorted
    for maps in rectification_maps(camera):
        assert maps.shape == (480, 640) and maps.dtype == np.float32
    assert not PinholeCamera.from_info(640, 480, k, [0.0] * count, model).is_distorted


@pytest.mark.parametrize(("model", "count"), [("plumb_bob", 3), ("equidistant", 5), ("fisheye624", 4)])
def test_unknown_distortion_is_refused_by_name(model, count):
    with pytest.raises(InputError, match=model):
        PinholeCamera.from_info(640, 480, [400, 0, 320, 0, 400, 240, 0, 0, 1], [0.01] * count, model)


def test_rectification_maps_point_to_where_the_distortion_formula_says():
    camera = PinholeCamera(640, 480, 400, 400, 320, 240, "plumb_bob", (0.1, 0.02, 0.001, -0.002, 0.003))
    map_x, map_y = rectification_maps(camera)
    u, v = 500, 100
    x, y = (u - 320) / 400, (v - 240) / 400
    r2 = x * x + y * y
    radial = 1 + 0.1 * r2 + 0.02 * r2**2 + 0.003 * r2**3
    distorted_x = x * radial + 2 * 0.001 * x * y - 0.002 * (r2 + 2 * x * x)
    distorted_y = y * radial + 0.001 * (r2 + 2 * y * y) + 2 * -0.002 * x * y
    assert map_x[v, u] == pytest.approx(400 * distorted_x + 320, abs=1e-3)
    assert map_y[v, u] == pytest.approx(400 * distorted_y + 240, abs=1e-3)
