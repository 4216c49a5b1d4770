# SPDX-License-Identifier: Apache-2.0
"""From a grid on the raster of the voxels to the cells that were asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.costmap.grid import GridGeometry

Box = tuple[int, int, int, int]
"""x, y, width, height in cells."""


class GridSampler:
    """Takes cells of one geometry out of a grid of columns.

    A cell takes the highest value of the columns whose centers lie in it; where there is none, of the column that
    holds the cell's center. So the higher cost wins, and known wins over unknown (−1).

    Args:
        geometry: the cells to take.
        corner: (x, y) of the lower left corner of the columns' grid, meters.
        resolution: edge of a column, meters.
        shape: (rows, columns) of that grid.
    """

    def __init__(
        self, geometry: GridGeometry, corner: tuple[float, float], resolution: float, shape: tuple[int, int]
    ) -> None:
        self.geometry = geometry
        self._x = _ranges(geometry.origin[0] - corner[0], geometry.resolution, geometry.width, resolution)
        self._y = _ranges(geometry.origin[1] - corner[1], geometry.resolution, geometry.height, resolution)
        left, bottom = int(self._x[0][0]), int(self._y[0][0])
        self._shift: tuple[int, int] | None = None
        if _one_to_one(*self._x, shape[1]) and _one_to_one(*self._y, shape[0]):
            self._shift = left, bottom

    def take(self, grid: NDArray[np.int8]) -> NDArray[np.int8]:
        """(H, W) int8 of the geometry, a copy; −1 outside of the grid."""
        if self._shift is not None:
            left, bottom = self._shift
            return grid[bottom : bottom + self.geometry.height, left : left + self.geometry.width].copy()
        from perception.costmap.kernels import take_highest

        return take_highest(grid, *self._x, *self._y)

    def changed(self, box: NDArray[np.int64], before: NDArray[np.int8], after: NDArray[np.int8]) -> Box | None:
        """Where two results may differ when only a box x0, y0, x1, y1 of the columns did."""
        if self._shift is None:
            return difference(before, after)
        low = np.maximum(box[:2] - self._shift, 0)
        high = np.minimum(box[2:] - self._shift, (self.geometry.width, self.geometry.height))
        if (high <= low).any():
            return None
        return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def difference(before: NDArray[np.int8], after: NDArray[np.int8]) -> Box | None:
    """Smallest box around all cells that differ."""
    differs = before != after
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not len(rows):
        return None
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def _ranges(offset: float, cell: float, count: int, resolution: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last + 1 column whose centers lie in each cell, or the one under the cell's center."""
    # A hair of tolerance keeps aligned grids aligned in floating point.
    edges = (offset + np.arange(count + 1) * cell) / resolution - 0.5
    starts = np.ceil(edges[:-1] - 1e-6).astype(np.int64)
    ends = np.ceil(edges[1:] - 1e-6).astype(np.int64)
    centers = np.floor((offset + (np.arange(count) + 0.5) * cell) / resolution + 1e-6).astype(np.int64)
    empty = ends <= starts
    return np.where(empty, centers, starts), np.where(empty, centers + 1, ends)


def _one_to_one(starts: NDArray[np.int64], ends: NDArray[np.int64], size: int) -> bool:
    """Whether every cell is one column of the grid and neighbors are neighbors."""
    return bool(starts[0] >= 0 and ends[-1] <= size and (ends - starts == 1).all() and (np.diff(starts) == 1).all())
