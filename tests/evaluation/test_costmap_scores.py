# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from perception.config import CostmapConfig
from perception.evaluation.costmap_scores import score_costmap, true_costmap
from perception.labels import LabelClass, LabelSet
from perception.simulation.voxels import VoxelMap
from perception.types import CostGrid


def grid(rows, origin=(0.0, 0.0)):
    return CostGrid(np.array(rows, np.int8), 0.1, origin)


def test_rates_equal_hand_computed_values():
    truth = grid([[100, 100, 100, 99, 0, 0, 50, -1]])
    mapped = grid([[100, 0, 30, -1, 0, 100, 50, 100]])
    scores = score_costmap(mapped, truth)
    # Lethal in truth and known: three, two of them passable in the map. Passable: three, one of them blocked.
    assert scores["cells"] == 6
    assert scores["false_free_rate"] == pytest.approx(2 / 3)
    assert scores["false_lethal_rate"] == pytest.approx(1 / 3)
    # The second cell has a lethal one beside it, the third has none.
    assert scores["false_free_rate_tolerant"] == pytest.approx(1 / 3)
    assert scores["lethal_agreement"] == pytest.approx(1 / 4)
    assert scores["free_agreement"] == pytest.approx(2 / 5)
    assert scores["agreement"] == pytest.approx(3 / 6)
    assert scores["unknown_share"] == pytest.approx(1 / 7)


def test_grids_are_laid_over_each_other_by_their_origins():
    truth = grid([[0, 100], [0, 0]], (0.3, 0.2))
    mapped = grid([[-1, -1, -1], [-1, 0, 100]], (0.2, 0.1))
    scores = score_costmap(mapped, truth)
    assert scores["cells"] == 2 and scores["agreement"] == 1.0
    assert score_costmap(grid([[0]], (50.0, 50.0)), truth)["agreement"] is None


def test_costmap_of_true_voxels_has_floor_free_and_walls_lethal():
    classes = LabelSet("two", (LabelClass(0, "floor", (9, 9, 9), 0), LabelClass(1, "wall", (8, 8, 8), 254)))
    floor = [(x, y, 0) for x in range(10) for y in range(10)]
    wall = [(0, y, z) for y in range(10) for z in range(1, 10)]
    labels = np.array([0] * len(floor) + [1] * len(wall), np.int32)
    truth = true_costmap(VoxelMap(np.array(floor + wall, np.int32), labels, 0.1, classes), classes, CostmapConfig())
    column = round(-truth.origin[0] / 0.1)
    row = round(-truth.origin[1] / 0.1)
    known = truth.data[row : row + 10, column : column + 10]
    assert (known[:, 0] == 100).all() and (known[:, 1:] == 0).all()
