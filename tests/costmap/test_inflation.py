# SPDX-License-Identifier: Apache-2.0
"""Inflation by Nav2's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perception.costmap import inflate, raw_from_cost
from perception.errors import InputError
from perception.types import CostGrid


def grid_with_wall(resolution=0.1) -> CostGrid:
    data = np.zeros((9, 21), np.int8)
    data[4, 10] = 100
    return CostGrid(data, resolution, (0.0, 0.0))


def test_cost_falls_off_exponentially_with_distance():
    data = inflate(grid_with_wall(), 0.5, 4.0).data
    for cells in range(1, 6):
        assert data[4, 10 + cells] == raw_from_cost(int(252 * math.exp(-4.0 * 0.1 * cells)))
    assert data[5, 11] == raw_from_cost(int(252 * math.exp(-4.0 * 0.1 * math.sqrt(2))))
    assert data[4, 10] == 100


def test_nothing_changes_beyond_the_radius():
    data = inflate(grid_with_wall(), 0.3, 1.0).data
    assert data[4, 13] > 0 and data[4, 14] == 0 and data[7, 10] > 0 and data[8, 10] == 0
    # (3, 1) is √10 cells away.
    assert data[5, 13] == 0


def test_inside_the_inscribed_radius_cells_are_inscribed_and_the_fall_starts_there():
    data = inflate(grid_with_wall(), 0.6, 4.0, inscribed_radius=0.2).data
    assert (data[4, 11:13] == 99).all()
    assert data[4, 13] == raw_from_cost(int(252 * math.exp(-4.0 * 0.1)))


def test_a_cell_keeps_its_own_higher_cost():
    grid = grid_with_wall()
    grid.data[4, 11] = 98
    assert inflate(grid, 0.5, 10.0).data[4, 11] == 98


def test_unknown_stays_unknown_outside_of_the_inscribed_radius():
    grid = grid_with_wall()
    grid.data[:, 11:] = -1
    assert (inflate(grid, 0.5, 4.0).data[:, 11:] == -1).all()
    data = inflate(grid, 0.5, 4.0, inscribed_radius=0.1).data
    assert data[4, 11] == 99 and data[4, 12] == -1


def test_no_radius_and_no_obstacle_change_nothing_and_the_argument_is_never_changed():
    grid = grid_with_wall()
    before = grid.data.copy()
    assert inflate(grid, 0.0) is grid
    inflate(grid, 0.5)
    assert np.array_equal(before, grid.data)
    empty = CostGrid(np.zeros((3, 3), np.int8), 0.1, (0.0, 0.0))
    assert (inflate(empty, 0.5).data == 0).all()


def test_negative_and_infinite_numbers_are_refused_by_name():
    with pytest.raises(InputError, match=r"inflation_radius.*-1"):
        inflate(grid_with_wall(), -1.0)
    with pytest.raises(InputError, match="cost_scaling_factor"):
        inflate(grid_with_wall(), 0.5, math.nan)
    with pytest.raises(InputError, match="inscribed_radius"):
        inflate(grid_with_wall(), 0.5, 1.0, math.inf)
