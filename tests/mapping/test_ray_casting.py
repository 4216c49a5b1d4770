# SPDX-License-Identifier: Apache-2.0
"""Rays end where OctoMap's castRay ends them, in every bit."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from perception.errors import InputError
from perception.mapping import FREE, HIT, OUTSIDE, UNKNOWN, SemanticOcTree, SensorModel

spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)

WALLS = np.array([2.0, 1.5, 1.0])


@pytest.fixture(scope="module")
def mapped():
    """A box with holes in its walls, in our map and in OctoMap's."""
    rng = np.random.default_rng(0)
    tree, judge = oracle.make_pair(0.1, SensorModel(max_range=5.0))
    for _ in range(3):
        points, axis = rng.uniform(-WALLS, WALLS, (3000, 3)), rng.integers(0, 3, 3000)
        points[np.arange(3000), axis] = rng.choice([-1, 1], 3000) * WALLS[axis]
        oracle.insert_both(tree, judge, points, rng.uniform(-0.5, 0.5, 3))
    return tree, judge


def judged(judge, origins, ways, max_range, ignore_unknown):
    """Whether OctoMap hits something, and where."""
    hit, ends = np.zeros(len(ways), bool), np.full((len(ways), 3), np.nan, np.float32)
    for i, (origin, way) in enumerate(zip(origins, ways, strict=True)):
        end = np.zeros(3)
        hit[i] = judge.castRay(origin, way, end, ignoreUnknownCells=ignore_unknown, maxRange=max_range)
        if hit[i]:
            ends[i] = end
    return hit, ends


@pytest.mark.parametrize("ignore_unknown", [True, False])
@pytest.mark.parametrize("max_range", [-1.0, 0.0, 0.7, 1.83, 3.0, 6.0])
def test_rays_hit_what_octomap_hits_bit_for_bit(mapped, max_range, ignore_unknown):
    tree, judge = mapped
    rng = np.random.default_rng(int(10 * max_range) + 20)
    ways = rng.normal(size=(300, 3))
    # Along axes and diagonals borders are met at the same time: the order of axes decides.
    ways[::7] = rng.integers(-1, 2, (len(ways[::7]), 3))
    ways[np.abs(ways).sum(axis=1) == 0] = [0, 0, 1]
    origins = rng.uniform(-1.2, 1.2, ways.shape)
    origins[::5] = np.round(origins[::5], 1)
    origins[::11] *= 2
    hits = tree.cast_rays(origins, ways, max_range, ignore_unknown)
    hit, ends = judged(judge, origins, ways, max_range, ignore_unknown)
    np.testing.assert_array_equal(hits.hit, hit)
    np.testing.assert_array_equal(hits.points[hit], ends[hit])
    assert hit.any() and not hit.all()


def test_many_rays_on_two_threads_equal_single_ones(mapped):
    tree, _ = mapped
    rng = np.random.default_rng(1)
    ways, origins = rng.normal(size=(30_000, 3)), rng.uniform(-1, 1, (30_000, 3))
    hits = tree.cast_rays(origins, ways, 4.0, ignore_unknown=True)
    for i in range(0, len(ways), 997):
        one = tree.cast_rays(origins[i], ways[i : i + 1], 4.0, ignore_unknown=True)
        assert one.states[0] == hits.states[i]
        np.testing.assert_array_equal(one.points[0], hits.points[i])


def test_the_four_ways_in_which_a_ray_ends():
    tree = SemanticOcTree(0.1, SensorModel(max_range=5.0))
    tree.insert_cloud([[1.05, 0.05, 0.05]], [0.05, 0.05, 0.05])
    hits = tree.cast_rays([0.05, 0.05, 0.05], [[1, 0, 0], [1, 0, 0.2], [-1, 0, 0], [1, 0, 0]], 5.0)
    assert hits.states.tolist() == [HIT, UNKNOWN, UNKNOWN, HIT]
    np.testing.assert_allclose(hits.distances[0], 1.0, rtol=1e-6)
    # The centers at 0.95 and 1.05 lie 0.9 and 1.0 from the origin.
    short = tree.cast_rays([0.05, 0.05, 0.05], [[1, 0, 0]], 0.95)
    assert short.states.tolist() == [FREE]
    np.testing.assert_allclose(short.points, [[0.95, 0.05, 0.05]], rtol=1e-6)
    away = tree.cast_rays([0.05, 0.05, 0.05], [[-1, 0, 0]], -1.0, ignore_unknown=True)
    assert away.states.tolist() == [OUTSIDE]
    np.testing.assert_allclose(away.points, [[-3276.75, 0.05, 0.05]])
    assert tree.cast_rays([1e6, 0, 0], [[1, 0, 0]], 5.0).states.tolist() == [OUTSIDE]


@pytest.mark.filterwarnings("error")
def test_directions_of_any_length_mean_the_same(mapped):
    tree, _ = mapped
    ways = np.random.default_rng(2).normal(size=(50, 3))
    near = tree.cast_rays([0.1, 0.2, 0.3], ways, 4.0, True)
    for scale in (1e-30, 1e-3, 1e30):
        other = tree.cast_rays([0.1, 0.2, 0.3], ways * scale, 4.0, True)
        np.testing.assert_array_equal(other.states, near.states)
        np.testing.assert_allclose(other.points, near.points, atol=0.2)
    for bad in ([0, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0]):
        with pytest.raises(InputError, match="directions with a length"):
            tree.cast_rays([0, 0, 0], [bad], 1.0)
