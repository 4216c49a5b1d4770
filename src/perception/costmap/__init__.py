# SPDX-License-Identifier: Apache-2.0
"""From the octree to what Nav2 reads: graded costmaps, map_server files, obstacle and clearing points."""

from __future__ import annotations

from perception.costmap.distance import distance_field, known_cells
from perception.costmap.files import read_costmap, write_costmap
from perception.costmap.grid import GridGeometry, cost_from_raw, raw_from_cost, rolling_geometry
from perception.costmap.inflation import inflate
from perception.costmap.masks import ground_classes, keepout_mask, place_mask, speed_mask
from perception.costmap.obstacles import clearing_points, obstacle_points
from perception.costmap.projection import CostmapProjector, CostmapUpdate, GroundGrid


def warm_up() -> None:
    """Compile every kernel, or load it from the cache, so that the first frame is as quick as the others."""
    from perception.costmap import obstacles, projection

    projection.warm_up()
    obstacles.warm_up()


def warm_up_reading() -> None:
    """Compile, or load, what needs no map with something in it."""
    from perception.costmap import obstacles, projection

    projection.warm_up_reading()
    obstacles.warm_up()


__all__ = [
    "CostmapProjector",
    "CostmapUpdate",
    "GridGeometry",
    "GroundGrid",
    "clearing_points",
    "cost_from_raw",
    "distance_field",
    "ground_classes",
    "inflate",
    "keepout_mask",
    "known_cells",
    "obstacle_points",
    "place_mask",
    "raw_from_cost",
    "read_costmap",
    "rolling_geometry",
    "speed_mask",
    "warm_up",
    "warm_up_reading",
    "write_costmap",
]
