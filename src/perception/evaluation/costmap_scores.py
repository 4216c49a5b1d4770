# SPDX-License-Identifier: Apache-2.0
"""How right a costmap is against the one that the same projection makes of the true voxels.

``false_free_rate`` is the dangerous one: of the cells that are lethal in truth, the share through which the map would
let a robot drive. Cells that either map does not know are not counted.

Source of the rates: miss rate and false alarm rate of binary detection, lethal being the positive class (Fawcett, An
introduction to ROC analysis, 2006).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.config import CostmapConfig
from perception.costmap import CostmapProjector
from perception.labels import LabelSet
from perception.mapping import SemanticOcTree, SensorModel
from perception.simulation.voxels import VoxelMap
from perception.types import CostGrid

STATES = ("free", "costly", "lethal", "unknown")
FREE, COSTLY, LETHAL, UNKNOWN = range(4)
LETHAL_VALUE = 99
"""Grid values from here on (inscribed and lethal) stop Nav2's planners."""


def true_costmap(truth: VoxelMap, label_set: LabelSet | None, config: CostmapConfig) -> CostGrid:
    """The costmap of the true voxels, as the pipeline projects a map in which each is occupied and of its class.

    Args:
        truth: voxels in the map's resolution and classes.
        label_set: costs of the classes; None for a map without.
        config: of the projection.
    """
    tree = SemanticOcTree(truth.resolution, SensorModel(), label_set.num_classes if label_set else 0)
    points = truth.centers
    # One scan from anywhere: where a ray passes an occupied voxel, occupied wins.
    origin = points.mean(axis=0, dtype=np.float64)
    confidence = np.full(len(points), 0.99, np.float32)
    tree.insert_cloud(points, origin, truth.labels if label_set else None, confidence if label_set else None)
    return CostmapProjector(tree, label_set, config).grid()


def score_costmap(grid: CostGrid, truth: CostGrid) -> dict[str, Any]:
    """Compare two grids cell by cell where both know something.

    Args:
        grid: of the map.
        truth: of the true voxels; same resolution, origins apart by whole cells.

    Returns:
        ``cells`` compared, ``agreement`` (share in the same state of free, costly, lethal), ``lethal_agreement`` and
        ``free_agreement`` (IoU of lethal and of passable cells), ``false_free_rate`` (lethal cells that the map lets
        through), ``false_free_rate_tolerant`` (those of them without a lethal cell of the map beside them),
        ``false_lethal_rate`` (passable cells that the map blocks), ``unknown_share`` (of the cells known in truth,
        those that the map does not know) and ``confusion`` (rows truth, columns map, in the order of ``states``).
    """
    true = state_of(truth.data)
    mapped = state_of(_aligned(grid, truth))
    counts = np.bincount(true.ravel() * 4 + mapped.ravel(), minlength=16).reshape(4, 4)
    both = counts[:3, :3]
    lethal, passable = both[LETHAL], both[:LETHAL].sum(axis=0)
    missed, blocked = int(lethal[:LETHAL].sum()), int(passable[LETHAL])
    beside = _widened(mapped == LETHAL)
    far = int(((true == LETHAL) & (mapped < LETHAL) & ~beside).sum())
    return {
        "cells": int(both.sum()),
        "agreement": _share(np.trace(both), both.sum()),
        "lethal_agreement": _share(lethal[LETHAL], lethal.sum() + blocked),
        "free_agreement": _share(passable[:LETHAL].sum(), passable.sum() + missed),
        "false_free_rate": _share(missed, lethal.sum()),
        "false_free_rate_tolerant": _share(far, lethal.sum()),
        "false_lethal_rate": _share(blocked, passable.sum()),
        "unknown_share": _share(counts[:3, UNKNOWN].sum(), counts[:3].sum()),
        "states": list(STATES),
        "confusion": counts.tolist(),
    }


def state_of(data: NDArray[np.int8]) -> NDArray[np.int64]:
    """Index into ``STATES`` of grid values."""
    return np.select([data < 0, data == 0, data < LETHAL_VALUE], [UNKNOWN, FREE, COSTLY], LETHAL)


def _aligned(grid: CostGrid, like: CostGrid) -> NDArray[np.int8]:
    """The grid's values on the cells of another one; unknown outside."""
    shift = [round((a - b) / like.resolution) for a, b in zip(grid.origin, like.origin, strict=True)]
    result = np.full(like.data.shape, -1, np.int8)
    (rows, own_rows), (columns, own_columns) = (
        _overlap(like.data.shape[axis], grid.data.shape[axis], shift[1 - axis]) for axis in (0, 1)
    )
    result[rows, columns] = grid.data[own_rows, own_columns]
    return result


def _overlap(size: int, own: int, shift: int) -> tuple[slice, slice]:
    """Where a row of ``own`` cells that begins at ``shift`` lies in one of ``size``, and which of its cells do."""
    low, high = max(shift, 0), max(min(shift + own, size), max(shift, 0))
    return slice(low, high), slice(low - shift, high - shift)


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and the 8 neighbors of its cells."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.any([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)


def _share(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None
