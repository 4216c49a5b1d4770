# SPDX-License-Identifier: Apache-2.0
"""Compile everything before the first scan; the results are cached on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from perception.geometry import Transform
from perception.mapping.lookup import SMALL
from perception.mapping.octree import SemanticOcTree, SensorModel
from perception.types import DepthScan


def warm_up() -> None:
    """Compile, or load from the cache, every function of the map that a node may need."""
    tree = warm_up_insertion()
    many = np.zeros((SMALL, 3), np.float32)
    tree.top_labels(many, 2)
    tree.label_probabilities(many)
    tree.cast_ray((0, 0, 0), (1, 0, 0), 2.0)
    _read(tree)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.ot"
        tree.write(path)
        SemanticOcTree.read(path, max_memory=1 << 24)
    tree.decay(0.1)
    tree.clear_box((-1, -1, -1), (1, 1, 1))
    tree.known_voxels()
    tree._store.forget_farthest((32768, 32768, 32768), 0.0)
    tree.reset()


def warm_up_insertion() -> SemanticOcTree:
    """Compile, or load, what takes clouds in; the half of a replay's kernels that costs most.

    Returns:
        A small map with something in it.
    """
    tree = _empty_tree()
    points = np.random.default_rng(0).uniform(-4.0, 4.0, (64, 3)).astype(np.float32)
    tree.insert_cloud(points, (0, 0, 0), np.arange(64) % 3, np.full(64, 0.9, np.float32), points)
    pixels, rays = np.ones((3, 4), np.float32), (np.zeros(4, np.float32), np.zeros(3, np.float32))
    tree.insert_depth(
        DepthScan(pixels, *rays, labels=np.ones((3, 4), np.int32), confidence=pixels), Transform.identity()
    )
    return tree


def warm_up_reading(tree: SemanticOcTree | None = None, backwards: bool = False) -> None:
    """Compile, or load, what reads a map.

    Args:
        tree: a map with something in it; None compiles nearly all, and needs nothing of what takes clouds in, so that
            both can go on at once.
        backwards: begin with the last function: two processes, one of which goes backwards, meet in the middle and
            load what the other has compiled.
    """
    _read(_empty_tree() if tree is None else tree, backwards)


def _empty_tree() -> SemanticOcTree:
    return SemanticOcTree(0.1, SensorModel(max_range=3.0), num_classes=3, decay_s=[1, 2, np.inf], max_memory=1 << 24)


def _read(tree: SemanticOcTree, backwards: bool = False) -> None:
    many = np.zeros((SMALL, 3), np.float32)
    calls: list[Callable[[], object]] = [
        lambda: tree.log_odds(many),
        lambda: tree.label_of(many),
        lambda: tree.changed_columns(tree.changed_columns(None)[1]),
        lambda: tree.occupied_in(tree.columns()),
        lambda: tree.leaves(12),
        lambda: tree.octomap_data(binary=True),
        lambda: tree.octomap_data(binary=False),
    ]
    for call in reversed(calls) if backwards else calls:
        call()
