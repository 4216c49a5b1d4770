# SPDX-License-Identifier: Apache-2.0
"""One scan into the map: points → entries (voxels with votes) → window of bytes → bricks, on two threads.

The window is the box of the rays, one byte per voxel. A scan whose box is larger than `MAX_CELLS` is done in parts,
split by space; every voxel still gets one update, so the result is the same.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.mapping import parts
from perception.mapping import scan as scanning
from perception.mapping.collection import CloudScan, Collection, ImageScan, PointCounts
from perception.mapping.keys import KEY_END, KEY_ORIGIN, voxels_in
from perception.mapping.rays import walk_clipped, walk_shares
from perception.mapping.scan import Collector, Space
from perception.mapping.store import BrickStore
from perception.mapping.threads import compiled, run_both
from perception.mapping.update import update_shard
from perception.mapping.update_types import Rules
from perception.mapping.workspace import MAX_CELLS, Workspace

MAX_IDLE = 2
"""Collections kept for scans to come: one is filled while another one is inserted."""


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


@dataclass(slots=True)
class CollectedScan:
    """A scan of which nothing is left to do but what needs the map.

    Attributes:
        owner: who collected it.
        collection: its entries; None once they are in the map.
        origin: (3,) float32, meters, map frame.
        origin_key: its voxel.
    """

    owner: ScanInserter
    collection: Collection | None
    origin: NDArray[np.float32]
    origin_key: tuple[int, int, int]

    def take(self, inserter: ScanInserter) -> Collection:
        """The entries, for the one who collected them, once.

        Raises:
            InputError: they are in the map already, or for another one.
        """
        collection = self.collection
        if collection is None or self.owner is not inserter:
            state = "one that is in the map already" if collection is None else "another map's"
            raise InputError(f"scan: expected one collected for this map and not inserted yet, got {state}")
        self.collection = None
        return collection


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan, and how to insert it.

    Attributes:
        collection: its entries.
        origin: (3,) float32.
        origin_key: its voxel.
        max_range: meters, negative for no limit.
        rules: how to update voxels.
    """

    collection: Collection
    origin: NDArray[np.float32]
    origin_key: tuple[int, int, int]
    max_range: float
    rules: Rules


@dataclass(slots=True)
class VoxelCounts:
    """What became of a scan's voxels; see InsertReport for the meaning."""

    beyond_range: int = 0
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
        self._idle: list[Collection] = []

    def collect(
        self,
        given: CloudScan | ImageScan,
        origin: NDArray[np.float32],
        origin_key: tuple[int, int, int],
        alone: bool,
    ) -> CollectedScan:
        """Find the entries of a scan; any thread may, also while another one inserts.

        Args:
            given: the scan.
            origin: (3,) float32.
            origin_key: its voxel.
            alone: in this thread alone.
        """
        try:
            collection = self._idle.pop()
        except IndexError:
            collection = Collection(self.num_classes, self.resolution)
        # One that is interrupted does not come back: the next scan must not take its marks for its own.
        collection.fill(given, alone)
        return CollectedScan(self, collection, origin, origin_key)

    def insert(self, scan: Scan) -> tuple[PointCounts, VoxelCounts]:
        """Insert one scan; its collection is for the next one then."""
        try:
            counts = self._insert(scan)
        except BaseException:
            self.workspace = Workspace(self.num_classes)
            raise
        # The counts change with the next scan, which may begin at once.
        points = scan.collection.counts
        if len(self._idle) < MAX_IDLE:
            self._idle.append(scan.collection)
        return points, counts

    def nbytes(self) -> int:
        """Memory kept for the next scan."""
        return self.workspace.nbytes() + sum(one.nbytes() for one in self._idle)

    def _insert(self, scan: Scan) -> VoxelCounts:
        counts = VoxelCounts()
        box = _box(scan, scan.collection.bounds, self._reach(scan))
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

    def _insert_in_parts(self, scan: Scan, box: NDArray[np.int64], counts: VoxelCounts) -> None:
        """Insert a scan whose box is too large for one window."""
        limit = range_limit(scan.max_range)
        entries = scan.collection.take_entries()
        rays = parts.find_rays(entries, scan.origin, self.resolution, scan.max_range, limit)
        for window, ends, chosen in parts.split(box, rays, MAX_CELLS):
            scan.collection.give_entries(entries, chosen)
            self._insert_part(scan, window, ends, counts)
            counts.parts += 1
        counts.beyond_range = rays.beyond

    def _insert_part(
        self, scan: Scan, window: NDArray[np.int64], ends: NDArray[np.int64] | None, counts: VoxelCounts
    ) -> None:
        """Insert what lies in one window; `ends` are the rays of the whole scan when it has several parts."""
        workspace, limit = self.workspace, range_limit(scan.max_range)
        workspace.prepare_window(voxels_in(window))
        scan.collection.mark_ends_in(workspace.seen)
        entries, collectors = scan.collection.entries, scan.collection.collectors
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
        self._update(scan, window, ends is not None, counts)

    def _update(self, scan: Scan, window: NDArray[np.int64], sparse: bool, counts: VoxelCounts) -> None:
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
                scan.collection.entries,
                scan.collection.collectors,
                workspace.heads[i],
                workspace.scratch[i],
                scan.rules,
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
