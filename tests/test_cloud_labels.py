# SPDX-License-Identifier: Apache-2.0
"""Labels that points of another sensor take from a camera, with pixels counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perception.cloud_labels import LabeledView, labels_in_view
from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelSet
from perception.types import LabelImage

LABELS = LabelSet.load("ade20k32")
FLOOR, WALL = LABELS["floor"].id, LABELS["wall"].id


def view(distance: float = 2.0, map_T_camera: Transform | None = None, **changes) -> LabeledView:
    """Four by four pixels, focal length 2: the left half is floor, the right half wall, all 2 m away."""
    ids = np.full((4, 4), FLOOR, np.int32)
    ids[:, 2:] = WALL
    camera = PinholeCamera.from_matrix([[2.0, 0, 1.5], [0, 2.0, 1.5], [0, 0, 1]], 4, 4)
    made = LabeledView(
        0,
        LabelImage(ids, np.full((4, 4), 0.8, np.float32), LABELS),
        np.full((4, 4), distance, np.float32),
        camera,
        map_T_camera or Transform.identity(),
    )
    return made._replace(**changes)


def test_points_take_the_label_of_their_pixel():
    # u = 2 x / z + 1.5: x = −1 → pixel 0.5 → 0, x = 1 → 2.5 → 2 (to even).
    points = np.array([(-1.0, 0.0, 2.0), (1.0, 0.0, 2.0)], np.float32)
    ids, sure = labels_in_view(points, view())
    assert ids.tolist() == [FLOOR, WALL]
    assert sure == pytest.approx([0.8, 0.8])


def test_points_outside_behind_or_not_finite_get_none():
    points = np.array(
        [(9.0, 0.0, 2.0), (0.0, 0.0, -2.0), (0.0, 0.0, 0.0), (np.nan, 0.0, 2.0), (0.0, 0.0, np.inf), (3e38, 0, 1e-30)],
        np.float32,
    )
    ids, sure = labels_in_view(points, view())
    assert ids.tolist() == [-1] * 6 and not sure.any()


@pytest.mark.parametrize(
    ("z", "labeled"),
    # 2 m away, 0.1 m + 3 % of z are allowed: from 1.845 to 2.165 m.
    [(1.84, False), (1.85, True), (2.0, True), (2.16, True), (2.17, False), (4.0, False)],
)
def test_only_points_at_the_measured_depth_are_what_the_camera_sees(z, labeled):
    ids, _ = labels_in_view(np.array([(-0.25 * z, 0.0, z)], np.float32), view())
    assert (ids[0] == FLOOR) == labeled


@pytest.mark.parametrize("depth", [np.nan, np.inf, 0.0])
def test_pixels_without_depth_give_no_label(depth):
    assert labels_in_view(np.array([(-1.0, 0.0, 2.0)], np.float32), view(depth))[0][0] == -1


def test_the_camera_stands_elsewhere_in_the_map():
    at = Transform.from_translation_quaternion((10.0, 0.0, 0.0), (0, 0, 0, 1))
    points = np.array([(9.0, 0.0, 2.0), (-1.0, 0.0, 2.0)], np.float32)
    assert labels_in_view(points, view(map_T_camera=at))[0].tolist() == [FLOOR, -1]


def test_unsure_and_missing_labels_give_none():
    points = np.array([(-1.0, 0.0, 2.0)], np.float32)
    assert labels_in_view(points, view(), min_confidence=0.9)[0][0] == -1
    none = LabelImage(np.full((4, 4), -1, np.int32), np.zeros((4, 4), np.float32), LABELS)
    assert labels_in_view(points, view(labels=none))[0][0] == -1


def test_sizes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"expected \(N, 3\)"):
        labels_in_view(np.zeros((2, 2), np.float32), view())
    with pytest.raises(InputError, match="expected depth"):
        labels_in_view(np.zeros((2, 3), np.float32), view(depth=np.ones((2, 2), np.float32)))
