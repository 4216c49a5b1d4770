# SPDX-License-Identifier: Apache-2.0
"""Extraction of leaves from bricks, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from perception.mapping import SemanticOcTree, SensorModel, leaves, loading
from perception.mapping.octomap_stream import prune_leaves


@pytest.fixture(scope="module")
def noisy():
    """A map in which hardly two neighbors are alike, with labels."""
    rng = np.random.default_rng(0)
    tree = SemanticOcTree(0.1, SensorModel(max_range=5.0), num_classes=4)
    for _ in range(4):
        points = rng.uniform(-1.5, 1.5, (6000, 3))
        tree.insert_cloud(points, rng.uniform(-1, 1, 3), rng.integers(0, 4, 6000))
    tree.clear_box([-3, -3, -3], [0, 3, 3])
    return tree


@pytest.mark.parametrize("evidence", [False, True])
def test_leaves_are_ordered_disjoint_and_fully_pruned(noisy, evidence):
    found = leaves.extract_leaves(noisy._store.shards, evidence)
    # prune_leaves refuses what is unordered, unaligned or overlaps, and merges whatever still can be merged.
    index, depths = prune_leaves(found.keys, found.depths, found.log_odds, found.tags)
    assert len(index) == len(found.depths) > 5000
    np.testing.assert_array_equal(depths, found.depths)
    assert {14, 15, 16} <= set(found.depths.tolist())
    assert int((8 ** (16 - found.depths.astype(np.int64))).sum()) == noisy.known_voxels()


def test_too_little_room_at_first_changes_nothing(noisy, monkeypatch):
    roomy = leaves.extract_leaves(noisy._store.shards, True)
    monkeypatch.setattr(leaves, "LEAVES_PER_ROW", 0)
    narrow = leaves.extract_leaves(noisy._store.shards, True)
    for name in ("keys", "depths", "log_odds", "tags"):
        np.testing.assert_array_equal(getattr(narrow, name), getattr(roomy, name))


def test_leaves_of_every_size_fill_the_bricks_they_cover():
    tree = SemanticOcTree(0.1)
    depths = np.array([16, 16, 15, 14, 13, 12], np.uint8)
    sizes = 1 << (16 - depths.astype(int))
    keys = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [4, 0, 0], [8, 0, 0], [16, 0, 0]], np.uint16) + np.uint16(32768)
    values = np.float32([0.5, -0.4, 0.85, -0.8, 1.2, 3.5])
    loading.load_leaves(tree._store, keys, depths, values)
    assert tree.known_voxels() == int((sizes**3).sum())
    for key, size, value in zip(keys, sizes, values, strict=True):
        corners = (key.astype(float) - 32768 + np.array([[0.5] * 3, [size - 0.5] * 3])) * 0.1
        np.testing.assert_array_equal(tree.log_odds(corners), value)
