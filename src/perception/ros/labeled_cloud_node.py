# SPDX-License-Identifier: Apache-2.0
"""labeled_cloud_node: depth and label images in, labeled points out."""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import PointCloud2

from perception import cloud
from perception.errors import InputError, TransformError
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.pipeline import registered
from perception.ros.camera_input import CameraInput, CameraMessages, FrameDroppedError, decode_frame, dropping
from perception.ros.conversions import labeled_cloud_to_point_cloud2, points_to_point_cloud2, stamp_to_ns
from perception.ros.label_source import label_set_from_info
from perception.ros.node import PerceptionNode, latched_qos, run_node
from perception.types import LabeledCloud

OUTPUT_DEPTH = 5


class LabeledCloudNode(PerceptionNode):
    """Lifts labeled pixels to points in the optical frame.

    Publishes labeled_points, free_points (ends of rays that met nothing, for octomap_node's clear_in), obstacle_points
    and clearing_points.
    """

    parameter_groups = ("cloud", "input", "label_input")
    single_parameters = (
        "octomap.base_frame_id",
        "octomap.sensor_model.max_range",
        "costmap.step_height",
        "costmap.robot_height",
    )

    def __init__(self, **node_arguments: Any) -> None:
        self._label_set: LabelSet | None = None
        self._camera: CameraInput | None = None
        super().__init__("labeled_cloud_node", **node_arguments)

    def load(self) -> None:
        """Compile the kernels; read the label set where a parameter names it."""
        from perception import costmap

        name = self.parameters.config("label_input").label_set
        self._label_set = LabelSet.load(name) if name else None
        cloud.warm_up()
        costmap.warm_up()

    def setup(self) -> None:
        """Advertise the clouds."""
        names = ("labeled_points", "free_points", "obstacle_points", "clearing_points")
        self._clouds = {name: self.advertise(PointCloud2, name, OUTPUT_DEPTH) for name in names}
        self._read_parameters()

    def start(self) -> None:
        """Listen to images, depth and labels."""
        from vision_msgs.msg import LabelInfo

        worker = self.worker
        assert worker is not None
        label_input = self.parameters.config("label_input")
        if not label_input.label_set:
            self.listen(LabelInfo, "label_info", self._on_label_info, latched_qos())
        # Labels come at the network's rate, later than all else.
        streams = ("labels", "label_confidence", "depth", "image")
        streams = streams if label_input.use_confidence else tuple(s for s in streams if s != "label_confidence")
        tolerance_ns = round(self.get_parameter("sync_tolerance").value * 1e9)  # pyright: ignore[reportOptionalOperand]
        self._camera = CameraInput(self, self._input, tolerance_ns, streams, worker.submit)

    def forget(self) -> None:
        """Forget waiting messages."""
        if self._camera is not None:
            self._camera.clear()

    def parameters_changed(self, names: set[str]) -> None:
        """Read them anew."""
        self._read_parameters()

    def resolve(self, frame: CameraMessages) -> Transform | None:
        """``camera_T_depth``, where depth is not registered."""
        if self._input.depth_registered:
            return None
        depth = frame.depth.header
        return self.transforms.lookup(frame.frame_id, depth.frame_id, stamp_to_ns(depth.stamp))

    def process(self, frame: CameraMessages, needs: Transform | None) -> None:
        """Lift one frame."""
        if self._label_set is None:
            raise FrameDroppedError("no_label_info", "labels came before label_info")
        decoded = decode_frame(frame, Transform.identity(), needs, self._input, self._label_set)
        with dropping("invalid"):
            ready = registered(decoded)
            labeled = cloud.label_cloud(
                ready.depth,
                ready.camera,
                ready.labels,
                ready.color,
                self._config,
                no_return_range=max(self._max_range, 0.0),
                stamp_ns=ready.stamp_ns,
                frame_id=ready.frame_id,
            )
        self._publish(labeled)
        self.done(frame.stamp_ns)

    def _publish(self, labeled: LabeledCloud) -> None:
        from perception.costmap import clearing_points

        def wanted(name: str) -> bool:
            return self._clouds[name].get_subscription_count() > 0

        def send(name: str, points: Any) -> None:
            self._clouds[name].publish(points_to_point_cloud2(points, labeled.frame_id, labeled.stamp_ns))

        if wanted("labeled_points"):
            self._clouds["labeled_points"].publish(labeled_cloud_to_point_cloud2(labeled))
        if wanted("free_points"):
            send("free_points", labeled.clear_points)
        if wanted("clearing_points"):
            send("clearing_points", clearing_points(labeled))
        if wanted("obstacle_points"):
            self._send_obstacles(labeled, send)

    def _send_obstacles(self, labeled: LabeledCloud, send: Any) -> None:
        from perception.costmap import obstacle_points

        try:
            base_T_camera = self.transforms.lookup(self._base_frame, labeled.frame_id, labeled.stamp_ns)
        except TransformError as error:
            self.get_logger().warning(f"obstacle_points: {error}", throttle_duration_sec=5.0)
            return
        send("obstacle_points", obstacle_points(labeled, base_T_camera, self._costmap))

    def _read_parameters(self) -> None:
        self._config = self.parameters.config("cloud")
        self._input = self.parameters.config("input")
        self._costmap = self.parameters.config("costmap")
        octomap = self.parameters.config("octomap")
        self._base_frame, self._max_range = octomap.base_frame_id, octomap.sensor_model.max_range

    def _on_label_info(self, message: Any) -> None:
        try:
            self._label_set = label_set_from_info(message)
        except InputError as error:
            self.get_logger().error(str(error))


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    return run_node(LabeledCloudNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
