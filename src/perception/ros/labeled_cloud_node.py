# SPDX-License-Identifier: Apache-2.0
"""labeled_cloud_node: depth and label images in, labeled points out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensor_msgs.msg import PointCloud2

from perception import cloud
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.pipeline import registered
from perception.ros.camera_input import CameraInput, CameraMessages, decode_frame
from perception.ros.conversions import labeled_cloud_to_point_cloud2, points_to_point_cloud2, stamp_to_ns
from perception.ros.depth_clouds import DepthClouds, DepthCloudSettings
from perception.ros.drops import FrameDroppedError, dropping
from perception.ros.label_source import label_set_from_info
from perception.ros.node import PerceptionNode, latched_qos, run_node
from perception.self_filter import SelfFilter
from perception.types import LabeledCloud

OUTPUT_DEPTH = 5


class LabeledCloudNode(PerceptionNode):
    """Lifts labeled pixels to points in the optical frame.

    Publishes labeled_points, free_points (ends of rays that met nothing, for octomap_node's clear_in), and at the rate
    of depth, without labels, obstacle_points and clearing_points.
    """

    parameter_groups = ("cloud", "input", "label_input", "obstacles", "self_filter")
    single_parameters = (
        "cameras.use_color",
        "octomap.base_frame_id",
        "octomap.sensor_model.max_range",
        "costmap.step_height",
        "costmap.robot_height",
    )

    def __init__(self, **node_arguments: Any) -> None:
        self._label_set: LabelSet | None = None
        self._camera: CameraInput | None = None
        self._depth_clouds: DepthClouds | None = None
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
        names = ("labeled_points", "free_points")
        self._clouds = {name: self.advertise(PointCloud2, name, OUTPUT_DEPTH) for name in names}
        self._depth_clouds = DepthClouds(self, ("",))
        base = self.parameters.config("octomap").base_frame_id
        self._self_filter = SelfFilter(self.parameters.config("self_filter"), base)
        self._read_parameters()

    def start(self) -> None:
        """Listen to images, depth and labels."""
        from vision_msgs.msg import LabelInfo

        worker, clouds = self.worker, self._depth_clouds
        assert worker is not None and clouds is not None
        clouds.start()
        label_input = self.parameters.config("label_input")
        if not label_input.label_set:
            self.listen(LabelInfo, "label_info", self._on_label_info, latched_qos())
        unused = set() if label_input.use_confidence else {"label_confidence"}
        if self._input.depth_registered and not self.parameters.config("cameras").use_color:
            unused.add("image")
        # Labels come at the network's rate, later than all else.
        streams = tuple(s for s in ("labels", "label_confidence", "depth", "image") if s not in unused)
        tolerance_ns = round(self.get_parameter("sync_tolerance").value * 1e9)  # pyright: ignore[reportOptionalOperand]
        hand_over = worker.submit
        self._camera = CameraInput(self, self._input, tolerance_ns, streams, hand_over, on_depth=clouds.submit)

    def forget(self) -> None:
        """Forget waiting messages."""
        if self._camera is not None:
            self._camera.clear()
        if self._depth_clouds is not None:
            self._depth_clouds.forget()

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
        if self._depth_clouds is not None:
            self._depth_clouds.use_labels("", ready.stamp_ns, ready.labels)
        self.done(frame.stamp_ns)

    def _publish(self, labeled: LabeledCloud) -> None:
        points, free = self._clouds["labeled_points"], self._clouds["free_points"]
        if points.get_subscription_count():
            points.publish(labeled_cloud_to_point_cloud2(labeled))
        if free.get_subscription_count():
            free.publish(points_to_point_cloud2(labeled.clear_points, labeled.frame_id, labeled.stamp_ns))

    def teardown(self) -> None:
        """Free what the obstacle clouds hold."""
        self._depth_clouds = None

    def details(self) -> Mapping[str, Any]:
        """About the obstacle clouds."""
        clouds = self._depth_clouds
        return {} if clouds is None else clouds.details()

    def _read_parameters(self) -> None:
        self._config = self.parameters.config("cloud")
        self._input = self.parameters.config("input")
        octomap = self.parameters.config("octomap")
        self._max_range = octomap.sensor_model.max_range
        assert self._depth_clouds is not None
        self._depth_clouds.settings = DepthCloudSettings(
            self._config,
            self.parameters.config("costmap"),
            self.parameters.config("obstacles"),
            self._self_filter,
            self._max_range,
            octomap.base_frame_id,
            rectified=self._input.rectified,
        )

    def _on_label_info(self, message: Any) -> None:
        self._label_set = label_set_from_info(message)


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    return run_node(LabeledCloudNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
