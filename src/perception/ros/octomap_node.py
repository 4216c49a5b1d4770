# SPDX-License-Identifier: Apache-2.0
"""octomap_node: point clouds in, map and costmap out; takes octomap_server's place."""

from __future__ import annotations

from typing import Any

from perception.config import PerceptionConfig
from perception.labels import LabelSet
from perception.pipeline import PerceptionPipeline, create_projector, create_tree
from perception.ros.node import run_node
from perception.ros.sensor_node import SENSOR_GROUPS, SensorNode
from perception.ros.voxel_colors import ColorPalette


class OctomapNode(SensorNode):
    """Maps ``cloud_in``: labeled points, or plain ones as octomap_server does.

    ``clear_in`` brings ends of rays that met nothing, of the same stamp; it counts once somebody publishes it. Further
    clouds and laser scans come from the topics that ``cloud_topics`` and ``scan_topics`` name.
    """

    parameter_groups = SENSOR_GROUPS
    single_parameters = ("cloud.transform_timeout",)
    has_main_cloud = True

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("octomap_node", **node_arguments)

    def make_pipeline(self, config: PerceptionConfig) -> PerceptionPipeline:
        """An empty map; its classes come by parameter, or later by label_info."""
        name = self.parameters.config("label_input").label_set
        pipeline = PerceptionPipeline(config, None, LabelSet.load(name) if name else None)
        self.palette = ColorPalette() if self.parameters.config("server").colored_map and not name else None
        if self.palette is not None:
            pipeline.tree = create_tree(config.octomap, self.palette)
            pipeline.projector = create_projector(pipeline.tree, None, config)
        return pipeline

    def start(self) -> None:
        """Listen to clouds."""
        super().start()
        if self.palette is None:
            self.listen_to_label_info()


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    return run_node(OctomapNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
