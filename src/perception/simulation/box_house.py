# SPDX-License-Identifier: Apache-2.0
"""A house of nine furnished rooms of boxes on 20 x 20 m, and a robot that drives through all of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelSet
from perception.simulation.boxes import CAMERA_HEIGHT, CAMERA_PITCH, FRAME_RATE, SPEED, Box, BoxRoom
from perception.simulation.poses import camera_pose
from perception.simulation.sensor import DepthSensor
from perception.types import Frame, LabelImage

SIZE = 20.0
"""Edge of the house, meters."""
TURN_RATE = np.deg2rad(45.0)
"""Of the robot, which looks around in every room, radians per second."""
_INNER_WALLS = (7.0, 13.0)
_WALL_HALF = 0.06
_DOOR_HALF = 0.55
_CENTERS = (3.5, 10.0, 16.5)
"""Of the rooms on both axes; doors lie between neighboring ones."""
_FURNITURE = {
    "cabinet": (1.2, 0.5, 1.9),
    "sofa": (1.7, 0.8, 0.8),
    "table": (1.0, 0.8, 0.75),
    "chair": (0.5, 0.5, 0.9),
}


def box_house(seed: int = 0) -> BoxRoom:
    """A closed house from (0, 0, 0) to (20, 20, 2.6) m with inner walls, open doors and furniture in every room."""
    rng = np.random.default_rng(seed)
    label_set = LabelSet.load("ade20k32")
    boxes = []
    for line in _INNER_WALLS:
        edges = np.array([0.0, *(door + side * _DOOR_HALF for door in _CENTERS for side in (-1, 1)), SIZE])
        for start, end in edges.reshape(-1, 2):
            along = Box(
                np.array([line - _WALL_HALF, start, 0.0]),
                np.array([line + _WALL_HALF, end, 2.6]),
                label_set["wall"].id,
                (205, 200, 185),
            )
            boxes += [along, Box(along.lower[[1, 0, 2]], along.upper[[1, 0, 2]], along.label, along.color)]
    for x in _CENTERS:
        for y in _CENTERS:
            # In the corners of a room, clear of the straight ways through its middle.
            corners = rng.permutation([(-1, -1), (-1, 1), (1, -1), (1, 1)])[:3]
            for corner, name in zip(corners, rng.permutation(list(_FURNITURE)), strict=False):
                extent = np.array(_FURNITURE[name])
                middle = np.array([x, y]) + corner * rng.uniform(1.5, 1.9, 2)
                lower = np.append(middle - extent[:2] / 2, 0.0)
                boxes.append(Box(lower, lower + extent, label_set[name].id, (140, 110, 80)))
    return BoxRoom(np.array([SIZE, SIZE, 2.6]), tuple(boxes), label_set)


def house_drive() -> NDArray[np.float64]:
    """(N, 3) x, y in meters and yaw in radians of a robot at 10 Hz: through every room, with a look around in each."""
    ways = [(x, y) for row, y in enumerate(_CENTERS) for x in (_CENTERS if row % 2 == 0 else _CENTERS[::-1])]
    steps = []
    for start, end in pairwise(ways):
        way = np.subtract(end, start)
        yaw = np.arctan2(way[1], way[0])
        turns = np.arange(0, 2 * np.pi, TURN_RATE / FRAME_RATE)
        steps.append(np.stack([np.full(len(turns), start[0]), np.full(len(turns), start[1]), yaw + turns], axis=1))
        part = np.arange(0, 1, SPEED / FRAME_RATE / np.linalg.norm(way))[:, None]
        steps.append(np.concatenate([start + part * way, np.full((len(part), 1), yaw)], axis=1))
    return np.concatenate(steps)


def house_frame(
    house: BoxRoom, place: NDArray[np.float64], camera: PinholeCamera, number: int, sensor: DepthSensor
) -> Frame:
    """What the robot's camera sees.

    Args:
        house: of :func:`box_house`.
        place: (3,) row of :func:`house_drive`.
        camera: its intrinsics.
        number: of the frame; gives the stamp and the noise.
        sensor: errors of the depth.
    """
    map_T_camera: Transform = camera_pose((place[0], place[1], CAMERA_HEIGHT), place[2], CAMERA_PITCH)
    color, depth, labels = house.render(camera, map_T_camera)
    depth = sensor.measure(depth, np.random.default_rng(number))
    truth = LabelImage.certain(labels, house.label_set)
    return Frame(round(number * 1e9 / FRAME_RATE), color, depth, camera, map_T_camera, labels=truth)
