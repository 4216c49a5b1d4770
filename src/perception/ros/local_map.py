# SPDX-License-Identifier: Apache-2.0
"""A second map, in a frame that never jumps: it follows the robot and forgets. For the controller's costmap."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perception.config import PerceptionConfig, SensorModelConfig
from perception.costmap.grid import rolling_geometry
from perception.errors import TransformError
from perception.labels import LabelClass, LabelSet
from perception.ros.costmap_output import CostmapOutput
from perception.ros.map_config import LocalMapConfig
from perception.ros.map_jump import OdometryWatch
from perception.ros.map_outputs import octomap_message
from perception.ros.qos import latched_qos
from perception.types import LabeledCloud

if TYPE_CHECKING:
    from perception.costmap import CostmapProjector
    from perception.mapping import SemanticOcTree
    from perception.ros.node import PerceptionNode

DECAY_STEP_S = 0.2
"""Fading goes in steps of at least this."""
IDLE_S = 10.0
"""Without a subscriber for so long, the map is given up."""
SNAP_M = 1.0
JUMP_M = 0.5
JUMP_SHOWN_S = 10.0
OCTREES = {"octomap_binary_local": True, "octomap_full_local": False}
"""Topics of the octree, and whether they carry occupancy alone."""
UNLABELED_CLASS = "unlabeled"
GRAY = (128, 128, 128)


@dataclass(frozen=True)
class SensorPoints:
    """One scan in the sensor's frame; a perception.types.LabeledCloud serves as well.

    Attributes:
        points: (N, 3) float32, meters.
        labels: (N,) int32, −1 where there is none; None for a scan without labels.
        confidence: (N,) float32, or None.
        clear_points: (M, 3) float32, ends of rays that clear and mark nothing.
        stamp_ns: nanoseconds.
        frame_id: of the sensor; its origin is that of the rays.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int32] | None
    confidence: NDArray[np.float32] | None
    clear_points: NDArray[np.float32]
    stamp_ns: int
    frame_id: str


class LocalMap:
    """Feeds a rolling octree and publishes it (``octomap_full_local``, ``octomap_binary_local``), and its costs.

    These are in ``semantic_costmap_local``. Does nothing while nobody listens to any of the three. Everything in it
    fades: what has a class with ``decay_time`` or faster, what has none under a class of its own. When odometry jumps,
    it is forgotten.

    Args:
        node: a node that is being configured.
        latched: late subscribers receive the last whole grid.
        wake: called when a subscriber comes.
    """

    def __init__(self, node: PerceptionNode, latched: bool, wake: Callable[[], None]) -> None:
        from octomap_msgs.msg import Octomap

        self._node = node
        self._octrees = {name: node.advertise(Octomap, name, latched_qos(latched), wake) for name in OCTREES}
        self._watch = OdometryWatch()
        self._output = CostmapOutput(node, latched, wake, "semantic_costmap_local")
        self._tree: SemanticOcTree | None = None
        self._projector: CostmapProjector | None = None
        self._made_for: tuple[Any, ...] = ()
        self._asked: tuple[Any, ...] = (None, None, None)
        self._labels: LabelSet | None = None
        self._unlabeled = 0
        self._decayed_ns = 0
        self._center: tuple[float, float] | None = None
        self._due = self._last_wanted = 0.0
        self._skipped, self._jumps, self._why = 0, 0, ""

    def reset(self) -> None:
        """Forget everything."""
        self._tree, self._projector, self._made_for, self._watch = None, None, (), OdometryWatch()

    def clear_box(self, half: float, low: float, high: float) -> None:
        """Free a square column around the robot.

        Args:
            half: half the edge, meters.
            low: lowest z, meters, in the local frame.
            high: highest z.
        """
        if self._tree is not None and self._center is not None:
            x, y = self._center
            self._tree.clear_box((x - half, y - half, low), (x + half, y + half, high))
            self._due = 0.0

    def take(
        self,
        make_scan: Callable[[], SensorPoints | LabeledCloud],
        config: LocalMapConfig,
        pipeline_config: PerceptionConfig,
        label_set: LabelSet | None,
        base_frame_id: str,
        full_period_s: float,
    ) -> None:
        """Insert a scan, which is made only when somebody listens, and publish what is due."""
        now = monotonic()
        if not (config.enabled and self._is_wanted):
            if now > self._last_wanted + IDLE_S:
                self.reset()
            return
        self._last_wanted = now
        self._prepare(config, pipeline_config, label_set)
        scan = make_scan()
        try:
            sensor = self._node.transforms.lookup(config.frame_id, scan.frame_id, scan.stamp_ns)
        except TransformError as error:
            self._skipped, self._why = self._skipped + 1, str(error)
            return
        self._center = self._robot(config.frame_id, base_frame_id, scan.stamp_ns, sensor.translation)
        self._insert(scan, sensor, config)
        if now >= self._due:
            self._due = now + 1 / config.publish_rate
            self._publish(config, scan.stamp_ns, full_period_s)

    @property
    def _is_wanted(self) -> bool:
        return self._output.is_wanted or any(octree.get_subscription_count() for octree in self._octrees.values())

    def details(self) -> Mapping[str, Any]:
        """For the diagnostics."""
        values: dict[str, Any] = {} if self._tree is None else {"local map voxels": self._tree.known_voxels()}
        if self._jumps:
            values["local map: jumps of odometry"] = self._jumps
        if self._skipped:
            values["local map: scans without transform"] = f"{self._skipped} ({self._why})"
        return values

    def _prepare(self, config: LocalMapConfig, pipeline_config: PerceptionConfig, label_set: LabelSet | None) -> None:
        """Make the map anew where the classes or the configuration are others; other costs project it anew."""
        from perception.costmap import CostmapProjector
        from perception.mapping import SemanticOcTree

        asked = (config, pipeline_config, label_set)
        if self._tree is not None and all(now is then for now, then in zip(asked, self._asked, strict=True)):
            return
        self._asked = asked
        ids = None if label_set is None else tuple((label.id, label.name) for label in label_set.classes)
        octomap = pipeline_config.octomap
        made_for = (config.resolution, config.size, config.decay_time, octomap.labels_per_voxel, ids)
        fading = fading_labels(label_set, config.decay_time, pipeline_config.costmap.default_ground_cost)
        if self._tree is None or self._made_for[0] != made_for:
            self._unlabeled = fading.num_classes - 1
            self._tree = SemanticOcTree(
                config.resolution,
                num_classes=fading.num_classes,
                decay_s=fading.decay_s,
                labels_per_voxel=octomap.labels_per_voxel,
                max_label_score=octomap.max_label_score,
            )
            self._projector, self._decayed_ns = None, 0
        self._tree.sensor_model = _short(octomap.sensor_model, config.size)
        if self._projector is None or self._made_for != (made_for, pipeline_config.costmap, fading):
            self._projector = CostmapProjector(self._tree, fading, pipeline_config.costmap)
        self._made_for, self._labels = (made_for, pipeline_config.costmap, fading), fading

    def _robot(self, frame_id: str, base: str, stamp_ns: int, sensor: NDArray[np.float64]) -> tuple[float, float]:
        """Where the robot is; the sensor stands in for it where nobody tells."""
        with contextlib.suppress(TransformError):
            sensor = self._node.transforms.lookup(frame_id, base, stamp_ns).translation
            if self._watch.check(JUMP_M, sensor, stamp_ns) and self._tree is not None:
                sentence = f"{base} jumped in {frame_id}: the local map is forgotten"
                self._node.get_logger().warning(sentence)
                self._node.statistics.fault("odometry_jump", sentence, JUMP_SHOWN_S)
                self._tree.reset()
                self._jumps += 1
        return float(sensor[0]), float(sensor[1])

    def _insert(self, scan: SensorPoints | LabeledCloud, sensor: Any, config: LocalMapConfig) -> None:
        tree, center = self._tree, self._center
        assert tree is not None and center is not None
        seconds = (scan.stamp_ns - self._decayed_ns) / 1e9
        if self._decayed_ns == 0 or seconds < 0:
            self._decayed_ns = scan.stamp_ns
        elif seconds >= DECAY_STEP_S:
            tree.decay(seconds)
            self._decayed_ns = scan.stamp_ns
        count, unlabeled = len(scan.points), self._unlabeled
        labels = np.full(count, unlabeled, np.int32)
        # Just enough to be remembered: any real label outweighs it.
        confidence = np.full(count, min(0.9, max(0.1, 2 / (unlabeled + 1))), np.float32)
        if scan.labels is not None:
            known = (scan.labels >= 0) & (scan.labels < unlabeled)
            labels[known] = scan.labels[known]
            confidence[known] = 1.0 if scan.confidence is None else scan.confidence[known]
        tree.insert_cloud(
            sensor.apply(scan.points), sensor.translation, labels, confidence, sensor.apply(scan.clear_points)
        )
        tree.keep_within(center, config.size / 2 + SNAP_M)

    def _publish(self, config: LocalMapConfig, stamp_ns: int, full_period_s: float) -> None:
        assert self._projector is not None and self._tree is not None and self._center is not None
        if self._output.is_wanted:
            self._projector.set_geometry(rolling_geometry(self._center, config.size, config.resolution, SNAP_M))
            self._output.publish(self._projector.update().grid, config.frame_id, stamp_ns, full_period_s)
        for name, octree in self._octrees.items():
            if octree.get_subscription_count():
                octree.publish(octomap_message(self._tree, self._labels, OCTREES[name], config.frame_id, stamp_ns))


def fading_labels(label_set: LabelSet | None, decay_time: float, default_cost: int) -> LabelSet:
    """A label set whose classes all fade, with a last one for what has no label.

    Args:
        label_set: the map's; None for a map without labels.
        decay_time: seconds; classes that fade faster keep their own time.
        default_cost: of ground without a label.
    """
    classes = () if label_set is None else label_set.classes
    fading = [replace(label, decay_s=min(label.decay_s or decay_time, decay_time)) for label in classes]
    # At least two classes: with a single one nothing would be evidence.
    number = 1 if label_set is None else label_set.num_classes
    name = UNLABELED_CLASS if all(label.name != UNLABELED_CLASS for label in classes) else f"{UNLABELED_CLASS} (local)"
    fading.append(LabelClass(number, name, GRAY, default_cost, decay_s=decay_time))
    return LabelSet("local", tuple(fading))


def _short(model: SensorModelConfig, size: float) -> SensorModelConfig:
    """The sensor model with rays that end where the map does."""
    reach = size / 2 + SNAP_M
    return replace(model, max_range=reach if model.max_range <= 0 else min(model.max_range, reach))
