# SPDX-License-Identifier: Apache-2.0
"""Masks of classes: which ground they take, what Nav2's filters read in them."""

from __future__ import annotations

import numpy as np
import pytest

from perception.config import CostmapConfig
from perception.costmap import CostmapProjector, GridGeometry
from perception.costmap.masks import (
    ground_classes,
    keepout_mask,
    parse_classes,
    parse_limits,
    place_mask,
    speed_mask,
)
from perception.errors import InputError

from .conftest import CURTAIN, FLOOR, GRASS, RUG, TABLE, WALL

CONFIG = CostmapConfig()


def classes_of(voxel_map, classes):
    projector = CostmapProjector(voxel_map, classes, CONFIG)
    projector.update()
    ground = projector.ground()
    return ground_classes(voxel_map, ground, CONFIG, classes), ground


def at(grid, ground, x, y) -> int:
    column, row = (round(v - o / ground.resolution) for v, o in zip((x, y), ground.origin, strict=True))
    return int(grid[row, column])


def test_ground_class_is_that_of_the_floor_under_a_table_and_of_the_rug_on_it(voxel_map, classes):
    voxel_map.fill(range(20), range(20), [-1], FLOOR)
    voxel_map.fill(range(5, 8), range(5, 8), [0], RUG)
    voxel_map.fill(range(12, 15), range(12, 15), [14], TABLE)
    found, ground = classes_of(voxel_map, classes)
    assert at(found, ground, 1, 1) == FLOOR
    assert at(found, ground, 6, 6) == RUG
    assert at(found, ground, 13, 13) == FLOOR
    assert at(found, ground, -5, 3) == -1


def test_hanging_curtain_counts_and_a_wall_does_not(voxel_map, classes):
    voxel_map.fill(range(20), range(20), [-1], FLOOR)
    voxel_map.fill(range(3, 6), range(3, 6), range(3, 8), CURTAIN)
    voxel_map.fill([10], range(20), range(0, 20), WALL)
    found, ground = classes_of(voxel_map, classes)
    assert at(found, ground, 4, 4) == CURTAIN
    assert at(found, ground, 10, 10) in (WALL, FLOOR)
    assert at(keepout_mask(found, [CURTAIN]), ground, 4, 4) == 100


def test_keepout_says_nothing_elsewhere_and_speed_sets_no_limit_there():
    classes = np.array([[-1, 0, 1, 2]], np.int32)
    assert keepout_mask(classes, [1]).tolist() == [[-1, -1, 100, -1]]
    assert speed_mask(classes, {0: 40, 1: 70}).tolist() == [[0, 40, 70, 0]]
    assert speed_mask(classes, {}).tolist() == [[0, 0, 0, 0]]


def test_coarser_cells_take_the_slowest_limit_and_any_keepout(voxel_map, classes):
    voxel_map.fill(range(0, 8), range(0, 8), [-1], FLOOR)
    voxel_map.fill(range(0, 2), range(0, 1), [-1], RUG)
    found, ground = classes_of(voxel_map, classes)
    geometry = GridGeometry(0.1, 2, 1, (0.0, 0.0))
    speed = place_mask(speed_mask(found, {FLOOR: 80, RUG: 30}), ground, geometry, slowest=True)
    assert speed.data.tolist() == [[30, 80]]
    keepout = place_mask(keepout_mask(found, [RUG]), ground, geometry, slowest=False)
    assert keepout.data.tolist() == [[100, -1]]


def test_lists_of_classes_are_read_and_wrong_ones_refused(classes):
    names = [classes.name_of(label) for label in (RUG, GRASS)]
    assert parse_classes(f"{names[0]}, {names[1]},", classes) == [RUG, GRASS]
    assert parse_limits(f" {names[0]}=50,{names[1]} = 100", classes) == {RUG: 50, GRASS: 100}
    with pytest.raises(InputError, match="no class 'lava'"):
        parse_classes("lava", classes)
    for wrong in (names[0], f"{names[0]}=0", f"{names[0]}=101", f"{names[0]}=fast", "=5"):
        with pytest.raises(InputError, match="expected class=percent"):
            parse_limits(wrong, classes)
