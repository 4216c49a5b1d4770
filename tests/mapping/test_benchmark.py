# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures what it says and notices a map that differs."""

from __future__ import annotations

import numpy as np
import pytest

from perception.errors import InputError
from perception.mapping import SemanticOcTree, benchmark
from perception.mapping.benchmark import BenchmarkScan, run_benchmark


def scans(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        points = rng.normal(0, 2, (3000, 3))
        yield BenchmarkScan(points, np.zeros(3), rng.integers(0, 4, 3000), np.full(3000, 0.8))


def test_both_maps_are_timed_and_found_equal():
    result = run_benchmark(list(scans(2)), 0.1, num_classes=4, passes=1)
    assert result["equal"] is True
    assert (result["scans"], result["points"]) == (2, 3000)
    assert result["speedup_discretized"] == pytest.approx(result["octomap_discretized"] / result["ours"])
    assert result["speedup_default"] > 0
    assert result["known_voxels"] > 10000
    assert result["memory_octomap"] > 0


def test_a_map_that_differs_is_noticed(monkeypatch):
    monkeypatch.setattr(benchmark, "_insert", lambda tree, scan: tree.insert_cloud(scan.points[1:], scan.origin))
    result = run_benchmark(list(scans(1)), 0.1, num_classes=4, passes=1, default_insertion=False)
    assert result["equal"] is False
    assert result["octomap_default"] is None


def test_no_scans_are_refused():
    with pytest.raises(InputError, match="at least one scan"):
        run_benchmark([], 0.1)


def test_shares_of_different_voxels_are_those_counted_by_hand():
    octomap = pytest.importorskip("octomap", reason="needs octomap-python")
    tree, judge = SemanticOcTree(0.1), octomap.OcTree(0.1)
    points = np.array([(1.05, 0.05, 0.05)])
    tree.insert_cloud(points, (0.05, 0.05, 0.05))
    judge.insertPointCloud(points, np.array([0.05, 0.05, 0.05]), -1.0, False, True)
    assert benchmark._different_shares(tree, judge) == (0.0, 0.0)
    # Eleven voxels in common; one more is known to one map alone, and one of the free ones becomes occupied in it.
    judge.updateNode(np.array([5.05, 0.05, 0.05]), True)
    for _ in range(3):
        judge.updateNode(np.array([0.55, 0.05, 0.05]), True)
    assert benchmark._different_shares(tree, judge) == pytest.approx((1 / 12, 1 / 11))
