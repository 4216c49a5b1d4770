# SPDX-License-Identifier: Apache-2.0
"""What octomap_node and pipeline_node share: the map, its topics, its services, its parameters."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import Any

from perception.config import PerceptionConfig
from perception.errors import InputError, TransformError
from perception.labels import LabelSet
from perception.pipeline import PerceptionPipeline, create_projector
from perception.ros.camera_input import FrameDroppedError
from perception.ros.costmap_filters import FilterMasks, check_filters
from perception.ros.costmap_output import CostmapOutput, CostmapPlacement, DistanceOutput
from perception.ros.local_map import LocalMap, SensorPoints
from perception.ros.map_jump import JumpWatch
from perception.ros.map_outputs import MapOutputs, octomap_message
from perception.ros.map_services import MapServices
from perception.ros.map_storage import Autosave, configured_path, read_map, write_map
from perception.ros.node import PerceptionNode
from perception.ros.parameters import CLASS_PREFIX, COST_SUFFIX
from perception.ros.voxel_colors import ColorPalette
from perception.types import LabeledCloud

MAP_GROUPS = ("octomap", "server", "costmap", "grid", "filters", "local_map", "output", "jump")
STORAGE_TICK_S = 1.0
JUMP_SHOWN_S = 10.0


class MapNode(PerceptionNode):
    """Keeps a map and serves it; subclasses feed it.

    The worker thread inserts and publishes; services run in the executor's thread. ``lock`` keeps them apart.
    """

    def __init__(self, name: str, **node_arguments: Any) -> None:
        self.lock = RLock()
        self.pipeline: PerceptionPipeline | None = None
        self._stamp_ns: int | None = None
        self._map_due = self._costmap_due = 0.0
        self._dropped_points = 0
        self._paused = ""
        self._autosave: Autosave | None = None
        self.palette: ColorPalette | None = None
        super().__init__(name, **node_arguments)

    # Hooks of subclasses.

    def make_pipeline(self, config: PerceptionConfig) -> PerceptionPipeline:
        """An empty map."""
        raise NotImplementedError

    def read_parameters(self) -> None:
        """Keep what is needed for every frame; again after each change."""
        config = self.parameters.config
        self._server, self._output, self._jump = config("server"), config("output"), config("jump")
        self._grid, self._filters, self._local = config("grid"), config("filters"), config("local_map")
        octomap = config("octomap")
        self.frame_id: str = octomap.frame_id
        self.base_frame_id: str = octomap.base_frame_id

    # What subclasses use.

    def load(self) -> None:
        """Compile the kernels."""
        from perception import cloud, costmap, mapping

        cloud.warm_up()
        mapping.warm_up()
        costmap.warm_up()

    def config(self) -> PerceptionConfig:
        """The parameters as the pipeline takes them; groups that this node does not have keep their defaults."""
        groups = {name: self.parameters.config(name) for name in ("segmentation", "cloud", "octomap", "costmap")}
        return PerceptionConfig(**groups)

    def setup(self) -> None:
        """Make the map, load what parameters name, advertise topics and services."""
        self.read_parameters()
        self.use_pipeline(self.make_pipeline(self.config()))
        latched = self._server.latch
        self._outputs = MapOutputs(self, latched, self._wake)
        self._costmap = CostmapOutput(self, latched, self._wake)
        self._placement = CostmapPlacement(self, self._publish_soon)
        self._distances = DistanceOutput(self, latched, self._wake)
        self._masks = FilterMasks(self, self._wake)
        self._masks.announce(self.frame_id, self.now_ns())
        self._local_map = LocalMap(self, latched, self._wake)
        self._jump_watch, self._paused = JumpWatch(self.transforms), ""
        self._load_at_start()
        MapServices(self)

    def start(self) -> None:
        """Publish what changed last even when no further frame comes."""
        self.every(1 / min(self._output.map_publish_rate, 10.0), self._wake)
        self.every(1 / min(self._output.costmap_publish_rate, 10.0), self._wake)
        if self._autosave is not None:
            self.every(STORAGE_TICK_S, self._tick_autosave)
        self._placement.listen(self._grid, self.frame_id)

    def teardown(self) -> None:
        """Save what autosave has not saved, then forget the map."""
        self._finish_autosave()
        with self.lock:
            self.pipeline = None
            self._stamp_ns = None

    def destroy_node(self) -> None:
        """End the worker and the node, then save the map where asked."""
        super().destroy_node()
        self._finish_autosave()

    def use_pipeline(self, pipeline: PerceptionPipeline) -> None:
        """Take a new map; navigation costs set by parameters replace its label set's."""
        label_set = pipeline.label_set
        if label_set is not None:
            costs = self.parameters.declare_costs({label.name: label.cost for label in label_set.classes})
            check_filters(self._filters, label_set)
            pipeline.label_set = label_set.with_costs(costs)
            pipeline.projector.set_label_set(pipeline.label_set)
        with self.lock:
            self.pipeline = pipeline

    def add_labels(self, label_set: LabelSet) -> None:
        """Give a map without labels room for them; what is mapped stays."""
        with self.lock:
            before = self._pipeline()
            pipeline = PerceptionPipeline(before.config, before.segmenter, label_set)
            if before.tree.known_voxels():
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "map.ot"
                    before.tree.write(path)
                    pipeline.tree, _ = read_map(path, pipeline, self.frame_id, self.palette)
                pipeline.projector = create_projector(pipeline.tree, pipeline.label_set, pipeline.config)
            self.use_pipeline(pipeline)
            self._outputs.changed()

    def admit(self, stamp_ns: int) -> PerceptionPipeline:
        """The map, for a scan of this stamp.

        Raises:
            InputError: the node is not configured.
            FrameDroppedError: the localization jumped and nothing is to be mapped until a reset.
        """
        pipeline = self._pipeline()
        sentence = self._jump_watch.check(self._jump, self.frame_id, self.base_frame_id, stamp_ns)
        if sentence:
            self.get_logger().warning(f"{sentence}; map_jump.policy is {self._jump.policy}")
            if self._jump.policy == "reset":
                self.reset()
            elif self._jump.policy == "pause":
                self._paused = sentence = f"{sentence}; call ~/reset or ~/load_map to go on"
            self.statistics.fault("map_jump", sentence, inf if self._paused else JUMP_SHOWN_S)
        if self._paused:
            raise FrameDroppedError("map_jump", self._paused)
        return pipeline

    def inserted(self, stamp_ns: int, scan: Callable[[], SensorPoints | LabeledCloud] | None = None) -> None:
        """A scan is in the map: publish what is due. ``scan`` gives it in the sensor's frame, for the local map."""
        self._stamp_ns = stamp_ns
        self._outputs.changed()
        self._publish()
        pipeline = self.pipeline
        if scan is not None and pipeline is not None:
            full_period_s = self._output.costmap_full_period
            base = self.base_frame_id
            self._local_map.take(scan, self._local, pipeline.config, pipeline.label_set, base, full_period_s)

    def parameters_changed(self, names: set[str]) -> None:
        """Apply parameters between two scans."""
        with self.lock:
            self.read_parameters()
            pipeline = self.pipeline
            if pipeline is None:
                return
            pipeline.config = replace(self.config(), costs=pipeline.config.costs)
            pipeline.tree.sensor_model = pipeline.config.octomap.sensor_model
            if any(name.startswith("costmap.") for name in names):
                pipeline.projector = create_projector(pipeline.tree, pipeline.label_set, pipeline.config)
            if any(name.startswith(CLASS_PREFIX) for name in names) and pipeline.label_set is not None:
                pipeline.label_set = pipeline.label_set.with_costs(self._costs(pipeline.label_set))
                pipeline.projector.set_label_set(pipeline.label_set)
            self._outputs.changed()
            self._masks.changed()
        if "costmap.geometry" in names and self.worker is not None:
            self._placement.listen(self._grid, self.frame_id)
        self._publish_soon()

    def check_parameters(self, changes: Mapping[str, Any]) -> None:
        """Refuse masks of classes that are not there."""
        pipeline = self.pipeline
        if pipeline is not None and any(name.startswith("filters.") for name in changes):
            check_filters(self.parameters.config("filters", changes), pipeline.label_set)

    def details(self) -> Mapping[str, Any]:
        """Size of the map, time of the stages."""
        with self.lock:
            pipeline = self.pipeline
            if pipeline is None:
                return {}
            values: dict[str, Any] = {
                "map voxels": pipeline.tree.known_voxels(),
                "map memory (MB)": f"{pipeline.tree.memory_usage() / 1e6:.1f}",
                "points not finite or out of the map": self._dropped_points,
                "jumps of the localization": self._jump_watch.jumps,
                **self._local_map.details(),
            }
            if self._placement.waiting_for:
                values["semantic_costmap waits for"] = self._placement.waiting_for
            for stage, times in pipeline.timer.summary().items():
                values[f"{stage} p50, p95 (ms)"] = f"{times['p50_ms']:.1f}, {times['p95_ms']:.1f}"
        return values

    def count_points(self, report: Any) -> None:
        """Keep account of points that the map refused."""
        self._dropped_points += report.dropped_not_finite + report.dropped_out_of_map + report.clear_dropped

    # What the services do; all return a sentence.

    def octomap(self, binary: bool) -> Any:
        """The map as a message; None when there is none."""
        with self.lock:
            if self.pipeline is None:
                return None
            tree, label_set = self.pipeline.tree, self.pipeline.label_set or self.palette
            return octomap_message(tree, label_set, binary, self.frame_id, self._stamp_ns or 0)

    def clear_box(self, low: tuple[float, float, float], high: tuple[float, float, float]) -> str:
        """Free the known voxels of a box, meters, map frame."""
        return f"{self._change_map(lambda pipeline: pipeline.tree.clear_box(low, high))} voxels changed"

    def clear_around_robot(self) -> str:
        """Free what stands around the robot, between a step and its height; the floor stays.

        Raises:
            InputError: nobody tells where the robot is.
        """
        stamp_ns = self._stamp_ns
        if stamp_ns is None:
            raise InputError("nothing is mapped yet")
        try:
            x, y, z = self.transforms.lookup(self.frame_id, self.base_frame_id, stamp_ns).translation.tolist()
        except TransformError as error:
            raise InputError(f"where the robot is, is not known: {error}") from error
        half, costmap = self._output.clear_radius, self._pipeline().config.costmap
        low, high = costmap.step_height, costmap.robot_height
        with self.lock:
            self._local_map.clear_box(half, z + low, z + high)
        return self.clear_box((x - half, y - half, z + low), (x + half, y + half, z + high))

    def reset(self) -> str:
        """Forget the map."""
        self._change_map(lambda pipeline: pipeline.tree.reset())
        self._go_on()
        return "the map is empty"

    def save_configured_map(self) -> str:
        """Save to ``save_path``, else ``octomap_path``."""
        return self.save_map(configured_path(self._output.save_path or self._server.octomap_path))

    def load_configured_map(self) -> str:
        """Load ``octomap_path``."""
        return self.load_map(configured_path(self._server.octomap_path))

    def save_map(self, path: Path) -> str:
        """Save the map as .ot, with labels and its frame, or .bt.

        Raises:
            PerceptionError: another suffix, or the file cannot be written; an older file stays as it was.
        """
        return write_map(self._pipeline(), path, self.frame_id, self._stamp_ns)

    def load_map(self, path: Path) -> str:
        """Replace the map by a file's, whose resolution counts from then on.

        Raises:
            PerceptionError: the file cannot be read or is not of this frame and these classes; the map stays.
        """
        tree, label_set = read_map(path, self._pipeline(), self.frame_id, self.palette)
        with self.lock:
            pipeline = self._pipeline()
            asked = pipeline.config.octomap.resolution
            if abs(tree.resolution - asked) > 1e-9:
                self.get_logger().warning(
                    f"{path} has voxels of {tree.resolution} m, not {asked} m: mapping with those"
                )
            pipeline.tree = tree
            if pipeline.label_set is None and label_set is not None:
                pipeline.label_set = label_set
                self.use_pipeline(pipeline)
            pipeline.projector = create_projector(tree, pipeline.label_set, pipeline.config)
            if self._stamp_ns is None:
                self._stamp_ns = self.now_ns()
            self._outputs.changed()
            self._go_on()
        self._publish_soon()
        return f"{tree.known_voxels()} voxels loaded from {path}"

    # Publishing, in the worker thread.

    def _wake(self) -> None:
        worker = self.worker
        if worker is not None:
            worker.post(self._publish)

    def _publish(self) -> None:
        now = monotonic()
        with self.lock:
            pipeline = self.pipeline
            if pipeline is None or self._stamp_ns is None:
                return
            if now >= self._map_due:
                self._map_due = now + 1 / self._output.map_publish_rate
                label_set = pipeline.label_set or self.palette
                self._outputs.publish(pipeline.tree, self._server, label_set, self.frame_id, self._stamp_ns)
            self._publish_costs(pipeline, self._stamp_ns, now)

    def _publish_costs(self, pipeline: PerceptionPipeline, stamp_ns: int, now: float) -> None:
        frames = (self.frame_id, self.base_frame_id)
        placed, geometry = self._placement.place(self._grid, pipeline.tree, frames, stamp_ns)
        if not placed:
            return
        pipeline.projector.set_geometry(geometry)
        if now >= self._costmap_due and (self._costmap.is_wanted or self._distances.is_wanted):
            self._costmap_due = now + 1 / self._output.costmap_publish_rate
            grid = pipeline.projector.update().grid
            self._costmap.publish(grid, self.frame_id, stamp_ns, self._output.costmap_full_period)
            self._distances.publish(grid, self.frame_id, stamp_ns, self._output.distance_field_range)
        self._masks.publish(pipeline, self._filters, geometry, self.frame_id, stamp_ns)

    def _publish_soon(self) -> None:
        self._map_due = self._costmap_due = 0.0
        self._wake()

    # Storage.

    def _load_at_start(self) -> None:
        autosave = Path(self._output.autosave_path).expanduser() if self._output.autosave_path else None
        if autosave is not None and self._output.resume and autosave.exists():
            self.get_logger().info(f"going on: {self.load_map(autosave)}")
        elif self._server.octomap_path:
            self.load_map(Path(self._server.octomap_path).expanduser())
        if autosave is not None:
            self._autosave = Autosave(autosave, self.save_map, lambda: self._outputs.version, self._save_failed)

    def _save_failed(self, sentence: str) -> None:
        self.get_logger().error(f"autosave: {sentence}")
        self.statistics.fault("autosave", sentence)

    def _tick_autosave(self) -> None:
        if self._autosave is not None:
            self._autosave.tick(self._output.autosave_period)

    def _finish_autosave(self) -> None:
        autosave, self._autosave = self._autosave, None
        if autosave is not None and self.pipeline is not None:
            autosave.finish()

    # Small things.

    def _change_map(self, change: Callable[[PerceptionPipeline], Any]) -> Any:
        with self.lock:
            result = change(self._pipeline())
            self._outputs.changed()
        self._publish_soon()
        return result

    def _go_on(self) -> None:
        """The map fits the localization again."""
        self._paused = ""
        self._jump_watch.forget()
        self._local_map.reset()
        self.statistics.fault("map_jump")

    def _pipeline(self) -> PerceptionPipeline:
        if self.pipeline is None:
            raise InputError("there is no map: the node is not configured")
        return self.pipeline

    def _costs(self, label_set: LabelSet) -> dict[str, int]:
        return {
            label.name: int(self.get_parameter(f"{CLASS_PREFIX}{label.name}{COST_SUFFIX}").value or 0)
            for label in label_set.classes
        }
