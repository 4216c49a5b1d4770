# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from perception.errors import InputError
from perception.geometry import PinholeCamera
from perception.labels import LabelSet
from perception.simulation.boxes import Box, BoxRoom, synthetic_room_frames
from perception.simulation.poses import camera_pose

LABELS = LabelSet.load("ade20k32")
CAMERA = PinholeCamera(65, 49, 60.0, 60.0, 32.0, 24.0)


def room_with_box() -> BoxRoom:
    """4 × 3 × 2.5 m with a table's box whose near face is at x = 2.5."""
    box = Box(np.array([2.5, 1.0, 0.0]), np.array([3.0, 2.0, 1.5]), LABELS["table"].id, (200, 0, 0))
    return BoxRoom(np.array([4.0, 3.0, 2.5]), (box,), LABELS)


def test_depth_and_class_of_the_central_ray_are_those_of_the_box_face():
    color, depth, labels = room_with_box().render(CAMERA, camera_pose((1.0, 1.5, 1.0), yaw=0.0))
    assert depth[24, 32] == pytest.approx(1.5, abs=1e-6)
    assert LABELS.name_of(labels[24, 32]) == "table"
    assert color[24, 32, 0] > 100 > color[24, 32, 1]


def test_depth_is_along_the_optical_axis_so_a_facing_wall_has_one_depth():
    room = BoxRoom(np.array([4.0, 3.0, 2.5]), (), LABELS)
    _, depth, labels = room.render(CAMERA, camera_pose((1.0, 1.5, 1.1), yaw=0.0))
    assert depth[24, 20:45] == pytest.approx(3.0, abs=1e-5)
    # Row r looks down by (r - 24) / 60; the floor, 1.1 m below, is nearer than the wall at 3 m from row 46 on.
    assert LABELS.name_of(labels[45, 32]) == "wall" and LABELS.name_of(labels[47, 32]) == "floor"
    assert depth[48, 32] == pytest.approx(1.1 * 60 / 24, abs=1e-5)


def test_floor_and_ceiling_are_where_a_tilted_camera_looks():
    room = BoxRoom(np.array([4.0, 3.0, 2.5]), (), LABELS)
    _, depth, labels = room.render(CAMERA, camera_pose((2.0, 1.5, 1.0), yaw=0.3, pitch=np.pi / 2 - 1e-9))
    assert LABELS.name_of(labels[24, 32]) == "floor" and depth[24, 32] == pytest.approx(1.0, abs=1e-5)
    _, depth, labels = room.render(CAMERA, camera_pose((2.0, 1.5, 1.0), yaw=0.3, pitch=-np.pi / 2 + 1e-9))
    assert LABELS.name_of(labels[24, 32]) == "ceiling" and depth[24, 32] == pytest.approx(1.5, abs=1e-5)


def test_every_depth_lifts_to_a_surface_of_its_class():
    frame = next(iter(synthetic_room_frames(1, 80, 60, seed=3)))
    room = BoxRoom.generate(3)
    v, u = np.indices(frame.depth.shape)
    z = frame.depth.ravel()
    rays = np.stack(
        [(u.ravel() - frame.camera.cx) / frame.camera.fx, (v.ravel() - frame.camera.cy) / frame.camera.fy], 1
    )
    points = frame.map_T_camera.apply(np.column_stack([rays * z[:, None], z]))
    labels = frame.labels.labels.ravel()
    assert (points > -1e-4).all() and (points < room.size + 1e-4).all()
    assert np.abs(points[labels == LABELS["floor"].id, 2]).max() < 1e-4
    for box in room.boxes:
        inside = ((points > box.lower + 1e-3) & (points < box.upper - 1e-3)).all(1)
        assert not inside.any()
        on_top = (np.abs(points[:, 2] - box.upper[2]) < 1e-4) & (
            (points[:, :2] > box.lower[:2] + 1e-3) & (points[:, :2] < box.upper[:2] - 1e-3)
        ).all(1)
        assert (labels[on_top] == box.label).all()


@pytest.mark.parametrize("seed", range(20))
def test_robot_keeps_clear_of_all_furniture(seed: int):
    room = BoxRoom.generate(seed)
    positions, _ = room.path(np.arange(0, 20, 0.05))
    for box in room.boxes:
        gap = np.maximum(box.lower[:2] - positions, positions - box.upper[:2]).max(1)
        assert gap.min() > 0.15


def test_same_seed_gives_same_frames_and_another_seed_another_room():
    first, again, other = (list(synthetic_room_frames(2, 32, 24, seed)) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.color, b.color) and np.array_equal(a.depth, b.depth)
        assert a.stamp_ns == b.stamp_ns and np.array_equal(a.map_T_camera.matrix, b.map_T_camera.matrix)
    assert not np.array_equal(first[0].depth, other[0].depth)


def test_a_lap_shows_many_classes():
    seen = set()
    for frame in synthetic_room_frames(16, 64, 48, seed=0):
        seen |= set(np.unique(frame.labels.labels).tolist())
    assert {LABELS[name].id for name in ("floor", "wall", "table")} <= seen and len(seen) >= 5


def test_no_frames_or_no_pixels_are_refused():
    with pytest.raises(InputError, match="at least 1 frame"):
        synthetic_room_frames(0, 64, 48)
    with pytest.raises(InputError, match="0x48"):
        synthetic_room_frames(1, 0, 48)
