# SPDX-License-Identifier: Apache-2.0
"""One scan into the map: points → window of bytes → bricks, on two threads.

The window is the box of the rays, one byte per voxel. A scan whose box is larger than `MAX_CELLS` is done in parts,
split by space; every voxel still gets one update, so the result is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.mapping import parts
from perception.mapping import scan as scanning
from perception.mapping.keys import BRICK_VOXELS, KEY_END, KEY_ORIGIN
from perception.mapping.rays import walk_clipped, walk_shares
from perception.mapping.scan import Runs, Space
from perception.mapping.store import BrickStore
from perception.mapping.threads import run_both
from perception.mapping.update import update_shard
from perception.mapping.update_types import Rules
from perception.mapping.workspace import MAX_CELLS, Workspace


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
class Scan:
    """One scan, checked, and how to insert it.

    Attributes:
        points: (N, 3) float32, meters, map frame.
        labels: (N,) integers of any type, or empty.
        confidence: (N,) float32 or empty.
        clear: (M, 3) float32.
        origin: (3,) float32.
        origin_key: its voxel.
        max_range: meters, negative for no limit.
        rules: how to update voxels.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.integer]
    confidence: NDArray[np.float32]
    clear: NDArray[np.float32]
    origin: NDArray[np.float32]
    origin_key: tuple[int, int, int]
    max_range: float
    rules: Rules


@dataclass(slots=True)
class ScanCounts:
    """What became of a scan; see InsertReport for the meaning."""

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
        counts = ScanCounts()
        scan, bounds = self._survey(scan, counts)
        reach = self._reach(scan)
        box = self._box(scan, bounds, reach)
        if int(np.prod(box[3:])) * BRICK_VOXELS <= MAX_CELLS:
            self._insert_part(scan, self._space(scan, reach, box), None, counts)
            counts.parts = 1
        else:
            self._insert_in_parts(scan, reach, box, counts)
        return counts

    def _reach(self, scan: Scan) -> NDArray[np.int64]:
        """Lowest and highest keys of voxels that can be in range."""
        if scan.max_range < 0:
            return np.array([0, 0, 0, KEY_END - 1, KEY_END - 1, KEY_END - 1], np.int64)
        radius = scan.max_range + 2 * self.resolution
        low = np.floor((scan.origin.astype(np.float64) - radius) / self.resolution) + KEY_ORIGIN
        high = np.floor((scan.origin.astype(np.float64) + radius) / self.resolution) + KEY_ORIGIN
        return np.clip(np.concatenate([low, high]), 0, KEY_END - 1).astype(np.int64)

    def _survey(self, scan: Scan, counts: ScanCounts) -> tuple[Scan, NDArray[np.float64]]:
        """The scan with labels that can be used, and (R, 6) lowest and highest coordinates of parts of it."""
        limit = np.float32(1.01 * KEY_ORIGIN * self.resolution).view(np.int32)
        bounds = np.empty((4, 6), np.int32)
        labels, bad = np.empty(len(scan.labels), np.uint16), np.zeros((2, 3), np.int64)
        clouds = [(cloud, i == 0) for i, cloud in enumerate((scan.points, scan.clear)) if len(cloud)]
        for i, (points, labeled) in enumerate(clouds):
            bits, half = points.reshape(-1).view(np.int32), len(points) // 2
            names = scan.labels if labeled else scan.labels[:0]
            rest = (names, scan.confidence, self.num_classes, labels)
            run_both(
                scanning.survey,
                (bits, 0, half, limit, bounds[2 * i], *rest, bad[0] if labeled else bad[0].copy()),
                (bits, half, len(points), limit, bounds[2 * i + 1], *rest, bad[1] if labeled else bad[1].copy()),
            )
        counts.unlabeled, counts.invalid_labels, counts.invalid_confidences = (int(n) for n in bad.sum(axis=0))
        return replace(scan, labels=labels), scanning.bits_to_float(bounds[: 2 * len(clouds)])

    def _box(self, scan: Scan, bounds: NDArray[np.float64], reach: NDArray[np.int64]) -> NDArray[np.int64]:
        """Lowest brick and number of bricks per axis of the box of all rays."""
        origin_key = np.array(scan.origin_key, np.int64)
        low = np.floor(bounds[:, :3].min(axis=0, initial=np.inf) * (1.0 / self.resolution)) + KEY_ORIGIN
        high = np.floor(bounds[:, 3:].max(axis=0, initial=-np.inf) * (1.0 / self.resolution)) + KEY_ORIGIN
        # One voxel more: a ray that misses its end voxel may leave the box by one.
        low = np.maximum(np.minimum(low, origin_key), reach[:3]) - 1
        high = np.minimum(np.maximum(high, origin_key), reach[3:]) + 1
        corners = np.clip(np.stack([low, high]), 0, KEY_END - 1).astype(np.int64) >> 3
        return np.concatenate([corners[0], corners[1] - corners[0] + 1])

    def _space(self, scan: Scan, reach: NDArray[np.int64], window: NDArray[np.int64]) -> Space:
        squares = (
            scanning.axis_squares(scan.origin[axis], window[axis] * 8, window[3 + axis] * 8, self.resolution)
            for axis in range(3)
        )
        return Space(window, reach, *squares, range_limit(scan.max_range), scan.origin_key, 1.0 / self.resolution)  # pyright: ignore[reportCallIssue]

    def _collect(self, scan: Scan, space: Space, with_far: bool, counts: ScanCounts) -> tuple[Runs, ...]:
        """Runs and ends of the points in a window; far points are counted with it when asked for."""
        half, clear_half = -(-len(scan.points) // 2), -(-len(scan.clear) // 2)
        self.workspace.prepare(int(np.prod(space.window[3:])) * 512, half, half + clear_half)
        runs = self.workspace.runs
        arrays = (scan.points, scan.labels, scan.confidence)
        run_both(
            scanning.collect_ends,
            (*arrays, 0, half, space, with_far, True, runs[0]),
            (*arrays, half, len(scan.points), space, with_far, True, runs[1]),
        )
        invalid = sum(int(one.used[4]) for one in runs)
        counts.invalid += invalid
        counts.beyond_range += sum(int(one.used[3]) for one in runs)
        if len(scan.clear):
            arrays = (scan.clear, scan.labels[:0], scan.confidence[:0])
            run_both(
                scanning.collect_ends,
                (*arrays, 0, clear_half, space, with_far, False, runs[0]),
                (*arrays, clear_half, len(scan.clear), space, with_far, False, runs[1]),
            )
            counts.clear_invalid += sum(int(one.used[4]) for one in runs) - invalid
        return runs

    def _insert_in_parts(
        self, scan: Scan, reach: NDArray[np.int64], box: NDArray[np.int64], counts: ScanCounts
    ) -> None:
        """Insert a scan whose box is too large for one window."""
        limit = range_limit(scan.max_range)
        rays = parts.find_rays(scan.points, scan.clear, scan.origin, self.resolution, scan.max_range, limit)
        counts.invalid, counts.clear_invalid, counts.beyond_range = rays.invalid, rays.clear_invalid, rays.beyond
        for window, ends, chosen in parts.split(box, rays, MAX_CELLS):
            part = replace(
                scan,
                points=scan.points[chosen],
                labels=scan.labels[chosen] if len(scan.labels) else scan.labels,
                confidence=scan.confidence[chosen] if len(scan.confidence) else scan.confidence,
                clear=scan.clear[:0],
            )
            self._insert_part(part, self._space(scan, reach, window), ends, counts)
            counts.parts += 1

    def _insert_part(self, scan: Scan, space: Space, ends: NDArray[np.int64] | None, counts: ScanCounts) -> None:
        """Insert what lies in one window; `ends` are the rays of the whole scan when it has several parts."""
        runs = self._collect(scan, space, ends is None, counts if ends is None else ScanCounts())
        cells, window = self.workspace.cells, space.window
        rays = ((self.resolution, space.range_limit, np.float32(scan.max_range)), window)
        start = (cells, (scan.origin[0], scan.origin[1], scan.origin[2]), scan.origin_key)
        if ends is None:
            shares = _share_rays(runs)
            lanes = self.workspace.lanes
            run_both(
                walk_shares, (*start, runs, shares[0], *rays, *lanes[0]), (*start, runs, shares[1], *rays, *lanes[1])
            )
        else:
            start = (cells, self.workspace.touched, *start[1:])
            run_both(walk_clipped, (*start, ends[::2].copy(), *rays), (*start, ends[1::2].copy(), *rays))
        self._update(scan.rules, window, runs, ends is not None, counts)

    def _update(
        self, rules: Rules, window: NDArray[np.int64], runs: tuple[Runs, ...], sparse: bool, counts: ScanCounts
    ) -> None:
        store, workspace = self.store, self.workspace
        store.make_room(int(np.prod(window[3:] // (8, 8, 16) + 2)))
        results = np.zeros((2, 4), np.int64)
        first, second = (
            (
                store.shards[i],
                i,
                workspace.cells,
                workspace.touched,
                sparse,
                window,
                runs,
                workspace.heads[i],
                workspace.joined[i],
                workspace.scratch[i],
                rules,
                results[i],
            )
            for i in range(2)
        )
        run_both(update_shard, first, second)
        for one in runs:
            scanning.forget_ends(one, window)
        hits, touched, changed, refused = (int(n) for n in results[0] + results[1])
        counts.hits += hits
        counts.touched += touched
        counts.changed += changed
        counts.refused += refused


def _share_rays(runs: tuple[Runs, ...]) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Split the rays of both threads' points into two halves of the same total length.

    Returns:
        for either thread the first and the last ray (exclusive) in the first list, and in the second.
    """
    counts = [int(one.used[2]) for one in runs]
    lengths = [int(one.lengths[count - 1]) if count else 0 for one, count in zip(runs, counts, strict=True)]
    half = (lengths[0] + lengths[1]) // 2
    if half <= lengths[0]:
        split = int(np.searchsorted(runs[0].lengths[: counts[0]], half))
        return (0, split, 0, 0), (split, counts[0], 0, counts[1])
    split = int(np.searchsorted(runs[1].lengths[: counts[1]], half - lengths[0]))
    return (0, counts[0], 0, split), (0, 0, split, counts[1])
