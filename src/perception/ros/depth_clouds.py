# SPDX-License-Identifier: Apache-2.0
"""obstacle_points and clearing_points: from every depth image at once, whatever the network and the map are doing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sensor_msgs.msg import PointCloud2

from perception.cloud import label_cloud
from perception.config import CloudConfig, CostmapConfig
from perception.errors import TransformError
from perception.geometry import Transform
from perception.registration import rectify
from perception.ros.camera_input import CameraMessages, decode_camera, decode_depth, topic_of
from perception.ros.conversions import points_to_point_cloud2
from perception.ros.drops import dropping
from perception.ros.sensor_config import ObstacleConfig
from perception.ros.statistics import Statistics
from perception.self_filter import PlacedBody, SelfFilter
from perception.types import LabeledCloud, LabelImage

if TYPE_CHECKING:
    from perception.costmap.projection import GroundGrid
    from perception.ros.node import PerceptionNode

OUTPUT_DEPTH = 5
TOPICS = ("obstacle_points", "clearing_points")


@dataclass(frozen=True)
class DepthCloudSettings:
    """What the clouds depend on; replaced as a whole when parameters change.

    Attributes:
        cloud: range limits and clearing.
        costmap: heights that block.
        obstacles: stride and age of labels.
        self_filter: the robot's own body.
        max_range: length of rays without return, meters.
        base_frame_id: of the robot on the ground.
        map_frame_id: frame of the ground grid; empty where there is none.
        rectified: images come without distortion.
    """

    cloud: CloudConfig
    costmap: CostmapConfig
    obstacles: ObstacleConfig
    self_filter: SelfFilter
    max_range: float
    base_frame_id: str
    map_frame_id: str = ""
    rectified: bool = False


class _Ground(NamedTuple):
    """Where the sensor is above the ground: its pose in a frame with z up, and the ground there."""

    frame_T_sensor: Transform
    grid: GroundGrid | None
    base_height: float
    bodies: tuple[PlacedBody, ...]


class DepthClouds:
    """Publishes the clouds of all cameras of a node, in a thread of its own, in the depth images' frames.

    Args:
        node: a node that is being configured.
        cameras: names of its cameras.

    Attributes:
        settings: to be set before frames come.
        ground: the map's local ground as of late, or None: then the ground is taken to be flat under the robot.
        statistics: what was published and dropped, apart from what is mapped.
    """

    def __init__(self, node: PerceptionNode, cameras: Sequence[str]) -> None:
        self._node = node
        self._publishers = {
            camera: {topic: node.advertise(PointCloud2, topic_of(camera, topic), OUTPUT_DEPTH) for topic in TOPICS}
            for camera in cameras
        }
        self.settings: DepthCloudSettings | None = None
        self.ground: GroundGrid | None = None
        self.statistics = Statistics()
        self._labels: dict[str, tuple[int, LabelImage]] = {}
        self._worker: Any = None

    def start(self) -> None:
        """Begin to work; ends with the node's activity."""
        self._worker = self._node.start_worker(self._resolve, self._process, self.statistics.dropped)

    def submit(self, messages: CameraMessages) -> None:
        """Take a depth image; nothing is done without a subscriber."""
        if self._worker is not None and self._wanted(messages.source):
            self._worker.submit(messages)

    def use_labels(self, camera: str, stamp_ns: int, labels: LabelImage | None) -> None:
        """Labels of a camera's image, for things that move in the images that follow."""
        if labels is not None and labels.label_set.moves.any():
            self._labels[camera] = stamp_ns, labels

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens to obstacle_points."""
        return any("obstacle_points" in self._wanted(camera) for camera in self._publishers)

    def forget(self) -> None:
        """Forget labels: time went back."""
        self._labels.clear()

    def details(self) -> Mapping[str, Any]:
        """For the diagnostics."""
        snapshot = self.statistics.snapshot()
        values: dict[str, Any] = {"obstacle_points per second": f"{snapshot.processed_rate:.1f}"}
        if snapshot.latency_ms is not None:
            values["obstacle_points latency p50, p95 (ms)"] = "{:.1f}, {:.1f}".format(*snapshot.latency_ms)
        for reason, count in snapshot.drops.items():
            values[f"obstacle_points without frame: {reason}"] = count
        return values

    def _wanted(self, camera: str) -> set[str]:
        publishers = self._publishers[camera]
        return {topic for topic, publisher in publishers.items() if publisher.get_subscription_count()}

    def _resolve(self, frame: CameraMessages) -> _Ground:
        """Where the sensor is; in the map only where that is known at once: obstacles wait for no localization."""
        settings, lookup = self._checked_settings(), self._node.transforms.lookup
        bodies = settings.self_filter.place(
            frame.frame_id, lambda target, source: lookup(target, source, frame.stamp_ns)
        )
        if settings.map_frame_id and self.ground is not None:
            try:
                map_T_sensor = lookup(settings.map_frame_id, frame.frame_id, frame.stamp_ns)
                return _Ground(map_T_sensor, self.ground, self._floor(settings, frame.stamp_ns), bodies)
            except TransformError:
                pass
        try:
            return _Ground(lookup(settings.base_frame_id, frame.frame_id, frame.stamp_ns), None, 0.0, bodies)
        except TransformError:
            if not settings.map_frame_id:
                raise
        # Nobody tells where the robot's base is: the floor is taken to be at height 0 of the map.
        return _Ground(lookup(settings.map_frame_id, frame.frame_id, frame.stamp_ns), self.ground, 0.0, bodies)

    def _floor(self, settings: DepthCloudSettings, stamp_ns: int) -> float:
        try:
            base = self._node.transforms.lookup(settings.map_frame_id, settings.base_frame_id, stamp_ns)
            return float(base.translation[2])
        except TransformError:
            return 0.0

    def _process(self, frame: CameraMessages, ground: _Ground) -> None:
        from perception.costmap import clearing_points, obstacle_points

        settings = self._checked_settings()
        cloud = self._lift(frame, ground.bodies, settings)
        wanted = self._wanted(frame.source)
        if "obstacle_points" in wanted:
            points = obstacle_points(cloud, ground.frame_T_sensor, settings.costmap, ground.grid, ground.base_height)
            self._send("obstacle_points", frame, points)
        if "clearing_points" in wanted:
            self._send("clearing_points", frame, clearing_points(cloud))
        self.statistics.processed(self._node.now_ns() - frame.stamp_ns)

    def _lift(self, frame: CameraMessages, bodies: Sequence[PlacedBody], settings: DepthCloudSettings) -> LabeledCloud:
        camera, depth = decode_camera(frame.info, settings.rectified), decode_depth(frame.depth)
        with dropping("wrong_size"):
            if camera.is_distorted:
                depth, camera = rectify(depth, camera), camera.rectified()
            depth, _ = settings.self_filter.mask_depth(depth, camera, bodies, frame.source)
            # A label is asked for only where something moves, so edges do not matter here.
            config = replace(settings.cloud, stride=settings.obstacles.stride, edge_threshold=0.0)
            return label_cloud(
                depth,
                camera,
                self._fresh_labels(frame, depth.shape, settings),
                None,
                config,
                no_return_range=max(settings.max_range, 0.0),
                stamp_ns=frame.stamp_ns,
                frame_id=frame.frame_id,
            )

    def _fresh_labels(
        self, frame: CameraMessages, size: tuple[int, ...], settings: DepthCloudSettings
    ) -> LabelImage | None:
        stamp_ns, labels = self._labels.get(frame.source, (0, None))
        age_s = (frame.stamp_ns - stamp_ns) / 1e9
        fits = labels is not None and labels.labels.shape == size
        return labels if fits and abs(age_s) <= settings.obstacles.max_label_age else None

    def _send(self, topic: str, frame: CameraMessages, points: Any) -> None:
        message = points_to_point_cloud2(points, frame.frame_id, frame.stamp_ns)
        self._publishers[frame.source][topic].publish(message)

    def _checked_settings(self) -> DepthCloudSettings:
        assert self.settings is not None
        return self.settings
