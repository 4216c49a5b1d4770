# SPDX-License-Identifier: Apache-2.0
"""The first half of an insertion, which needs no map: the points of a scan → entries, voxels with votes.

A collection may be filled while the map still takes in the scan before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.depth_kernels import DepthRows, PixelLabels
from perception.mapping import scan as scanning
from perception.mapping.image_scan import CLEARS, ImageBuffers, collect_image, make_image_buffers
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
from perception.mapping.threads import compiled, run_both, run_one_by_one

NO_BITS = np.zeros(0, np.uint8)


@dataclass(frozen=True, slots=True)
class CloudScan:
    """Points to insert, checked; map frame.

    Attributes:
        points: (N, 3) float32, meters.
        labels: (N,) int32, or empty.
        confidence: (N,) float32 or empty.
        clear: (M, 3) float32.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int32]
    confidence: NDArray[np.float32]
    clear: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ImageScan:
    """A depth image to insert, checked.

    Attributes:
        rows: the image.
        known: its labels.
        matrix: (4, 4) float32 map_T_camera.
    """

    rows: DepthRows
    known: PixelLabels
    matrix: NDArray[np.float32]


@dataclass(slots=True)
class PointCounts:
    """What became of a scan's points; see InsertReport for the meaning."""

    points: int = 0
    clear_points: int = 0
    not_finite: int = 0
    unlabeled: int = 0
    invalid_labels: int = 0
    invalid_confidences: int = 0
    invalid: int = 0
    clear_invalid: int = 0


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


class Collection:
    """The entries of one scan, in memory that the next scan may use again.

    Args:
        num_classes: classes of the map.
        resolution: meters.

    Attributes:
        entries: of both threads.
        collectors: for each thread what it takes to find entries and ends of rays.
        images: for each thread what it takes to find the points of an image.
        counts: what became of the points.
        bounds: (6,) int64, lowest and highest keys of the entries.
    """

    def __init__(self, num_classes: int, resolution: float) -> None:
        self._rule = (num_classes, 1.0 / resolution)
        self.images: tuple[ImageBuffers, ...] = ()
        self.counts = PointCounts()
        self.bounds = np.zeros(6, np.int64)
        self._make_entries(1)

    def fill(self, given: CloudScan | ImageScan, alone: bool = False) -> None:
        """Collect a scan.

        Args:
            given: the scan.
            alone: let the second thread be, because it works for the map.
        """
        self.counts = PointCounts()
        run = run_one_by_one if alone else run_both
        if isinstance(given, CloudScan):
            self._collect_cloud(given, run)
        else:
            self._collect_image(given, run)
        first, second = self.collectors
        counts, used = self.counts, first.used + second.used
        counts.invalid, counts.clear_invalid = int(used[scanning.INVALID]), int(used[scanning.CLEAR_INVALID])
        counts.unlabeled, counts.invalid_labels = int(used[scanning.UNLABELED]), int(used[scanning.INVALID_LABELS])
        counts.invalid_confidences = int(used[scanning.INVALID_CONFIDENCES])
        low, high = np.minimum(first.bounds, second.bounds)[:3], np.maximum(first.bounds, second.bounds)[3:]
        self.bounds = np.concatenate([low, high])

    def _collect_cloud(self, cloud: CloudScan, run: Any) -> None:
        half, clear_half = -(-len(cloud.points) // 2), -(-len(cloud.clear) // 2)
        self._prepare_points(half + clear_half)
        given = (cloud.points, cloud.labels, cloud.confidence)
        self._collect_points((given, 0, half), (given, half, len(cloud.points)), True, run)
        if len(cloud.clear):
            ends = (cloud.clear, cloud.labels[:0], cloud.confidence[:0])
            self._collect_points((ends, 0, clear_half), (ends, clear_half, len(cloud.clear)), False, run)
        self.counts.points, self.counts.clear_points = len(cloud.points), len(cloud.clear)
        if any(one.used[scanning.INVALID] for one in self.collectors):
            self.counts.not_finite = int((~np.isfinite(cloud.points).all(axis=1)).sum())

    def _collect_points(self, first: tuple[Any, int, int], second: tuple[Any, int, int], marks: bool, run: Any) -> None:
        """Points of either thread: the arrays, the first and behind the last."""
        mine, theirs = (
            (*arrays, start, stop, *self._rule, marks, self.entries, one)
            for (arrays, start, stop), one in zip((first, second), self.collectors, strict=True)
        )
        run(compiled(scanning.collect), mine, theirs)

    def _collect_image(self, image: ImageScan, run: Any) -> None:
        rows = image.rows
        lines = -(-rows.depth.shape[0] // rows.stride)
        middle, columns = -(-lines // 2) * rows.stride, len(rows.ray_x)
        self._prepare_points(-(-lines // 2) * columns)
        self._prepare_image(columns, -(-lines // 2) * columns)
        spans = ((0, middle), (middle, rows.depth.shape[0]))
        first, second = (
            (rows, image.known, image.matrix, *span, *self._rule, self.entries, one, buffers)
            for span, one, buffers in zip(spans, self.collectors, self.images, strict=True)
        )
        run(compiled(collect_image), first, second)
        counts = self.counts
        totals = self.images[0].counts + self.images[1].counts
        counts.points, counts.clear_points, counts.not_finite = totals.tolist()
        if counts.clear_points:
            nothing = (np.empty(0, np.int32), np.empty(0, np.float32))
            ends = [((one.clear, *nothing), 0, int(one.counts[CLEARS])) for one in self.images]
            self._collect_points(ends[0], ends[1], False, run)

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

    def mark_ends_in(self, seen: NDArray[np.uint8]) -> None:
        """Let end voxels be noted in these bits, the window's."""
        if self.collectors[0].seen is not seen:
            self.collectors = tuple(one._replace(seen=seen) for one in self.collectors)

    def nbytes(self) -> int:
        """Memory in use."""
        arrays = [*self.entries]
        for group in (*self.collectors, *self.images, *(one.row for one in self.images)):
            arrays += [array for array in group if isinstance(array, np.ndarray)]
        return sum(array.nbytes for array in arrays) - sum(one.seen.nbytes for one in self.collectors)

    def _prepare_points(self, points: int) -> None:
        """Start a scan with room for the points that one thread takes."""
        if self._rows < points:
            self._make_entries(points + points // 4)
        for one in self.collectors:
            one.used[:] = 0

    def _prepare_image(self, columns: int, pixels: int) -> None:
        """Have room for an image of which one thread takes so many pixels in rows of so many columns."""
        if not self.images or len(self.images[0].points) < columns or len(self.images[0].clear) < pixels:
            self.images = (make_image_buffers(columns, pixels), make_image_buffers(columns, pixels))

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
                seen=NO_BITS,
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
