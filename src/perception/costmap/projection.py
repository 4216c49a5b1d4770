# SPDX-License-Identifier: Apache-2.0
"""From the octree to a grid of costs: two height bands above a local ground.

- The ground band reaches up to ``step_height`` above the local ground: the cell costs what the class of the highest
  labeled voxel in it costs, ``default_ground_cost`` without a label.
- The obstacle band reaches from there to ``robot_height``: any occupied voxel is lethal, unless its class is
  traversable with at least ``min_traversable_probability``; then the cell costs at least what that class costs.
- Without an occupied voxel in the ground band the cell is unknown: nobody has seen a floor.

The local ground is the lower envelope of what may be floor nearby (any class but the lethal ones, supported by three
columns of a 3 x 3 neighborhood), rising with ``max_slope_deg`` from there. What stands more than a step above it is
no ground, whatever its label says. So a box labeled as floor is lethal, and so is the edge of a drop that the camera
looked down: next to lower ground, the upper one counts as an obstacle up to where the steepest slope could have led.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.config import CostmapConfig
from perception.costmap.grid import MAX_CELLS, GridGeometry, raw_costs
from perception.costmap.inflation import inflate
from perception.costmap.sampling import Box, GridSampler, difference
from perception.errors import InputError
from perception.labels import LETHAL_COST, LabelSet
from perception.types import CostGrid

if TYPE_CHECKING:
    from perception.mapping import OccupiedColumns, SemanticOcTree

TILE = 8
"""Columns per side of a tile, in which the octree reports its changes."""
KEY_ORIGIN = 32768
"""Key of the voxel whose lower corner is the origin of the map, in OctoMap's 16-bit keys."""
GROWTH = 8
"""A grid that follows the map grows in blocks of so many tiles (64 cells), as each growth makes Nav2 resize."""
MAX_REACH = 512
"""Cells up to which lower ground is looked for; only a slope limit near zero asks for more."""


class CostmapUpdate(NamedTuple):
    """A new grid and what is new in it."""

    grid: CostGrid
    changed: Box | None
    """x, y, width, height in cells of what may differ from the grid before; None for nothing."""
    resized: bool
    """The geometry differs from the grid before; then ``changed`` is the whole grid."""


@dataclass(frozen=True, slots=True)
class GroundGrid:
    """Height of the local ground.

    Attributes:
        heights: (H, W) float32, meters in the map frame: the top of the ground's voxels; NaN where there is none.
        resolution: edge of a cell, meters.
        origin: (x, y) of the lower left corner of cell (0, 0), meters.
    """

    heights: NDArray[np.float32]
    resolution: float
    origin: tuple[float, float]


class _Window:
    """Arrays over a rectangle of tiles, in keys."""

    def __init__(self, x: int, y: int, columns: int, rows: int, covers_map: bool = False) -> None:
        from perception.costmap.kernels import NO_HEIGHT

        self.x, self.y, self.columns, self.rows = x, y, columns, rows
        # A window made before anything was mapped stands nowhere: nothing has to stay inside the next one.
        self.covers_map = covers_map
        if columns * rows * TILE * TILE > MAX_CELLS:
            raise InputError(
                f"costmap: expected at most {MAX_CELLS} cells, got {columns * TILE}x{rows * TILE}; "
                "give it a fixed geometry"
            )
        shape = (rows * TILE, columns * TILE)
        self.lowest = np.full(shape, NO_HEIGHT, np.int32)
        self.supported = np.full(shape, NO_HEIGHT, np.int32)
        self.ground = np.full(shape, NO_HEIGHT, np.int32)
        self.grid = np.full(shape, -1, np.int8)
        self.dirty = np.zeros((rows, columns), np.uint8)
        self.unsettled = np.zeros((rows, columns), np.uint8)
        self.filled = np.zeros((rows, columns), np.uint8)

    @property
    def extent(self) -> tuple[int, int, int, int]:
        """First tile column and row, columns, rows."""
        return self.x, self.y, self.columns, self.rows

    def local(self, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tiles of the map inside the window, in tiles of the window."""
        places = tiles - (self.x, self.y)
        return places[((places >= 0) & (places < (self.columns, self.rows))).all(axis=1)]


class CostmapProjector:
    """Keeps a costmap in step with an octree, computing only what changed.

    Args:
        tree: the octree; only columns whose occupied voxels changed are read again.
        label_set: costs of the classes; None counts every voxel as unlabeled.
        config: bands, slope and inflation.
        geometry: cells of the result; None covers the map in its own resolution and grows with it.

    A grid of another resolution or off the voxels' raster takes the highest cost of the columns whose centers lie in
    a cell (of the one that holds the cell's center where there is none); known wins over unknown.
    """

    def __init__(
        self,
        tree: SemanticOcTree,
        label_set: LabelSet | None = None,
        config: CostmapConfig | None = None,
        geometry: GridGeometry | None = None,
    ) -> None:
        self.config = CostmapConfig() if config is None else config
        self.geometry = geometry
        self._tree = tree
        self._resolution = float(tree.resolution)
        self._label_set = label_set
        self._lock = threading.RLock()
        self._cursor: Any = None
        self._window: _Window | None = None
        self._output: CostGrid | None = None
        self._sampler: tuple[Any, GridSampler] | None = None
        self._extent: tuple[GridGeometry, tuple[int, int, int, int]] | None = None
        self._derive()

    def set_label_set(self, label_set: LabelSet | None) -> None:
        """Use other costs: the next update projects everything anew, nothing is mapped again."""
        with self._lock:
            self._label_set = label_set
            self._derive()
            self._cursor = None

    def set_geometry(self, geometry: GridGeometry | None) -> None:
        """Move, resize or free the grid from the next update on; see :func:`rolling_geometry`."""
        self.geometry = geometry

    def update(self) -> CostmapUpdate:
        """Bring the grid up to date from the columns that changed since the last update.

        The result equals that of :meth:`rebuild`.
        """
        with self._lock:
            tiles, cursor = self._tree.changed_columns(self._cursor)
            everything = tiles is None
            if tiles is None:
                tiles = self._tree.columns()
            extent = self._wanted_extent(tiles)
            if everything or self._window is None or extent != self._window.extent:
                tiles, everything = self._tree.columns(), True
                self._window = _Window(*extent, covers_map=len(tiles) > 0)
            box = self._project(self._window, tiles, everything)
            self._cursor = cursor
            return self._publish(None if everything else box)

    def rebuild(self) -> CostmapUpdate:
        """Project the whole map anew."""
        with self._lock:
            self._cursor = None
            return self.update()

    def grid(self) -> CostGrid:
        """The grid as of the last update; makes the first one."""
        return self._output if self._output is not None else self.update().grid

    def ground(self) -> GroundGrid:
        """The local ground as of the last update, a copy, on the raster of the voxels."""
        from perception.costmap.kernels import FIXED, NO_HEIGHT

        with self._lock:
            window = self._window or _Window(KEY_ORIGIN // TILE, KEY_ORIGIN // TILE, 1, 1)
            ground = window.ground.copy()
        keys = ground / np.float64(FIXED) + (1 - KEY_ORIGIN)
        heights = np.where(ground >= NO_HEIGHT, np.nan, keys * self._resolution).astype(np.float32)
        return GroundGrid(heights, self._resolution, self._corner(window))

    def _derive(self) -> None:
        """Everything that the kernels need of config and label set."""
        from perception.costmap.kernels import FIXED

        config, cells = self.config, 1.0 / self._resolution
        rise = math.tan(math.radians(config.max_slope_deg))
        reach = config.floor_search_height * cells / rise if rise > 0 else math.inf
        self._reach = int(min(max(math.ceil(reach - 1e-9), 1), MAX_REACH))
        self._slope = round(rise * FIXED)
        # The floor itself spreads over two layers of voxels, so a step below one voxel cannot be told from it.
        step = round(max(config.step_height * cells, 1.0) * FIXED)
        least = np.float32(config.min_traversable_probability)
        self._limits = (step, round(config.robot_height * cells * FIXED), least)
        count = max(self._label_set.num_classes if self._label_set else 0, self._tree.num_classes)
        self._costs = np.full(count + 1, LETHAL_COST, np.uint8)
        self._traversable = np.zeros(count + 1, np.bool_)
        self._costs[0] = config.default_ground_cost
        if self._label_set is not None:
            known = self._label_set.num_classes + 1
            self._costs[1:known], self._traversable[1:known] = self._label_set.costs, self._label_set.traversable
        else:
            self._costs[1:] = config.default_ground_cost

    def _wanted_extent(self, tiles: NDArray[np.int64]) -> tuple[int, int, int, int]:
        """Tiles that the window has to cover: x, y, columns, rows."""
        geometry = self.geometry
        if geometry is not None:
            if self._extent is None or self._extent[0] != geometry:
                self._extent = geometry, self._extent_of(geometry)
            return self._extent[1]
        boxes = [tiles] if len(tiles) else []
        if self._window is not None and self._window.covers_map:
            x, y, columns, rows = self._window.extent
            boxes.append(np.array([[x, y], [x + columns - 1, y + rows - 1]]))
        if not boxes:
            middle = KEY_ORIGIN // TILE
            boxes.append(np.array([[middle, middle]]))
        corners = np.concatenate(boxes)
        low = corners.min(axis=0) // GROWTH * GROWTH
        high = (corners.max(axis=0) // GROWTH + 1) * GROWTH
        return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])

    def _extent_of(self, geometry: GridGeometry) -> tuple[int, int, int, int]:
        # Ground is looked for beyond the border, so that it does not depend on where the border is.
        margin = self._reach + 2
        size = np.array([geometry.width, geometry.height]) * geometry.resolution
        low = np.floor(np.array(geometry.origin) / self._resolution) + KEY_ORIGIN - margin
        high = np.ceil((geometry.origin + size) / self._resolution) + KEY_ORIGIN + margin
        low, high = np.floor(low / TILE).astype(int), np.ceil(high / TILE).astype(int)
        return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])

    def _project(self, window: _Window, tiles: NDArray[np.int64], everything: bool) -> NDArray[np.int64]:
        """Run the kernels for changed tiles; returns the box of changed cells."""
        from perception.costmap import kernels

        window.dirty[:] = 0
        places = window.local(tiles)
        voxels = self._read(window, places)
        kernels.mark_filled(places, voxels[0], window.filled)
        box = kernels.find_lowest(places, *voxels[:3], self._costs, window.lowest)
        if box[2] > 0:
            box = kernels.find_supported(window.lowest, *_widened(box, 1), window.supported)
        if box[2] > 0:
            args = window.supported, *_widened(box, self._reach), self._reach, self._slope, window.ground, window.dirty
            kernels.find_ground(*args)
        # Of everything, nothing is left over.
        state = window.dirty, window.unsettled, window.filled
        rest = kernels.find_rest(places, *state) if not everything else places[:0]
        changed = self._classify(window, places, voxels)
        if not len(rest):
            return changed
        also = self._classify(window, rest, self._read(window, rest))
        return np.concatenate([np.minimum(changed[:2], also[:2]), np.maximum(changed[2:], also[2:])])

    def _read(self, window: _Window, places: NDArray[np.int64]) -> OccupiedColumns:
        return self._tree.occupied_in(places + np.array([window.x, window.y]))

    def _classify(self, window: _Window, places: NDArray[np.int64], voxels: OccupiedColumns) -> NDArray[np.int64]:
        from perception.costmap import kernels

        return kernels.classify(
            places,
            *voxels,
            window.ground,
            self._costs,
            self._traversable,
            raw_costs(),
            self._limits,
            window.grid,
            window.unsettled,
        )

    def _publish(self, box: NDArray[np.int64] | None) -> CostmapUpdate:
        """The new grid, and where it differs given the box of changed columns; None when all were projected anew."""
        assert self._window is not None
        sampler = self._sampler_of(self._window)
        grid = CostGrid(sampler.take(self._window.grid), sampler.geometry.resolution, sampler.geometry.origin)
        if self.config.inflation_radius > 0:
            grid = inflate(grid, self.config.inflation_radius, self.config.cost_scaling_factor)
        before, self._output = self._output, grid
        height, width = grid.data.shape
        if (
            before is None
            or before.data.shape != grid.data.shape
            or (before.origin, before.resolution) != (grid.origin, grid.resolution)
        ):
            return CostmapUpdate(grid, (0, 0, width, height), True)
        if box is None or self.config.inflation_radius > 0:
            return CostmapUpdate(grid, difference(before.data, grid.data), False)
        return CostmapUpdate(grid, sampler.changed(box, before.data, grid.data) if box[2] > 0 else None, False)

    def _sampler_of(self, window: _Window) -> GridSampler:
        """How to cut the geometry asked for out of the window; made anew only when one of them moved."""
        key = self.geometry, window.extent
        if self._sampler is None or self._sampler[0] != key:
            rows, columns = window.grid.shape
            whole = GridGeometry(self._resolution, columns, rows, self._corner(window))
            sampler = GridSampler(self.geometry or whole, whole.origin, self._resolution, (rows, columns))
            self._sampler = key, sampler
        return self._sampler[1]

    def _corner(self, window: _Window) -> tuple[float, float]:
        return (window.x * TILE - KEY_ORIGIN) * self._resolution, (window.y * TILE - KEY_ORIGIN) * self._resolution


def _widened(box: NDArray[np.int64], margin: int) -> tuple[int, int, int, int]:
    return int(box[0]) - margin, int(box[1]) - margin, int(box[2]) + margin, int(box[3]) + margin


def warm_up() -> None:
    """Compile the kernels, or load them from the cache, so that the first update is as quick as the others."""
    from perception.costmap import kernels
    from perception.mapping import warm_up_insertion

    projector = _small_projector(warm_up_insertion())
    projector.rebuild()
    projector.update()
    # Needs ground to stand on, which the small map may lack.
    cells = np.zeros((1, 1), np.int32)
    kernels.find_ground(cells, 0, 0, 0, 0, 1, 1, cells.copy(), np.zeros((1, 1), np.uint8))


def warm_up_reading() -> None:
    """Compile, or load, most of the kernels without any of those that take clouds in."""
    from perception.mapping import SemanticOcTree

    projector = _small_projector(SemanticOcTree(0.1, num_classes=3, max_memory=1 << 24))
    projector.rebuild()
    projector.update()


def _small_projector(tree: SemanticOcTree) -> CostmapProjector:
    return CostmapProjector(tree, geometry=GridGeometry(0.1, 2, 2, (0.0, 0.0)))
