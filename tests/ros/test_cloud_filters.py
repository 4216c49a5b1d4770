# SPDX-License-Identifier: Apache-2.0
"""octomap_server's cloud filters."""

from __future__ import annotations

import numpy as np
import pytest

from perception.config import CloudFilterConfig, GroundFilterConfig
from perception.ros.cloud_filters import beyond, ground_plane, within_limits


def floor_and_box(height=0.0, slope=0.0, count=2000):
    rng = np.random.default_rng(0)
    floor = np.column_stack([rng.uniform(-2, 2, (count, 2)), np.zeros(count)])
    floor[:, 2] = height + slope * floor[:, 0] + rng.normal(0, 0.005, count)
    box = np.column_stack([rng.uniform(0, 0.5, (count // 4, 2)), rng.uniform(0.3, 1.0, count // 4)])
    return np.concatenate([floor, box]).astype(np.float32), count


def test_limits_keep_points_on_them_and_drop_points_beyond_and_nan():
    points = np.array([(0, 0, 0), (1, 0, 0), (1.01, 0, 0), (0, 0, -101), (np.nan, 0, 0)], np.float32)
    config = CloudFilterConfig(point_cloud_max_x=1.0)
    assert within_limits(points, config).tolist() == [True, True, False, False, False]


def test_min_range_counts_distance_from_the_sensor():
    points = np.array([(0.3, 0, 0), (0.2, 0.2, 0.2), (0, 0, 0.29)], np.float32)
    assert beyond(points, 0.3).tolist() == [True, True, False]


def test_ground_plane_finds_the_floor_and_leaves_the_box():
    points, count = floor_and_box()
    ground = ground_plane(points, GroundFilterConfig())
    assert ground[:count].mean() > 0.99
    assert not ground[count:].any()


@pytest.mark.parametrize(("height", "slope"), [(0.5, 0.0), (0.0, 0.5)])
def test_plane_that_is_too_high_or_too_steep_is_no_ground(height, slope):
    points, _ = floor_and_box(height, slope)
    assert ground_plane(points, GroundFilterConfig()).sum() < 0.2 * len(points)


def test_table_above_the_floor_is_passed_over_for_the_floor():
    rng = np.random.default_rng(1)
    table = np.column_stack([rng.uniform(-1, 1, (4000, 2)), np.full(4000, 0.7)])
    floor = np.column_stack([rng.uniform(-1, 1, (1000, 2)), np.zeros(1000)])
    ground = ground_plane(np.concatenate([table, floor]).astype(np.float32), GroundFilterConfig())
    assert not ground[:4000].any()
    assert ground[4000:].all()


def test_few_points_have_no_ground():
    assert not ground_plane(np.zeros((49, 3), np.float32), GroundFilterConfig()).any()
