# SPDX-License-Identifier: Apache-2.0
"""octomap_node: point clouds in, map and costmap out; takes octomap_server's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2

from perception.config import PerceptionConfig
from perception.errors import InputError
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.pipeline import PerceptionPipeline
from perception.ros import cloud_filters
from perception.ros.camera_input import STAMP_JUMP_NS, FrameDroppedError, dropping
from perception.ros.conversions import point_cloud2_to_points, stamp_to_ns
from perception.ros.label_source import label_set_from_info
from perception.ros.map_node import MAP_GROUPS, MapNode
from perception.ros.node import latched_qos, run_node
from perception.ros.synchronizer import Synchronizer

NO_POINTS = np.zeros((0, 3), np.float32)


@dataclass(frozen=True)
class CloudMessages:
    """A cloud and, where somebody sends them, the ends of its rays that met nothing."""

    cloud: Any
    free: Any = None

    @property
    def stamp_ns(self) -> int:
        """Of the cloud."""
        return stamp_to_ns(self.cloud.header.stamp)


@dataclass(frozen=True)
class Scan:
    """What is inserted: coordinates in the map frame."""

    points: NDArray[np.float32]
    labels: NDArray[np.int32] | None
    confidence: NDArray[np.float32] | None
    clear_points: NDArray[np.float32]


class OctomapNode(MapNode):
    """Maps ``cloud_in``: labeled points, or plain ones as octomap_server does.

    ``clear_in`` brings ends of rays that met nothing, of the same stamp; it counts once somebody publishes it.
    """

    parameter_groups = (*MAP_GROUPS, "cloud_filter", "cloud_input", "label_input")
    single_parameters = ("cloud.transform_timeout",)

    def __init__(self, **node_arguments: Any) -> None:
        self._newest_ns = -1
        super().__init__("octomap_node", **node_arguments)

    def make_pipeline(self, config: PerceptionConfig) -> PerceptionPipeline:
        """An empty map; its classes come by parameter, or later by label_info."""
        name = self.parameters.config("label_input").label_set
        return PerceptionPipeline(config, None, LabelSet.load(name) if name else None)

    def start(self) -> None:
        """Listen to clouds."""
        from vision_msgs.msg import LabelInfo

        super().start()
        self._sync = Synchronizer(("cloud", "free"), 0, 5, self.statistics.dropped)
        self.listen(PointCloud2, "cloud_in", self._on_cloud)
        self.listen(PointCloud2, "clear_in", lambda message: self._add("free", message))
        if not self.parameters.config("label_input").label_set:
            self.listen(LabelInfo, "label_info", self._on_label_info, latched_qos())

    def forget(self) -> None:
        """Forget waiting clouds."""
        self._newest_ns = -1
        if self.worker is not None:
            self._sync.clear()

    def read_parameters(self) -> None:
        """Read the filters' too."""
        super().read_parameters()
        self._filter = self.parameters.config("cloud_filter")
        self._min_range: float = self.parameters.config("cloud_input").min_range

    def resolve(self, frame: CloudMessages) -> tuple[Transform, Transform | None]:
        """``map_T_sensor`` and, for the ground filter, ``base_T_sensor``."""
        sensor = frame.cloud.header.frame_id
        map_T_sensor = self.transforms.lookup(self.frame_id, sensor, frame.stamp_ns)
        if not self._filter.filter_ground_plane:
            return map_T_sensor, None
        return map_T_sensor, self.transforms.lookup(self.base_frame_id, sensor, frame.stamp_ns)

    def process(self, frame: CloudMessages, needs: tuple[Transform, Transform | None]) -> None:
        """Take one cloud into the map."""
        with dropping("malformed"):
            cloud = point_cloud2_to_points(frame.cloud)
            free = NO_POINTS if frame.free is None else point_cloud2_to_points(frame.free).points
        with self.lock:
            pipeline = self._pipeline()
            if cloud.labels is not None and pipeline.label_set is None and (cloud.labels >= 0).any():
                raise FrameDroppedError("no_label_info", "a labeled cloud came before label_info")
            with pipeline.timer.measure("filter"):
                scan = self._scan(cloud, free, *needs, labeled=pipeline.label_set is not None)
            with dropping("invalid"), pipeline.timer.measure("insert"):
                report = pipeline.tree.insert_cloud(
                    scan.points, needs[0].translation, scan.labels, scan.confidence, scan.clear_points
                )
            self.count_points(report)
            self.inserted(frame.stamp_ns)
        self.done(frame.stamp_ns)

    def _scan(
        self,
        cloud: Any,
        free: NDArray[np.float32],
        map_T_sensor: Transform,
        base_T_sensor: Transform | None,
        labeled: bool,
    ) -> Scan:
        """Filter a cloud and bring it to the map frame."""
        points = map_T_sensor.apply(cloud.points)
        # With the ground filter octomap_server's limits are of the base frame.
        judged = points if base_T_sensor is None else base_T_sensor.apply(cloud.points)
        keep = np.isfinite(cloud.points).all(axis=1) & cloud_filters.within_limits(judged, self._filter)
        if self._min_range > 0:
            keep &= cloud_filters.beyond(cloud.points, self._min_range)
        ends = [map_T_sensor.apply(free)] if len(free) else []
        if base_T_sensor is not None:
            candidates = np.flatnonzero(keep)
            ground = candidates[cloud_filters.ground_plane(judged[candidates], self._filter.ground_filter)]
            ends.append(points[ground])
            keep[ground] = False
        select = slice(None) if keep.all() else keep
        return Scan(
            points[select],
            cloud.labels[select] if labeled and cloud.labels is not None else None,
            cloud.confidence[select] if labeled and cloud.confidence is not None else None,
            np.concatenate(ends) if ends else NO_POINTS,
        )

    def _on_cloud(self, message: Any) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        if stamp_ns < self._newest_ns - STAMP_JUMP_NS:
            self.clear_buffers(f"the stamps of cloud_in jumped back by {(self._newest_ns - stamp_ns) / 1e9:.3f} s")
        self._newest_ns = max(self._newest_ns, stamp_ns)
        if self.count_publishers("clear_in"):
            self._add("cloud", message)
        else:
            self._submit(CloudMessages(message))

    def _add(self, stream: str, message: Any) -> None:
        match = self._sync.add(stream, stamp_to_ns(message.header.stamp), message)
        if match is not None:
            self._submit(CloudMessages(match["cloud"], match["free"]))

    def _submit(self, messages: CloudMessages) -> None:
        if self.worker is not None:
            self.worker.submit(messages)

    def _on_label_info(self, message: Any) -> None:
        try:
            label_set = label_set_from_info(message)
        except InputError as error:
            self.get_logger().error(str(error))
            return
        with self.lock:
            pipeline = self._pipeline()
            known = pipeline.label_set
            if known is not None:
                if [(c.id, c.name) for c in known.classes] != [(c.id, c.name) for c in label_set.classes]:
                    self.get_logger().error("label_info changed its classes; the map keeps the first ones, reset it")
                return
            self.add_labels(label_set)


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    return run_node(OctomapNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
