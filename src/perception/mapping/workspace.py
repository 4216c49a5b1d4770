# SPDX-License-Identifier: Apache-2.0
"""Memory that scans use and leave clean, kept from one scan to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.mapping.image_scan import ImageBuffers, make_image_buffers
from perception.mapping.rays import RayBatch, make_ray_batch
from perception.mapping.scan import (
    BLOCK,
    ENTRIES,
    FAR_CACHE,
    MARKING,
    TABLE,
    TABLE_ROW,
    USED,
    Collector,
    Entries,
)
from perception.mapping.update_types import make_scratch

MAX_CELLS = 1 << 26
"""Voxels of the largest window: 64 MiB for each thread, and 8 MiB of bits beside them."""


@dataclass(frozen=True, slots=True)
class ScanEntries:
    """A copy of a scan's entries.

    Attributes:
        codes: (N,) int64, see scan.Entries; like the next two.
        counts: (N,) int32.
        sums: (N,) int64.
        marks: (N,) bool, False for entries that only clear.
    """

    codes: NDArray[np.int64]
    counts: NDArray[np.int32]
    sums: NDArray[np.int64]
    marks: NDArray[np.bool_]


class Workspace:
    """Buffers for one scan at a time.

    Attributes:
        cells: for each thread a uint8 window of zeros, in the order of keys.cell_place; in one of both, the threads
            would wait for each other's cache lines.
        touched: (≥ bricks of the window,) uint8 of zeros.
        heads: for each shard (≥ bricks of the window,) int32, all -1.
        entries: of both threads.
        collectors: for each thread what it takes to find entries and ends of rays.
        scratch: for each shard what updating bricks takes.
        rays: for each thread what it takes to walk rays.
        images: for each thread what it takes to find the points of an image.
    """

    def __init__(self, num_classes: int) -> None:
        self.scratch = (make_scratch(num_classes), make_scratch(num_classes))
        self.rays: tuple[RayBatch, RayBatch] = (make_ray_batch(), make_ray_batch())
        self.images: tuple[ImageBuffers, ...] = ()
        self._make_window(0)
        self._make_entries(1)

    def prepare_points(self, points: int) -> None:
        """Start a scan with room for the points that one thread takes."""
        if self._rows < points:
            self._make_entries(points + points // 4)
        for one in self.collectors:
            one.used[:] = 0

    def prepare_image(self, columns: int, pixels: int) -> None:
        """Have room for an image of which one thread takes so many pixels in rows of so many columns."""
        if not self.images or len(self.images[0].points) < columns or len(self.images[0].clear) < pixels:
            self.images = (make_image_buffers(columns, pixels), make_image_buffers(columns, pixels))

    def prepare_window(self, cells: int) -> None:
        """Have room for a window."""
        if len(self.cells[0]) < cells:
            self._make_window(min(cells + cells // 4, max(cells, MAX_CELLS)))

    def take_entries(self) -> ScanEntries:
        """A copy of the entries of both threads."""
        kinds: list[list[NDArray]] = [[], [], [], []]
        for one in self.collectors:
            rows = slice(one.base, one.base + int(one.used[ENTRIES]))
            for kind, array in zip(kinds, self.entries[:3], strict=False):
                kind.append(array[rows].copy())
            kinds[3].append(np.arange(int(one.used[ENTRIES])) < one.used[MARKING])
        return ScanEntries(*(np.concatenate(kind) for kind in kinds))

    def give_entries(self, entries: ScanEntries, chosen: NDArray[np.int64]) -> None:
        """Have only the chosen entries, all of which mark, shared out to both threads."""
        half = -(-len(chosen) // 2)
        for one, rows in zip(self.collectors, (chosen[:half], chosen[half:]), strict=True):
            for mine, given in zip(self.entries[:3], (entries.codes, entries.counts, entries.sums), strict=True):
                mine[one.base : one.base + len(rows)] = given[rows]
            one.used[:] = 0
            one.used[[MARKING, ENTRIES]] = len(rows)

    def nbytes(self) -> int:
        """Memory in use."""
        arrays = [*self.cells, self.touched, self._seen, *self.heads, *self.entries]
        arrays += [
            array for batch in self.rays for part in (batch, batch.rays) for array in part if array is not batch.rays
        ]
        for group in (*self.collectors, *self.scratch, *self.images, *(one.row for one in self.images)):
            arrays += [array for array in group if isinstance(array, np.ndarray) and array is not self._seen]
        return sum(array.nbytes for array in arrays)

    def _make_window(self, cells: int) -> None:
        cells = -(-cells // 512) * 512
        self.cells: tuple[NDArray[np.uint8], NDArray[np.uint8]] = (np.zeros(cells, np.uint8), np.zeros(cells, np.uint8))
        self.heads = (np.full(cells // 512, -1, np.int32), np.full(cells // 512, -1, np.int32))
        self.touched = np.zeros(cells // 512, np.uint8)
        self._seen = np.zeros(cells // 8, np.uint8)
        if hasattr(self, "collectors"):
            self.collectors = tuple(one._replace(seen=self._seen) for one in self.collectors)

    def _make_entries(self, rows: int) -> None:
        self._rows = rows
        kinds = (np.int64, np.int32, np.int64, np.int32, np.int32, np.int32)
        self.entries = Entries(*(np.zeros(2 * rows, kind) for kind in kinds))
        self.collectors: tuple[Collector, ...] = tuple(
            Collector(
                base=base,
                used=np.zeros(USED, np.int64),
                bounds=np.zeros(6, np.int64),
                ends=np.zeros(rows, np.int64),
                lengths=np.zeros(rows, np.int64),
                seen=self._seen,
                far=np.full(FAR_CACHE, -1, np.int64),
                table=np.zeros(TABLE * TABLE_ROW, np.int64),
                sums=np.zeros(TABLE, np.int64),
                keys=np.zeros(3 * BLOCK, np.int32),
                codes=np.zeros(BLOCK, np.int64),
                totals=np.zeros(BLOCK + 1, np.int64),
                starts=np.zeros(BLOCK + 1, np.int32),
            )
            for base in (0, rows)
        )
