# SPDX-License-Identifier: Apache-2.0
"""The topics that show the map: octomap_server's, and a legend. Each is made only when somebody listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from perception.cloud_codec import encode_labeled_points
from perception.config import OctomapServerConfig
from perception.labels import LabelSet
from perception.mapping import SemanticOcTree
from perception.ros.conversions import array_to_image, points_to_point_cloud2, records_to_point_cloud2
from perception.ros.legend import legend_picture
from perception.ros.map_conversions import cost_grid_to_occupancy_grid, octree_bytes_to_octomap
from perception.ros.map_view import MapView, rgb_of
from perception.ros.markers import serialize_cubes
from perception.ros.node import latched_qos
from perception.ros.voxel_colors import ColorPalette

if TYPE_CHECKING:
    from perception.ros.node import PerceptionNode


def octomap_message(
    tree: SemanticOcTree, label_set: LabelSet | ColorPalette | None, binary: bool, frame_id: str, stamp_ns: int
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

        self.version = 0
        self._published: dict[str, int] = {}
        self._builders: dict[str, tuple[Any, Callable[[MapView, str, int], Any]]] = {}

        def add(name: str, message_type: Any, build: Callable[[MapView, str, int], Any]) -> None:
            self._builders[name] = (node.advertise(message_type, name, latched_qos(latched), wake), build)

        add("octomap_binary", Octomap, lambda view, *to: octomap_message(view.tree, view.label_set, True, *to))
        add("octomap_full", Octomap, lambda view, *to: octomap_message(view.tree, view.label_set, False, *to))
        add("occupied_cells_vis_array", MarkerArray, _occupied_cells)
        add("free_cells_vis_array", MarkerArray, _free_cells)
        add("octomap_point_cloud_centers", PointCloud2, _centers)
        self._legend = node.advertise(Image, "label_legend", latched_qos(), wake)
        self._legend_of: LabelSet | None = None
        add("projected_map", OccupancyGrid, lambda view, *to: cost_grid_to_occupancy_grid(view.projected_map(), *to))

    def changed(self) -> None:
        """The map is not what was published last."""
        self.version += 1

    def publish(
        self,
        tree: SemanticOcTree,
        config: OctomapServerConfig,
        label_set: LabelSet | ColorPalette | None,
        frame_id: str,
        stamp_ns: int,
    ) -> None:
        """Publish every topic that is out of date and has a subscriber; no map before the first change."""
        if isinstance(label_set, LabelSet):
            self._publish_legend(label_set, frame_id, stamp_ns)
        if self.version == 0:
            return
        view = MapView(tree, config, label_set)
        for name, (publisher, build) in self._builders.items():
            hidden = name == "free_cells_vis_array" and not config.publish_free_space
            if hidden or self._published.get(name) == self.version or not publisher.get_subscription_count():
                continue
            publisher.publish(build(view, frame_id, stamp_ns))
            self._published[name] = self.version

    def _publish_legend(self, label_set: LabelSet, frame_id: str, stamp_ns: int) -> None:
        if label_set is self._legend_of or not self._legend.get_subscription_count():
            return
        self._legend.publish(array_to_image(legend_picture(label_set), "rgb8", frame_id, stamp_ns))
        self._legend_of = label_set


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
    """Centers of occupied voxels; with color and class where the map has classes."""
    centers = view.leaves.centers[view.occupied]
    if view.label_set is None:
        return points_to_point_cloud2(centers, frame_id, stamp_ns)
    labels = view.leaves.labels[view.occupied] if isinstance(view.label_set, LabelSet) else np.full(len(centers), -1)
    records = encode_labeled_points(centers, view.occupied_colors(), labels, (labels >= 0).astype(np.float32))
    return records_to_point_cloud2(records, frame_id, stamp_ns)
