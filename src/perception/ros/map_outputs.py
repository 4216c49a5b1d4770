# SPDX-License-Identifier: Apache-2.0
"""The topics that show the map: octomap_server's, and the semantic costmap. Each is made only when somebody listens."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import MarkerArray

from perception.config import OctomapServerConfig
from perception.labels import LabelSet
from perception.mapping import SemanticOcTree
from perception.ros.conversions import points_to_point_cloud2
from perception.ros.map_conversions import cost_grid_to_occupancy_grid, cost_grid_to_update, octree_bytes_to_octomap
from perception.ros.map_view import MapView, rgb_of
from perception.ros.markers import serialize_cubes
from perception.ros.node import latched_qos
from perception.types import CostGrid

if TYPE_CHECKING:
    from perception.ros.node import PerceptionNode

Rectangle = tuple[int, int, int, int]
UPDATE_DEPTH = 10


def octomap_message(
    tree: SemanticOcTree, label_set: LabelSet | None, binary: bool, frame_id: str, stamp_ns: int
) -> Any:
    """The map as octomap_msgs/Octomap: an OcTree, or for the full one of a labeled map a ColorOcTree."""
    tree_type, data = tree.octomap_data(binary, label_set)
    return octree_bytes_to_octomap(data, tree_type, tree.resolution, binary, frame_id, stamp_ns)


class MapOutputs:
    """Publishes the map.

    Args:
        node: a node that is being configured.
        wake: called when a topic that is out of date gets a subscriber.
    """

    def __init__(self, node: PerceptionNode, latched: bool, wake: Callable[[], None]) -> None:
        from octomap_msgs.msg import Octomap

        self._version = 0
        self._published: dict[str, int] = {}
        self._builders: dict[str, tuple[Any, Callable[[MapView, str, int], Any]]] = {}

        def add(name: str, message_type: Any, build: Callable[[MapView, str, int], Any]) -> None:
            self._builders[name] = (node.advertise(message_type, name, latched_qos(latched), wake), build)

        add("octomap_binary", Octomap, lambda view, *to: octomap_message(view.tree, view.label_set, True, *to))
        add("octomap_full", Octomap, lambda view, *to: octomap_message(view.tree, view.label_set, False, *to))
        add("occupied_cells_vis_array", MarkerArray, _occupied_cells)
        add("free_cells_vis_array", MarkerArray, _free_cells)
        add("octomap_point_cloud_centers", PointCloud2, _centers)
        add("projected_map", OccupancyGrid, lambda view, *to: cost_grid_to_occupancy_grid(view.projected_map(), *to))

    def changed(self) -> None:
        """The map is not what was published last."""
        self._version += 1

    def publish(
        self,
        tree: SemanticOcTree,
        config: OctomapServerConfig,
        label_set: LabelSet | None,
        frame_id: str,
        stamp_ns: int,
    ) -> None:
        """Publish every topic that is out of date and has a subscriber; nothing before the first change."""
        if self._version == 0:
            return
        view = MapView(tree, config, label_set)
        for name, (publisher, build) in self._builders.items():
            hidden = name == "free_cells_vis_array" and not config.publish_free_space
            if hidden or self._published.get(name) == self._version or not publisher.get_subscription_count():
                continue
            publisher.publish(build(view, frame_id, stamp_ns))
            self._published[name] = self._version


class CostmapOutput:
    """Publishes the costmap as Nav2's StaticLayer takes it: whole grids, and between them what changed since.

    An update covers everything that changed since the last whole grid, so that a subscriber that missed some, or came
    late, is right after the next one.

    Args:
        node: a node that is being configured.
        wake: called when a subscriber comes.
    """

    def __init__(self, node: PerceptionNode, latched: bool, wake: Callable[[], None]) -> None:
        from map_msgs.msg import OccupancyGridUpdate

        self._grids = node.advertise(OccupancyGrid, "semantic_costmap", latched_qos(latched), wake)
        updates = latched_qos(False, UPDATE_DEPTH)
        self._updates = node.advertise(OccupancyGridUpdate, "semantic_costmap_updates", updates)
        self._sent: CostGrid | None = None
        self._rectangle: Rectangle | None = None
        self._full_due = 0.0

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens."""
        return self._grids.get_subscription_count() + self._updates.get_subscription_count() > 0

    def publish(self, grid: CostGrid, frame_id: str, stamp_ns: int, full_period_s: float) -> None:
        """Publish what changed, or the whole grid when that is due."""
        now = monotonic()
        changed = None if self._sent is None else changed_rectangle(self._sent, grid)
        rectangle = united(self._rectangle, changed)
        same_place = self._sent is not None and _place(self._sent) == _place(grid)
        if not same_place or (rectangle is not None and now >= self._full_due):
            self._grids.publish(cost_grid_to_occupancy_grid(grid, frame_id, stamp_ns))
            self._rectangle, self._full_due = None, now + full_period_s
        elif changed is not None and rectangle is not None:
            self._updates.publish(cost_grid_to_update(grid, rectangle, frame_id, stamp_ns))
            self._rectangle = rectangle
        self._sent = grid


def changed_rectangle(before: CostGrid, after: CostGrid) -> Rectangle | None:
    """(column, row, columns, rows) around all cells that differ; None for none or another geometry."""
    if _place(before) != _place(after):
        return None
    rows, columns = np.nonzero(before.data != after.data)
    if not len(rows):
        return None
    x, y = int(columns.min()), int(rows.min())
    return x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1


def united(first: Rectangle | None, second: Rectangle | None) -> Rectangle | None:
    """The smallest rectangle around both."""
    if first is None or second is None:
        return first or second
    x, y = min(first[0], second[0]), min(first[1], second[1])
    right = max(first[0] + first[2], second[0] + second[2])
    top = max(first[1] + first[3], second[1] + second[3])
    return x, y, right - x, top - y


def _place(grid: CostGrid) -> tuple[Any, ...]:
    return grid.data.shape, grid.resolution, grid.origin


def _occupied_cells(view: MapView, frame_id: str, stamp_ns: int) -> bytes:
    leaves, index = view.leaves, view.occupied
    groups, names = view.class_groups()
    return serialize_cubes(
        leaves.centers[index],
        leaves.sizes[index],
        view.occupied_colors(),
        frame_id,
        stamp_ns,
        groups,
        names,
        view.config.color.a,
    )


def _free_cells(view: MapView, frame_id: str, stamp_ns: int) -> bytes:
    leaves, index = view.leaves, view.free
    colors = np.tile(rgb_of(view.config.color_free), (len(index), 1))
    alpha = view.config.color_free.a
    return serialize_cubes(
        leaves.centers[index], leaves.sizes[index], colors, frame_id, stamp_ns, group_names=["map"], alpha=alpha
    )


def _centers(view: MapView, frame_id: str, stamp_ns: int) -> Any:
    return points_to_point_cloud2(view.leaves.centers[view.occupied], frame_id, stamp_ns)
