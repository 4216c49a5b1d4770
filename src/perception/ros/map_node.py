# SPDX-License-Identifier: Apache-2.0
"""What octomap_node and pipeline_node share: the map, its topics, its services, its parameters."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import Any

from std_srvs.srv import Empty, Trigger

from perception.config import PerceptionConfig
from perception.errors import InputError, PerceptionError
from perception.labels import LabelSet
from perception.pipeline import PerceptionPipeline, create_projector
from perception.ros.map_outputs import CostmapOutput, MapOutputs, octomap_message
from perception.ros.node import PerceptionNode
from perception.ros.parameters import CLASS_PREFIX, COST_SUFFIX

MAP_GROUPS = ("octomap", "server", "costmap", "output")
SUFFIXES = (".ot", ".bt")


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
        super().__init__(name, **node_arguments)

    # Hooks of subclasses.

    def make_pipeline(self, config: PerceptionConfig) -> PerceptionPipeline:
        """An empty map."""
        raise NotImplementedError

    def read_parameters(self) -> None:
        """Keep what is needed for every frame; again after each change."""
        self._server = self.parameters.config("server")
        self._output = self.parameters.config("output")
        octomap = self.parameters.config("octomap")
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
        """Make the map, load what ``octomap_path`` names, advertise topics and services."""
        self.read_parameters()
        self.use_pipeline(self.make_pipeline(self.config()))
        self._outputs = MapOutputs(self, self._server.latch, self._wake)
        self._costmap = CostmapOutput(self, self._server.latch, self._wake)
        if self._server.octomap_path:
            self.load_map(Path(self._server.octomap_path))
        self._offer_services()

    def start(self) -> None:
        """Publish what changed last even when no further frame comes."""
        self.every(1 / min(self._output.map_publish_rate, 10.0), self._wake)
        self.every(1 / min(self._output.costmap_publish_rate, 10.0), self._wake)

    def teardown(self) -> None:
        """Forget the map."""
        with self.lock:
            self.pipeline = None
            self._stamp_ns = None

    def use_pipeline(self, pipeline: PerceptionPipeline) -> None:
        """Take a new map; navigation costs set by parameters replace its label set's."""
        label_set = pipeline.label_set
        if label_set is not None:
            costs = self.parameters.declare_costs({label.name: label.cost for label in label_set.classes})
            pipeline.label_set = label_set.with_costs(costs)
            pipeline.projector.set_label_set(pipeline.label_set)
        with self.lock:
            self.pipeline = pipeline

    def add_labels(self, label_set: LabelSet) -> None:
        """Give a map without labels room for them; what is mapped stays."""
        from perception.mapping import SemanticOcTree

        with self.lock:
            before = self._pipeline()
            pipeline = PerceptionPipeline(before.config, before.segmenter, label_set)
            if before.tree.known_voxels():
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "map.ot"
                    before.tree.write(path)
                    pipeline.tree = SemanticOcTree.read(path, **_tree_options(pipeline))
                pipeline.projector = create_projector(pipeline.tree, pipeline.label_set, pipeline.config)
                self._outputs.changed()
            self.use_pipeline(pipeline)

    def inserted(self, stamp_ns: int) -> None:
        """A scan is in the map: publish what is due."""
        self._stamp_ns = stamp_ns
        self._outputs.changed()
        self._publish()

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
        self._wake()

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
            }
            for stage, times in pipeline.timer.summary().items():
                values[f"{stage} p50, p95 (ms)"] = f"{times['p50_ms']:.1f}, {times['p95_ms']:.1f}"
        return values

    def count_points(self, report: Any) -> None:
        """Keep account of points that the map refused."""
        self._dropped_points += report.dropped_not_finite + report.dropped_out_of_map + report.clear_dropped

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
                self._outputs.publish(pipeline.tree, self._server, pipeline.label_set, self.frame_id, self._stamp_ns)
            if now >= self._costmap_due and self._costmap.is_wanted:
                self._costmap_due = now + 1 / self._output.costmap_publish_rate
                grid = pipeline.projector.update().grid
                self._costmap.publish(grid, self.frame_id, self._stamp_ns, self._output.costmap_full_period)

    # Services.

    def _offer_services(self) -> None:
        from octomap_msgs.srv import BoundingBoxQuery, GetOctomap

        self.serve(GetOctomap, "octomap_binary", lambda _, response: self._on_get_octomap(response, True))
        self.serve(GetOctomap, "octomap_full", lambda _, response: self._on_get_octomap(response, False))
        self.serve(BoundingBoxQuery, "~/clear_bbox", self._on_clear_bbox)
        self.serve(Empty, "~/reset", self._on_reset)
        self.serve(Trigger, "~/save_map", self._on_save_map)
        self.serve(Trigger, "~/load_map", self._on_load_map)

    def _on_get_octomap(self, response: Any, binary: bool) -> Any:
        with self.lock:
            if self.pipeline is not None:
                tree, label_set = self.pipeline.tree, self.pipeline.label_set
                response.map = octomap_message(tree, label_set, binary, self.frame_id, self._stamp_ns or 0)
        return response

    def _on_clear_bbox(self, request: Any, response: Any) -> Any:
        low, high = ((point.x, point.y, point.z) for point in (request.min, request.max))
        try:
            self._change_map(lambda pipeline: pipeline.tree.clear_box(low, high))
        except InputError as error:
            # The service has no field for it.
            self.get_logger().error(f"clear_bbox: {error}")
        return response

    def _on_reset(self, request: Any, response: Any) -> Any:
        self._change_map(lambda pipeline: pipeline.tree.reset())
        self.get_logger().info("the map is reset")
        return response

    def _on_save_map(self, request: Any, response: Any) -> Any:
        return self._answer(response, lambda: self.save_map(self._path(self._output.save_path)))

    def _on_load_map(self, request: Any, response: Any) -> Any:
        return self._answer(response, lambda: self.load_map(self._path("")))

    def _answer(self, response: Any, action: Callable[[], str]) -> Any:
        try:
            response.message, response.success = action(), True
        except PerceptionError as error:
            response.message, response.success = str(error), False
            self.get_logger().error(response.message)
        return response

    def _path(self, first: str) -> Path:
        text = first or self._server.octomap_path
        if not text:
            raise InputError("map file: expected parameter octomap_path, or save_path to save, to name it, got none")
        return Path(text).expanduser()

    def save_map(self, path: Path) -> str:
        """Save the map as .ot, with labels, or .bt; returns a sentence.

        Raises:
            PerceptionError: another suffix, or the file cannot be written; an older file stays as it was.
        """
        if path.suffix not in SUFFIXES:
            raise InputError(f"map file: expected a name that ends in {' or '.join(SUFFIXES)}, got {path}")
        with self.lock:
            pipeline = self._pipeline()
            if path.suffix == ".ot":
                pipeline.tree.write(path, pipeline.label_set)
            else:
                pipeline.tree.write_binary(path)
            return f"{pipeline.tree.known_voxels()} voxels saved to {path}"

    def load_map(self, path: Path) -> str:
        """Replace the map by a file's, whose resolution counts from then on; returns a sentence.

        Raises:
            PerceptionError: the file cannot be read; the map stays as it was.
        """
        from perception.mapping import SemanticOcTree

        with self.lock:
            pipeline = self._pipeline()
            tree = SemanticOcTree.read(path, **_tree_options(pipeline))
            asked = pipeline.config.octomap.resolution
            if abs(tree.resolution - asked) > 1e-9:
                self.get_logger().warning(
                    f"{path} has voxels of {tree.resolution} m, not {asked} m: mapping with those"
                )
            pipeline.tree = tree
            pipeline.projector = create_projector(tree, pipeline.label_set, pipeline.config)
            if self._stamp_ns is None:
                self._stamp_ns = self.now_ns()
            self._outputs.changed()
        self._publish_soon()
        return f"{tree.known_voxels()} voxels loaded from {path}"

    def _change_map(self, change: Callable[[PerceptionPipeline], Any]) -> None:
        with self.lock:
            change(self._pipeline())
            self._outputs.changed()
        self._publish_soon()

    def _publish_soon(self) -> None:
        self._map_due = self._costmap_due = 0.0
        self._wake()

    def _pipeline(self) -> PerceptionPipeline:
        if self.pipeline is None:
            raise InputError("there is no map: the node is not configured")
        return self.pipeline

    def _costs(self, label_set: LabelSet) -> dict[str, int]:
        return {
            label.name: int(self.get_parameter(f"{CLASS_PREFIX}{label.name}{COST_SUFFIX}").value or 0)
            for label in label_set.classes
        }


def _tree_options(pipeline: PerceptionPipeline) -> dict[str, Any]:
    """What a map that is read takes from the configuration, in place of its file's."""
    config, label_set = pipeline.config.octomap, pipeline.label_set
    options: dict[str, Any] = {
        "sensor_model": config.sensor_model,
        "labels_per_voxel": config.labels_per_voxel,
        "max_label_score": config.max_label_score,
        "max_memory": round(config.max_memory_mb * 1e6) or None,
    }
    if label_set is not None:
        options.update(num_classes=label_set.num_classes, decay_s=label_set.decay_s)
    return options
