# SPDX-License-Identifier: Apache-2.0
"""The whole path of a camera frame: labels → labeled cloud → semantic octree → costmap.

Live nodes and offline replay both run this; read :meth:`PerceptionPipeline.process` to know what happens to a frame.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.cloud import depth_scan, lift
from perception.config import OctomapConfig, PerceptionConfig
from perception.evaluation.timing import StageTimer
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.registration import rectify, register_depth
from perception.types import CostGrid, DepthScan, Frame, LabeledCloud, LabelImage

if TYPE_CHECKING:
    from perception.mapping import CollectedScan, InsertReport, SemanticOcTree
    from perception.models import Segmenter


@dataclass(frozen=True)
class SeenFrame:
    """What is known of a frame before the map takes it in.

    Attributes:
        frame: the frame as it is used: rectified, depth registered to color.
        labels: label image, or None when the map takes geometry only.
        scan: the depth image with what makes points of it.
        collected: the scan as the map takes it, where that was prepared already.
    """

    frame: Frame
    labels: LabelImage | None
    scan: DepthScan
    collected: CollectedScan | None = field(default=None, kw_only=True)

    @functools.cached_property
    def cloud(self) -> LabeledCloud:
        """Labeled points in the camera's optical frame; made when asked for, as the map does without."""
        return lift(self.scan, self.frame.color, self.frame.stamp_ns, self.frame.frame_id)


@dataclass(frozen=True)
class FrameResult(SeenFrame):
    """What came of one frame.

    Attributes:
        report: what the octree counted when it took the frame in.
    """

    report: InsertReport


class PerceptionPipeline:
    """Turns frames into a semantic octree and a costmap.

    Args:
        config: all parameters.
        segmenter: the network; None maps geometry, or the labels that frames bring along.
        label_set: what labels mean; None takes the segmenter's.
        use_frame_labels: labels that frames bring along stand in for the network's; False leaves them as truth to
            compare with.
    """

    def __init__(
        self,
        config: PerceptionConfig,
        segmenter: Segmenter | None = None,
        label_set: LabelSet | None = None,
        use_frame_labels: bool = True,
    ) -> None:
        label_set = label_set or (segmenter.label_set if segmenter else None)
        self.config = config
        self.segmenter = segmenter
        self.use_frame_labels = use_frame_labels
        self.label_set = label_set.with_costs(config.costs) if label_set and config.costs else label_set
        self.tree = create_tree(config.octomap, self.label_set)
        self.projector = create_projector(self.tree, self.label_set, config)
        self.timer = StageTimer()

    @classmethod
    def from_config(cls, config: PerceptionConfig, label_set: LabelSet | None = None) -> PerceptionPipeline:
        """The pipeline with the network that ``config.segmentation.model`` names ("none" for none)."""
        return cls(config, create_segmenter_from(config), label_set)

    def process(self, frame: Frame) -> FrameResult:
        """Take one frame into the map; ``frame.labels``, where given, stand in for the network's.

        Raises:
            InputError: the frame contradicts itself (sizes, unknown labels); the map is as before.
        """
        return self.take_in(self.see(frame))

    def see(self, frame: Frame) -> SeenFrame:
        """The part of :meth:`process` that leaves the map alone: the registered frame, its labels, what to lift.

        A replay may see a frame while the map still takes in the one before; errors as :meth:`process`.
        """
        with self.timer.measure("prepare"):
            frame = registered(frame)
        with self.timer.measure("segment"):
            labels = self.segment(frame)
        with self.timer.measure("cloud"):
            return self.scanned(frame, labels)

    def see_ahead(self, frame: Frame) -> SeenFrame:
        """As :meth:`see`, and all that can be done for the map without it: while it takes in the frame before."""
        seen = self.see(frame)
        with self.timer.measure("collect"):
            return replace(seen, collected=self.tree.collect_depth(seen.scan, seen.frame.map_T_camera, alone=True))

    def take_in(self, seen: SeenFrame, with_costmap: bool = True) -> FrameResult:
        """The other part of :meth:`process`: map and costmap take in what :meth:`see` saw.

        A costmap that is left out now takes in all that has changed the next time.
        """
        with self.timer.measure("insert"):
            report = self.insert_seen(seen)
        if with_costmap:
            with self.timer.measure("costmap"):
                self.projector.update()
        return FrameResult(seen.frame, seen.labels, seen.scan, report)

    def segment(self, frame: Frame) -> LabelImage | None:
        """Labels of the frame: its own, else the network's; none for a map without classes.

        Raises:
            InputError: the frame's own labels are not of the map's label set.
        """
        if self.label_set is None:
            return None
        if frame.labels is not None and self.use_frame_labels:
            self.label_set.check_ids(frame.labels.labels, "labels of the frame")
            return frame.labels
        return self.segmenter(frame.color) if self.segmenter else None

    def scanned(self, frame: Frame, labels: LabelImage | None) -> SeenFrame:
        """A registered frame with its labels, ready for the map."""
        scan = depth_scan(
            frame.depth,
            frame.camera,
            labels,
            self.config.cloud,
            min_confidence=self.config.segmentation.min_confidence,
            no_return_range=max(self.config.octomap.sensor_model.max_range, 0.0),
        )
        return SeenFrame(frame, labels, scan)

    def lift(self, frame: Frame, labels: LabelImage | None) -> LabeledCloud:
        """Labeled points of a registered frame, in its optical frame."""
        return self.scanned(frame, labels).cloud

    def insert_seen(self, seen: SeenFrame) -> InsertReport:
        """Take a frame into the octree; the same as :meth:`insert` with its cloud, but faster."""
        if seen.collected is not None:
            return self.tree.insert_collected(seen.collected)
        return self.tree.insert_depth(seen.scan, seen.frame.map_T_camera)

    def insert(self, cloud: LabeledCloud, frame: Frame) -> InsertReport:
        """Take a cloud, thinned or filtered, into the octree from where the camera stood."""
        map_T_camera = frame.map_T_camera
        return self.tree.insert_cloud(
            map_T_camera.apply(cloud.points),
            map_T_camera.translation,
            labels=cloud.labels if self.label_set else None,
            confidence=cloud.confidence if self.label_set else None,
            clear_points=map_T_camera.apply(cloud.clear_points),
        )

    def costmap(self) -> CostGrid:
        """The costmap of everything mapped so far."""
        return self.projector.update().grid

    def warm_up(self, live: bool = True) -> None:
        """Compile or load every kernel and run the network once, so that the first frame is like the others.

        Args:
            live: also what a replay never calls: labels of all types, queries, decay, reading files.
        """
        from perception import cloud, compilation, costmap, mapping

        with compilation.shared():
            small_map = mapping.warm_up_insertion()
            if self.segmenter is not None:
                self.segmenter.warm_up()
            mapping.warm_up_reading(small_map, backwards=True)
        cloud.warm_up()
        costmap.warm_up()
        mapping.warm_up_reading(small_map)
        Transform.identity().apply(np.zeros((1, 3), np.float32))
        if live:
            mapping.warm_up()


def registered(frame: Frame) -> Frame:
    """The frame without lens distortion and with depth seen from the color camera."""
    changes: dict[str, Any] = {}
    if frame.camera.is_distorted:
        changes["color"] = frame.color_through(lambda color: rectify(color, frame.camera))
        changes["camera"] = frame.camera.rectified()
        if frame.labels is not None:
            changes["labels"] = rectify(frame.labels, frame.camera)
    depth_camera = frame.depth_camera or frame.camera
    depth = rectify(frame.depth, depth_camera) if depth_camera.is_distorted else frame.depth
    if frame.depth_camera is not None and frame.camera_T_depth is not None:
        depth = register_depth(depth, depth_camera.rectified(), frame.camera.rectified(), frame.camera_T_depth)
        changes.update(depth_camera=None, camera_T_depth=None)
    if depth is not frame.depth:
        changes["depth"] = depth
    return frame.changed(**changes) if changes else frame


def create_tree(config: OctomapConfig, label_set: Any) -> SemanticOcTree:
    """The octree that a configuration asks for; ``label_set`` tells the number of classes and how they fade."""
    from perception.mapping import SemanticOcTree

    return SemanticOcTree(
        resolution=config.resolution,
        sensor_model=config.sensor_model,
        num_classes=label_set.num_classes if label_set else 0,
        decay_s=label_set.decay_s if label_set else None,
        labels_per_voxel=config.labels_per_voxel,
        max_label_score=config.max_label_score,
        max_memory=round(config.max_memory_mb * 1e6) or None,
    )


def create_projector(tree: SemanticOcTree, label_set: LabelSet | None, config: PerceptionConfig) -> Any:
    """The costmap projection of a tree."""
    from perception.costmap import CostmapProjector

    return CostmapProjector(tree, label_set, config.costmap)


def create_segmenter_from(config: PerceptionConfig) -> Segmenter | None:
    """The network that a configuration names, with its classes mapped to the map's; None for "none"."""
    from perception.models import segmenter_from_config

    return None if config.segmentation.model == "none" else segmenter_from_config(config.segmentation)
