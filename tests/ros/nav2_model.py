# SPDX-License-Identifier: Apache-2.0
"""What Nav2's layers do with our messages, by their rules and in our words: small, slow and for tests.

Rules of nav2_costmap_2d (Jazzy): StaticLayer, ObservationBuffer, VoxelLayer with the 16-voxel columns of
nav2_voxel_grid, and the two filters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perception.geometry import Transform

FREE, INSCRIBED, LETHAL, UNKNOWN = 0, 253, 254, 255
VOXEL_BITS = 16


def interpret(value: int, track_unknown: bool = True, trinary: bool = False, lethal_threshold: int = 100) -> int:
    """A grid value, as the unsigned byte that Nav2 sees, to a cost."""
    byte = value & 255
    if byte == 255:
        return UNKNOWN if track_unknown else FREE
    if byte == 99 and not trinary:
        return INSCRIBED
    if byte >= lethal_threshold:
        return LETHAL
    return FREE if trinary else int(byte / lethal_threshold * LETHAL)


class StaticLayer:
    """Takes whole grids and updates; a cycle of the costmap is :meth:`update`.

    The first grid counts at once. Later ones wait for the next cycle, while updates are written at once into the old
    cells: an update that overtakes its grid is lost to it.
    """

    def __init__(self, **interpretation: Any) -> None:
        self._rules = interpretation
        self.costs: np.ndarray | None = None
        self.place: tuple[Any, ...] = ()
        self.frame_id = ""
        self.resized = 0
        self._waiting: Any = None

    def grid(self, message: Any) -> None:
        if self.costs is None:
            self._take(message)
        else:
            self._waiting = message

    def patch(self, message: Any) -> None:
        """An OccupancyGridUpdate; ignored before the first grid, outside of it, or of another frame."""
        if self.costs is None or message.header.frame_id != self.frame_id:
            return
        height, width = self.costs.shape
        if message.x < 0 or message.y < 0 or message.x + message.width > width or message.y + message.height > height:
            return
        cells = self._interpreted(message.data).reshape(message.height, message.width)
        self.costs[message.y : message.y + message.height, message.x : message.x + message.width] = cells

    def update(self) -> None:
        if self._waiting is not None:
            message, self._waiting = self._waiting, None
            self._take(message)

    def cost(self, x: float, y: float) -> int:
        assert self.costs is not None
        resolution, _, _, left, bottom = self.place
        return int(self.costs[int((y - bottom) / resolution), int((x - left) / resolution)])

    def _take(self, message: Any) -> None:
        info = message.info
        place = (info.resolution, info.width, info.height, info.origin.position.x, info.origin.position.y)
        self.resized += place != self.place
        self.place, self.frame_id = place, message.header.frame_id
        self.costs = self._interpreted(message.data).reshape(info.height, info.width)

    def _interpreted(self, data: Any) -> np.ndarray:
        return np.array([interpret(int(value), **self._rules) for value in data], np.uint8)


def combine(master: np.ndarray, layer: np.ndarray, use_maximum: bool) -> np.ndarray:
    """A layer written over the costmap so far: all of it, or where it is known and higher."""
    if not use_maximum:
        return layer.copy()
    wins = (layer != UNKNOWN) & ((master == UNKNOWN) | (layer > master))
    return np.where(wins, layer, master)


@dataclass
class ObservationBuffer:
    """One source of a layer: clouds into the costmap's frame, points beyond the height limits cut off.

    Attributes:
        min_obstacle_height: meters.
        max_obstacle_height: meters; Nav2's default of 0 lets nothing through.
        keep_s: observation_persistence; 0 keeps the newest cloud only.
        expected_update_rate: seconds after which the source is no longer current; 0 for never.
    """

    min_obstacle_height: float = 0.0
    max_obstacle_height: float = 0.0
    keep_s: float = 0.0
    expected_update_rate: float = 0.0
    observations: list[tuple[float, np.ndarray, np.ndarray]] = field(default_factory=list)
    last_s: float = 0.0

    def take(self, points: np.ndarray, global_T_sensor: Transform, now_s: float) -> None:
        """(N, 3) points in the frame of the cloud's header, whose origin is that of the rays."""
        world = global_T_sensor.apply(np.asarray(points, np.float32))
        inside = (world[:, 2] >= self.min_obstacle_height) & (world[:, 2] <= self.max_obstacle_height)
        self.observations.insert(0, (now_s, global_T_sensor.translation, world[inside]))
        self.last_s = now_s
        keep = [entry for entry in self.observations if now_s - entry[0] <= self.keep_s]
        self.observations = keep if self.keep_s > 0 else self.observations[:1]

    def is_current(self, now_s: float) -> bool:
        return self.expected_update_rate == 0 or now_s - self.last_s <= self.expected_update_rate


class VoxelLayer:
    """A grid of columns of up to 16 voxels: rays clear, points mark, a column with a marked voxel is lethal."""

    def __init__(
        self,
        origin: tuple[float, float],
        size: tuple[int, int],
        resolution: float = 0.05,
        origin_z: float = 0.0,
        z_resolution: float = 0.1,
        z_voxels: int = VOXEL_BITS,
        max_obstacle_height: float = 2.0,
        obstacle_max_range: float = 3.0,
        raytrace_max_range: float = 4.0,
        mark_threshold: int = 0,
    ) -> None:
        assert z_voxels <= VOXEL_BITS
        self.low = np.array([*origin, origin_z])
        self.steps = np.array([resolution, resolution, z_resolution])
        self.shape = np.array([*size, z_voxels])
        self.marked = np.zeros(self.shape, bool)
        self.costs = np.full(size, UNKNOWN, np.uint8)
        self.max_height, self.obstacle_range, self.raytrace_range = (
            max_obstacle_height, obstacle_max_range, raytrace_max_range,
        )  # fmt: skip
        self.mark_threshold = mark_threshold

    def update(self, marking: list[ObservationBuffer], clearing: list[ObservationBuffer]) -> None:
        """One cycle: rays first, then points."""
        for buffer in clearing:
            for _, origin, points in buffer.observations:
                self._clear(origin, points)
        for buffer in marking:
            for _, origin, points in buffer.observations:
                self._mark(origin, points)

    def cost(self, x: float, y: float) -> int:
        i, j = ((np.array([x, y]) - self.low[:2]) / self.steps[:2]).astype(int)
        return int(self.costs[i, j])

    def _cells(self, points: np.ndarray) -> np.ndarray:
        return (points - self.low) / self.steps

    def _mark(self, origin: np.ndarray, points: np.ndarray) -> None:
        near = np.linalg.norm(points - origin, axis=1) < self.obstacle_range
        points = points[near & (points[:, 2] <= self.max_height) & (points[:, 2] >= 0.0)]
        points = np.column_stack([points[:, :2], np.maximum(points[:, 2], self.low[2])])
        cells = np.floor(self._cells(points)).astype(int)
        for i, j, k in cells[((cells >= 0) & (cells < self.shape)).all(axis=1)]:
            self.marked[i, j, k] = True
            if self.marked[i, j].sum() > self.mark_threshold:
                self.costs[i, j] = LETHAL

    def _clear(self, origin: np.ndarray, points: np.ndarray) -> None:
        start = self._cells(origin)
        if len(points) == 0 or not ((start >= 0) & (start < self.shape)).all():
            return  # Nav2 warns that it cannot cast rays from outside of its grid.
        ways = points - origin
        lengths = np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-9)
        # The last two cells of a ray are left alone, so that it does not clear what it met.
        ends = origin + ways * np.clip((lengths - 2 * self.steps[0]) / lengths, 0.0, 1.0)
        self._clear_lines(start, self._cells(self._inside(origin, ends)))

    def _inside(self, origin: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Ends, moved back along their rays to where these leave the grid."""
        ways, high = ends - origin, self.low + self.shape * self.steps - np.array([0.0, 0.0, 0.01])
        with np.errstate(divide="ignore", invalid="ignore"):
            below = np.where(ends < self.low, (self.low - origin) / ways, 1.0)
            above = np.where(ends >= high, (high - origin) / ways, 1.0)
        shares = np.minimum(below, above).min(axis=1, keepdims=True)
        return origin + ways * np.where(shares < 1.0, shares - 1e-5, 1.0)

    def _clear_lines(self, start: np.ndarray, ends: np.ndarray) -> None:
        """Walk all rays cell by cell along their longest axis, up to the range."""
        shares = np.minimum(1.0, self.raytrace_range / self.steps[0] / np.linalg.norm(ends - start, axis=1).clip(1e-9))
        first, last = start.astype(int), ends.astype(int)
        counts = np.abs(last - first).max(axis=1)
        steps = np.arange(counts.max() + 1)
        places = first + (last - first)[:, None] * (steps / np.maximum(counts, 1)[:, None])[..., None]
        cells = np.floor(places + 0.5).astype(int)[steps <= (shares * counts).astype(int)[:, None]]
        i, j, k = cells[((cells >= 0) & (cells < self.shape)).all(axis=1)].T
        self.marked[i, j, k] = False
        # Rays only take marks away, so what a column costs after all of them is what it costs after the last.
        free = self.marked[i, j].sum(axis=1) <= self.mark_threshold
        self.costs[i[free], j[free]] = FREE


def keepout(master: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """KeepoutFilter: a mask (grid values) over costs; −1 leaves them."""
    cost = np.where(mask < 0, UNKNOWN, np.round(np.maximum(mask, 0) / 100 * LETHAL)).astype(np.uint8)
    wins = (cost != UNKNOWN) & ((master == UNKNOWN) | (cost > master))
    return np.where(wins, cost, master)


def speed_limit(value: int, base: float, multiplier: float) -> float | None:
    """SpeedFilter: percent of the full speed at a cell; 0 for no limit, None where the filter keeps its last."""
    if value < 0:
        return None
    return 0.0 if value == 0 else value * multiplier + base
