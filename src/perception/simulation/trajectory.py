# SPDX-License-Identifier: Apache-2.0
"""Drives of a wheeled robot through the free space of a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import Transform
from perception.simulation.poses import pose
from perception.simulation.scene import Scene
from perception.simulation.voxels import VoxelMap, voxelize

GROUND_CLASSES = ("floor", "rug", "road", "sidewalk", "grass", "earth", "field")
STEP_S = 0.02
"""Of the robot's motion, seconds."""


@dataclass(frozen=True)
class RobotModel:
    """A differential-drive robot.

    Attributes:
        radius: of its footprint, meters.
        height: what is lower and higher than the step is in its way, meters.
        step: what it drives over, meters.
        speed: m/s.
        turn_rate: rad/s.
    """

    radius: float = 0.25
    height: float = 1.5
    step: float = 0.06
    speed: float = 0.5
    turn_rate: float = 0.9

    def __post_init__(self) -> None:
        if min(self.radius, self.height, self.step, self.speed, self.turn_rate) <= 0:
            raise InputError(f"robot: expected positive lengths and speeds, got {self}")


@dataclass(frozen=True, eq=False)
class FreeSpace:
    """Where the robot's middle may be.

    Attributes:
        clearance: (rows, columns) float32 meters to the nearest obstacle; row 0 is the lowest y. 0 where there is no
            ground or not enough room.
        resolution: meters per cell.
        origin: (2,) meters, lower left corner of cell (0, 0).
    """

    clearance: NDArray[np.float32]
    resolution: float
    origin: NDArray[np.float64]

    def is_free(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(N,) whether the robot may be at (N, 2) points in meters."""
        cells = np.floor((points - self.origin) / self.resolution).astype(int)
        rows, columns = self.clearance.shape
        inside = np.logical_and(np.min(cells, axis=1) >= 0, np.max(cells - (columns, rows), axis=1) < 0)
        x, y = np.where(np.expand_dims(inside, 1), cells, 0).T
        return inside & (self.clearance[y, x] > 0)

    def points(self, cells: NDArray[np.integer]) -> NDArray[np.float64]:
        """(N, 2) meters of the middles of (N, 2) cells (row, column)."""
        return self.origin + (cells[:, ::-1] + 0.5) * self.resolution


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where the robot is over time.

    Attributes:
        seconds: (N,) float64, ascending, from 0.
        x: (N,) meters, map.
        y: (N,) meters.
        yaw: (N,) radians, continuous (not wrapped).
    """

    seconds: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    yaw: NDArray[np.float64]

    def at(self, seconds: float) -> Transform:
        """``map_T_base`` at a time within the drive, between the two nearest states."""
        x, y, yaw = (float(np.interp(seconds, self.seconds, values)) for values in (self.x, self.y, self.yaw))
        return pose((x, y, 0.0), yaw=yaw)

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.seconds[-1])


def free_space(scene: Scene, robot: RobotModel | None = None, voxels: VoxelMap | None = None) -> FreeSpace:
    """Where a robot can be: ground below, nothing between its step and its height, not even a door that swings.

    Args:
        scene: what there is.
        robot: its size.
        voxels: of what rests in the scene, where they are known already.

    Raises:
        InputError: the robot fits nowhere.
    """
    robot = robot or RobotModel()
    rest = voxels or voxelize(scene)
    resolution = rest.resolution
    # With a margin, as the edge of the grid is no obstacle to the distance transform.
    origin = rest.keys[:, :2].min(0) - 4
    extent = rest.keys[:, :2].max(0) - origin + 5
    ground = np.zeros((extent[1], extent[0]), np.uint8)
    blocked = ground.copy()
    names = {label.name: label.id for label in scene.label_set.classes}
    floors = [names[name] for name in GROUND_CLASSES if name in names]
    low, high = round(robot.step / resolution), int(np.ceil(robot.height / resolution))
    on_floor = (rest.keys[:, 2] >= -1) & (rest.keys[:, 2] <= low) & np.isin(rest.labels, floors)
    _mark(ground, rest, on_floor, origin)
    _mark(blocked, rest, (rest.keys[:, 2] >= low) & (rest.keys[:, 2] <= high) & ~on_floor, origin)
    if any(instance.motion for instance in scene.instances):
        moving = replace(scene, instances=tuple(i for i in scene.instances if i.motion))
        for seconds in np.arange(0.0, 8.0, 0.4):
            there = voxelize(moving, resolution, float(seconds))
            _mark(blocked, there, (there.keys[:, 2] >= low) & (there.keys[:, 2] <= high), origin)
    return FreeSpace(_clearance(ground, blocked, robot.radius, resolution), resolution, origin * resolution)


def _mark(grid: NDArray[np.uint8], voxels: VoxelMap, chosen: NDArray[np.bool_], origin: NDArray[np.integer]) -> None:
    cells = voxels.keys[chosen, :2] - origin
    inside = (cells >= 0).all(1) & (cells < grid.shape[::-1]).all(1)
    grid[cells[inside, 1], cells[inside, 0]] = 1


def _clearance(
    ground: NDArray[np.uint8], blocked: NDArray[np.uint8], radius: float, resolution: float
) -> NDArray[np.float32]:
    """Meters to the nearest obstacle in the largest connected part where the robot fits, 0 elsewhere."""
    import cv2

    # Ground below furniture is sampled, too; small gaps in it (thresholds) are closed.
    ground = cv2.morphologyEx(ground, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))  # pyright: ignore[reportAssignmentType]
    open_cells = np.where((ground > 0) & (blocked == 0), 1, 0).astype(np.uint8)
    distance = cv2.distanceTransform(open_cells, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * resolution
    fits = (distance > radius).astype(np.uint8)
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(fits, connectivity=4)
    if count < 2:
        raise InputError(f"scene: expected free ground for a robot of {radius} m radius, found none")
    largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    return np.where(parts == largest, distance, 0).astype(np.float32)


def plan_drive(space: FreeSpace, robot: RobotModel, duration: float, rng: np.random.Generator) -> Trajectory:
    """A drive of at least ``duration`` seconds past places that cover the free space, in a random order.

    Raises:
        InputError: there is no room to drive.
    """
    free = np.argwhere(space.clearance > 0)
    if len(free) < 20:
        raise InputError(f"scene: expected room to drive, got {len(free)} free cells")
    pieces, at = [], free[rng.integers(len(free))]
    start = space.points(at[None])[0]
    length = 0.0
    visited = [at]
    while length < duration * robot.speed:
        goal = _next_goal(free, visited, rng)
        visited.append(goal)
        piece = space.points(shortest_way(space, at, goal))
        length += float(np.linalg.norm(np.diff(piece, axis=0), axis=1).sum())
        pieces.append(piece)
        at = goal
    way = _smoothed(np.concatenate([start[None], *pieces]), space)
    return _follow(way, robot, duration)


def _next_goal(
    free: NDArray[np.integer], visited: list[NDArray[np.integer]], rng: np.random.Generator
) -> NDArray[np.integer]:
    """Of some random cells the one farthest from where the robot lately was."""
    candidates = free[rng.integers(len(free), size=12)]
    distance = np.linalg.norm(candidates[:, None] - np.array(visited[-8:])[None], axis=2).min(1)
    return candidates[int(np.argmax(distance))]


def shortest_way(space: FreeSpace, start: NDArray[np.integer], goal: NDArray[np.integer]) -> NDArray[np.integer]:
    """(N, 2) cells from start to goal, 8-connected, that keep away from obstacles where there is room.

    Raises:
        InputError: no way leads there.
    """
    from perception.simulation.kernels import travel_cost

    free = space.clearance > 0
    # Close to obstacles costs up to three times as much as in the open.
    shyness = 1 - np.minimum(space.clearance / min(float(space.clearance.max()), 0.6), 1.0)
    reach = travel_cost(np.where(free, 1.0 + 2.0 * shyness, np.inf), int(goal[0]), int(goal[1]))
    if not np.isfinite(reach[tuple(start)]):
        raise InputError(f"scene: no way leads from cell {start} to {goal}")
    reach = np.pad(reach, 1, constant_values=np.inf)
    way = [np.asarray(start)]
    while not np.array_equal(way[-1], goal):
        y, x = way[-1]
        around = reach[y : y + 3, x : x + 3]
        way.append(way[-1] + np.array(divmod(int(np.argmin(around)), 3)) - 1)
    return np.array(way)


def _smoothed(way: NDArray[np.float64], space: FreeSpace) -> NDArray[np.float64]:
    """Rounded corners where there is room for them."""
    smooth = way.copy()
    for _ in range(60):
        moved = smooth.copy()
        moved[1:-1] = 0.25 * smooth[:-2] + 0.5 * smooth[1:-1] + 0.25 * smooth[2:]
        smooth = np.where(space.is_free(moved)[:, None], moved, smooth)
    return smooth


def _follow(way: NDArray[np.float64], robot: RobotModel, duration: float) -> Trajectory:
    """Turn toward a point a little ahead, drive when it is in front (pure pursuit: Coulter, 1992)."""
    steps = np.append(0, np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1)))
    states = np.empty((int(np.ceil(duration / STEP_S)) + 2, 3))
    ahead = way[min(5, len(way) - 1)] - way[0]
    x, y, yaw, along = *way[0], float(np.arctan2(ahead[1], ahead[0])), 0.0
    for i in range(len(states)):
        states[i] = x, y, yaw
        target = [np.interp(along + 0.15, steps, way[:, axis]) for axis in (0, 1)]
        away = float(np.hypot(target[0] - x, target[1] - y))
        error = (np.arctan2(target[1] - y, target[0] - x) - yaw + np.pi) % (2 * np.pi) - np.pi if away > 1e-6 else 0.0
        turn = float(np.clip(3.0 * error, -robot.turn_rate, robot.turn_rate))
        speed = robot.speed * max(0.0, 1.0 - abs(error) / 0.6)
        yaw += turn * STEP_S
        x, y = x + speed * STEP_S * np.cos(yaw), y + speed * STEP_S * np.sin(yaw)
        # The point ahead waits for the robot, so that corners are not cut.
        if away < 0.2:
            along = min(along + robot.speed * STEP_S, float(steps[-1]))
    return Trajectory(np.arange(len(states), dtype=np.float64) * STEP_S, states[:, 0], states[:, 1], states[:, 2])


def drifting_odometry(trajectory: Trajectory, drift: float, rng: np.random.Generator) -> Trajectory:
    """What wheel encoders would say: the same motion with errors that add up, from 0 in a frame of its own.

    Args:
        trajectory: where the robot is.
        drift: relative error of distances and turns (0.02: 2 % each, and 2 % of a radian per meter of sidling yaw).
        rng: source of randomness.
    """
    dx, dy, turn = np.diff(trajectory.x), np.diff(trajectory.y), np.diff(trajectory.yaw)
    heading = trajectory.yaw[:-1]
    forward = np.cos(heading) * dx + np.sin(heading) * dy
    sideways = -np.sin(heading) * dx + np.cos(heading) * dy
    scale, bias = 1 + drift * rng.normal(), drift * rng.normal()
    noise = rng.normal(size=(2, len(turn))) * drift
    measured = forward * (scale + 3 * noise[0])
    turned = turn * (1 + drift * rng.normal()) + bias * forward + noise[1] * np.abs(forward) * 3
    yaw = np.append(0.0, np.cumsum(turned))
    cosine, sine = np.cos(yaw[:-1]), np.sin(yaw[:-1])
    x = np.append(0.0, np.cumsum(cosine * measured - sine * sideways))
    y = np.append(0.0, np.cumsum(sine * measured + cosine * sideways))
    return Trajectory(trajectory.seconds, x, y, yaw)
