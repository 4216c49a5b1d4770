# SPDX-License-Identifier: Apache-2.0
"""Memory that scans use and leave clean, kept from one scan to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.mapping.lanes import LANES
from perception.mapping.scan import BLOCK, FAR_CACHE, TABLE, Runs
from perception.mapping.update_types import Joined, make_scratch

MAX_CELLS = 1 << 26
"""Voxels of the largest window: 64 MiB, and 8 MiB of bits beside it."""


class Workspace:
    """Buffers for one scan at a time.

    Attributes:
        cells: (≥ X·Y·Z,) uint8 window of zeros.
        touched: (≥ bricks of the window,) uint8 of zeros.
        heads: for each shard (≥ bricks of the window,) int32, all -1.
        runs: of both threads.
        joined: for each shard room for the runs of both threads.
        scratch: for each shard what updating bricks takes.
        lanes: for each thread the state of rays that are walked together.
    """

    def __init__(self, num_classes: int) -> None:
        self.scratch = (make_scratch(num_classes), make_scratch(num_classes))
        self.lanes = tuple((np.zeros((6, LANES)), np.zeros((5, LANES), np.int64)) for _ in range(2))
        self._make_window(0)
        self._rows, self._ends = 0, 0
        self._make_runs(1, 1)

    def prepare(self, cells: int, points: int, ends: int) -> None:
        """Have room for a window, for the points that one thread takes and for the ends of rays it may find."""
        if len(self.cells) < cells:
            self._make_window(min(cells + cells // 4, max(cells, MAX_CELLS)))
        if self._rows < points or self._ends < ends:
            self._make_runs(points + points // 4, ends + ends // 4)
        for runs in self.runs:
            runs.used[:] = 0

    def nbytes(self) -> int:
        """Memory in use."""
        arrays = [self.cells, self.touched, self.runs[0].seen, *self.heads]
        for group in (*self.runs, *self.joined, *self.scratch):
            arrays += [array for array in group if array is not self.runs[0].seen]
        return sum(array.nbytes for array in arrays)

    def _make_window(self, cells: int) -> None:
        cells = -(-cells // 512) * 512
        self.cells: NDArray[np.uint8] = np.zeros(cells, np.uint8)
        self.heads = (np.full(cells // 512, -1, np.int32), np.full(cells // 512, -1, np.int32))
        self.touched = np.zeros(cells // 512, np.uint8)
        self._seen = np.zeros(cells // 8, np.uint8)
        if hasattr(self, "runs"):
            self.runs = tuple(runs._replace(seen=self._seen) for runs in self.runs)

    def _make_runs(self, rows: int, ends: int) -> None:
        self._rows, self._ends = rows, ends
        self.runs: tuple[Runs, ...] = tuple(
            Runs(
                bricks=np.zeros((2, rows), np.int32),
                tags=np.zeros((2, rows), np.uint32),
                counts=np.zeros((2, rows), np.int32),
                sums=np.zeros((2, rows), np.float64),
                ends=np.zeros(ends, np.int64),
                lengths=np.zeros(ends, np.int64),
                used=np.zeros(5, np.int64),
                seen=self._seen,
                far=np.full(FAR_CACHE, -1, np.int64),
                table_keys=np.full(TABLE, -1, np.int64),
                table_counts=np.zeros(TABLE, np.int32),
                table_sums=np.zeros(TABLE, np.float64),
                block_keys=np.zeros(3 * BLOCK, np.int32),
                block_places=np.zeros(BLOCK, np.int32),
            )
            for _ in range(2)
        )
        self.joined = tuple(
            Joined(
                tags=np.zeros(2 * rows, np.uint32),
                counts=np.zeros(2 * rows, np.int32),
                sums=np.zeros(2 * rows, np.float64),
                next_in_brick=np.zeros(2 * rows, np.int32),
                next_in_voxel=np.zeros(2 * rows, np.int32),
            )
            for _ in range(2)
        )
