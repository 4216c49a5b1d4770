# SPDX-License-Identifier: Apache-2.0
"""What an update of the map works with: its rules, and room to work in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perception.mapping.entries import MAX_ENTRIES
from perception.mapping.keys import BRICK_VOXELS


class Rules(NamedTuple):
    """How evidence adds up, and how much memory one shard may take."""

    hit: np.float32
    """log-odds, like the next three"""
    miss: np.float32
    low: np.float32
    high: np.float32
    num_classes: int
    kept: int
    """classes per voxel"""
    score_max: np.float32
    decays: np.ndarray
    """(C,) uint8, 1 for classes that decay"""
    limit: int
    """bytes"""


class Scratch(NamedTuple):
    """What one thread needs while it updates bricks."""

    flags: np.ndarray
    """(512,) uint8 where rays passed in one brick."""
    heads: np.ndarray
    """(512,) int32 first entry of each voxel, -1 between bricks."""
    voxels: np.ndarray
    """(512,) int64"""
    classes: np.ndarray
    """(512,) int64"""
    weights: np.ndarray
    """(512,) float32"""
    tags: np.ndarray
    """(MAX_ENTRIES,) uint32"""
    scores: np.ndarray
    """(MAX_ENTRIES,) float32"""
    old_tags: np.ndarray
    """(MAX_ENTRIES,) uint32"""
    old_scores: np.ndarray
    """(MAX_ENTRIES,) float32"""
    class_sums: np.ndarray
    """(C,) int64 zeros"""
    class_counts: np.ndarray
    """(C,) int64 zeros"""


def make_scratch(num_classes: int) -> Scratch:
    """Scratch of one thread."""
    return Scratch(
        np.zeros(BRICK_VOXELS, np.uint8),
        np.full(BRICK_VOXELS, -1, np.int32),
        np.zeros(BRICK_VOXELS, np.int64),
        np.zeros(BRICK_VOXELS, np.int64),
        np.zeros(BRICK_VOXELS, np.float32),
        np.zeros(MAX_ENTRIES, np.uint32),
        np.zeros(MAX_ENTRIES, np.float32),
        np.zeros(MAX_ENTRIES, np.uint32),
        np.zeros(MAX_ENTRIES, np.float32),
        np.zeros(max(num_classes, 1), np.int64),
        np.zeros(max(num_classes, 1), np.int64),
    )
