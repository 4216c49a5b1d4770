# SPDX-License-Identifier: Apache-2.0
"""Masks for Nav2's KeepoutFilter and SpeedFilter, with the CostmapFilterInfo that tells about each."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from nav_msgs.msg import OccupancyGrid

from perception.costmap.grid import GridGeometry
from perception.costmap.masks import (
    ground_classes,
    keepout_mask,
    parse_classes,
    parse_limits,
    place_mask,
    speed_mask,
)
from perception.labels import LabelSet
from perception.pipeline import PerceptionPipeline
from perception.ros.conversions import make_header
from perception.ros.costmap_output import same_grid
from perception.ros.map_config import FilterMaskConfig
from perception.ros.map_conversions import cost_grid_to_occupancy_grid
from perception.ros.node import latched_qos
from perception.types import CostGrid

if TYPE_CHECKING:
    from perception.ros.node import PerceptionNode

KEEPOUT_FILTER, SPEED_FILTER_PERCENT = 0, 1
"""CostmapFilterInfo's types."""
FILTERS = {"keepout": KEEPOUT_FILTER, "speed": SPEED_FILTER_PERCENT}


class FilterMasks:
    """Publishes ``keepout_filter_mask``, ``speed_filter_mask`` and their ``_info``, all latched.

    A mask is made only for subscribers and published only when it changed: Nav2 warns at each.

    Args:
        node: a node that is being configured.
        wake: called when a subscriber comes.
    """

    def __init__(self, node: PerceptionNode, wake: Callable[[], None]) -> None:
        from nav2_msgs.msg import CostmapFilterInfo

        self._masks, self._infos = {}, {}
        for name in FILTERS:
            self._masks[name] = node.advertise(OccupancyGrid, f"{name}_filter_mask", latched_qos(), wake)
            self._infos[name] = node.advertise(CostmapFilterInfo, f"{name}_filter_info", latched_qos())
        self._sent: dict[str, CostGrid] = {}
        self._due = 0.0

    def announce(self, frame_id: str, stamp_ns: int) -> None:
        """Publish what the masks are, which the filters want to know before they subscribe to them."""
        from nav2_msgs.msg import CostmapFilterInfo

        for name, kind in FILTERS.items():
            topic = self._masks[name].topic_name
            header = make_header(frame_id, stamp_ns)
            info = CostmapFilterInfo(header=header, type=kind, filter_mask_topic=topic, base=0.0, multiplier=1.0)
            self._infos[name].publish(info)

    def changed(self) -> None:
        """Other classes count from now on: do not wait for the period."""
        self._due = 0.0

    def publish(
        self,
        pipeline: PerceptionPipeline,
        config: FilterMaskConfig,
        geometry: GridGeometry | None,
        frame_id: str,
        stamp_ns: int,
    ) -> None:
        """Publish the masks that have subscribers and changed, no more often than the period says."""
        now, label_set = monotonic(), pipeline.label_set
        wanted = [name for name, publisher in self._masks.items() if publisher.get_subscription_count()]
        if not wanted or label_set is None or now < self._due:
            return
        self._due = now + config.period
        pipeline.projector.update()
        ground = pipeline.projector.ground()
        classes = ground_classes(pipeline.tree, ground, pipeline.config.costmap, label_set)
        for name in wanted:
            values = self._values(name, classes, config, label_set)
            grid = place_mask(values, ground, geometry, slowest=name == "speed")
            if name in self._sent and same_grid(self._sent[name], grid):
                continue
            self._masks[name].publish(cost_grid_to_occupancy_grid(grid, frame_id, stamp_ns))
            self._sent[name] = grid

    @staticmethod
    def _values(name: str, classes: Any, config: FilterMaskConfig, label_set: LabelSet) -> Any:
        if name == "keepout":
            return keepout_mask(classes, parse_classes(config.keepout_classes, label_set))
        return speed_mask(classes, parse_limits(config.speed_limits, label_set))


def check_filters(config: FilterMaskConfig, label_set: LabelSet | None) -> None:
    """Raise InputError where a mask's parameter names a class that is not there, or no percentage."""
    if label_set is not None:
        parse_classes(config.keepout_classes, label_set)
        parse_limits(config.speed_limits, label_set)
