# SPDX-License-Identifier: Apache-2.0
"""Parameters of what the nodes with a map publish and keep."""

from __future__ import annotations

from dataclasses import dataclass

from perception.config import Checked, param


@dataclass(frozen=True)
class MapOutputConfig(Checked):
    """When maps are published, and where they are kept."""

    map_publish_rate: float = param(2.0, "Most publications of octomaps, markers and projected_map, 1/s", 0.01, 1000.0)
    costmap_publish_rate: float = param(1.0, "Most publications of semantic_costmap_updates, 1/s", 0.01, 1000.0)
    costmap_full_period: float = param(5.0, "Time between whole semantic_costmap grids that changed, s", 0.1, 3600.0)
    distance_field_range: float = param(2.0, "Distances of distance_field are cut off here, m", 0.01, 1000.0)
    clear_radius: float = param(1.0, "clear_around_robot frees the obstacles within this of the base frame, m", 0.0)
    save_path: str = param("", "File that save_map writes (.ot keeps labels, .bt does not); empty for octomap_path")
    autosave_path: str = param("", "File (.ot) to which the map is saved by itself; empty for none")
    autosave_period: float = param(60.0, "Time between saves of a map that changed, s; it is saved at the end too", 0.1)
    resume: bool = param(False, "Start from autosave_path when it is there, in place of octomap_path")


@dataclass(frozen=True)
class JumpConfig(Checked):
    """What happens when the localization moves the robot in the map at once."""

    frame_id: str = param("odom", "Frame that must not jump against frame_id; empty watches nothing")
    distance: float = param(0.5, "Way that a jump moves the robot in frame_id between two scans, at least, m", 0.0)
    angle: float = param(0.3, "Or angle by which it turns it, at least, rad", 0.0, 3.2)
    policy: str = param(
        "warn",
        "Say so (warn), forget the map (reset), or map no more until reset or load_map is called (pause)",
        choices=("warn", "reset", "pause"),
    )


@dataclass(frozen=True)
class CostmapGridConfig(Checked):
    """Where the cells of semantic_costmap are."""

    geometry: str = param(
        "growing",
        "All that is mapped (growing), always the same place (fixed), a square around the robot (rolling), or the "
        "cells of the grid on topic map (from_map)",
        choices=("growing", "fixed", "rolling", "from_map"),
    )
    resolution: float = param(0.0, "Edge of a cell of a fixed or rolling grid, m; 0 for that of the voxels", 0.0, 10.0)
    width: float = param(20.0, "Extent of a fixed or rolling grid along x, m", 0.1, 10000.0)
    height: float = param(20.0, "Extent of a fixed grid along y, m", 0.1, 10000.0)
    origin_x: float = param(-10.0, "Lowest x of a fixed grid, m")
    origin_y: float = param(-10.0, "Lowest y of a fixed grid, m")
    snap: float = param(1.0, "A rolling grid moves in steps of this, as each makes Nav2 resize, m", 0.01, 100.0)


@dataclass(frozen=True)
class FilterMaskConfig(Checked):
    """Masks for Nav2's keepout and speed filters."""

    keepout_classes: str = param("", "Classes of the ground that the robot must not enter, separated by commas")
    speed_limits: str = param("", "Percent of the full speed by class of the ground: 'rug=50, grass=30'")
    period: float = param(10.0, "Time between masks that changed: each makes Nav2 warn, s", 0.1, 3600.0)


@dataclass(frozen=True)
class LocalMapConfig(Checked):
    """A second map for the controller: follows the robot, forgets; made while semantic_costmap_local is subscribed."""

    enabled: bool = param(True, "Offer semantic_costmap_local")
    frame_id: str = param("odom", "Frame that never jumps")
    resolution: float = param(0.05, "Edge of a voxel and of a cell, m", 0.001, 10.0)
    size: float = param(6.0, "Edge of the square around the robot, m", 0.5, 1000.0)
    decay_time: float = param(10.0, "Time constant with which what is not seen again fades, s", 0.1, 1e6)
    publish_rate: float = param(5.0, "Most publications of semantic_costmap_local_updates, 1/s", 0.01, 1000.0)
