# SPDX-License-Identifier: Apache-2.0
"""One scan into the map: points → entries (voxels with votes) → window of bytes → bricks, on two threads.

The window is the box of the rays, one byte per voxel. A scan whose box is larger than `MAX_CELLS` is done in parts,
split by space; every voxel still gets one update, so the result is the same.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.depth_kernels import DepthRows, PixelLabels
from perception.mapping import parts
from perception.mapping import scan as scanning
from perception.mapping.image_scan import CLEARS, collect_image
from perception.mapping.keys import KEY_END, KEY_ORIGIN, voxels_in
from perception.mapping.rays import walk_clipped, walk_shares
from perception.mapping.scan import Collector, Space
from perception.mapping.store import BrickStore
from perception.mapping.threads import compiled, run_both
from perception.mapping.update import update_shard
from perception.mapping.update_types import Rules
from perception.mapping.workspace import MAX_CELLS, Workspace


@functools.lru_cache(maxsize=16)
def range_limit(max_range: float) -> np.float32:
    """Largest float32 squared distance whose root is within the longest range."""
    if max_range < 0:
        return np.float32(np.inf)
    limit = np.float32(max_range**2)
    while np.sqrt(np.float64(limit)) <= max_range:
        limit = np.nextafter(limit, np.float32(np.inf))
    while np.sqrt(np.float64(limit)) > max_range:
        limit = np.nextafter(limit, np.float32(-np.inf))
    return limit


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


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan, and how to insert it.

    Attributes:
        given: what the sensor saw.
        origin: (3,) float32.
        origin_key: its voxel.
        max_range: meters, negative for no limit.
        rules: how to update voxels.
    """

    given: CloudScan | ImageScan
    origin: NDArray[np.float32]
    origin_key: tuple[int, int, int]
    max_range: float
    rules: Rules


@dataclass(slots=True)
class ScanCounts:
    """What became of a scan; see InsertReport for the meaning."""

    points: int = 0
    clear_points: int = 0
    not_finite: int = 0
    beyond_range: int = 0
    unlabeled: int = 0
    invalid_labels: int = 0
    invalid_confidences: int = 0
    invalid: int = 0
    clear_invalid: int = 0
    hits: int = 0
    touched: int = 0
    changed: int = 0
    refused: int = 0
    parts: int = 0


class ScanInserter:
    """Inserts scans into a store.

    Args:
        store: where the bricks are.
        resolution: meters.
        num_classes: classes of the map.
    """

    def __init__(self, store: BrickStore, resolution: float, num_classes: int) -> None:
        self.store = store
        self.resolution = resolution
        self.num_classes = num_classes
        self.workspace = Workspace(num_classes)

    def insert(self, scan: Scan) -> ScanCounts:
        """Insert one scan."""
        try:
            return self._insert(scan)
        except BaseException:
            # An interrupted scan leaves its marks in the workspace: the next one must not take them for its own.
            self.workspace = Workspace(self.num_classes)
            raise

    def _insert(self, scan: Scan) -> ScanCounts:
        counts = ScanCounts()
        bounds = self._collect(scan, counts)
        reach = self._reach(scan)
        box = _box(scan, bounds, reach)
        if voxels_in(box) <= MAX_CELLS:
            self._insert_part(scan, box, None, counts)
            counts.parts = 1
        else:
            self._insert_in_parts(scan, box, counts)
        return counts

    def _reach(self, scan: Scan) -> NDArray[np.int64]:
        """Lowest and highest keys of voxels that can be in range."""
        if scan.max_range < 0:
            return np.array([0, 0, 0, KEY_END - 1, KEY_END - 1, KEY_END - 1], np.int64)
        radius = scan.max_range + 2 * self.resolution
        ends = [(x + sign * radius) / self.resolution + KEY_ORIGIN for sign in (-1, 1) for x in scan.origin.tolist()]
        return np.array([min(max(math.floor(end), 0), KEY_END - 1) for end in ends], np.int64)

    def _collect(self, scan: Scan, counts: ScanCounts) -> NDArray[np.int64]:
        """Entries of the scan, into the workspace; returns (6,) their lowest and highest keys."""
        if isinstance(scan.given, CloudScan):
            self._collect_cloud(scan.given, counts)
        else:
            self._collect_image(scan.given, counts)
        first, second = self.workspace.collectors
        used = first.used + second.used
        counts.invalid, counts.clear_invalid = int(used[scanning.INVALID]), int(used[scanning.CLEAR_INVALID])
        counts.unlabeled, counts.invalid_labels = int(used[scanning.UNLABELED]), int(used[scanning.INVALID_LABELS])
        counts.invalid_confidences = int(used[scanning.INVALID_CONFIDENCES])
        low, high = np.minimum(first.bounds, second.bounds)[:3], np.maximum(first.bounds, second.bounds)[3:]
        return np.concatenate([low, high])

    def _collect_cloud(self, cloud: CloudScan, counts: ScanCounts) -> None:
        half, clear_half = -(-len(cloud.points) // 2), -(-len(cloud.clear) // 2)
        self.workspace.prepare_points(half + clear_half)
        given = (cloud.points, cloud.labels, cloud.confidence)
        self._collect_points((given, 0, half), (given, half, len(cloud.points)), True)
        if len(cloud.clear):
            ends = (cloud.clear, cloud.labels[:0], cloud.confidence[:0])
            self._collect_points((ends, 0, clear_half), (ends, clear_half, len(cloud.clear)), False)
        counts.points, counts.clear_points = len(cloud.points), len(cloud.clear)
        if any(one.used[scanning.INVALID] for one in self.workspace.collectors):
            counts.not_finite = int((~np.isfinite(cloud.points).all(axis=1)).sum())

    def _collect_points(self, first: tuple[Any, int, int], second: tuple[Any, int, int], marks: bool) -> None:
        """Points of either thread: the arrays, the first and behind the last."""
        entries, rest = self.workspace.entries, (self.num_classes, 1.0 / self.resolution, marks)
        mine, theirs = (
            (*arrays, start, stop, *rest, entries, one)
            for (arrays, start, stop), one in zip((first, second), self.workspace.collectors, strict=True)
        )
        run_both(compiled(scanning.collect), mine, theirs)

    def _collect_image(self, image: ImageScan, counts: ScanCounts) -> None:
        workspace, rows = self.workspace, image.rows
        lines = -(-rows.depth.shape[0] // rows.stride)
        middle, columns = -(-lines // 2) * rows.stride, len(rows.ray_x)
        workspace.prepare_points(-(-lines // 2) * columns)
        workspace.prepare_image(columns, -(-lines // 2) * columns)
        rest = (self.num_classes, 1.0 / self.resolution, workspace.entries)
        spans = ((0, middle), (middle, rows.depth.shape[0]))
        first, second = (
            (rows, image.known, image.matrix, *span, *rest, one, buffers)
            for span, one, buffers in zip(spans, workspace.collectors, workspace.images, strict=True)
        )
        run_both(compiled(collect_image), first, second)
        totals = workspace.images[0].counts + workspace.images[1].counts
        counts.points, counts.clear_points, counts.not_finite = totals.tolist()
        if counts.clear_points:
            nothing = (np.empty(0, np.int32), np.empty(0, np.float32))
            ends = [((one.clear, *nothing), 0, int(one.counts[CLEARS])) for one in workspace.images]
            self._collect_points(ends[0], ends[1], False)

    def _insert_in_parts(self, scan: Scan, box: NDArray[np.int64], counts: ScanCounts) -> None:
        """Insert a scan whose box is too large for one window."""
        limit = range_limit(scan.max_range)
        entries = self.workspace.take_entries()
        rays = parts.find_rays(entries, scan.origin, self.resolution, scan.max_range, limit)
        for window, ends, chosen in parts.split(box, rays, MAX_CELLS):
            self.workspace.give_entries(entries, chosen)
            self._insert_part(scan, window, ends, counts)
            counts.parts += 1
        counts.beyond_range = rays.beyond

    def _insert_part(
        self, scan: Scan, window: NDArray[np.int64], ends: NDArray[np.int64] | None, counts: ScanCounts
    ) -> None:
        """Insert what lies in one window; `ends` are the rays of the whole scan when it has several parts."""
        workspace, limit = self.workspace, range_limit(scan.max_range)
        workspace.prepare_window(voxels_in(window))
        entries, collectors = workspace.entries, workspace.collectors
        origin = (scan.origin[0], scan.origin[1], scan.origin[2])
        space = Space(window, self.resolution, origin, limit, scan.origin_key)
        first, second = ((entries, space, one) for one in collectors)
        run_both(compiled(scanning.place_entries), first, second)
        rule = (self.resolution, limit, np.float32(scan.max_range))
        start = (origin, scan.origin_key)
        if ends is None:
            counts.beyond_range = sum(int(one.used[scanning.BEYOND]) for one in collectors)
            first, second = (
                (cells, *start, collectors, share, rule, window, batch)
                for cells, share, batch in zip(workspace.cells, _share_rays(collectors), workspace.rays, strict=True)
            )
            run_both(compiled(walk_shares), first, second)
        else:
            first, second = (
                (workspace.cells[i], workspace.touched, *start, ends[i::2].copy(), rule, window) for i in range(2)
            )
            run_both(compiled(walk_clipped), first, second)
        self._update(scan.rules, window, ends is not None, counts)

    def _update(self, rules: Rules, window: NDArray[np.int64], sparse: bool, counts: ScanCounts) -> None:
        store, workspace = self.store, self.workspace
        store.make_room(math.prod(int(bricks) // size + 2 for bricks, size in zip(window[3:], (8, 8, 16), strict=True)))
        results = np.zeros((2, 4), np.int64)
        first, second = (
            (
                store.shards[i],
                i,
                workspace.cells,
                workspace.touched,
                sparse,
                window,
                workspace.entries,
                workspace.collectors,
                workspace.heads[i],
                workspace.scratch[i],
                rules,
                results[i],
            )
            for i in range(2)
        )
        run_both(compiled(update_shard), first, second)
        hits, touched, changed, refused = (results[0] + results[1]).tolist()
        counts.hits += hits
        counts.touched += touched
        counts.changed += changed
        counts.refused += refused


def _box(scan: Scan, bounds: NDArray[np.int64], reach: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lowest brick and number of bricks per axis of the box of all rays."""
    corners = []
    for axis, key in enumerate(scan.origin_key):
        # One voxel more: a ray that misses its end voxel may leave the box by one.
        low = max(min(int(bounds[axis]), key), int(reach[axis])) - 1
        high = min(max(int(bounds[3 + axis]), key), int(reach[3 + axis])) + 1
        corners.append((max(low, 0) >> 3, min(high, KEY_END - 1) >> 3))
    return np.array([low for low, _ in corners] + [high - low + 1 for low, high in corners], np.int64)


def _share_rays(runs: tuple[Collector, ...]) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Split the rays of both threads' entries into two halves of the same total length.

    Returns:
        for either thread the first and the last ray (exclusive) in the first list, and in the second.
    """
    counts = [int(one.used[scanning.ENDS]) for one in runs]
    lengths = [int(one.lengths[count - 1]) if count else 0 for one, count in zip(runs, counts, strict=True)]
    half = (lengths[0] + lengths[1]) // 2
    if half <= lengths[0]:
        split = int(np.searchsorted(runs[0].lengths[: counts[0]], half))
        return (0, split, 0, 0), (split, counts[0], 0, counts[1])
    split = int(np.searchsorted(runs[1].lengths[: counts[1]], half - lengths[0]))
    return (0, counts[0], 0, split), (0, 0, split, counts[1])
