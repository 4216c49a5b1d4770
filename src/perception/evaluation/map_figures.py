# SPDX-License-Identifier: Apache-2.0
"""How fast a map answers, projects, and is turned into messages and files: figures with the bounds set for them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.mapping import SemanticOcTree, SensorModel
from perception.mapping.benchmark import BenchmarkScan

QUERY_POINTS = 1_000_000
PROBABILITY_POINTS = 100_000
MESSAGE_LEAVES = 100_000
RAY_RANGE = 5.0
FILE_BYTES = 20_000_000
"""Files are timed on at least so much, in several goes."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured.
        value: the number.
        unit: of value and bound.
        bound: what it must not exceed, or must reach.
        at_least: whether the bound is a lower one.
        how: what it was measured on.
    """

    name: str
    value: float
    unit: str
    bound: float
    at_least: bool = False
    how: str = ""

    @property
    def met(self) -> bool:
        """Whether the bound holds."""
        return bool(self.value >= self.bound if self.at_least else self.value <= self.bound)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**asdict(self), "value": float(self.value), "bound": float(self.bound), "met": self.met}


def build_map(scans: Sequence[BenchmarkScan], resolution: float, num_classes: int) -> SemanticOcTree:
    """A map of some scans with rays of at most 5 m."""
    tree = SemanticOcTree(resolution, SensorModel(max_range=RAY_RANGE), num_classes)
    for scan in scans:
        tree.insert_cloud(scan.points, scan.origin, scan.labels, scan.confidence)
    return tree


def spread_map(scans: Sequence[BenchmarkScan], resolution: float, num_classes: int, side: int = 8) -> SemanticOcTree:
    """The same three scans at side x side places 12.8 m apart: a map whose file takes longer than making it durable."""
    tree = SemanticOcTree(resolution, SensorModel(max_range=RAY_RANGE), num_classes)
    for x in range(side):
        for y in range(side):
            shift = 12.8 * np.array([x, y, 0])
            for scan in scans[:3]:
                tree.insert_cloud(scan.points + shift, scan.origin + shift, scan.labels, scan.confidence)
    return tree


def median_ms(function: Callable[[], Any], repeats: int = 7) -> float:
    """Median wall time of a call after one that does not count, milliseconds."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def random_points(tree: SemanticOcTree, count: int, seed: int = 0) -> NDArray[np.float32]:
    """(count, 3) points in random order: half in occupied voxels, half anywhere in the box around the map."""
    rng = np.random.default_rng(seed)
    leaves = tree.leaves()
    occupied = np.flatnonzero(leaves.log_odds >= 0)
    picked = rng.choice(occupied, count // 2)
    near = leaves.centers[picked] + rng.uniform(-0.5, 0.5, (count // 2, 3)) * leaves.sizes[picked, None]
    low, high = leaves.centers.min(axis=0), leaves.centers.max(axis=0)
    points = np.concatenate([near, rng.uniform(low, high, (count - count // 2, 3))])
    return rng.permutation(points).astype(np.float32)


def query_figures(tree: SemanticOcTree) -> list[Figure]:
    """Time of questions about many points."""
    points = random_points(tree, QUERY_POINTS)
    few = points[:PROBABILITY_POINTS]
    how = f"{QUERY_POINTS:,} points in random order, half of them in occupied voxels"
    return [
        Figure("log_odds", median_ms(lambda: tree.log_odds(points)), "ms", 100, how=how),
        Figure("label_of", median_ms(lambda: tree.label_of(points)), "ms", 100, how=how),
        Figure("top_labels, k = 4", median_ms(lambda: tree.top_labels(points, 4)), "ms", 150, how=how),
        Figure(
            f"label_probabilities, {tree.num_classes} classes",
            median_ms(lambda: tree.label_probabilities(few)),
            "ms",
            20,
            how=f"{PROBABILITY_POINTS:,} such points",
        ),
    ]


def ray_figures(tree: SemanticOcTree, scans: Sequence[BenchmarkScan]) -> list[Figure]:
    """Rays per second of one core: the camera rays of every scan, cast again through the finished map."""
    figures = []
    for ignore_unknown in (True, False):
        count, seconds, steps = 0, 0.0, 0.0
        for scan in scans:
            ways = scan.points - scan.origin
            origins = np.broadcast_to(scan.origin, ways.shape)
            tree.cast_rays(origins[:1000], ways[:1000], RAY_RANGE, ignore_unknown)
            start = time.process_time()
            hits = tree.cast_rays(origins, ways, RAY_RANGE, ignore_unknown)
            seconds += time.process_time() - start
            count += len(ways)
            length = np.abs((hits.points - scan.origin) / tree.resolution).sum(axis=1)
            steps += float(length.sum())
        how = f"{count:,} rays of {steps / count:.0f} voxels on average, at most {RAY_RANGE:g} m; CPU time"
        name = "cast_rays, unknown " + ("ignored" if ignore_unknown else "stops")
        figures.append(Figure(name, count / seconds / 1e6, "M rays/s per core", 1.0, at_least=True, how=how))
    return figures


def message_figures(tree: SemanticOcTree, label_set: Any) -> list[Figure]:
    """Time to make the bytes of a map message, scaled to 100 000 leaves."""
    count = len(tree.leaves().depths)
    scale = MESSAGE_LEAVES / count
    how = f"map of {count:,} leaves, scaled to {MESSAGE_LEAVES:,}"
    full = median_ms(lambda: tree.octomap_data(False, label_set))
    binary = median_ms(lambda: tree.octomap_data(True))
    return [
        Figure("octomap_full bytes", full * scale, "ms", 30, how=how),
        Figure("octomap_binary bytes", binary * scale, "ms", 30, how=how),
    ]


def file_figures(tree: SemanticOcTree, label_set: Any) -> list[Figure]:
    """Megabytes of file per second: from the map to the file on disk and back to a map."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix, write in (("ot", lambda path: tree.write(path, label_set)), ("bt", tree.write_binary)):
            path = Path(folder) / f"map.{suffix}"
            write(path)
            size = path.stat().st_size
            repeats = max(3, min(-(-FILE_BYTES // size), 50))
            how = f"file of {size / 1e6:.1f} MB"
            for verb, call in (("write", lambda w=write, p=path: w(p)), ("read", lambda p=path: _read(p, tree))):
                rate = size / 1e6 / (median_ms(call, repeats) / 1e3)
                figures.append(Figure(f".{suffix} {verb}", rate, "MB/s", 20, at_least=True, how=how))
    return figures


def _read(path: Path, tree: SemanticOcTree) -> SemanticOcTree:
    return SemanticOcTree.read(path, num_classes=tree.num_classes)
