# SPDX-License-Identifier: Apache-2.0
"""Point clouds and laser scans: several topics, each with its own sensor as the origin of its rays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import LaserScan, PointCloud2

from perception.cloud_codec import PointFields
from perception.config import CloudFilterConfig
from perception.errors import InputError
from perception.geometry import Transform
from perception.ros import cloud_filters
from perception.ros.camera_input import STAMP_JUMP_NS
from perception.ros.conversions import laser_scan_to_points, point_cloud2_to_points, stamp_to_ns
from perception.ros.drops import dropping
from perception.ros.local_map import SensorPoints
from perception.ros.sensor_config import CloudInputConfig
from perception.ros.synchronizer import Synchronizer
from perception.self_filter import PlacedBody, SelfFilter
from perception.tf_buffer import TransformBuffer

if TYPE_CHECKING:
    from perception.ros.node import PerceptionNode

NO_POINTS = np.zeros((0, 3), np.float32)
MAIN_TOPIC = "cloud_in"
SYNC_QUEUE_SIZE = 5


@dataclass(frozen=True)
class CloudMessages:
    """A cloud or laser scan and, where somebody sends them, the ends of its rays that met nothing.

    Attributes:
        cloud: sensor_msgs/PointCloud2 or LaserScan.
        free: sensor_msgs/PointCloud2 in the same frame, or None.
        source: its topic, where there are several.
        sensor_frame: where its rays begin; empty for the cloud's own frame.
    """

    cloud: Any
    free: Any = None
    source: str = ""
    sensor_frame: str = ""

    @property
    def stamp_ns(self) -> int:
        """Of the cloud."""
        return stamp_to_ns(self.cloud.header.stamp)

    @property
    def frame_id(self) -> str:
        """Of the cloud's coordinates."""
        return self.cloud.header.frame_id


class CloudPoses(NamedTuple):
    """Where a cloud was taken.

    Attributes:
        map_T_sensor: the sensor, where its rays begin.
        sensor_T_cloud: the frame of its coordinates, where that is another one; else None.
        base_T_sensor: for the ground filter; else None.
        bodies: parts of the robot, seen from the sensor.
    """

    map_T_sensor: Transform
    sensor_T_cloud: Transform | None = None
    base_T_sensor: Transform | None = None
    bodies: tuple[PlacedBody, ...] = ()


class CloudInput:
    """Subscribes to clouds and laser scans on behalf of an active node and hands them to its worker.

    Args:
        node: the node.
        config: topics.
        hand_over: takes what came.
        with_main: listen to ``cloud_in`` and ``clear_in`` too.

    Raises:
        InputError: a topic is not written as it should be.
    """

    def __init__(
        self,
        node: PerceptionNode,
        config: CloudInputConfig,
        hand_over: Callable[[CloudMessages], None],
        with_main: bool,
    ) -> None:
        self._node, self._hand_over = node, hand_over
        self._newest_ns: dict[str, int] = {}
        further = [(PointCloud2, *entry) for entry in topics_of("cloud_topics", config.cloud_topics)]
        further += [(LaserScan, *entry) for entry in topics_of("scan_topics", config.scan_topics)]
        self._main_source = MAIN_TOPIC if further else ""
        self._sync = Synchronizer(("cloud", "free"), 0, SYNC_QUEUE_SIZE, self._drop)
        if with_main:
            node.listen(PointCloud2, MAIN_TOPIC, self._on_main, optional=bool(further))
            node.listen(PointCloud2, "clear_in", partial(self._add, "free"), optional=True)
        for kind, topic, frame in further:
            node.listen(kind, topic, partial(self._on_further, topic, frame))

    def clear(self) -> None:
        """Forget waiting clouds and stamps."""
        self._sync.clear()
        self._newest_ns.clear()

    def _on_main(self, message: Any) -> None:
        self._watch_stamps(MAIN_TOPIC, message)
        # Ends of free rays count once somebody publishes them.
        if self._node.count_publishers("clear_in"):
            self._add("cloud", message)
        else:
            self._hand_over(CloudMessages(message, source=self._main_source))

    def _on_further(self, topic: str, sensor_frame: str, message: Any) -> None:
        self._watch_stamps(topic, message)
        self._hand_over(CloudMessages(message, None, topic, sensor_frame))

    def _add(self, stream: str, message: Any) -> None:
        match = self._sync.add(stream, stamp_to_ns(message.header.stamp), message)
        if match is not None:
            self._hand_over(CloudMessages(match["cloud"], match["free"], self._main_source))

    def _watch_stamps(self, topic: str, message: Any) -> None:
        stamp_ns, newest_ns = stamp_to_ns(message.header.stamp), self._newest_ns.get(topic, -1)
        if stamp_ns < newest_ns - STAMP_JUMP_NS:
            self._node.clear_buffers(f"the stamps of {topic} jumped back by {(newest_ns - stamp_ns) / 1e9:.3f} s")
            newest_ns = -1
        self._newest_ns[topic] = max(newest_ns, stamp_ns)

    def _drop(self, reason: str) -> None:
        self._node.statistics.dropped(reason, "", self._main_source)


def topics_of(name: str, text: str) -> list[tuple[str, str]]:
    """'topic, topic@frame' to topics and frames.

    Raises:
        InputError: a topic is empty or there twice.
    """
    entries = [tuple(word.strip() for word in part.partition("@")[::2]) for part in text.split(",") if part.strip()]
    topics = [topic for topic, _ in entries]
    if not all(topics) or len(set(topics)) != len(topics) or MAIN_TOPIC in topics:
        raise InputError(f"{name}: expected different topics besides {MAIN_TOPIC}, 'topic, topic@frame', got {text!r}")
    return [(topic, frame) for topic, frame in entries]


def cloud_poses(
    messages: CloudMessages,
    transforms: TransformBuffer,
    map_frame_id: str,
    base_frame_id: str,
    config: CloudFilterConfig,
    self_filter: SelfFilter,
) -> CloudPoses:
    """Where a cloud is, at its stamp.

    Raises:
        TransformError: not known yet, or never.
    """
    sensor, stamp_ns = messages.sensor_frame or messages.frame_id, messages.stamp_ns

    def lookup(target: str, source: str) -> Transform:
        return transforms.lookup(target, source, stamp_ns)

    return CloudPoses(
        lookup(map_frame_id, sensor),
        lookup(sensor, messages.frame_id) if messages.sensor_frame else None,
        lookup(base_frame_id, sensor) if config.filter_ground_plane else None,
        self_filter.place(sensor, lookup),
    )


def decode_cloud(
    messages: CloudMessages,
    poses: CloudPoses,
    config: CloudInputConfig,
    max_range: float,
    with_colors: bool = False,
) -> tuple[PointFields, NDArray[np.float32]]:
    """The points of a cloud or scan, and the ends of its rays that met nothing, in the sensor's frame.

    Args:
        messages: of one moment.
        poses: where it was taken.
        config: which rays without return clear.
        max_range: length of an organized cloud's rays without return, meters; 0 or less drops them.
        with_colors: read the colors too.

    Raises:
        FrameDroppedError: the messages contradict themselves.
    """
    with dropping("malformed"):
        if hasattr(messages.cloud, "ranges"):
            points, free = laser_scan_to_points(messages.cloud)
            fields, free = PointFields(points), free if config.scan_no_return else NO_POINTS
        else:
            fields = point_cloud2_to_points(messages.cloud, with_colors)
            free = NO_POINTS if messages.free is None else point_cloud2_to_points(messages.free, False).points
            free = _with_no_returns(messages.cloud, fields.points, free, config, max_range)
    if poses.sensor_T_cloud is not None:
        fields = replace(fields, points=poses.sensor_T_cloud.apply(fields.points))
        free = poses.sensor_T_cloud.apply(free) if len(free) else free
    return fields, free


def _with_no_returns(
    message: Any, points: NDArray[np.float32], free: NDArray[np.float32], config: CloudInputConfig, max_range: float
) -> NDArray[np.float32]:
    """Ends of free rays, with those of an organized cloud's pixels that met nothing."""
    if config.no_return == "none" or max_range <= 0 or message.height < 2 or len(points) == 0:
        return free
    grid = points.reshape(message.height, message.width, 3)
    ends = cloud_filters.no_return_ends(grid, max_range, invalid_too=config.no_return == "nan")
    return np.concatenate([free, ends]) if len(ends) else free


def filtered_scan(
    messages: CloudMessages,
    cloud: PointFields,
    free: NDArray[np.float32],
    poses: CloudPoses,
    limits: CloudFilterConfig,
    min_range: float,
    self_filter: SelfFilter,
    labeled: bool,
    every: int = 1,
) -> tuple[SensorPoints, NDArray[np.float32], int]:
    """What is left of a cloud: its points in the sensor's frame and in the map's, and how many were on the robot.

    Args:
        messages: where it came from.
        cloud: its points, in the sensor's frame.
        free: (M, 3) ends of rays that met nothing, in the sensor's frame.
        poses: where it was taken.
        limits: octomap_server's.
        min_range: points nearer than this to the sensor are dropped, meters.
        self_filter: the robot's own body.
        labeled: the map has classes.
        every: of so many points one is taken.
    """
    if every > 1:
        labels = None if cloud.labels is None else cloud.labels[::every]
        confidence = None if cloud.confidence is None else cloud.confidence[::every]
        cloud, free = PointFields(cloud.points[::every], None, labels, confidence), free[::every]
    points = poses.map_T_sensor.apply(cloud.points)
    # With the ground filter octomap_server's limits are of the base frame.
    judged = points if poses.base_T_sensor is None else poses.base_T_sensor.apply(cloud.points)
    keep = cloud_filters.within_limits(judged, limits)
    if min_range > 0:
        keep &= cloud_filters.beyond(cloud.points, min_range)
    on_robot = 0
    if poses.bodies:
        outside = self_filter.outside(cloud.points, poses.bodies)
        on_robot = int((keep & ~outside).sum())
        keep &= outside
    if poses.base_T_sensor is not None:
        candidates = np.flatnonzero(keep)
        ground = candidates[cloud_filters.ground_plane(judged[candidates], limits.ground_filter)]
        free = np.concatenate([free, cloud.points[ground]])
        keep[ground] = False
    select = slice(None) if keep.all() else keep
    known = labeled and cloud.labels is not None
    scan = SensorPoints(
        cloud.points[select],
        cloud.labels[select] if known and cloud.labels is not None else None,
        cloud.confidence[select] if known and cloud.confidence is not None else None,
        free,
        messages.stamp_ns,
        messages.sensor_frame or messages.frame_id,
    )
    return scan, points[select], on_robot
