# SPDX-License-Identifier: Apache-2.0
"""pipeline_node: images in, map and costmap out, with nothing serialized in between."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2

from perception.cloud_codec import PointFields
from perception.config import PerceptionConfig
from perception.errors import InputError
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.models.base import label_together
from perception.pipeline import PerceptionPipeline, create_segmenter_from, registered
from perception.ros.camera_input import CameraInput, CameraMessages, camera_poses, decode_frame, topic_of
from perception.ros.camera_labels import CameraLabels
from perception.ros.cloud_input import CloudMessages
from perception.ros.conversions import labeled_cloud_to_point_cloud2
from perception.ros.depth_clouds import DepthClouds, DepthCloudSettings
from perception.ros.drops import FrameDroppedError, dropping
from perception.ros.node import run_node
from perception.ros.segmentation_node import LabelOutputs
from perception.ros.sensor_node import SENSOR_GROUPS, SensorNode
from perception.self_filter import PlacedBody
from perception.types import Frame, LabeledCloud, LabelImage

OUTPUT_DEPTH = 5
GROUND_PERIOD_S = 0.2
"""The ground under obstacle_points is this old at most."""


class CameraNeeds(NamedTuple):
    """Where a camera was: ``camera_T_depth`` for depth that is not registered, and the robot's parts in its sight."""

    map_T_camera: Transform
    camera_T_depth: Transform | None
    bodies: tuple[PlacedBody, ...]


class PipelineNode(SensorNode):
    """Runs all stages in one process; publishes what segmentation_node, labeled_cloud_node and octomap_node do.

    Cameras have topics of their own and share the network and the map.
    """

    parameter_groups = ("cameras", "segmentation", "cloud", *SENSOR_GROUPS, "obstacles", "input")

    def __init__(self, **node_arguments: Any) -> None:
        self._segmenter: Any = None
        self._cameras: dict[str, CameraInput] = {}
        self._depth_clouds: DepthClouds | None = None
        self._ground_due = 0.0
        self._labeled: list[tuple[CameraMessages, Frame]] = []
        self._camera_labels = CameraLabels()
        self._cloud_label_age = 0.0
        super().__init__("pipeline_node", **node_arguments)

    def load(self) -> None:
        """Compile the kernels, load the network and run it once."""
        wants_network = self.parameters.config("cameras").label_source == "network"
        self._segmenter = create_segmenter_from(self.config()) if wants_network else None
        super().load()
        if self._segmenter is not None:
            self._segmenter.warm_up()

    def make_pipeline(self, config: PerceptionConfig) -> PerceptionPipeline:
        """An empty map with the network's classes, or with those of the labels that others publish."""
        if self.parameters.config("cameras").label_source == "network":
            return PerceptionPipeline(config, self._segmenter)
        name = self.parameters.config("label_input").label_set
        return PerceptionPipeline(config, None, LabelSet.load(name) if name else None)

    def setup(self) -> None:
        """Advertise all topics, those of each camera behind its name."""
        names = camera_names(self.parameters.config("cameras").cameras)
        self._clouds_out = {
            name: self.advertise(PointCloud2, topic_of(name, "labeled_points"), OUTPUT_DEPTH) for name in names
        }
        self._depth_clouds = DepthClouds(self, names)
        super().setup()
        threshold = self.config().segmentation.min_confidence
        self._labels = {name: LabelOutputs(self, threshold, name) for name in names} if self._segmenter else {}
        for outputs in self._labels.values():
            outputs.announce(self._segmenter.label_set, self.now_ns())

    def read_parameters(self) -> None:
        """Read what the obstacle clouds depend on, too."""
        super().read_parameters()
        self._input = self.parameters.config("input")
        self._cloud_label_age = self.parameters.config("cameras").cloud_label_age
        assert self._depth_clouds is not None
        config = self.config()
        self._depth_clouds.settings = DepthCloudSettings(
            config.cloud,
            config.costmap,
            self.parameters.config("obstacles"),
            self.self_filter,
            config.octomap.sensor_model.max_range,
            self.base_frame_id,
            self.frame_id,
            self._input.rectified,
        )

    def start(self) -> None:
        """Listen to the cameras."""
        super().start()
        worker, clouds = self.worker, self._depth_clouds
        assert worker is not None and clouds is not None
        clouds.start()
        cameras = self.parameters.config("cameras")
        if cameras.label_source == "topic":
            self.listen_to_label_info()
        worker.together = self._label_together if cameras.batch_cameras and self._segmenter is not None else None
        tolerance_ns = round(self.get_parameter("sync_tolerance").value * 1e9)  # pyright: ignore[reportOptionalOperand]
        make = partial(CameraInput, self, self._input, tolerance_ns, self._streams(), worker.submit)
        self._cameras = {name: make(name, clouds.submit) for name in self._clouds_out}

    def _streams(self) -> tuple[str, ...]:
        """Topics that make up a frame; the first has the lowest rate."""
        cameras = self.parameters.config("cameras")
        labels: tuple[str, ...] = ()
        if cameras.label_source == "topic":
            labels = ("labels", "label_confidence") if self.parameters.config("label_input").use_confidence else labels
            labels = labels or ("labels",)
        # Depth that is not registered goes into the image's pixels, so its camera is needed.
        without = not cameras.use_color and self._segmenter is None and self._input.depth_registered
        return (*labels, "depth") if without else (*labels, "depth", "image")

    def forget(self) -> None:
        """Forget waiting images and clouds."""
        super().forget()
        for camera in self._cameras.values():
            camera.clear()
        if self._depth_clouds is not None:
            self._depth_clouds.forget()
        self._camera_labels.forget()
        self._labeled = []

    def resolve(self, frame: CameraMessages | CloudMessages) -> Any:
        """Where the sensor was."""
        if isinstance(frame, CloudMessages):
            return super().resolve(frame)
        poses = camera_poses(frame, self.transforms, self.frame_id, self._input.depth_registered)
        lookup = self.transforms.lookup
        bodies = self.self_filter.place(frame.frame_id, lambda target, source: lookup(target, source, frame.stamp_ns))
        return CameraNeeds(*poses, bodies)

    def process(self, frame: CameraMessages | CloudMessages, needs: Any) -> None:
        """Take one frame into the map and publish what came of it; the map is locked only while it changes."""
        if isinstance(frame, CloudMessages):
            super().process(frame, needs)
            return
        self.budget.admit(self.budget_config, frame.source, frame.stamp_ns, self.now_ns(), needs.map_T_camera)
        pipeline = self._pipeline()
        with pipeline.timer.measure("prepare"):
            labeled = next((ready for messages, ready in self._labeled if messages is frame), None)
            ready = labeled or self._prepare(frame, needs, pipeline.label_set)
        with dropping("invalid"):
            with pipeline.timer.measure("segment"):
                labels = pipeline.segment(ready)
            self._publish_labels(frame.source, ready, labels)
            with pipeline.timer.measure("cloud"):
                seen = pipeline.scanned(ready, labels)
                thinned = self._thinned(seen.cloud) if self.budget_config.max_points else None

        def cloud() -> LabeledCloud:
            return seen.cloud if thinned is None else thinned

        with self.lock:
            pipeline = self.admit(frame.stamp_ns)
            with dropping("invalid"), pipeline.timer.measure("insert"):
                report = pipeline.insert_seen(seen) if thinned is None else pipeline.insert(thinned, ready)
                self.count_points(report)
            self.inserted(frame.stamp_ns, cloud)
            self._update_ground(pipeline)
        publisher = self._clouds_out[frame.source]
        if publisher.get_subscription_count():
            publisher.publish(labeled_cloud_to_point_cloud2(cloud()))
        self.budget.finish(self.budget_config, frame.source)
        self.done(frame.stamp_ns, frame.source)

    def _label_together(self, frames: list[tuple[CameraMessages | CloudMessages, Any]]) -> None:
        """Label what several cameras see in one run; frames that cannot be are left to their own turn to say why."""
        pipeline, prepared = self._pipeline(), []
        for frame, needs in frames:
            if isinstance(frame, CameraMessages):
                with suppress(InputError), pipeline.timer.measure("prepare"):
                    prepared.append((frame, self._prepare(frame, needs, pipeline.label_set)))
        with suppress(InputError), pipeline.timer.measure("segment"):
            found = label_together(self._segmenter, [ready.color for _, ready in prepared])
            self._labeled = [
                (frame, replace(ready, labels=labels)) for (frame, ready), labels in zip(prepared, found, strict=True)
            ]

    def _prepare(self, messages: CameraMessages, needs: CameraNeeds, label_set: LabelSet | None) -> Frame:
        """Decode a frame, bring depth and color onto one camera and take the robot's body out."""
        if messages.labels is not None and label_set is None:
            raise FrameDroppedError("no_label_info", "labels came before label_info")
        decoded = decode_frame(messages, needs.map_T_camera, needs.camera_T_depth, self._input, label_set)
        with dropping("invalid"):
            ready = registered(decoded)
            depth, removed = self.self_filter.mask_depth(ready.depth, ready.camera, needs.bodies, messages.source)
        self.points_on_robot += removed
        return ready if depth is ready.depth else replace(ready, depth=depth)

    def labeled(
        self, stamp_ns: int, cloud: PointFields, free: NDArray[np.float32], map_T_sensor: Transform
    ) -> tuple[PointFields, NDArray[np.float32]]:
        """Clouds of other sensors take the labels of the pixels that show their points."""
        age_s, threshold = self._cloud_label_age, self._pipeline().config.segmentation.min_confidence
        if age_s <= 0:
            return cloud, free
        return self._camera_labels.label(cloud, free, map_T_sensor, stamp_ns, age_s, threshold)

    def _thinned(self, cloud: LabeledCloud) -> LabeledCloud:
        every = self.budget.stride(self.budget_config, len(cloud))
        if every == 1:
            return cloud
        names = ("points", "colors", "labels", "confidence", "pixels")
        return replace(cloud, **{name: getattr(cloud, name)[::every] for name in names})

    def _publish_labels(self, camera: str, frame: Frame, labels: LabelImage | None) -> None:
        if labels is None:
            return
        if camera in self._labels:
            self._labels[camera].publish(labels, frame.color, frame.frame_id, frame.stamp_ns)
        if self._depth_clouds is not None:
            self._depth_clouds.use_labels(camera, frame.stamp_ns, labels)
        if self._cloud_label_age > 0:
            self._camera_labels.keep(camera, frame, labels)

    def _update_ground(self, pipeline: PerceptionPipeline) -> None:
        """Tell the obstacle clouds where the ground is."""
        clouds, now = self._depth_clouds, monotonic()
        if clouds is not None and clouds.is_wanted and now >= self._ground_due:
            self._ground_due = now + GROUND_PERIOD_S
            pipeline.projector.update()
            clouds.ground = pipeline.projector.ground()

    def teardown(self) -> None:
        """Free map and network."""
        super().teardown()
        self._camera_labels.forget()
        self._segmenter, self._depth_clouds, self._cameras, self._labeled = None, None, {}, []

    def details(self) -> Mapping[str, Any]:
        """What labels the images, the map, and the obstacle clouds."""
        segmenter, clouds = self._segmenter, self._depth_clouds
        network = {} if segmenter is None else {"network": segmenter.name, "device": segmenter.device}
        labeled = {"points of clouds labeled": self._camera_labels.labeled} if self._cloud_label_age > 0 else {}
        return {**network, **super().details(), **labeled, **({} if clouds is None else clouds.details())}


def camera_names(text: str) -> list[str]:
    """'front, rear' to names; one empty name where there are none.

    Raises:
        InputError: a name is there twice, or cannot be part of a topic's name.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    good = all(part.isidentifier() for name in names for part in name.split("/"))
    if len(set(names)) != len(names) or not good:
        raise InputError(f"cameras: expected different names of letters, digits and underscores, got {text!r}")
    return names or [""]


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    return run_node(PipelineNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
