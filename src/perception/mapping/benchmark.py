# SPDX-License-Identifier: Apache-2.0
"""The map against OctoMap's own library on the same scans, in one run: time, memory, and whether they are equal.

Needs octomap-python, which is loaded only here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError, MissingDependencyError
from perception.mapping.octomap_io import read_map
from perception.mapping.octomap_stream import Leaves, prune_leaves
from perception.mapping.octree import SemanticOcTree, SensorModel
from perception.mapping.warmup import warm_up


@dataclass(frozen=True, slots=True)
class BenchmarkScan:
    """One scan.

    Attributes:
        points: (N, 3) meters, map frame.
        origin: (3,) of the sensor.
        labels: (N,) integers, or None for geometry only.
        confidence: (N,) floating, or None.
    """

    points: NDArray[np.floating]
    origin: NDArray[np.floating]
    labels: NDArray[np.integer] | None = None
    confidence: NDArray[np.floating] | None = None


def run_benchmark(
    scans: Sequence[BenchmarkScan],
    resolution: float,
    max_range: float = 5.0,
    num_classes: int = 32,
    passes: int = 3,
    default_insertion: bool = True,
) -> dict[str, Any]:
    """Insert scans into this package's map and into OctoMap's, scan by scan in turns.

    Each pass starts with empty maps. The library's default insertion, which casts one ray for each point, runs in the
    first pass only. Our times are with labels where the scans have them; OctoMap's are geometry alone.

    Args:
        scans: at least one.
        resolution: meters.
        max_range: meters, negative for no limit.
        num_classes: classes of the map.
        passes: how often everything is inserted; times are medians over all scans of all passes.
        default_insertion: whether the library's default insertion is measured.

    Returns:
        resolution, max_range, scans, points (median per scan), milliseconds "ours", "octomap_discretized" and
        "octomap_default", "speedup_discretized" and "speedup_default" (ratios of those medians), bytes "memory_ours"
        and "memory_octomap" (its ColorOcTree of the same map), known_voxels, bytes per known voxel of both, "equal"
        (every voxel's float32 log-odds), "compile_seconds" of the first use, and against one pass of the default
        insertion "pointwise_known" (share of the voxels that either map knows and the other does not) and
        "pointwise_states" (share of those known to both that are free in one and occupied in the other), else None.

    Raises:
        InputError: there are no scans.
        MissingDependencyError: octomap-python is not installed.
    """
    octomap = _octomap()
    if not scans:
        raise InputError("benchmark: expected at least one scan, got none")
    start = time.perf_counter()
    warm_up()
    compile_seconds = time.perf_counter() - start
    model = SensorModel(max_range=max_range)
    ours, discretized, default = [], [], []
    tree, judge, shares = SemanticOcTree(resolution), None, (None, None)
    for number in range(passes):
        tree, judge = SemanticOcTree(resolution, model, num_classes), _make(octomap.OcTree, resolution, model)
        slow = _make(octomap.OcTree, resolution, model) if default_insertion and number == 0 else None
        for scan in scans:
            points, origin = _for_octomap(scan, resolution)
            # In turns, so that a busy moment of the machine does not fall on one of them alone.
            ours.append(_timed(lambda scan=scan, tree=tree: _insert(tree, scan)))
            arguments = (points, origin, max_range, False)
            discretized.append(_timed(lambda a=arguments, j=judge: j.insertPointCloud(*a, True)))
            if slow is not None:
                default.append(_timed(lambda a=arguments, j=slow: j.insertPointCloud(*a, False)))
        if slow is not None:
            shares = _different_shares(tree, slow)
    times = {"ours": ours, "octomap_discretized": discretized, "octomap_default": default}
    result = _summary(times, scans, resolution, max_range)
    result.update(_memory(octomap, tree, scans, resolution, model))
    result.update(equal=_equal(tree, judge), compile_seconds=compile_seconds)
    result.update(pointwise_known=shares[0], pointwise_states=shares[1])
    return result


def _octomap() -> Any:
    try:
        import octomap
    except ImportError as error:
        raise MissingDependencyError("benchmark: octomap-python is missing; pip install octomap-python") from error
    return octomap


def _make(kind: Any, resolution: float, model: SensorModel) -> Any:
    tree = kind(resolution)
    tree.setProbHit(model.hit)
    tree.setProbMiss(model.miss)
    tree.setClampingThresMin(model.min)
    tree.setClampingThresMax(model.max)
    return tree


def _insert(tree: SemanticOcTree, scan: BenchmarkScan) -> None:
    tree.insert_cloud(scan.points, scan.origin, scan.labels, scan.confidence)


def _for_octomap(scan: BenchmarkScan, resolution: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Float32 points of the map alone: OctoMap itself would mark wrong voxels for NaN and for far points."""
    points = np.asarray(scan.points, np.float32).astype(np.float64)
    keys = np.floor(points * (1.0 / resolution))
    inside = ((keys >= -32768) & (keys < 32768)).all(axis=1)
    return points[inside], np.asarray(scan.origin, np.float32).astype(np.float64)


def _timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _summary(
    times: dict[str, list[float]], scans: Sequence[BenchmarkScan], resolution: float, max_range: float
) -> dict[str, Any]:
    medians = {name: 1e3 * float(np.median(values)) if values else None for name, values in times.items()}
    ours = medians["ours"] or np.nan
    ratios = {
        f"speedup_{name}": None if median is None else median / ours
        for name, median in ((name, medians[f"octomap_{name}"]) for name in ("discretized", "default"))
    }
    return {
        "resolution": resolution,
        "max_range": max_range,
        "scans": len(scans),
        "points": int(np.median([len(scan.points) for scan in scans])),
        **medians,
        **ratios,
    }


def _memory(
    octomap: Any, tree: SemanticOcTree, scans: Sequence[BenchmarkScan], resolution: float, model: SensorModel
) -> dict[str, Any]:
    """Bytes of the map and of OctoMap's ColorOcTree with the same scans."""
    colored = _make(octomap.ColorOcTree, resolution, model)
    for scan in scans:
        points, origin = _for_octomap(scan, resolution)
        colored.insertPointCloud(points, origin, model.max_range, False, True)
    known = max(tree.known_voxels(), 1)
    mine, theirs = tree.memory_usage(), int(colored.memoryUsage())
    return {
        "memory_ours": mine,
        "memory_octomap": theirs,
        "known_voxels": known,
        "bytes_per_voxel_ours": mine / known,
        "bytes_per_voxel_octomap": theirs / known,
    }


def _leaves_of(tree: SemanticOcTree, judge: Any) -> list[Leaves]:
    """The leaves of both maps, by way of files."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("ours.ot", "judge.ot")]
        tree.write(files[0])
        judge.write(str(files[1]).encode())
        return [read_map(path).leaves for path in files]


def _equal(tree: SemanticOcTree, judge: Any) -> bool:
    """Whether both maps know the same voxels with the same bits."""
    pruned = []
    for leaves in _leaves_of(tree, judge):
        index, depths = prune_leaves(leaves.keys, leaves.depths, leaves.log_odds)
        pruned.append((leaves.keys[index], depths, leaves.log_odds[index].view(np.int32)))
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(*pruned, strict=True))


def _different_shares(tree: SemanticOcTree, judge: Any) -> tuple[float, float]:
    """Of all voxels known to either map the share that the other does not know; of the common ones, of other state."""
    (mine, my_states), (theirs, their_states) = (_voxels(leaves) for leaves in _leaves_of(tree, judge))
    common, first, second = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    either = len(mine) + len(theirs) - len(common)
    differs = int((my_states[first] != their_states[second]).sum())
    return 1 - len(common) / max(either, 1), differs / max(len(common), 1)


def _voxels(leaves: Leaves) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Numbers of all voxels of the leaves, and whether they are occupied."""
    numbers, states = [], []
    for depth in np.unique(leaves.depths):
        at_depth = leaves.depths == depth
        edge = np.arange(2 ** (16 - int(depth)))
        inside = np.stack(np.meshgrid(edge, edge, edge, indexing="ij"), axis=-1).reshape(-1, 3)
        keys = (leaves.keys[at_depth].astype(np.int64)[:, None] + inside).reshape(-1, 3)
        numbers.append(keys[:, 0] << 32 | keys[:, 1] << 16 | keys[:, 2])
        states.append(np.repeat(leaves.log_odds[at_depth] >= 0, len(inside)))
    if not numbers:
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    return np.concatenate(numbers), np.concatenate(states)
