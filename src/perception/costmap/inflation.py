# SPDX-License-Identifier: Apache-2.0
"""Cost around obstacles, by the formula of Nav2's InflationLayer."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perception.costmap.grid import INSCRIBED_COST, raw_costs
from perception.errors import InputError
from perception.types import CostGrid

LETHAL_RAW = 100
UNKNOWN_RAW = -1


def inflate(
    grid: CostGrid, inflation_radius: float, cost_scaling_factor: float = 10.0, inscribed_radius: float = 0.0
) -> CostGrid:
    """A grid with cost around its lethal cells.

    At distance d from the nearest lethal cell (centers, meters) the cost is 253 up to the inscribed radius and
    int(252 · exp(−cost_scaling_factor · (d − inscribed_radius))) beyond, up to the inflation radius rounded up to
    whole cells. A cell keeps its own cost where that is higher. An unknown cell only takes 253.

    Args:
        grid: raw costs.
        inflation_radius: meters; 0 returns the grid as it is.
        cost_scaling_factor: 1/m.
        inscribed_radius: radius of the largest circle inside the robot's footprint, meters.

    Raises:
        InputError: a negative or non-finite number.

    Source: Nav2, nav2_costmap_2d InflationLayer.
    """
    for name, value in (
        ("inflation_radius", inflation_radius),
        ("cost_scaling_factor", cost_scaling_factor),
        ("inscribed_radius", inscribed_radius),
    ):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name}: expected a number of at least 0, got {value}")
    lethal = grid.data == LETHAL_RAW
    if inflation_radius == 0 or not lethal.any():
        return grid
    cells = _distances_to(lethal)
    cost = _cost_at(cells * grid.resolution, cost_scaling_factor, inscribed_radius)
    # A hair of tolerance: 0.3 / 0.1 is above 3 in floating point.
    reached = (cells <= math.ceil(inflation_radius / grid.resolution - 1e-9)) & ~lethal
    reached &= (grid.data != UNKNOWN_RAW) | (cost >= INSCRIBED_COST)
    halo = np.where(reached, raw_costs()[cost], UNKNOWN_RAW).astype(np.int8)
    return CostGrid(np.maximum(grid.data, halo), grid.resolution, grid.origin)


def _cost_at(distance: NDArray[np.float64], scaling: float, inscribed: float) -> NDArray[np.int64]:
    fading = (INSCRIBED_COST - 1) * np.exp(-scaling * np.maximum(distance - inscribed, 0.0))
    return np.where(distance <= inscribed, INSCRIBED_COST, fading).astype(np.int64)


def _distances_to(lethal: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(H, W) Euclidean distance in cells to the nearest true cell."""
    import cv2

    distances = cv2.distanceTransform((~lethal).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distances.astype(np.float64)
