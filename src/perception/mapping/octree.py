# SPDX-License-Identifier: Apache-2.0
"""The semantic octree: OctoMap's occupancy to the bit, labels fused beside it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.atomic_file import atomic_write
from perception.config import SensorModelConfig
from perception.geometry import Transform
from perception.mapping import columns, editing, forgetting, inputs, leaves, map_files, octomap_io
from perception.mapping.collection import CloudScan, ImageScan
from perception.mapping.columns import Cursor
from perception.mapping.fusion import MAX_CLASSES, MAX_KEPT
from perception.mapping.inputs import InsertReport
from perception.mapping.insertion import CollectedScan, Scan, ScanInserter
from perception.mapping.keys import TREE_DEPTH, brick_corners
from perception.mapping.lookup import Lookup
from perception.mapping.results import OccupiedColumns, OctreeLeaves
from perception.mapping.store import BrickStore, live_bricks
from perception.mapping.threads import run_both
from perception.mapping.update_types import Rules
from perception.types import DepthScan

SensorModel = SensorModelConfig


class SemanticOcTree(Lookup):
    """An octree of voxels, each with the log-odds of being occupied and the evidence for its best few classes.

    Occupancy equals that of OctoMap's insertPointCloud(discretize=True) in every bit. All methods may be called from
    any thread; each sees the map between two scans, never inside one.

    Args:
        resolution: edge of a voxel, meters.
        sensor_model: probabilities of hit and miss, clamping bounds, longest range; None for octomap_server's.
        num_classes: classes that labels may name; 0 for a map without labels.
        decay_s: (num_classes,) time constants in seconds after which evidence of a class fades in `decay`, +inf for
            classes that stay; None when all stay.
        labels_per_voxel: classes remembered per voxel, 1 to 8.
        max_label_score: bound of a class's log score.
        max_memory: bound of `memory_usage` in bytes, at least 16 MiB; None for half of the machine's memory. At 90 %
            of it the bricks (8³ voxels) farthest from the sensor are forgotten until 75 % are in use; what a single
            scan needs beyond the bound is refused. The reports of insert_cloud count both.

    Attributes:
        resolution: as given.
        sensor_model: as given; may be replaced between scans.
        num_classes: as given.
        labels_per_voxel: as given.
        max_label_score: as given.
        metadata: what the file says that this map was read from: ``frame_id``, ``stamp_ns`` and ``label_set`` where it
            does; empty for a new map.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        resolution: float,
        sensor_model: SensorModel | None = None,
        num_classes: int = 0,
        decay_s: ArrayLike | None = None,
        labels_per_voxel: int = 4,
        max_label_score: float = 10.0,
        max_memory: int | None = None,
    ) -> None:
        self.resolution = inputs.checked_number("resolution", resolution, 1e-6, 1e6)
        self.sensor_model = SensorModel() if sensor_model is None else sensor_model
        self.num_classes = int(inputs.checked_number("num_classes", num_classes, 0, MAX_CLASSES))
        self.labels_per_voxel = int(inputs.checked_number("labels_per_voxel", labels_per_voxel, 1, MAX_KEPT))
        self.max_label_score = inputs.checked_number("max_label_score", max_label_score, 1e-3, 1e6)
        self.metadata: dict[str, Any] = {}
        self._decay_s = inputs.checked_decay(decay_s, self.num_classes)
        self._decays = np.isfinite(self._decay_s).astype(np.uint8)
        self._lock = threading.RLock()
        self._store = BrickStore(max_memory)
        self._inserter = ScanInserter(self._store, self.resolution, self.num_classes)

    def insert_cloud(
        self,
        points: ArrayLike,
        sensor_origin: ArrayLike,
        labels: ArrayLike | None = None,
        confidence: ArrayLike | None = None,
        clear_points: ArrayLike | None = None,
    ) -> InsertReport:
        """Insert one scan: voxels with points are hit, voxels before them are free, each once.

        Args:
            points: (N, 3) floating, meters, map frame. Points that are not finite or outside the map (±32768 voxels)
                are dropped and counted.
            sensor_origin: (3,) meters, map frame.
            labels: (N,) integers below num_classes; -1, and 65535 or 255 where that is no class, mean no label.
            confidence: (N,) probability of the label; None for full confidence.
            clear_points: (M, 3) ends of rays that only clear, up to but without the end voxel: no return, or a thing
                that moves and must not stay in the map.

        Returns:
            counts of what became of the scan.

        Raises:
            InputError: an array has another shape or type, or the origin is not a point of the map. The map is as
                before.
        """
        cloud = inputs.checked_cloud(points, labels, confidence, clear_points, self.num_classes)
        return self.insert_collected(self._collect(cloud, sensor_origin))

    def insert_depth(self, scan: DepthScan, map_T_camera: Transform) -> InsertReport:
        """Insert a depth image: the same map as its cloud gives, without the cloud.

        Equal in every bit to ``insert_cloud`` with what ``perception.cloud.lift`` makes of the scan (points, labels,
        clearing points), after ``map_T_camera.apply``.

        Args:
            scan: of ``perception.cloud.depth_scan``.
            map_T_camera: where the camera's optical frame is.

        Returns:
            counts of what became of the scan.

        Raises:
            InputError: labels for a map without classes, or the camera is outside of the map. The map is as before.
        """
        return self.insert_collected(self.collect_depth(scan, map_T_camera))

    def collect_depth(self, scan: DepthScan, map_T_camera: Transform, alone: bool = False) -> CollectedScan:
        """The half of `insert_depth` that does not touch the map, so that the next scan need not wait for this one.

        Args:
            scan: as for insert_depth.
            map_T_camera: as for insert_depth.
            alone: in the caller's thread only, because the second thread of the map has a scan to insert.

        Returns:
            what `insert_collected` takes.

        Raises:
            InputError: as insert_depth.
        """
        image = inputs.checked_image(scan, map_T_camera, self.num_classes)
        return self._collect(image, map_T_camera.translation, alone)

    def insert_collected(self, collected: CollectedScan) -> InsertReport:
        """The other half of `insert_depth`.

        Args:
            collected: of this map; once.

        Returns:
            as insert_depth.

        Raises:
            InputError: the scan was inserted before, or is another map's.
        """
        with self._lock:
            collection, origin_key = collected.take(self._inserter), collected.origin_key
            forgotten = self._store.keep_below(origin_key, 0.9, 0.75)
            max_range = float(self.sensor_model.max_range)
            counts = self._inserter.insert(Scan(collection, collected.origin, origin_key, max_range, self._rules()))
        return inputs.make_report(*counts, forgotten)

    def _collect(self, given: CloudScan | ImageScan, sensor_origin: ArrayLike, alone: bool = False) -> CollectedScan:
        return self._inserter.collect(given, *inputs.checked_origin(sensor_origin, self.resolution), alone)

    def decay(self, seconds: float) -> int:
        """Let evidence of classes with a time constant fade by the time that has passed.

        Returns:
            number of voxels that became unknown.

        Raises:
            InputError: seconds is negative or not finite.
        """
        seconds = inputs.checked_number("seconds", seconds, 0, 1e12)
        factors = np.exp(-seconds / self._decay_s.astype(np.float64)).astype(np.float32)
        with self._lock:
            return int(sum(run_both(editing.decay, *((shard, factors) for shard in self._store.shards))))

    def clear_box(self, lower: ArrayLike, upper: ArrayLike) -> int:
        """Make the known voxels of a box free (at the lower clamping bound) and drop their labels.

        Args:
            lower: (3,) corner, meters, map frame.
            upper: (3,) opposite corner; both voxels included.

        Returns:
            number of voxels changed.
        """
        lowest, highest = inputs.checked_box(lower, upper, self.resolution)
        value = inputs.log_odds(self.sensor_model.min)
        with self._lock:
            return int(
                sum(
                    editing.clear_box(shard, self._bricks_in(i, lowest, highest), lowest, highest, value)
                    for i, shard in enumerate(self._store.shards)
                )
            )

    def keep_within(self, center: ArrayLike, radius: float) -> int:
        """Forget what lies outside of a square column, so that a map which follows the robot stays small.

        Args:
            center: (x, y) meters, map frame.
            radius: half the edge of the square, meters; bricks (8³ voxels) that touch it stay whole.

        Returns:
            number of bricks forgotten.
        """
        x, y = (inputs.checked_number("center", float(value), -1e9, 1e9) for value in np.asarray(center).ravel()[:2])
        radius = inputs.checked_number("radius", radius, 0, 1e9)
        with self._lock:
            return forgetting.keep_within(self._store, (x, y), radius, self.resolution)

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._store.clear()

    def memory_usage(self) -> int:
        """Bytes that the map has allocated, in whole slabs; the memory for scans is `scratch_usage`."""
        with self._lock:
            return self._store.memory_usage()

    def scratch_usage(self) -> int:
        """Bytes kept for the next scan."""
        with self._lock:
            return self._inserter.nbytes()

    def known_voxels(self) -> int:
        """Number of voxels that are free or occupied."""
        with self._lock:
            return self._store.known_voxels()

    def leaves(self, depth: int = TREE_DEPTH) -> OctreeLeaves:
        """The leaves in OctoMap's depth-first order, pruned where values and labels agree.

        Args:
            depth: at most this deep; a node above its leaves has their highest log-odds and the class of most of its
                occupied voxels.
        """
        depth = int(inputs.checked_number("depth", depth, 1, TREE_DEPTH))
        with self._lock:
            found = leaves.extract_leaves(self._store.shards, evidence=False)
        if depth < TREE_DEPTH:
            found = leaves.coarser(found, depth)
        return OctreeLeaves.from_keys(found.keys, found.depths, found.log_odds, found.tags, self.resolution)

    def changed_columns(self, cursor: Cursor | None) -> tuple[NDArray[np.int64] | None, Cursor]:
        """Tiles of 8 x 8 columns in which some voxel's state (unknown, free, occupied, best class) changed.

        Args:
            cursor: of an earlier call, or None.

        Returns:
            tiles (T, 2) int64 (x key // 8, y key // 8), ascending, or None for all (no cursor, a reset since, or more
            than 65 536 changed bricks since); and the cursor of now.
        """
        with self._lock:
            packed, now = columns.changed_bricks(self._store, cursor)
        return None if packed is None else columns.tiles_of(packed), now

    def columns(self) -> NDArray[np.int64]:
        """(T, 2) int64 tiles, as in `changed_columns`, in which anything is known."""
        with self._lock:
            return columns.all_tiles(self._store.shards)

    def occupied_in(self, tiles: ArrayLike) -> OccupiedColumns:
        """Occupied voxels of (T, 2) tiles, column by column, from low to high."""
        wanted = np.ascontiguousarray(tiles, np.int64).reshape(-1, 2)
        with self._lock:
            return OccupiedColumns(*columns.occupied_in_tiles(tuple(self._store.shards), wanted, self.num_classes))

    def write(self, path: str | Path, label_set: Any = None, metadata: Mapping[str, Any] | None = None) -> None:
        """Save as .ot: a ColorOcTree in the label set's colors, an OcTree without one; labels follow the tree.

        OctoMap's own tools read the tree and ignore the labels. The file appears whole or not at all.

        Args:
            path: the file.
            label_set: a LabelSet, saved with the labels.
            metadata: further values to save, such as ``frame_id``; JSON must be able to write them.

        Raises:
            PerceptionError: the file cannot be written.
        """
        map_files.write(self._snapshot(evidence=True), path, label_set, metadata)

    def write_binary(self, path: str | Path) -> None:
        """Save as .bt: only free and occupied, as OctoMap's writeBinary; this map keeps its log-odds."""
        with self._lock:
            stream, nodes = map_files.binary_stream(self._store)
        atomic_write(path, (octomap_io.bt_file(stream, nodes, self.resolution),))

    def octomap_data(self, binary: bool, label_set: Any = None) -> tuple[str, bytes]:
        """Id and data of an octomap_msgs/Octomap message.

        Args:
            binary: free and occupied only, id OcTree; else log-odds, and id ColorOcTree when a label set is given.
            label_set: a LabelSet whose colors occupied voxels take.
        """
        if not binary:
            return map_files.full_data(self._snapshot(evidence=False), label_set)
        with self._lock:
            return "OcTree", map_files.binary_stream(self._store)[0]

    @classmethod
    def read(cls, path: str | Path, **options: Any) -> SemanticOcTree:
        """Load a .ot or .bt file, with the labels if it has any.

        Args:
            path: the file.
            options: arguments of the constructor that differ from the file's (from the defaults where it says nothing).

        Raises:
            InputError: the file is absent, damaged, or needs more memory than max_memory.
        """
        saved = map_files.read(path)
        tree = cls(**{**saved.options, **options})
        tree.metadata = saved.metadata
        saved.load_into(tree._store, tree.sensor_model, tree.num_classes)
        return tree

    def _snapshot(self, evidence: bool) -> map_files.Snapshot:
        """A copy of everything that files hold."""
        with self._lock:
            found = leaves.extract_leaves(self._store.shards, evidence)
            labeled = np.flatnonzero(found.tags >= 0) if evidence else np.empty(0, np.int64)
            ids, scores = leaves.gather_evidence(
                tuple(self._store.shards), found.tags[labeled], min(self.labels_per_voxel, MAX_KEPT)
            )
        return map_files.Snapshot(found, labeled, ids, scores, map_files.options_of(self, self._decay_s))

    def _rules(self) -> Rules:
        model = self.sensor_model
        return Rules(
            *(inputs.log_odds(p) for p in (model.hit, model.miss, model.min, model.max)),
            num_classes=max(self.num_classes, 1),
            kept=self.labels_per_voxel,
            score_max=np.float32(self.max_label_score),
            decays=self._decays,
            limit=self._store.limit(),
        )

    def _bricks_in(self, shard: int, lowest: NDArray[np.int64], highest: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of a shard's bricks that touch a box of voxel keys."""
        numbers = live_bricks(self._store.shards[shard])
        bricks = brick_corners(self._store.shards[shard].keys[numbers])
        return numbers[((bricks >= lowest >> 3) & (bricks <= highest >> 3)).all(axis=1)]
