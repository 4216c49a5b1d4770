# SPDX-License-Identifier: Apache-2.0
"""Distance to the nearest lethal cell of a costmap."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perception.costmap.inflation import LETHAL_RAW, UNKNOWN_RAW, _distances_to
from perception.errors import InputError
from perception.types import CostGrid


def distance_field(grid: CostGrid, max_distance: float) -> NDArray[np.float32]:
    """Euclidean distance from the center of each cell to that of the nearest lethal one.

    Args:
        grid: raw costs.
        max_distance: meters; larger distances, and those of a grid without lethal cells, become this.

    Returns:
        (H, W) float32 meters, NaN where the grid is unknown.

    Raises:
        InputError: max_distance is no positive number.

    Source: Felzenszwalb and Huttenlocher, Distance transforms of sampled functions, 2012, as OpenCV computes it.
    """
    if not (math.isfinite(max_distance) and max_distance > 0):
        raise InputError(f"max_distance: expected a positive number of meters, got {max_distance}")
    lethal = grid.data == LETHAL_RAW
    if lethal.any():
        distances = np.minimum(_distances_to(lethal) * grid.resolution, max_distance)
    else:
        distances = np.full(grid.data.shape, max_distance)
    distances[grid.data == UNKNOWN_RAW] = np.nan
    return distances.astype(np.float32)


def known_cells(grid: CostGrid, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(K, 3) float32 centers, z 0, and (K,) values of the cells whose value is a number."""
    rows, columns = np.nonzero(~np.isnan(values))
    centers = np.zeros((len(rows), 3), np.float32)
    centers[:, 0] = grid.origin[0] + (columns + 0.5) * grid.resolution
    centers[:, 1] = grid.origin[1] + (rows + 0.5) * grid.resolution
    return centers, values[rows, columns]
