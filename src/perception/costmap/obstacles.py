# SPDX-License-Identifier: Apache-2.0
"""Points of one frame for Nav2's obstacle layers, at the rate of the depth camera: no label is needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.config import CostmapConfig
from perception.costmap.projection import GroundGrid
from perception.geometry import Transform
from perception.types import LabeledCloud

NO_GROUND = GroundGrid(np.zeros((0, 0), np.float32), 1.0, (0.0, 0.0))


def obstacle_points(
    cloud: LabeledCloud,
    map_T_camera: Transform,
    config: CostmapConfig | None = None,
    ground: GroundGrid | None = None,
    base_height: float = 0.0,
) -> NDArray[np.float32]:
    """Points that the robot must not touch: above the ground by more than a step, or on things that move.

    Args:
        cloud: one frame in the optical frame; its labels are not used.
        map_T_camera: pose of the camera in a frame with z up. Without ``ground`` the robot's base frame serves too.
        config: ``step_height`` and ``robot_height`` above the ground bound what blocks.
        ground: local ground in the same frame, as :meth:`CostmapProjector.ground` gives it.
        base_height: height in meters of the plane on which the robot stands, for points over unknown ground.

    Returns:
        (K, 3) float32, meters, in the optical frame, moving points last. These are obstacles at any height.
    """
    config = CostmapConfig() if config is None else config
    bounds = (config.step_height, config.robot_height, float(base_height))
    standing = _standing_points(cloud.points, map_T_camera, NO_GROUND if ground is None else ground, bounds)
    return np.concatenate([standing, cloud.moving_points]) if len(cloud.moving_points) else standing


def clearing_points(cloud: LabeledCloud) -> NDArray[np.float32]:
    """Ends of all rays of a frame: surfaces, floor included, and ends in free space; (K, 3) float32, optical frame."""
    return np.concatenate([cloud.points, cloud.clear_points]) if len(cloud.clear_points) else cloud.points


def warm_up() -> None:
    """Compile the kernel, or load it from the cache."""
    _standing_points(np.zeros((1, 3), np.float32), Transform.identity(), NO_GROUND, (0.1, 1.0, 0.0))


def _standing_points(
    points: NDArray[np.float32], map_T_camera: Transform, ground: GroundGrid, bounds: tuple[float, float, float]
) -> NDArray[np.float32]:
    from perception.costmap.kernels import above_ground

    return above_ground(
        np.ascontiguousarray(points, np.float32),
        np.ascontiguousarray(map_T_camera.matrix[:3]),
        ground.heights,
        (float(ground.origin[0]), float(ground.origin[1]), 1.0 / ground.resolution),
        bounds,
    )
