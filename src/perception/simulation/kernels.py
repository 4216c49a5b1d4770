# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over the cells of a grid. Imported only when a drive is planned."""

from __future__ import annotations

import numpy as np

from perception.numba_cache import njit


@njit(cache=True, nogil=True)
def travel_cost(cost, row, column):
    """Least cost of a way from every cell to one cell, 8-connected.

    Args:
        cost: (H, W) float64, of a step of one cell into a cell; +inf where there is no way.
        row: of the goal.
        column: of the goal.

    Returns:
        (H, W) float64, +inf where the goal is out of reach.

    Source: fast sweeping (Zhao, 2005): passes over the grid in four directions until nothing changes.
    """
    height, width = cost.shape
    reach = np.full((height, width), np.inf)
    reach[row, column] = 0.0
    diagonal = np.sqrt(2.0)
    changed = True
    while changed:
        changed = False
        for sweep in range(4):
            for i in range(height):
                y = i if sweep % 2 == 0 else height - 1 - i
                for j in range(width):
                    x = j if sweep < 2 else width - 1 - j
                    if cost[y, x] == np.inf:
                        continue
                    best = reach[y, x]
                    for dy in range(-1, 2):
                        for dx in range(-1, 2):
                            ny, nx = y + dy, x + dx
                            if 0 <= ny < height and 0 <= nx < width:
                                length = diagonal if dy != 0 and dx != 0 else 1.0
                                best = min(best, reach[ny, nx] + length * cost[y, x])
                    if best < reach[y, x]:
                        reach[y, x] = best
                        changed = True
    return reach
