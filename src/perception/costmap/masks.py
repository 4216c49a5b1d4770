# SPDX-License-Identifier: Apache-2.0
"""Masks for Nav2's costmap filters, from the classes of the ground: where not to go, and where to go slowly.

A mask says what a place is, not what stands there now: obstacles are the costmap's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perception.config import CostmapConfig
from perception.costmap.grid import GridGeometry
from perception.costmap.projection import KEY_ORIGIN, TILE, GroundGrid
from perception.costmap.sampling import GridSampler
from perception.errors import InputError
from perception.labels import LabelSet
from perception.types import CostGrid

if TYPE_CHECKING:
    from perception.mapping import SemanticOcTree

NO_CLASS = -1
KEEP_OUT, NOT_SAID, NO_LIMIT = 100, -1, 0
"""Values of masks: no entry; the filter leaves the cell as it is; no speed limit."""


def ground_classes(
    tree: SemanticOcTree, ground: GroundGrid, config: CostmapConfig, label_set: LabelSet
) -> NDArray[np.int32]:
    """Class of the ground, seen from above.

    That of the highest labeled voxel within a step of the local ground; what is traversable counts up to the height of
    the robot, as tall grass does.

    Args:
        tree: the map.
        ground: its local ground, which gives the cells too.
        config: ``step_height`` and ``robot_height``.
        label_set: which classes are traversable.

    Returns:
        (H, W) int32, −1 where nothing is known.
    """
    rows, columns = ground.heights.shape
    corner = np.rint(np.array(ground.origin) / ground.resolution).astype(np.int64) + KEY_ORIGIN
    tiles = tree.columns()
    places = tiles * TILE - corner
    tiles = tiles[((places >= 0) & (places + TILE <= (columns, rows))).all(axis=1)]
    offsets, keys, labels, _ = tree.occupied_in(tiles)
    column = np.repeat(np.arange(len(tiles) * TILE * TILE), np.diff(offsets))
    tile, place = np.divmod(column, TILE * TILE)
    x = tiles[tile, 0] * TILE + place % TILE - corner[0]
    y = tiles[tile, 1] * TILE + place // TILE - corner[1]
    tops = (keys.astype(np.int64) + 1 - KEY_ORIGIN) * ground.resolution
    with np.errstate(invalid="ignore"):
        height = tops - ground.heights[y, x]
        # The floor itself spreads over two layers of voxels.
        step = max(config.step_height, ground.resolution) + 1e-6
        through = np.append(label_set.traversable, False)[np.minimum(labels, label_set.num_classes)]
        counts = (np.abs(height) <= step) | (through & (height > 0) & (height <= config.robot_height))
    counts &= (labels >= 0) & (labels < label_set.num_classes)
    result = np.full((rows, columns), NO_CLASS, np.int32)
    # Voxels ascend in a column, and the last one written stays.
    result[y[counts], x[counts]] = labels[counts]
    return result


def keepout_mask(classes: NDArray[np.int32], ids: Iterable[int]) -> NDArray[np.int8]:
    """(H, W) int8 for Nav2's KeepoutFilter: 100 where a class is one of ``ids``, −1 elsewhere.

    Not 0 elsewhere: the filter would turn unknown cells of the costmap into free ones.
    """
    return np.where(np.isin(classes, list(ids)), KEEP_OUT, NOT_SAID).astype(np.int8)


def speed_mask(classes: NDArray[np.int32], limits: Mapping[int, int]) -> NDArray[np.int8]:
    """(H, W) int8 for Nav2's SpeedFilter (percent of the full speed): 0 where there is no limit."""
    table = np.zeros(max([*limits, 0]) + 2, np.int8)
    for label, percent in limits.items():
        table[label] = percent
    return table[np.where(classes <= max([*limits, 0]), classes, -1)]


def place_mask(mask: NDArray[np.int8], ground: GroundGrid, geometry: GridGeometry | None, slowest: bool) -> CostGrid:
    """A mask in the cells of another grid.

    Args:
        mask: (H, W) int8 on the raster of ``ground``.
        ground: where that raster is.
        geometry: cells of the result; None keeps the raster.
        slowest: where several cells meet, take the lowest value other than 0, in place of the highest.
    """
    if geometry is None:
        return CostGrid(mask, ground.resolution, ground.origin)
    sampler = GridSampler(geometry, ground.origin, ground.resolution, (mask.shape[0], mask.shape[1]))
    if not slowest:
        return CostGrid(sampler.take(mask), geometry.resolution, geometry.origin)
    taken = sampler.take(np.where(mask > 0, 101 - mask, 0).astype(np.int8))
    return CostGrid(np.where(taken > 0, 101 - taken, 0).astype(np.int8), geometry.resolution, geometry.origin)


def parse_classes(text: str, label_set: LabelSet) -> list[int]:
    """Ids of class names separated by commas.

    Raises:
        InputError: the label set has no such class.
    """
    return [label_set[name].id for name in _words(text)]


def parse_limits(text: str, label_set: LabelSet) -> dict[int, int]:
    """Ids and percentages of ``name=percent`` separated by commas.

    Raises:
        InputError: the label set has no such class, or a percentage is not 1 to 100.
    """
    limits = {}
    for word in _words(text):
        name, _, percent = (part.strip() for part in word.rpartition("="))
        if not name or not percent.isdigit() or not 1 <= int(percent) <= 100:
            raise InputError(f"speed limit: expected class=percent with 1 to 100 percent, got {word!r}")
        limits[label_set[name].id] = int(percent)
    return limits


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
