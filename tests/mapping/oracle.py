# SPDX-License-Identifier: Apache-2.0
"""octomap-python as the judge of the occupancy: the same scans into both, then every leaf of both compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import octomap

from perception.mapping import SemanticOcTree, SensorModel
from perception.mapping.octomap_io import read_map
from perception.mapping.octomap_stream import Leaves, prune_leaves


def make_pair(resolution: float, sensor_model: SensorModel, **options) -> tuple[SemanticOcTree, octomap.OcTree]:
    judge = octomap.OcTree(resolution)
    judge.setProbHit(sensor_model.hit)
    judge.setProbMiss(sensor_model.miss)
    judge.setClampingThresMin(sensor_model.min)
    judge.setClampingThresMax(sensor_model.max)
    return SemanticOcTree(resolution, sensor_model, **options), judge


def insert_both(tree, judge, points, origin, **options):
    """Insert a scan into both; the judge gets only the points that lie in the map."""
    report = tree.insert_cloud(points, origin, **options)
    points = np.asarray(points, np.float32).astype(np.float64)
    with np.errstate(invalid="ignore"):
        keys = np.floor(points * (1.0 / tree.resolution))
        good = ((keys >= -32768) & (keys < 32768)).all(axis=1)
    origin = np.asarray(origin, np.float32).astype(np.float64)
    judge.insertPointCloud(points[good], origin, tree.sensor_model.max_range, discretize=True)
    return report


def judge_leaves(judge, folder: Path) -> Leaves:
    path = folder / "judge.ot"
    # write() leaves the tree as it is; writeBinary would turn it into maximum likelihood.
    assert judge.write(str(path).encode())
    return read_map(path).leaves


def assert_equal(tree: SemanticOcTree, judge: octomap.OcTree, folder: Path) -> int:
    """Every voxel known to one is known to the other with the same bits; returns the number of leaves."""
    theirs = judge_leaves(judge, folder)
    index, depths = prune_leaves(theirs.keys, theirs.depths, theirs.log_odds)
    ours = tree._snapshot(evidence=False).leaves
    mine, my_depths = prune_leaves(ours.keys, ours.depths, ours.log_odds)
    np.testing.assert_array_equal(ours.keys[mine], theirs.keys[index])
    np.testing.assert_array_equal(my_depths, depths)
    np.testing.assert_array_equal(ours.log_odds[mine].view(np.int32), theirs.log_odds[index].view(np.int32))
    return len(mine)
