# SPDX-License-Identifier: Apache-2.0
"""The octree as it is shown: leaves within limits, their colors, and the projected map. Without ROS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perception.config import MarkerColorConfig, OctomapServerConfig
from perception.labels import LabelSet
from perception.mapping import OctreeLeaves, SemanticOcTree
from perception.ros.voxel_colors import ColorPalette
from perception.types import CostGrid

OCCUPIED, FREE, UNKNOWN = 100, 0, -1
"""Values of projected_map, as octomap_server."""
MAX_GRID_CELLS = 1 << 28


@dataclass
class MapView:
    """One state of the map, read once however many topics show it.

    Args:
        tree: the map.
        config: depth, limits and colors.
        label_set: colors of the classes, or colors that clouds brought; None for a map without either.
    """

    tree: SemanticOcTree
    config: OctomapServerConfig
    label_set: LabelSet | ColorPalette | None

    @cached_property
    def leaves(self) -> OctreeLeaves:
        """All leaves down to ``max_depth``."""
        return self.tree.leaves(self.config.max_depth)

    @cached_property
    def in_limits(self) -> NDArray[np.bool_]:
        """(M,) leaves that overlap the heights from ``occupancy_min_z`` to ``occupancy_max_z``."""
        z, half = self.leaves.centers[:, 2], self.leaves.sizes / 2
        return (z + half > self.config.occupancy_min_z) & (z - half < self.config.occupancy_max_z)

    @cached_property
    def occupied(self) -> NDArray[np.int64]:
        """Which leaves are shown as occupied."""
        index = np.flatnonzero(self.in_limits & (self.leaves.log_odds >= 0))
        return index[~self._speckles(index)] if self.config.filter_speckles else index

    @cached_property
    def free(self) -> NDArray[np.int64]:
        """Which leaves are shown as free."""
        return np.flatnonzero(self.in_limits & (self.leaves.log_odds < 0))

    def occupied_colors(self) -> NDArray[np.uint8]:
        """(len(occupied), 3) uint8: by height if asked for, else of the class, else ``color``."""
        if self.config.use_height_map:
            return self._height_colors(self.leaves.centers[self.occupied, 2])
        colors = np.tile(rgb_of(self.config.color), (len(self.occupied), 1))
        labels = self.leaves.labels[self.occupied]
        if self.label_set is not None:
            labeled = (labels >= 0) & (labels < self.label_set.num_classes)
            colors[labeled] = self.label_set.colors[labels[labeled]]
        return colors

    def class_groups(self) -> tuple[NDArray[np.int64], list[str]]:
        """Group of each occupied leaf and names of the groups: "map" for those without a class, then the classes."""
        labels = self.leaves.labels[self.occupied].astype(np.int64)
        if self.label_set is None or isinstance(self.label_set, ColorPalette):
            return np.zeros(len(labels), np.int64), ["map"]
        names = ["map", *(self.label_set.name_of(number) for number in range(self.label_set.num_classes))]
        return np.where(labels < self.label_set.num_classes, labels, -1) + 1, names

    def projected_map(self) -> CostGrid:
        """The map seen from above: 100 where a column has an occupied voxel, 0 where only free ones, −1 elsewhere.

        Covers everything known, at least ``min_x_size`` by ``min_y_size`` around it; cells have the size of a voxel
        at ``max_depth``.

        Source: octomap_server's projected_map.
        """
        cell = self.tree.resolution * 2 ** (16 - self.config.max_depth)
        leaves = self.leaves
        cells = np.maximum(np.rint(leaves.sizes / cell), 1).astype(np.int64)
        corners = np.rint(leaves.centers[:, :2].astype(np.float64) / cell - cells[:, None] / 2).astype(np.int64)
        low, high = self._extent(corners, cells, cell)
        width, height = (int(count) for count in high - low)
        if width * height > MAX_GRID_CELLS:
            low, high, width, height = low, low + 1, 1, 1
        grid = np.full((height, width), UNKNOWN, np.int8)
        for index, value in ((self.free, FREE), (self.occupied, OCCUPIED)):
            for size, where in _by_size(cells, index):
                _paint(grid, corners[where] - low, size, value)
        return CostGrid(grid, cell, (float(low[0] * cell), float(low[1] * cell)))

    def _extent(
        self, corners: NDArray[np.int64], cells: NDArray[np.int64], cell: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if len(corners):
            low, high = corners.min(axis=0), (corners + cells[:, None]).max(axis=0)
        else:
            low, high = np.zeros(2, np.int64), np.ones(2, np.int64)
        half = np.array([self.config.min_x_size, self.config.min_y_size]) / 2 / cell
        return np.minimum(low, np.floor(-half).astype(np.int64)) if half.any() else low, (
            np.maximum(high, np.ceil(half).astype(np.int64)) if half.any() else high
        )

    def _speckles(self, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(len(index),) single voxels none of whose 26 neighbors is occupied."""
        finest = self.leaves.sizes[index] < 1.5 * self.tree.resolution
        lonely = np.flatnonzero(finest)
        centers = self.leaves.centers[index]
        steps = np.stack(np.meshgrid([0, 1, -1], [0, 1, -1], [0, 1, -1], indexing="ij"), axis=-1).reshape(-1, 3)[1:]
        # Faces first: nearly every voxel of a surface is settled by them.
        for step in sorted(steps.tolist(), key=lambda step: sum(map(abs, step))):
            if not len(lonely):
                break
            beside = self.tree.log_odds(centers[lonely] + np.float32(self.tree.resolution) * np.array(step, np.float32))
            lonely = lonely[~(beside >= 0)]
        result = np.zeros(len(index), np.bool_)
        result[lonely] = True
        return result

    def _height_colors(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Hues from ``color_factor`` of the circle at the bottom down to red at the top."""
        import cv2

        low, high = (float(z.min()), float(z.max())) if len(z) else (0.0, 0.0)
        share = np.clip((z - low) / max(high - low, 1e-6), 0, 1)
        hsv = np.ones((1, len(z), 3), np.float32)
        hsv[0, :, 0] = (1 - share) * self.config.color_factor * 360
        if not len(z):
            return np.zeros((0, 3), np.uint8)
        return np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0] * 255).astype(np.uint8)


def rgb_of(color: MarkerColorConfig) -> NDArray[np.uint8]:
    """(3,) uint8."""
    return np.rint(np.array([color.r, color.g, color.b]) * 255).astype(np.uint8)


def _by_size(cells: NDArray[np.int64], index: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for size in np.unique(cells[index]):
        yield int(size), index[cells[index] == size]


def _paint(grid: NDArray[np.int8], corners: NDArray[np.int64], size: int, value: int) -> None:
    """Set squares of size × size cells, given by their lower corners, where the grid is unknown or value is higher."""
    if size == 1:
        x, y = corners[:, 0], corners[:, 1]
        grid[y, x] = np.maximum(grid[y, x], value)
        return
    # Squares lie on a raster of their own size: mark them there, then blow the raster up.
    offset = corners[0] % size
    places = (corners - offset) // size
    low = places.min(axis=0)
    shape = places.max(axis=0) - low + 1
    coarse = np.zeros((shape[1], shape[0]), np.bool_)
    coarse[places[:, 1] - low[1], places[:, 0] - low[0]] = True
    marked = coarse.repeat(size, axis=0).repeat(size, axis=1)
    x, y = (int(value) for value in low * size + offset)
    part = grid[y : y + marked.shape[0], x : x + marked.shape[1]]
    part[marked] = np.maximum(part[marked], value)
