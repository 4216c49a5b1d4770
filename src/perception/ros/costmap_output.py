# SPDX-License-Identifier: Apache-2.0
"""The topics that show costs: the costmap as Nav2's StaticLayer takes it, where its cells are, and a distance field."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import PointCloud2

from perception.costmap.grid import GridGeometry, rolling_geometry
from perception.costmap.sampling import Box, difference
from perception.errors import InputError, TransformError
from perception.ros.map_config import CostmapGridConfig
from perception.ros.map_conversions import (
    cost_grid_to_occupancy_grid,
    cost_grid_to_update,
    grid_geometry_of,
    values_to_point_cloud2,
)
from perception.ros.node import latched_qos
from perception.types import CostGrid

if TYPE_CHECKING:
    from perception.mapping import SemanticOcTree
    from perception.ros.node import PerceptionNode

UPDATE_DEPTH = 10


class CostmapOutput:
    """Publishes a costmap as Nav2's StaticLayer takes it: whole grids, and between them what changed since.

    An update covers everything that changed since the last whole grid, so that a subscriber that missed some, or came
    late, is right after the next one; and what changed last is soon followed by a whole grid.

    Args:
        node: a node that is being configured.
        latched: late subscribers receive the last whole grid.
        wake: called when a subscriber comes.
        topic: of whole grids; that of updates ends with ``_updates``.
    """

    def __init__(
        self, node: PerceptionNode, latched: bool, wake: Callable[[], None], topic: str = "semantic_costmap"
    ) -> None:
        from map_msgs.msg import OccupancyGridUpdate

        self._grids = node.advertise(OccupancyGrid, topic, latched_qos(latched), wake)
        self._updates = node.advertise(OccupancyGridUpdate, f"{topic}_updates", latched_qos(False, UPDATE_DEPTH))
        self._sent: CostGrid | None = None
        self._frame_id = ""
        self._box: Box | None = None
        self._full_due = 0.0

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens."""
        return self._grids.get_subscription_count() + self._updates.get_subscription_count() > 0

    def publish(self, grid: CostGrid, frame_id: str, stamp_ns: int, full_period_s: float) -> None:
        """Publish what changed, or the whole grid when that is due."""
        now = monotonic()
        moved = self._sent is None or _place(self._sent) != _place(grid) or self._frame_id != frame_id
        changed = None if moved or self._sent is None else difference(self._sent.data, grid.data)
        box = united(self._box, changed)
        if moved or (box is not None and now >= self._full_due):
            self._grids.publish(cost_grid_to_occupancy_grid(grid, frame_id, stamp_ns))
            self._box, self._full_due = None, now + full_period_s
        elif changed is not None and box is not None:
            self._updates.publish(cost_grid_to_update(grid, box, frame_id, stamp_ns))
            self._box = box
        self._sent, self._frame_id = grid, frame_id


class CostmapPlacement:
    """Says where the cells of the costmap are.

    Args:
        node: gives transforms and, for ``from_map``, the topic ``map``.
        changed: called when another grid came on that topic.
    """

    def __init__(self, node: PerceptionNode, changed: Callable[[], None]) -> None:
        self._node, self._changed = node, changed
        self._of_map: GridGeometry | None = None
        self._robot: tuple[float, float] | None = None
        self.waiting_for = ""

    def listen(self, config: CostmapGridConfig, frame_id: str) -> None:
        """Subscribe to what the geometry needs, while the node is active."""
        if config.geometry == "from_map":
            self._node.listen(OccupancyGrid, "map", lambda message: self._on_map(message, frame_id), latched_qos())

    def place(
        self, config: CostmapGridConfig, tree: SemanticOcTree, frames: tuple[str, str], stamp_ns: int
    ) -> tuple[bool, GridGeometry | None]:
        """Whether the place is known, and the cells; None for all that is mapped.

        Args:
            config: which geometry.
            tree: its resolution is taken where the configuration gives none.
            frames: of the map and of the robot.
            stamp_ns: of the robot's pose, nanoseconds.
        """
        self.waiting_for = ""
        resolution = config.resolution or float(tree.resolution)
        if config.geometry == "fixed":
            width, height = (max(round(extent / resolution), 1) for extent in (config.width, config.height))
            return True, GridGeometry(resolution, width, height, (config.origin_x, config.origin_y))
        if config.geometry == "rolling":
            robot = self._robot_at(frames, stamp_ns)
            if robot is None:
                self.waiting_for = f"a transform from {frames[1]} to {frames[0]}"
                return False, None
            return True, rolling_geometry(robot, config.width, resolution, config.snap)
        if config.geometry == "from_map":
            self.waiting_for = "" if self._of_map else f"a grid in frame {frames[0]} on topic map"
            return self._of_map is not None, self._of_map
        return True, None

    def _robot_at(self, frames: tuple[str, str], stamp_ns: int) -> tuple[float, float] | None:
        """Where the robot is, or was last."""
        try:
            x, y, _ = self._node.transforms.lookup(*frames, stamp_ns).translation
            self._robot = float(x), float(y)
        except TransformError:
            pass
        return self._robot

    def _on_map(self, message: Any, frame_id: str) -> None:
        if message.header.frame_id.lstrip("/") != frame_id:
            raise InputError(f"topic map: expected a grid in frame {frame_id}, got {message.header.frame_id[:60]!r}")
        geometry = grid_geometry_of(message.info)
        if geometry != self._of_map:
            self._of_map = geometry
            self._changed()


class DistanceOutput:
    """Publishes ``distance_field``: a PointCloud2 of cell centers with the distance as intensity.

    That is how nvblox shows its slices: RViz colors it, and any consumer of clouds can read it.

    Args:
        node: a node that is being configured.
        latched: late subscribers receive the last one.
        wake: called when a subscriber comes.
    """

    def __init__(self, node: PerceptionNode, latched: bool, wake: Callable[[], None]) -> None:
        self._publisher = node.advertise(PointCloud2, "distance_field", latched_qos(latched), wake)
        self._sent: tuple[CostGrid, float] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, grid: CostGrid, frame_id: str, stamp_ns: int, max_distance: float) -> None:
        """Publish the distances where the grid is another."""
        from perception.costmap import distance_field, known_cells

        sent = self._sent
        if not self.is_wanted or (sent is not None and sent[1] == max_distance and same_grid(sent[0], grid)):
            return
        centers, distances = known_cells(grid, distance_field(grid, max_distance))
        self._publisher.publish(values_to_point_cloud2(centers, distances, frame_id, stamp_ns))
        self._sent = grid, max_distance


def united(first: Box | None, second: Box | None) -> Box | None:
    """The smallest box around both."""
    if first is None or second is None:
        return first or second
    x, y = min(first[0], second[0]), min(first[1], second[1])
    right = max(first[0] + first[2], second[0] + second[2])
    top = max(first[1] + first[3], second[1] + second[3])
    return x, y, right - x, top - y


def same_grid(first: CostGrid, second: CostGrid) -> bool:
    """Whether two grids have the same cells at the same place."""
    return _place(first) == _place(second) and np.array_equal(first.data, second.data)


def _place(grid: CostGrid) -> tuple[Any, ...]:
    return grid.data.shape, grid.resolution, grid.origin
