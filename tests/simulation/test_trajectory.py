# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from perception.errors import InputError
from perception.labels import LabelSet
from perception.simulation.boxes import BoxRoom
from perception.simulation.moving import crossing, with_crossing
from perception.simulation.poses import pose
from perception.simulation.primitives import box_model, quad
from perception.simulation.scene import Instance, Material, Model, Scene
from perception.simulation.trajectory import (
    FreeSpace,
    RobotModel,
    Trajectory,
    drifting_odometry,
    free_space,
    plan_drive,
    shortest_way,
)

LABELS = LabelSet.load("ade20k32")
ROBOT = RobotModel()


def floor(size: float = 4.0) -> Instance:
    return Instance("floor", Model("f", (quad((0, 0, 0), (size, 0, 0), (0, size, 0), Material()),)), LABELS["floor"].id)


def thing(size: tuple[float, float, float], at: tuple[float, float, float], motion=None) -> Instance:
    return Instance("thing", box_model(size, Material()), LABELS["table"].id, pose(at).matrix, motion)


def test_robot_keeps_its_radius_from_things_in_its_way_and_drives_below_high_ones():
    low, high = thing((0.4, 0.4, 0.6), (1.0, 1.0, 0.3)), thing((0.4, 0.4, 0.2), (3.0, 3.0, 2.0))
    space = free_space(Scene("s", LABELS, (floor(), low, high)), ROBOT)
    # The box ends at x = 1.2; a robot of 0.25 m fits from 1.45 on, to a cell.
    assert not space.is_free(np.array([[1.40, 1.0]]))[0] and space.is_free(np.array([[1.55, 1.0]]))[0]
    assert space.is_free(np.array([[3.0, 3.0]]))[0]
    assert not space.is_free(np.array([[0.1, 2.0], [-1.0, 2.0], [9.0, 9.0]])).any()


def test_ground_is_where_floor_is_and_only_the_largest_part_counts():
    wall = thing((0.2, 4.0, 1.0), (1.5, 2.0, 0.5))
    space = free_space(Scene("s", LABELS, (floor(), wall)), ROBOT)
    assert space.is_free(np.array([[3.0, 2.0]]))[0] and not space.is_free(np.array([[0.7, 2.0]]))[0]
    with pytest.raises(InputError, match="free ground"):
        free_space(Scene("s", LABELS, (thing((1, 1, 1), (0, 0, 0.5)),)), ROBOT)


def test_robot_stays_out_of_the_way_of_what_moves():
    mover = thing((0.3, 0.3, 1.0), (1.0, 2.0, 0.5), crossing(np.array([1.0, 2.0]), np.array([3.0, 2.0])))
    space = free_space(Scene("s", LABELS, (floor(), mover)), ROBOT)
    assert not space.is_free(np.array([[1.0, 2.0], [2.0, 2.0], [2.9, 2.0]])).any()
    assert space.is_free(np.array([[2.0, 3.0]]))[0]


def test_way_around_a_wall_is_the_short_one():
    clearance = np.ones((20, 30), np.float32)
    clearance[:15, 14:16] = 0
    space = FreeSpace(clearance, 0.1, np.zeros(2))
    way = shortest_way(space, np.array([2, 5]), np.array([2, 25]))
    assert way[0].tolist() == [2, 5] and way[-1].tolist() == [2, 25]
    assert (np.abs(np.diff(way, axis=0)).max(1) == 1).all() and (clearance[tuple(way.T)] > 0).all()
    # Up 13 rows to row 15 and down again; 20 columns across, most of them on the diagonal.
    length = np.linalg.norm(np.diff(way, axis=0), axis=1).sum()
    assert length == pytest.approx(2 * (9 * np.sqrt(2) + 4) + 2, abs=0.6)
    clearance[:, 14:16] = 0
    with pytest.raises(InputError, match="no way"):
        shortest_way(FreeSpace(clearance, 0.1, np.zeros(2)), np.array([2, 5]), np.array([2, 25]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_drive_stays_free_keeps_speed_limits_and_never_slides_sideways(seed: int):
    scene = BoxRoom.generate(seed).scene()
    space = free_space(scene, ROBOT)
    drive = plan_drive(space, ROBOT, 20.0, np.random.default_rng(seed))
    assert drive.duration >= 20.0
    positions = np.stack([drive.x, drive.y], 1)
    # Off the planned way by at most two cells, which the radius of the footprint allows for.
    near = np.any(
        [space.is_free(positions + offset) for offset in np.array([[0, 0], [0.1, 0], [-0.1, 0], [0, 0.1], [0, -0.1]])],
        0,
    )
    assert near.all() and space.is_free(positions).mean() > 0.97
    step = np.diff(drive.seconds)
    velocity = np.diff(positions, axis=0) / step[:, None]
    assert np.linalg.norm(velocity, axis=1).max() <= ROBOT.speed + 1e-9
    assert np.abs(np.diff(drive.yaw) / step).max() <= ROBOT.turn_rate + 1e-9
    sideways = -np.sin(drive.yaw[1:]) * velocity[:, 0] + np.cos(drive.yaw[1:]) * velocity[:, 1]
    assert np.abs(sideways).max() < 1e-6
    assert np.linalg.norm(np.diff(positions, axis=0), axis=1).sum() > 3.0


def test_trajectory_is_interpolated_between_its_states():
    drive = Trajectory(np.array([0.0, 1.0]), np.array([0.0, 2.0]), np.zeros(2), np.array([0.0, np.pi / 2]))
    half = drive.at(0.5)
    assert half.translation == pytest.approx((1, 0, 0))
    assert half.rotation[:2, 0] == pytest.approx((np.sqrt(0.5), np.sqrt(0.5)))


def test_odometry_without_drift_is_the_motion_and_with_drift_leaves_it():
    seconds = np.arange(0, 40, 0.02)
    drive = Trajectory(seconds, 1 + np.cos(0.2 * seconds), 2 + np.sin(0.2 * seconds), 0.2 * seconds + np.pi / 2)
    perfect = drifting_odometry(drive, 0.0, np.random.default_rng(0))
    expected = drive.at(0.0).inverse() @ drive.at(30.0)
    assert perfect.at(30.0).matrix == pytest.approx(expected.matrix, abs=1e-9)
    drifted = drifting_odometry(drive, 0.05, np.random.default_rng(0))
    errors = [np.linalg.norm((drifted.at(t).inverse() @ perfect.at(t)).translation) for t in (1.0, 35.0)]
    assert errors[0] < 0.05 < errors[1] < 2.0


def test_crossing_goes_there_and_back():
    motion = crossing(np.array([0.0, 0.0]), np.array([3.0, 4.0]), speed=1.0)
    assert [motion(t).translation[:2].tolist() for t in (0.0, 5.0, 10.0)] == [[0, 0], [3, 4], [0, 0]]
    assert motion(2.5).translation[:2].tolist() == [1.5, 2.0]


def test_a_box_is_added_where_there_is_room_and_unknown_kinds_are_refused():
    scene = with_crossing(BoxRoom.generate(0).scene(), "box", 0)
    mover = scene.instances[-1]
    assert mover.motion is not None and mover.triangles(0.0).reshape(-1, 3)[:, 2].min() == pytest.approx(0.0, abs=1e-6)
    away = np.linalg.norm(mover.matrix_at(1.0)[:2, 3] - mover.matrix_at(0.0)[:2, 3])
    assert away == pytest.approx(0.8, abs=1e-6)
    with pytest.raises(InputError, match="expected one of"):
        with_crossing(scene, "dragon", 0)
