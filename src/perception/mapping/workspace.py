# SPDX-License-Identifier: Apache-2.0
"""Memory that scans use and leave clean, kept from one scan to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.mapping.rays import RayBatch, make_ray_batch
from perception.mapping.update_types import make_scratch

MAX_CELLS = 1 << 26
"""Voxels of the largest window: 64 MiB for each thread, and 8 MiB of bits beside them."""


class Workspace:
    """Buffers for the window of one scan at a time.

    Attributes:
        cells: for each thread a uint8 window of zeros, in the order of keys.cell_place; in one of both, the threads
            would wait for each other's cache lines.
        touched: (≥ bricks of the window,) uint8 of zeros.
        seen: uint8, a bit of zero for each voxel of the window.
        heads: for each shard (≥ bricks of the window,) int32, all -1.
        scratch: for each shard what updating bricks takes.
        rays: for each thread what it takes to walk rays.
    """

    def __init__(self, num_classes: int) -> None:
        self.scratch = (make_scratch(num_classes), make_scratch(num_classes))
        self.rays: tuple[RayBatch, RayBatch] = (make_ray_batch(), make_ray_batch())
        self._make_window(0)

    def prepare_window(self, cells: int) -> None:
        """Have room for a window."""
        if len(self.cells[0]) < cells:
            self._make_window(min(cells + cells // 4, max(cells, MAX_CELLS)))

    def nbytes(self) -> int:
        """Memory in use."""
        arrays = [*self.cells, self.touched, self.seen, *self.heads]
        for group in (*self.rays, *(batch.rays for batch in self.rays), *self.scratch):
            arrays += [array for array in group if isinstance(array, np.ndarray)]
        return sum(array.nbytes for array in arrays)

    def _make_window(self, cells: int) -> None:
        cells = -(-cells // 512) * 512
        self.cells: tuple[NDArray[np.uint8], NDArray[np.uint8]] = (np.zeros(cells, np.uint8), np.zeros(cells, np.uint8))
        self.heads = (np.full(cells // 512, -1, np.int32), np.full(cells // 512, -1, np.int32))
        self.touched = np.zeros(cells // 512, np.uint8)
        self.seen = np.zeros(cells // 8, np.uint8)
