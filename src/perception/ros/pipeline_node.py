# SPDX-License-Identifier: Apache-2.0
"""pipeline_node: images in, map and costmap out, with nothing serialized in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensor_msgs.msg import PointCloud2

from perception.config import PerceptionConfig
from perception.errors import TransformError
from perception.geometry import Transform
from perception.pipeline import FrameResult, PerceptionPipeline, create_segmenter_from
from perception.ros.camera_input import CameraInput, CameraMessages, camera_poses, decode_frame, dropping
from perception.ros.conversions import labeled_cloud_to_point_cloud2, points_to_point_cloud2
from perception.ros.map_node import MAP_GROUPS, MapNode
from perception.ros.node import run_node
from perception.ros.segmentation_node import LabelOutputs

OUTPUT_DEPTH = 5


class PipelineNode(MapNode):
    """Runs all stages in one process; publishes what segmentation_node, labeled_cloud_node and octomap_node do."""

    parameter_groups = ("segmentation", "cloud", *MAP_GROUPS, "input")

    def __init__(self, **node_arguments: Any) -> None:
        self._segmenter: Any = None
        self._camera: CameraInput | None = None
        super().__init__("pipeline_node", **node_arguments)

    def load(self) -> None:
        """Compile the kernels, load the network and run it once."""
        self._segmenter = create_segmenter_from(self.config())
        super().load()
        if self._segmenter is not None:
            self._segmenter.warm_up()

    def make_pipeline(self, config: PerceptionConfig) -> PerceptionPipeline:
        """An empty map with the network's classes."""
        return PerceptionPipeline(config, self._segmenter)

    def setup(self) -> None:
        """Advertise all topics."""
        super().setup()
        self._labels = LabelOutputs(self, self.config().segmentation.min_confidence)
        if self._segmenter is not None:
            self._labels.announce(self._segmenter.label_set, self.now_ns())
        names = ("labeled_points", "obstacle_points", "clearing_points")
        self._clouds = {name: self.advertise(PointCloud2, name, OUTPUT_DEPTH) for name in names}

    def start(self) -> None:
        """Listen to the camera."""
        super().start()
        worker = self.worker
        assert worker is not None
        self._input = self.parameters.config("input")
        tolerance_ns = round(self.get_parameter("sync_tolerance").value * 1e9)  # pyright: ignore[reportOptionalOperand]
        self._camera = CameraInput(self, self._input, tolerance_ns, ("depth", "image"), worker.submit)

    def forget(self) -> None:
        """Forget waiting images."""
        if self._camera is not None:
            self._camera.clear()

    def resolve(self, frame: CameraMessages) -> tuple[Transform, Transform | None]:
        """Where the camera was."""
        return camera_poses(frame, self.transforms, self.frame_id, self._input.depth_registered)

    def process(self, frame: CameraMessages, needs: tuple[Transform, Transform | None]) -> None:
        """Take one frame into the map and publish what came of it."""
        decoded = decode_frame(frame, *needs, self._input, None)
        with self.lock, dropping("invalid"):
            pipeline = self._pipeline()
            result = pipeline.process(decoded)
            self.count_points(result.report)
            self._publish_frame(result, pipeline)
            self.inserted(frame.stamp_ns)
        self.done(frame.stamp_ns)

    def _publish_frame(self, result: FrameResult, pipeline: PerceptionPipeline) -> None:
        from perception.costmap import clearing_points, obstacle_points

        frame = result.frame
        if result.labels is not None:
            self._labels.publish(result.labels, frame.color, frame.frame_id, frame.stamp_ns)
        wanted = {name for name, publisher in self._clouds.items() if publisher.get_subscription_count()}
        if "labeled_points" in wanted:
            self._clouds["labeled_points"].publish(labeled_cloud_to_point_cloud2(result.cloud))
        if "clearing_points" in wanted:
            self._send("clearing_points", clearing_points(result.cloud), result)
        if "obstacle_points" in wanted:
            ground, floor = pipeline.projector.ground(), self._floor_height(frame.stamp_ns)
            config = pipeline.config.costmap
            points = obstacle_points(result.cloud, frame.map_T_camera, config, ground, floor)
            self._send("obstacle_points", points, result)

    def _send(self, name: str, points: Any, result: FrameResult) -> None:
        self._clouds[name].publish(points_to_point_cloud2(points, result.cloud.frame_id, result.cloud.stamp_ns))

    def _floor_height(self, stamp_ns: int) -> float:
        """Height of the robot's base; where the ground is not known, the floor is taken to be there, else at 0."""
        try:
            return float(self.transforms.lookup(self.frame_id, self.base_frame_id, stamp_ns).translation[2])
        except TransformError:
            return 0.0

    def teardown(self) -> None:
        """Free map and network."""
        super().teardown()
        self._segmenter = None

    def details(self) -> Mapping[str, Any]:
        """What labels the images, and the map."""
        segmenter = self._segmenter
        network = {} if segmenter is None else {"network": segmenter.name, "device": segmenter.device}
        return {**network, **super().details()}


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    return run_node(PipelineNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
