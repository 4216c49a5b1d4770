# SPDX-License-Identifier: Apache-2.0
"""The occupancy equals OctoMap's discretised insertion: same voxels, same bits."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.mapping import SensorModel, insertion

spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)


@pytest.mark.parametrize("max_range", [-1.0, 2.0, 5.0])
@pytest.mark.parametrize("resolution", [0.05, 0.1, 0.2])
def test_random_scans(tmp_path, resolution, max_range):
    rng = np.random.default_rng(0)
    tree, judge = oracle.make_pair(resolution, SensorModel(max_range=max_range))
    for _ in range(4):
        oracle.insert_both(tree, judge, rng.normal(0, 2, (1500, 3)), rng.normal(0, 0.5, 3))
    assert oracle.assert_equal(tree, judge, tmp_path) > 1000


def test_points_and_origin_on_voxel_borders(tmp_path):
    rng = np.random.default_rng(0)
    tree, judge = oracle.make_pair(0.05, SensorModel(max_range=1.5))
    for _ in range(6):
        oracle.insert_both(tree, judge, rng.integers(-40, 40, (800, 3)) * 0.05, rng.integers(-4, 4, 3) * 0.05)
    oracle.assert_equal(tree, judge, tmp_path)


def test_axis_aligned_and_diagonal_rays(tmp_path):
    tree, judge = oracle.make_pair(0.1, SensorModel())
    ways = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3)
    for origin in ([0, 0, 0], [0.05, 0.05, 0.05], [-0.3, 0.2, 0.1]):
        oracle.insert_both(tree, judge, np.array(origin) + ways * 3.7, origin)
    oracle.assert_equal(tree, judge, tmp_path)


def test_long_rays_cut_on_voxel_borders(tmp_path):
    # With range and origin on the raster, cut rays end on borders, where OctoMap may miss the end voxel.
    tree, judge = oracle.make_pair(0.1, SensorModel(max_range=1.0))
    rng = np.random.default_rng(0)
    ways = np.concatenate([np.eye(3), -np.eye(3), rng.integers(-3, 4, (500, 3))])
    for origin in ([0, 0, 0], [0.05, 0, -0.1]):
        oracle.insert_both(tree, judge, np.array(origin) + ways[np.abs(ways).any(1)] * 20.0, origin)
    oracle.assert_equal(tree, judge, tmp_path)


def test_rays_of_more_voxels_than_are_told_apart_when_sorting(tmp_path):
    tree, judge = oracle.make_pair(0.01, SensorModel())
    rng = np.random.default_rng(0)
    for _ in range(2):
        points = np.column_stack([rng.uniform(6, 24, 600), rng.uniform(-0.3, 0.3, (600, 2))])
        oracle.insert_both(tree, judge, points, rng.uniform(-0.02, 0.02, 3))
    assert oracle.assert_equal(tree, judge, tmp_path) > 100_000


def test_origin_in_an_occupied_voxel_and_duplicate_points(tmp_path):
    tree, judge = oracle.make_pair(0.1, SensorModel())
    points = np.repeat(np.random.default_rng(0).normal(0, 1, (200, 3)), 5, axis=0)
    oracle.insert_both(tree, judge, np.concatenate([points, np.zeros((3, 3))]), [0.01, 0.02, 0.03])
    oracle.insert_both(tree, judge, points, points[7])
    oracle.assert_equal(tree, judge, tmp_path)


def test_saturated_voxels(tmp_path):
    rng = np.random.default_rng(0)
    tree, judge = oracle.make_pair(0.1, SensorModel(max_range=3.0))
    points = rng.normal(0, 2, (3000, 3))
    for _ in range(15):
        oracle.insert_both(tree, judge, points + rng.normal(0, 0.02, points.shape), [0.0, 0.0, 0.0])
    oracle.assert_equal(tree, judge, tmp_path)


def test_far_from_the_origin_and_at_the_edge_of_the_map(tmp_path):
    rng = np.random.default_rng(0)
    tree, judge = oracle.make_pair(0.1, SensorModel())
    edge = 0.1 * 32768
    oracle.insert_both(tree, judge, rng.uniform(edge - 4, edge + 1, (500, 3)), [edge - 3] * 3)
    oracle.insert_both(tree, judge, rng.uniform(-edge - 1, 4 - edge, (500, 3)), [3 - edge] * 3)
    oracle.assert_equal(tree, judge, tmp_path)


def test_points_that_cannot_be_used_are_dropped_and_counted(tmp_path):
    tree, judge = oracle.make_pair(0.1, SensorModel(max_range=5.0))
    points = np.array(
        [[1, 2, 3], [np.nan, 0, 0], [0, np.inf, 0], [0, 0, -np.inf], [1e30, 0, 0], [4000, 0, 0], [8, 0, 0], [1, 2, 3]]
    )
    report = oracle.insert_both(tree, judge, points, [0, 0, 0])
    assert (report.points, report.dropped_not_finite, report.dropped_out_of_map) == (8, 3, 2)
    assert (report.beyond_max_range, report.hits, report.used) == (1, 1, 2)
    oracle.assert_equal(tree, judge, tmp_path)


@pytest.mark.parametrize("max_range", [-1.0, 2.5])
def test_a_scan_split_by_space_gives_the_same_map(tmp_path, monkeypatch, max_range):
    monkeypatch.setattr(insertion, "MAX_CELLS", 1 << 15)
    rng = np.random.default_rng(0)
    tree, judge = oracle.make_pair(0.1, SensorModel(max_range=max_range))
    for _ in range(2):
        report = oracle.insert_both(tree, judge, rng.normal(0, 2, (1000, 3)), rng.normal(0, 0.5, 3))
        assert report.parts >= 8
    oracle.assert_equal(tree, judge, tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_scan(tmp_path, data):
    resolution = data.draw(st.sampled_from([0.01, 0.05, 0.3, 1.0]))
    steps = st.one_of(st.integers(-64, 64), st.floats(-64, 64, width=32))
    point = st.tuples(steps, steps, steps)
    max_range = data.draw(st.sampled_from([-1.0, 8.0, 20.0])) * resolution
    model = SensorModel(
        hit=data.draw(st.sampled_from([0.55, 0.7, 0.9])), max_range=max_range if max_range > 0 else -1.0
    )
    tree, judge = oracle.make_pair(resolution, model)
    for _ in range(2):
        points = np.array(data.draw(st.lists(point, min_size=1, max_size=30)), np.float64) * resolution
        oracle.insert_both(tree, judge, points, np.array(data.draw(point)) * resolution)
    oracle.assert_equal(tree, judge, tmp_path)
