# SPDX-License-Identifier: Apache-2.0
"""Compile everything before the first scan; the results are cached on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from perception.mapping.lookup import SMALL
from perception.mapping.octree import SemanticOcTree, SensorModel

LABEL_TYPES = (np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.int64)


def warm_up() -> None:
    """Compile, or load from numba's cache, every function of the map that a node may need."""
    tree = SemanticOcTree(0.1, SensorModel(max_range=3.0), num_classes=3, decay_s=[1, 2, np.inf], max_memory=1 << 24)
    points = np.random.default_rng(0).uniform(-4.0, 4.0, (64, 3)).astype(np.float32)
    for dtype in LABEL_TYPES:
        tree.insert_cloud(points, (0, 0, 0), np.arange(64).astype(dtype) % 3, np.full(64, 0.9, np.float32), points)
    many = np.zeros((SMALL, 3), np.float32)
    tree.log_odds(many)
    tree.label_of(points)
    tree.top_labels(points, 2)
    tree.label_probabilities(points)
    tree.cast_ray((0, 0, 0), (1, 0, 0), 2.0)
    tree.leaves(12)
    _, cursor = tree.changed_columns(None)
    tree.changed_columns(cursor)
    tree.occupied_in(tree.columns())
    tree.octomap_data(binary=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.ot"
        tree.write(path)
        SemanticOcTree.read(path, max_memory=1 << 24)
    tree.decay(0.1)
    tree.clear_box((-1, -1, -1), (1, 1, 1))
    tree.known_voxels()
    tree._store.forget_farthest((32768, 32768, 32768), 0.0)
    tree.reset()
