# SPDX-License-Identifier: Apache-2.0
"""Geometry of costmaps, and the scale between Nav2's costs and the values of a grid message."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.labels import LETHAL_COST

MAX_CELLS = 1 << 26
"""Largest grid that is made; more is a wrong geometry or a map that needs a fixed one."""
INSCRIBED_COST = 253
"""Nav2's INSCRIBED_INFLATED_OBSTACLE: the center of the robot must not go there."""


@dataclass(frozen=True, slots=True)
class GridGeometry:
    """Where the cells of a grid are.

    Attributes:
        resolution: edge of a cell, meters.
        width: cells along x.
        height: cells along y.
        origin: (x, y) of the lower left corner of cell (0, 0), meters, in the map frame.
    """

    resolution: float
    width: int
    height: int
    origin: tuple[float, float]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.resolution) and self.resolution > 0):
            raise InputError(f"grid geometry: expected a positive resolution, got {self.resolution}")
        if self.width <= 0 or self.height <= 0 or self.width * self.height > MAX_CELLS:
            raise InputError(f"grid geometry: expected 1 to {MAX_CELLS} cells, got {self.width}x{self.height}")
        if not all(math.isfinite(value) for value in self.origin):
            raise InputError(f"grid geometry: expected a finite origin, got {self.origin}")


def rolling_geometry(center: tuple[float, float], size: float, resolution: float, snap: float = 1.0) -> GridGeometry:
    """A square around a point whose origin moves in steps, as each new origin makes Nav2 resize.

    Args:
        center: (x, y) meters, usually the robot.
        size: edge of the square, meters.
        resolution: edge of a cell, meters.
        snap: origins are multiples of this, meters.
    """
    cells = max(math.ceil(size / resolution - 1e-9), 1)
    low = [round((value - cells * resolution / 2) / snap) * snap for value in center]
    return GridGeometry(resolution, cells, cells, (low[0], low[1]))


def raw_from_cost(cost: int) -> int:
    """Value 0–100 of a grid message that Nav2 reads back as (nearly) this cost 0–254.

    Nav2 reads value v as int(v / 100 · 254), 100 as lethal, and by version 99 as inscribed. So 254 ↔ 100, 253 ↔ 99,
    1–252 become the value 1–98 that comes back nearest (the larger of two), and only 0 is 0. What comes back differs
    by at most 1 up to cost 249, and by 2 to 4 for 250 to 252, which must not turn into inscribed.
    """
    if not 0 <= cost <= LETHAL_COST:
        raise InputError(f"cost: expected 0 to {LETHAL_COST}, got {cost}")
    if cost in (0, INSCRIBED_COST, LETHAL_COST):
        return {0: 0, INSCRIBED_COST: 99, LETHAL_COST: 100}[cost]
    return min(range(98, 0, -1), key=lambda value: abs(cost_from_raw(value) - cost))


def cost_from_raw(value: int) -> int:
    """The cost that Nav2's StaticLayer makes of a grid value 0–100 with ``trinary_costmap: false``."""
    return int(value / 100 * LETHAL_COST)


@lru_cache(maxsize=1)
def raw_costs() -> NDArray[np.int8]:
    """(255,) int8: :func:`raw_from_cost` of every cost."""
    table = np.array([raw_from_cost(cost) for cost in range(LETHAL_COST + 1)], np.int8)
    table.setflags(write=False)
    return table
