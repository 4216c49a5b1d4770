# SPDX-License-Identifier: Apache-2.0
"""Voxels to costs: two bands above a local ground; increments equal the whole."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.config import CostmapConfig
from perception.costmap.grid import GridGeometry, raw_from_cost, rolling_geometry
from perception.costmap.projection import CostmapProjector
from perception.errors import InputError

from .conftest import CURTAIN, FLOOR, GRASS, RUG, TABLE, WALL, VoxelMap

AREA = range(-20, 40)


def cell(grid, x, y) -> int:
    """Value of the cell that holds the voxel column (x, y)."""
    column = round(x - grid.origin[0] / grid.resolution)
    row = round(y - grid.origin[1] / grid.resolution)
    return int(grid.data[row, column])


def cells(grid, xs, ys) -> set[int]:
    return {cell(grid, x, y) for x in xs for y in ys}


@pytest.fixture
def floor(voxel_map) -> VoxelMap:
    voxel_map.fill(AREA, AREA, [-1], FLOOR)
    return voxel_map


def test_floor_is_free_and_the_unseen_is_unknown(floor, classes):
    grid = CostmapProjector(floor, classes).grid()
    assert cells(grid, AREA, AREA) == {0}
    assert cell(grid, -21, 0) == -1 and cell(grid, 40, 5) == -1
    assert grid.resolution == 0.05 and grid.data.dtype == np.int8


def test_an_empty_map_is_unknown(voxel_map, classes):
    grid = CostmapProjector(voxel_map, classes).grid()
    assert (grid.data == -1).all() and grid.data.size


def test_cells_lie_where_their_voxels_are(voxel_map, classes):
    voxel_map.set(3, -7, 0, RUG)
    grid = CostmapProjector(voxel_map, classes).grid()
    row, column = np.argwhere(grid.data >= 0)[0]
    assert (grid.data >= 0).sum() == 1
    assert grid.origin[0] + column * 0.05 == pytest.approx(0.15)
    assert grid.origin[1] + row * 0.05 == pytest.approx(-0.35)


def test_the_ground_costs_what_its_class_costs(floor, classes):
    floor.fill(range(0, 10), range(0, 10), [0], RUG)
    floor.fill(range(20, 30), range(0, 10), [-1], GRASS)
    floor.fill(range(0, 10), range(20, 30), [-1], -1)
    grid = CostmapProjector(floor, classes, CostmapConfig(default_ground_cost=50)).grid()
    assert cells(grid, range(0, 10), range(0, 10)) == {raw_from_cost(10)}
    assert cells(grid, range(20, 30), range(0, 10)) == {raw_from_cost(60)}
    assert cells(grid, range(0, 10), range(20, 30)) == {raw_from_cost(50)}


def test_ground_of_a_lethal_class_is_lethal(floor, classes):
    floor.fill(range(5), range(5), [-1], WALL)
    assert cells(CostmapProjector(floor, classes).grid(), range(5), range(5)) == {100}


def test_a_wall_blocks_with_or_without_label(floor, classes):
    floor.fill([10], AREA, range(0, 40), WALL)
    floor.fill([30], AREA, range(0, 40), -1)
    grid = CostmapProjector(floor, classes).grid()
    assert cells(grid, [10, 30], AREA) == {100}
    assert cells(grid, [9, 11, 29, 31], AREA) == {0}


def test_a_ramp_of_ten_degrees_stays_free(voxel_map, classes):
    for x in AREA:
        z = math.floor(max(x, 0) * math.tan(math.radians(10)) + 0.3)
        voxel_map.fill([x], AREA, [z], FLOOR)
    assert cells(CostmapProjector(voxel_map, classes).grid(), AREA, AREA) == {0}


def test_a_slope_steeper_than_the_limit_is_lethal(voxel_map, classes):
    for x in AREA:
        z = math.floor(max(x, 0) * math.tan(math.radians(45)))
        voxel_map.fill([x], AREA, [z], FLOOR)
    grid = CostmapProjector(voxel_map, classes).grid()
    assert cells(grid, range(-20, 0), AREA) == {0}
    assert cells(grid, range(5, 40), AREA) == {100}


def test_a_map_that_is_tilted_as_a_whole_stays_free(voxel_map, classes):
    for x in AREA:
        for y in AREA:
            voxel_map.set(x, y, math.floor(0.1 * x - 0.12 * y), FLOOR)
    assert cells(CostmapProjector(voxel_map, classes).grid(), AREA, AREA) == {0}


def test_a_threshold_of_three_centimeters_is_driven_over(floor, classes):
    # A bar from 0 to 0.03 m: its top falls into the voxel above the floor's.
    floor.fill(range(10, 13), AREA, [0], -1)
    assert cells(CostmapProjector(floor, classes).grid(), AREA, AREA) == {0}


def test_a_curb_of_fifteen_centimeters_is_lethal(floor, classes):
    floor.fill(range(10, 12), AREA, range(0, 3), FLOOR)
    grid = CostmapProjector(floor, classes).grid()
    assert cells(grid, range(10, 12), AREA) == {100}


def test_a_table_blocks_below_the_robots_height_and_not_above(floor, classes):
    floor.fill(range(0, 10), range(0, 10), [14], TABLE)
    floor.fill(range(0, 10), range(20, 30), [34], TABLE)
    grid = CostmapProjector(floor, classes, CostmapConfig(robot_height=1.5)).grid()
    assert cells(grid, range(0, 10), range(0, 10)) == {100}
    assert cells(grid, range(0, 10), range(20, 30)) == {0}


def test_a_table_blocks_where_the_floor_below_it_was_not_seen(voxel_map, classes):
    voxel_map.fill(range(-20, 0), AREA, [-1], FLOOR)
    voxel_map.fill(range(0, 15), AREA, [14], FLOOR)
    assert cells(CostmapProjector(voxel_map, classes).grid(), range(0, 15), AREA) == {100}


def test_what_hangs_above_the_robot_over_unseen_floor_is_unknown(voxel_map, classes):
    voxel_map.fill(range(-20, 0), AREA, [-1], FLOOR)
    voxel_map.fill(range(0, 5), AREA, [40], WALL)
    assert cells(CostmapProjector(voxel_map, classes).grid(), range(0, 5), AREA) == {-1}


def test_a_step_down_is_unknown_or_lethal(voxel_map, classes):
    voxel_map.fill(range(-20, 10), AREA, [-1], FLOOR)
    voxel_map.fill(range(14, 40), AREA, [-7], FLOOR)
    grid = CostmapProjector(voxel_map, classes).grid()
    # Not seen: nobody knows. Seen below: the last strip above it is closed, the lower floor is floor.
    assert cells(grid, range(10, 14), AREA) == {-1}
    assert cells(grid, range(8, 10), AREA) == {100}
    assert cells(grid, range(-20, -5), AREA) == {0}
    assert cells(grid, range(14, 40), AREA) == {0}


def test_a_box_mislabeled_as_floor_is_lethal(floor, classes):
    box = range(8, 20)
    for x in box:
        for y in box:
            floor.clear(x, y, -1)
    floor.fill(box, box, [5], FLOOR)
    floor.fill([8], box, range(0, 5), FLOOR)
    grid = CostmapProjector(floor, classes).grid()
    assert cells(grid, box, box) == {100}
    assert cells(grid, range(-20, 8), AREA) == {0}


def test_a_traversable_class_lets_through_when_it_is_sure_enough(floor, classes):
    floor.fill([5], AREA, range(0, 30), CURTAIN, 0.8)
    floor.fill([15], AREA, range(0, 30), CURTAIN, 0.6)
    grid = CostmapProjector(floor, classes, CostmapConfig(min_traversable_probability=0.7)).grid()
    assert cells(grid, [5], AREA) == {raw_from_cost(127)}
    assert cells(grid, [15], AREA) == {100}


def test_one_solid_voxel_in_a_traversable_column_blocks(floor, classes):
    floor.fill([5], [5], range(0, 30), CURTAIN, 0.99)
    floor.set(5, 5, 12, WALL)
    assert cell(CostmapProjector(floor, classes).grid(), 5, 5) == 100


def test_lone_voxels_below_the_floor_do_not_make_the_floor_an_obstacle(floor, classes):
    floor.set(5, 5, -12, FLOOR)
    floor.set(6, 5, -10, FLOOR)
    grid = CostmapProjector(floor, classes).grid()
    assert cells(grid, AREA, AREA) == {0}


def test_a_hole_one_column_wide_is_unknown(floor, classes):
    floor.clear(5, 5, -1)
    floor.set(5, 5, -12, FLOOR)
    assert cell(CostmapProjector(floor, classes).grid(), 5, 5) == -1


def test_without_labels_geometry_alone_decides(voxel_map):
    voxel_map.fill(AREA, AREA, [-1])
    voxel_map.fill([3], AREA, range(20))
    grid = CostmapProjector(voxel_map).grid()
    assert cells(grid, [3], AREA) == {100} and cells(grid, [2, 4], AREA) == {0}


def test_labels_outside_of_the_label_set_are_lethal(floor, classes):
    floor.fill([3], [3], [-1], 7)
    assert cell(CostmapProjector(floor, classes).grid(), 3, 3) == 100


def test_new_costs_are_projected_without_mapping_anew(floor, classes):
    floor.fill(range(5), range(5), [0], RUG)
    projector = CostmapProjector(floor, classes)
    assert cells(projector.grid(), range(5), range(5)) == {raw_from_cost(10)}
    projector.set_label_set(classes.with_costs({"rug": 200}))
    update = projector.update()
    assert cells(update.grid, range(5), range(5)) == {raw_from_cost(200)}


def test_an_update_names_the_rectangle_that_changed(floor, classes):
    projector = CostmapProjector(floor, classes)
    first = projector.update()
    assert first.resized and first.changed == (0, 0, first.grid.data.shape[1], first.grid.data.shape[0])
    assert projector.update().changed is None
    floor.fill([5], [7, 8], range(1, 9), -1)
    update = projector.update()
    x, y, width, height = update.changed
    assert (width, height) == (1, 2) and not update.resized
    assert round(x + update.grid.origin[0] / 0.05) == 5 and round(y + update.grid.origin[1] / 0.05) == 7
    assert (update.grid.data[y : y + height, x : x + width] == 100).all()


def test_a_map_that_is_forgotten_changes_all_that_was_known(floor, classes):
    projector = CostmapProjector(floor, classes)
    before = projector.update().grid
    floor.voxels.clear()
    floor.changed_columns = lambda cursor: (None, 0)
    update = projector.update()
    assert (update.grid.data == -1).all() and not update.resized
    x, y, width, height = update.changed
    assert (before.data[y : y + height, x : x + width] == 0).all() and width == height == len(AREA)


def test_a_map_that_grows_makes_the_grid_grow(floor, classes):
    projector = CostmapProjector(floor, classes)
    before = projector.update().grid
    floor.set(300, 5, -1, FLOOR)
    update = projector.update()
    assert update.resized and update.grid.data.shape[1] > before.data.shape[1]
    assert cell(update.grid, 300, 5) == 0 and cell(update.grid, 5, 5) == 0


def test_lower_ground_found_later_closes_what_was_taken_for_floor(voxel_map, classes):
    voxel_map.fill(range(0, 10), AREA, [8], FLOOR)
    projector = CostmapProjector(voxel_map, classes)
    assert cells(projector.grid(), range(0, 10), AREA) == {0}
    voxel_map.fill(range(-20, 0), AREA, [-1], FLOOR)
    assert cells(projector.update().grid, range(0, 10), AREA) == {100}


def test_a_probability_that_rises_without_any_other_change_opens_the_way(floor, classes):
    floor.fill([5], AREA, range(0, 30), CURTAIN, 0.6)
    projector = CostmapProjector(floor, classes)
    assert cells(projector.grid(), [5], AREA) == {100}
    log = list(floor.log)
    floor.fill([5], AREA, range(0, 30), CURTAIN, 0.9)
    floor.log = log
    assert cells(projector.update().grid, [5], AREA) == {raw_from_cost(127)}


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_increments_equal_a_full_rebuild(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    classes = _house()
    config = CostmapConfig(floor_search_height=data.draw(st.sampled_from([0.1, 0.5])))
    geometry = data.draw(
        st.sampled_from([None, GridGeometry(0.05, 30, 20, (-0.5, -0.25)), GridGeometry(0.08, 31, 17, (-0.93, 0.11))])
    )
    voxel_map = VoxelMap()
    projector = CostmapProjector(voxel_map, classes, config, geometry)
    previous = projector.grid()
    for _ in range(4):
        for _ in range(int(rng.integers(1, 12))):
            x, y = rng.integers(-40, 60, 2)
            w, h = rng.integers(1, 12, 2)
            z = int(rng.integers(-8, 12))
            label = int(rng.integers(-1, 6))
            if rng.random() < 0.8:
                top = z + int(rng.integers(1, 3))
                voxel_map.fill(range(x, x + w), range(y, y + h), range(z, top), label, float(rng.choice([0.5, 0.9])))
            else:
                for cx in range(x, x + w):
                    voxel_map.clear(cx, y, z)
        update = projector.update()
        whole = CostmapProjector(voxel_map, classes, config, geometry).rebuild().grid
        assert update.grid.origin == whole.origin
        assert np.array_equal(update.grid.data, whole.data)
        if not update.resized:
            differs = previous.data != update.grid.data
            if update.changed is not None:
                x, y, w, h = update.changed
                assert x >= 0 and y >= 0 and w > 0 and h > 0 and y + h <= differs.shape[0] and x + w <= differs.shape[1]
                differs[y : y + h, x : x + w] = False
            assert not differs.any()
        previous = update.grid


def _house():
    from perception.labels import LabelClass, LabelSet

    costs = (0, 10, 254, 254, 127, 60)
    return LabelSet(
        "house", tuple(LabelClass(i, str(i), (i, i, i), cost=c, traversable=i == 4) for i, c in enumerate(costs))
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), reach=st.integers(1, 9), slope=st.integers(0, 300))
def test_the_local_ground_equals_its_definition(seed, reach, slope):
    from perception.costmap import kernels

    rng = np.random.default_rng(seed)
    supported = rng.integers(-1000, 1000, (16, 24)).astype(np.int32)
    supported[rng.random(supported.shape) < 0.7] = kernels.NO_HEIGHT
    ground, dirty = np.full_like(supported, kernels.NO_HEIGHT), np.zeros((2, 3), np.uint8)
    kernels.find_ground(supported, 0, 0, 24, 16, reach, slope, ground, dirty)
    expected = np.full_like(supported, kernels.NO_HEIGHT)
    for y in range(16):
        for x in range(24):
            for v in range(max(y - reach, 0), min(y + reach + 1, 16)):
                for u in range(max(x - reach, 0), min(x + reach + 1, 24)):
                    expected[y, x] = min(expected[y, x], supported[v, u] + slope * (abs(x - u) + abs(y - v)))
    assert np.array_equal(ground, expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), box=st.tuples(*[st.integers(-2, 20)] * 4))
def test_a_supported_height_is_the_third_smallest_of_its_neighborhood(seed, box):
    from perception.costmap import kernels

    rng = np.random.default_rng(seed)
    lowest = rng.integers(32760, 32766, (16, 16)).astype(np.int32)
    lowest[rng.random(lowest.shape) < 0.5] = kernels.NO_HEIGHT
    supported = np.full_like(lowest, kernels.NO_HEIGHT)
    changed = kernels.find_supported(lowest, *box, supported)
    expected = np.full_like(lowest, kernels.NO_HEIGHT)
    padded = np.pad(lowest, 1, constant_values=kernels.NO_HEIGHT)
    for y in range(max(box[1], 0), min(box[3], 16)):
        for x in range(max(box[0], 0), min(box[2], 16)):
            third = np.sort(padded[y : y + 3, x : x + 3].ravel())[2]
            expected[y, x] = third * kernels.FIXED if third < kernels.NO_HEIGHT else kernels.NO_HEIGHT
    assert np.array_equal(supported, expected)
    rows, columns = np.nonzero(expected < kernels.NO_HEIGHT)
    if len(rows):
        assert changed.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    else:
        assert changed[2] < 0


def test_a_fixed_geometry_cuts_and_pads(floor, classes):
    floor.fill([5], AREA, range(0, 30), WALL)
    grid = CostmapProjector(floor, classes, geometry=GridGeometry(0.05, 50, 10, (-1.5, 0.0))).grid()
    assert grid.data.shape == (10, 50) and grid.origin == (-1.5, 0.0)
    assert (grid.data[:, :10] == -1).all() and (grid.data[:, 10:35] == 0).all() and (grid.data[:, 35] == 100).all()


def test_a_coarser_grid_keeps_the_highest_cost_of_a_cell(floor, classes):
    floor.set(5, 5, 10, WALL)
    grid = CostmapProjector(floor, classes, geometry=GridGeometry(0.2, 5, 5, (0.0, 0.0))).grid()
    assert np.argwhere(grid.data == 100).tolist() == [[1, 1]]
    assert (grid.data == 0).sum() == 24


def test_a_finer_or_shifted_grid_takes_the_column_under_its_centers(floor, classes):
    floor.set(5, 5, 10, WALL)
    grid = CostmapProjector(floor, classes, geometry=GridGeometry(0.02, 30, 30, (0.011, 0.0))).grid()
    rows, columns = np.nonzero(grid.data == 100)
    centers = 0.011 + (columns + 0.5) * 0.02
    assert centers.min() > 0.25 and centers.max() < 0.30 and ((rows + 0.5) * 0.02).min() >= 0.25


def test_a_grid_that_is_moved_shows_the_same_costs_elsewhere(floor, classes):
    floor.fill([5], AREA, range(0, 30), WALL)
    projector = CostmapProjector(floor, classes, geometry=rolling_geometry((0.0, 0.0), 1.0, 0.05, 0.5))
    first = projector.update().grid
    projector.set_geometry(rolling_geometry((0.6, 0.0), 1.0, 0.05, 0.5))
    update = projector.update()
    assert update.resized and update.grid.origin == (0.0, first.origin[1])
    assert (first.data[:, 15] == 100).all() and (update.grid.data[:, 5] == 100).all()


def test_rolling_origins_are_snapped():
    for x in np.linspace(-3, 3, 61):
        geometry = rolling_geometry((float(x), 0.0), 4.0, 0.05)
        assert geometry.origin[0] == round(geometry.origin[0])
        assert abs(geometry.origin[0] + 2.0 - x) <= 0.5 + 1e-9
        assert (geometry.width, geometry.height) == (80, 80)


def test_ground_heights_are_the_top_of_the_floor(floor, classes):
    projector = CostmapProjector(floor, classes)
    projector.update()
    ground = projector.ground()
    column = round((0.5 - ground.origin[0]) / 0.05)
    row = round((0.5 - ground.origin[1]) / 0.05)
    assert ground.heights[row, column] == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(CostmapProjector(VoxelMap(), classes).ground().heights).all()


def test_inflation_follows_the_configuration(floor, classes):
    floor.fill([5], AREA, range(0, 30), WALL)
    plain = CostmapProjector(floor, classes).grid()
    inflated = CostmapProjector(floor, classes, replace(CostmapConfig(), inflation_radius=0.2)).grid()
    assert cell(plain, 6, 5) == 0 and cell(inflated, 6, 5) == raw_from_cost(int(252 * math.exp(-0.5)))


def test_absurd_geometries_are_refused():
    with pytest.raises(InputError, match="cells"):
        GridGeometry(0.05, 100000, 100000, (0.0, 0.0))
    with pytest.raises(InputError, match="resolution"):
        GridGeometry(0.0, 1, 1, (0.0, 0.0))
    with pytest.raises(InputError, match="origin"):
        GridGeometry(1.0, 1, 1, (math.nan, 0.0))


def test_warm_up_compiles_every_kernel_that_an_update_needs(floor, classes):
    from perception import costmap
    from perception.costmap import kernels

    costmap.warm_up()
    compiled = {name: len(kernel.signatures) for name, kernel in vars(kernels).items() if hasattr(kernel, "signatures")}
    projector = CostmapProjector(floor, classes, geometry=GridGeometry(0.1, 9, 9, (0.0, 0.0)))
    projector.update()
    floor.set(5, 5, 5)
    projector.update()
    assert compiled == {name: len(getattr(kernels, name).signatures) for name in compiled}
    assert all(
        compiled[name] >= 1 for name in ("find_lowest", "find_supported", "find_ground", "classify", "above_ground")
    )
