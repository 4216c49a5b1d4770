# SPDX-License-Identifier: Apache-2.0
"""What octomap_node and pipeline_node share besides the map: clouds, laser scans, labels' meaning, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.cloud_codec import PointFields
from perception.errors import InputError
from perception.geometry import Transform
from perception.ros.budget import Budget
from perception.ros.cloud_input import (
    NO_POINTS,
    CloudInput,
    CloudMessages,
    CloudPoses,
    cloud_poses,
    decode_cloud,
    filtered_scan,
)
from perception.ros.drops import FrameDroppedError, dropping
from perception.ros.label_source import label_set_from_info
from perception.ros.map_node import MAP_GROUPS, MapNode
from perception.ros.node import latched_qos
from perception.self_filter import SelfFilter

SENSOR_GROUPS = (*MAP_GROUPS, "cloud_filter", "cloud_input", "label_input", "self_filter", "budget")

SAVE_TIMEOUT_S = 8.0
"""How long the end may take while the map is saved: launch files kill after ten seconds."""


class SensorNode(MapNode):
    """A map that clouds and laser scans are taken into."""

    has_main_cloud = False
    """Listens to ``cloud_in`` and ``clear_in``."""

    def __init__(self, name: str, **node_arguments: Any) -> None:
        self._clouds: CloudInput | None = None
        self.budget = Budget()
        self.points_on_robot = 0
        super().__init__(name, **node_arguments)

    @property
    def end_timeout_s(self) -> float:
        """As every node's; longer where a map is saved at the end."""
        return super().end_timeout_s if self._autosave is None else SAVE_TIMEOUT_S

    def read_parameters(self) -> None:
        """Read the sensors' too."""
        super().read_parameters()
        self._limits = self.parameters.config("cloud_filter")
        self._cloud_input = self.parameters.config("cloud_input")
        self.budget_config = self.parameters.config("budget")
        self._max_range: float = self.parameters.config("octomap").sensor_model.max_range

    def setup(self) -> None:
        """Know the robot's body."""
        base = self.parameters.config("octomap").base_frame_id
        self.self_filter = SelfFilter(self.parameters.config("self_filter"), base)
        super().setup()

    def start(self) -> None:
        """Listen to clouds and scans."""
        super().start()
        worker = self.worker
        assert worker is not None
        self._clouds = CloudInput(self, self.parameters.config("cloud_input"), worker.submit, self.has_main_cloud)

    def listen_to_label_info(self) -> None:
        """Learn the classes from label_info, where no parameter names them."""
        from vision_msgs.msg import LabelInfo

        if not self.parameters.config("label_input").label_set:
            self.listen(LabelInfo, "label_info", self._on_label_info, latched_qos())

    def forget(self) -> None:
        """Forget waiting clouds."""
        self.budget.forget()
        if self._clouds is not None:
            self._clouds.clear()

    def resolve(self, frame: CloudMessages) -> Any:
        """Where a cloud was taken."""
        return cloud_poses(frame, self.transforms, self.frame_id, self.base_frame_id, self._limits, self.self_filter)

    def process(self, frame: CloudMessages, needs: CloudPoses) -> None:
        """Take a cloud or scan into the map."""
        self.budget.admit(self.budget_config, frame.source, frame.stamp_ns, self.now_ns(), needs.map_T_sensor)
        with_colors = self.palette is not None
        cloud, free = decode_cloud(frame, needs, self._cloud_input, self._max_range, with_colors)
        cloud, free = self.labeled(frame.stamp_ns, cloud, free, needs.map_T_sensor)
        with self.lock:
            pipeline = self.admit(frame.stamp_ns)
            cloud = cloud if self.palette is None else self.palette.label(cloud)
            labeled = pipeline.label_set is not None or self.palette is not None
            if cloud.labels is not None and not labeled and (cloud.labels >= 0).any():
                raise FrameDroppedError("no_label_info", "a labeled cloud came before label_info")
            with pipeline.timer.measure("filter"):
                every = self.budget.stride(self.budget_config, len(cloud.points))
                scan, points, on_robot = filtered_scan(
                    frame,
                    cloud,
                    free,
                    needs,
                    self._limits,
                    self._cloud_input.min_range,
                    self.self_filter,
                    labeled,
                    every,
                )
                self.points_on_robot += on_robot
            with dropping("invalid"), pipeline.timer.measure("insert"):
                ends = needs.map_T_sensor.apply(scan.clear_points) if len(scan.clear_points) else NO_POINTS
                origin = needs.map_T_sensor.translation
                report = pipeline.tree.insert_cloud(points, origin, scan.labels, scan.confidence, ends)
            self.count_points(report)
            # Ids of a palette are colors: the local map has no such classes.
            plain = {} if self.palette is None else {"labels": None, "confidence": None}
            self.inserted(frame.stamp_ns, lambda: replace(scan, **plain))
        self.budget.finish(self.budget_config, frame.source)
        self.done(frame.stamp_ns, frame.source)

    def labeled(
        self, stamp_ns: int, cloud: PointFields, free: NDArray[np.float32], map_T_sensor: Transform
    ) -> tuple[PointFields, NDArray[np.float32]]:
        """A cloud, in the sensor's frame, with what is known of its labels, and the ends of its free rays."""
        return cloud, free

    def details(self) -> Mapping[str, Any]:
        """What was left out, and what became of each source."""
        values: dict[str, Any] = dict(super().details())
        if self.points_on_robot:
            values["points on the robot"] = self.points_on_robot
        if self.budget.thinned:
            values["points left out by budget.max_points"] = self.budget.thinned
        for source, counts in sorted(self.statistics.snapshot().sources.items()):
            values[f"{source} frames"] = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        return values

    def _on_label_info(self, message: Any) -> None:
        label_set = label_set_from_info(message)
        with self.lock:
            known = self._pipeline().label_set
            if known is None:
                self.add_labels(label_set)
            elif [(c.id, c.name) for c in known.classes] != [(c.id, c.name) for c in label_set.classes]:
                raise InputError("label_info changed its classes; the map keeps the first ones")
