# SPDX-License-Identifier: Apache-2.0
"""Distances to lethal cells, by hand and against all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from perception.costmap.distance import distance_field, known_cells
from perception.errors import InputError
from perception.types import CostGrid


def test_distances_equal_those_of_all_pairs_of_cells():
    rng = np.random.default_rng(0)
    data = rng.choice([-1, 0, 40, 100], (23, 31), p=[0.2, 0.4, 0.35, 0.05]).astype(np.int8)
    result = distance_field(CostGrid(data, 0.1, (0.0, 0.0)), 0.55)
    lethal = np.argwhere(data == 100)
    for row, column in np.argwhere(data >= 0):
        nearest = np.sqrt(((lethal - (row, column)) ** 2).sum(axis=1)).min() * 0.1
        assert result[row, column] == pytest.approx(min(nearest, 0.55), abs=1e-4)
    assert np.isnan(result[data == -1]).all()


def test_grid_without_lethal_cells_is_far_everywhere_and_centers_are_in_the_frame():
    grid = CostGrid(np.array([[0, -1], [10, 20]], np.int8), 0.5, (1.0, -2.0))
    centers, values = known_cells(grid, distance_field(grid, 3.0))
    assert values.tolist() == [3.0, 3.0, 3.0]
    np.testing.assert_allclose(centers, [(1.25, -1.75, 0), (1.25, -1.25, 0), (1.75, -1.25, 0)])


def test_range_has_to_be_positive():
    with pytest.raises(InputError, match="max_distance: expected a positive"):
        distance_field(CostGrid(np.zeros((1, 1), np.int8), 0.1, (0, 0)), 0.0)
