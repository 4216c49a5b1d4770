# SPDX-License-Identifier: Apache-2.0
"""One scan into the map: points → window of bytes → bricks, on two threads.

The window is the box of the rays, one byte per voxel. A scan whose box is larger than `MAX_CELLS` is done in parts,
split by space; every voxel still gets one update, so the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.mapping import scan as scanning
from perception.mapping.keys import KEY_END, KEY_ORIGIN
from perception.mapping.rays import walk_clipped, walk_rays
from perception.mapping.scan import FAR_CACHE, Runs
from perception.mapping.store import BrickStore
from perception.mapping.threads import run_both
from perception.mapping.update import Rules, make_scratch, update_shard

MAX_CELLS = 1 << 26
"""Voxels of the largest window: 64 MiB, and 16 MiB of bits beside it."""
KEPT_CELLS = 1 << 25
"""A window up to this size is kept for the next scan."""


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
class ScanCounts:
    """What became of a scan; see InsertReport for the meaning."""

    beyond_range: int
    hits: int
    rays: int
    touched: int
    changed: int
    refused: int
    parts: int


class Workspace:
    """Memory that scans use and leave clean, kept between scans."""

    def __init__(self, num_classes: int) -> None:
        self.scratch = (make_scratch(num_classes), make_scratch(num_classes))
        self.far = (np.full(FAR_CACHE, -1, np.int64), np.full(FAR_CACHE, -1, np.int64))
        self._cells = np.zeros(0, np.uint8)
        self._seen = (np.zeros(0, np.uint8), np.zeros(0, np.uint8))
        self._heads = (np.zeros(0, np.int32), np.zeros(0, np.int32))
        self.runs: tuple[Runs, Runs] | None = None
        self._capacity = (-1, -1)

    def cells(self, size: int) -> NDArray[np.uint8]:
        """A window of zeros."""
        if len(self._cells) < size:
            self._cells = np.zeros(size + size // 4, np.uint8)
            self._seen = (np.zeros(len(self._cells) // 8 + 1, np.uint8), np.zeros(len(self._cells) // 8 + 1, np.uint8))
            bricks = len(self._cells) // 512 + 1
            self._heads = (np.full(bricks, -1, np.int32), np.full(bricks, -1, np.int32))
        return self._cells

    @property
    def heads(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """First runs of the window's bricks for either thread, all -1."""
        return self._heads

    def make_runs(self, points: int, clear_points: int) -> tuple[Runs, Runs]:
        """Room for the runs of a scan, with nothing in it."""
        rows = (points // (2 * scanning.BLOCK) + 1) * scanning.BLOCK
        ends = rows + (clear_points // (2 * scanning.BLOCK) + 1) * scanning.BLOCK
        if self.runs is None or self._capacity[0] < rows or self._capacity[1] < ends:
            rows += rows // 4
            ends += ends // 4
            self._capacity = (rows, ends)
            self._arrays = [
                (
                    np.zeros((2, rows), np.int32),
                    np.zeros((2, rows), np.uint32),
                    np.zeros((2, rows), np.int32),
                    np.zeros((2, rows), np.float64),
                    np.zeros(ends, np.int64),
                    np.zeros(4, np.int64),
                )
                for _ in range(2)
            ]
            self.joined = tuple(
                (np.zeros(2 * rows, np.uint32), np.zeros(2 * rows, np.int32), np.zeros(2 * rows)) for _ in range(2)
            )
            self.chains = (np.zeros((2, 2 * rows), np.int32), np.zeros((2, 2 * rows), np.int32))
        self.runs = (
            Runs(*self._arrays[0], self._seen[0], self.far[0]),
            Runs(*self._arrays[1], self._seen[1], self.far[1]),
        )
        return self.runs

    def release_large(self) -> None:
        """Give back a window too large to keep."""
        if len(self._cells) > KEPT_CELLS:
            self._cells = np.zeros(0, np.uint8)
            self._seen = (np.zeros(0, np.uint8), np.zeros(0, np.uint8))
            self._heads = (np.zeros(0, np.int32), np.zeros(0, np.int32))

    def nbytes(self) -> int:
        """Memory in use for scans."""
        total = self._cells.nbytes + sum(a.nbytes for a in (*self._seen, *self._heads))
        if self.runs is not None:
            total += sum(array.nbytes for arrays in self._arrays for array in arrays)
            total += sum(array.nbytes for arrays in self.joined for array in arrays)
            total += sum(array.nbytes for array in self.chains)
        return total


@dataclass(frozen=True, slots=True)
class ScanKeys:
    """Keys of a scan's points and their bounds."""

    keys: NDArray[np.int32]
    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]
    invalid: int


def scan_keys(points: NDArray[np.float32], resolution: float) -> ScanKeys:
    """Keys of (N, 3) float32 points, flat, on two threads."""
    flat = points.reshape(-1)
    keys = np.empty(flat.size, np.int32)
    half = len(points) // 2
    bounds = np.empty((2, 7), np.int64)
    inverse = 1.0 / resolution
    run_both(
        scanning.compute_keys_and_bounds,
        (flat, inverse, keys, 0, half, bounds[0]),
        (flat, inverse, keys, half, len(points), bounds[1]),
    )
    return ScanKeys(keys, bounds[:, :3].min(0), bounds[:, 3:6].max(0), int(bounds[:, 6].sum()))


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
        self.workspace = Workspace(num_classes)

    def insert(
        self,
        points: ScanKeys,
        labels: NDArray[np.uint16],
        confidences: NDArray[np.float32],
        clear: ScanKeys,
        origin: NDArray[np.float32],
        origin_key: tuple[int, int, int],
        max_range: float,
        rules: Rules,
    ) -> ScanCounts:
        """Insert one scan; arguments as made by scan_keys and clean_labels."""
        reach = self._reach(origin, max_range)
        box = _scan_box(points, clear, np.array(origin_key, np.int64), reach)
        parts = list(_parts(box, MAX_CELLS))
        limit = range_limit(max_range)
        inputs = _Inputs(points, labels, confidences, clear, origin, origin_key, max_range, limit, rules, reach)
        self.workspace.make_runs(0, 0)
        totals = np.zeros(4, np.int64)
        if len(parts) == 1:
            beyond, rays, result = self._insert_part(inputs, parts[0], None)
            totals += result
        else:
            ends, beyond = self._all_ends(inputs, parts)
            rays = len(ends)
            for part in parts:
                totals += self._insert_part(inputs, part, ends)[2]
        self.workspace.release_large()
        return ScanCounts(beyond, int(totals[0]), rays, int(totals[1]), int(totals[2]), int(totals[3]), len(parts))

    def _reach(self, origin: NDArray[np.float32], max_range: float) -> NDArray[np.int64]:
        """Lowest and highest keys of voxels that can be in range."""
        if max_range < 0:
            return np.array([0, 0, 0, KEY_END - 1, KEY_END - 1, KEY_END - 1], np.int64)
        radius = max_range + 2 * self.resolution
        low = np.floor((origin.astype(np.float64) - radius) / self.resolution) + KEY_ORIGIN
        high = np.floor((origin.astype(np.float64) + radius) / self.resolution) + KEY_ORIGIN
        return np.clip(np.concatenate([low, high]), 0, KEY_END - 1).astype(np.int64)

    def _collect(self, inputs: _Inputs, window: NDArray[np.int64], with_far: bool) -> tuple[Runs, Runs]:
        """Runs and ends of the points in a window."""
        workspace = self.workspace
        workspace.cells(int(np.prod(window[3:])) * 512)
        runs = workspace.make_runs(len(inputs.points.keys) // 3, len(inputs.clear.keys) // 3)
        squares = tuple(
            scanning.axis_squares(inputs.origin[axis], window[axis] * 8, window[3 + axis] * 8, self.resolution)
            for axis in range(3)
        )
        common = (window, inputs.reach, squares, inputs.range_limit, with_far)
        for one in runs:
            one.used[:] = 0
        arguments = (inputs.points.keys, inputs.labels, inputs.confidences)
        run_both(
            scanning.collect_ends, (*arguments, 0, *common, True, runs[0]), (*arguments, 1, *common, True, runs[1])
        )
        if len(inputs.clear.keys):
            arguments = (inputs.clear.keys, inputs.labels[:0], inputs.confidences[:0])
            run_both(
                scanning.collect_ends,
                (*arguments, 0, *common, False, runs[0]),
                (*arguments, 1, *common, False, runs[1]),
            )
        return runs

    def _all_ends(self, inputs: _Inputs, parts: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], int]:
        """Ends of the rays of all parts, and the number of points beyond the range."""
        ends: list[NDArray[np.int64]] = []
        beyond = 0
        for number, window in enumerate(parts):
            runs = self._collect(inputs, window, number == 0)
            for one in runs:
                ends.append(one.ends[: one.used[2]].copy())
                beyond += int(one.used[3])
                scanning.forget_ends(one, window)
        return np.concatenate(ends), beyond

    def _insert_part(
        self, inputs: _Inputs, window: NDArray[np.int64], all_ends: NDArray[np.int64] | None
    ) -> tuple[int, int, NDArray[np.int64]]:
        """Insert what lies in one window; `all_ends` are the rays of the whole scan when it has several parts."""
        runs = self._collect(inputs, window, all_ends is None)
        cells = self.workspace.cells(0)
        ray = (self.resolution, inputs.range_limit, np.float32(inputs.max_range), window)
        origin = (inputs.origin[0], inputs.origin[1], inputs.origin[2])
        rays = int(runs[0].used[2] + runs[1].used[2])
        beyond = int(runs[0].used[3] + runs[1].used[3])
        if all_ends is None:
            run_both(
                walk_rays,
                (cells, origin, inputs.origin_key, runs[0].ends, runs[0].used[2], *ray),
                (cells, origin, inputs.origin_key, runs[1].ends, runs[1].used[2], *ray),
            )
        else:
            run_both(
                walk_clipped,
                (cells, origin, inputs.origin_key, all_ends[::2], *ray),
                (cells, origin, inputs.origin_key, all_ends[1::2], *ray),
            )
        return beyond, rays, self._update(window, cells, runs, inputs.rules)

    def _update(
        self, window: NDArray[np.int64], cells: NDArray[np.uint8], runs: tuple[Runs, Runs], rules: Rules
    ) -> NDArray[np.int64]:
        store, workspace = self.store, self.workspace
        store.make_room(int(np.prod((window[3:] // (8, 8, 16)) + 2)))
        first, second = (
            (
                store.shards[i],
                i,
                cells,
                window,
                runs,
                workspace.heads[i],
                workspace.chains[i],
                workspace.joined[i],
                workspace.scratch[i],
                rules,
            )
            for i in range(2)
        )
        results = run_both(update_shard, first, second)
        for one in runs:
            scanning.forget_ends(one, window)
        return results[0] + results[1]


@dataclass(frozen=True, slots=True)
class _Inputs:
    points: ScanKeys
    labels: NDArray[np.uint16]
    confidences: NDArray[np.float32]
    clear: ScanKeys
    origin: NDArray[np.float32]
    origin_key: tuple[int, int, int]
    max_range: float
    range_limit: np.float32
    rules: Rules
    reach: NDArray[np.int64]


def _scan_box(
    points: ScanKeys, clear: ScanKeys, origin_key: NDArray[np.int64], reach: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Lowest brick and number of bricks per axis of the box of all rays."""
    low = np.minimum(np.minimum(points.lowest, clear.lowest), origin_key)
    high = np.maximum(np.maximum(points.highest, clear.highest), origin_key)
    # One voxel more: a ray that misses its end voxel may leave the box by one.
    low = np.maximum(np.maximum(low, reach[:3]) - 1, 0)
    high = np.minimum(np.minimum(high, reach[3:]) + 1, KEY_END - 1)
    return np.concatenate([low >> 3, (high >> 3) - (low >> 3) + 1])


def _parts(box: NDArray[np.int64], max_cells: int) -> Iterator[NDArray[np.int64]]:
    """Split a box of bricks in halves along its longest side until each part is small enough."""
    if int(np.prod(box[3:])) * 512 <= max_cells:
        yield box
        return
    axis = int(np.argmax(box[3:]))
    half = int(box[3 + axis]) // 2
    for start, size in ((0, half), (half, int(box[3 + axis]) - half)):
        part = box.copy()
        part[axis] += start
        part[3 + axis] = size
        yield from _parts(part, max_cells)
