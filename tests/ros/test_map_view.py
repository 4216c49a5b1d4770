# SPDX-License-Identifier: Apache-2.0
"""The map as octomap_server's topics show it: limits, speckles, colors, the projection, and costmap updates."""

from __future__ import annotations

import numpy as np
import pytest

from perception.config import MarkerColorConfig, OctomapServerConfig
from perception.labels import LabelClass, LabelSet
from perception.mapping import SemanticOcTree
from perception.ros.map_view import MapView
from perception.types import CostGrid

CLASSES = LabelSet("two", (LabelClass(0, "floor", (10, 20, 30)), LabelClass(1, "chair", (200, 0, 0))))


def tree_with(points, origin=(0.05, 0.05, 0.05), labels=None, resolution=0.1):
    tree = SemanticOcTree(resolution, num_classes=2)
    tree.insert_cloud(np.array(points, np.float32), origin, None if labels is None else np.array(labels))
    return tree


def cell(grid: CostGrid, x: float, y: float) -> int:
    column = int((x - grid.origin[0]) // grid.resolution)
    row = int((y - grid.origin[1]) // grid.resolution)
    return int(grid.data[row, column])


def test_projected_map_has_occupied_free_and_unknown_cells_where_the_map_has_them():
    view = MapView(tree_with([(1.05, 0.05, 0.05), (0.05, 0.55, 0.05)]), OctomapServerConfig(), None)
    grid = view.projected_map()
    assert grid.resolution == pytest.approx(0.1)
    assert grid.origin == pytest.approx((0.0, 0.0))
    assert grid.data.shape == (6, 11)
    assert cell(grid, 1.05, 0.05) == 100
    assert cell(grid, 0.05, 0.55) == 100
    assert cell(grid, 0.55, 0.05) == 0
    assert cell(grid, 0.55, 0.35) == -1
    assert (grid.data == 100).sum() == 2
    assert (grid.data == 0).sum() == 10 + 4 + 0 * 1


def test_projected_map_equals_a_voxel_by_voxel_projection_of_pruned_leaves():
    rng = np.random.default_rng(0)
    tree = SemanticOcTree(0.1)
    for _ in range(12):
        ends = rng.uniform(-3, 3, (4000, 3)).astype(np.float32)
        tree.insert_cloud(ends, rng.uniform(-0.5, 0.5, 3))
    view = MapView(tree, OctomapServerConfig(), None)
    assert len(np.unique(view.leaves.sizes)) > 1, "nothing was pruned: the test would be too easy"
    grid = view.projected_map()
    rows, columns = grid.data.shape
    x = grid.origin[0] + (np.arange(columns) + 0.5) * 0.1
    y = grid.origin[1] + (np.arange(rows) + 0.5) * 0.1
    z = np.arange(-3.2, 3.2, 0.1) + 0.05
    points = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)
    log_odds = tree.log_odds(points).reshape(columns, rows, len(z))
    expected = np.full((columns, rows), -1, np.int8)
    expected[(log_odds < 0).any(axis=2)] = 0
    expected[(log_odds >= 0).any(axis=2)] = 100
    np.testing.assert_array_equal(grid.data, expected.T)


def test_projected_map_leaves_out_heights_beyond_the_limits():
    tree = tree_with([(1.05, 0.05, 2.05)])
    low = MapView(tree, OctomapServerConfig(occupancy_max_z=1.0), None).projected_map()
    assert (low.data == 100).sum() == 0
    assert MapView(tree, OctomapServerConfig(), None).projected_map().data.max() == 100


def test_projected_map_has_at_least_the_size_asked_for():
    grid = MapView(tree_with([(1.05, 0.05, 0.05)]), OctomapServerConfig(min_x_size=4.0, min_y_size=6.0), None)
    assert grid.projected_map().data.shape == (60, 40)
    assert grid.projected_map().origin == pytest.approx((-2.0, -3.0))


def test_projected_map_of_an_empty_map_is_one_unknown_cell():
    grid = MapView(SemanticOcTree(0.1), OctomapServerConfig(), None).projected_map()
    assert grid.data.tolist() == [[-1]]


def test_max_depth_makes_cells_coarser():
    view = MapView(tree_with([(1.05, 0.05, 0.05)]), OctomapServerConfig(max_depth=14), None)
    grid = view.projected_map()
    assert grid.resolution == pytest.approx(0.4)
    assert cell(grid, 1.05, 0.05) == 100


def test_speckle_filter_hides_lonely_voxels_only():
    points = [(1.05, 0.05, 0.05), (2.05, 2.05, 2.05), (2.15, 2.15, 2.15)]
    tree = tree_with(points)
    shown = MapView(tree, OctomapServerConfig(filter_speckles=True), None)
    centers = shown.leaves.centers[shown.occupied]
    assert sorted(centers[:, 0].tolist()) == pytest.approx([2.05, 2.15])
    assert len(MapView(tree, OctomapServerConfig(), None).occupied) == 3


def test_voxels_have_the_color_of_their_class_and_its_group():
    tree = tree_with([(1.05, 0.05, 0.05), (2.05, 0.05, 1.05)], labels=[1, -1])
    view = MapView(tree, OctomapServerConfig(color=MarkerColorConfig(0.0, 1.0, 0.0)), CLASSES)
    order = np.argsort(view.leaves.centers[view.occupied, 0])
    assert view.occupied_colors()[order].tolist() == [[200, 0, 0], [0, 255, 0]]
    groups, names = view.class_groups()
    assert [names[group] for group in groups[order]] == ["chair", "map"]


def test_height_colors_run_from_the_bottom_to_the_top():
    tree = tree_with([(1.05, 0.05, 0.05), (1.05, 0.05, 2.05)])
    view = MapView(tree, OctomapServerConfig(use_height_map=True, color_factor=2 / 3), None)
    order = np.argsort(view.leaves.centers[view.occupied, 2])
    assert view.occupied_colors()[order].tolist() == [[0, 0, 255], [255, 0, 0]]
