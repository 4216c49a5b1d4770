# SPDX-License-Identifier: Apache-2.0
"""The figures are measured, named and judged; how fast the machine is, is not a test."""

from __future__ import annotations

import numpy as np
import pytest

from perception.evaluation import map_figures, map_growth
from perception.evaluation.map_figures import Figure
from perception.labels import LabelSet
from perception.mapping.benchmark import BenchmarkScan
from perception.simulation.box_house import SIZE, box_house, house_drive


@pytest.fixture(scope="module")
def scans():
    rng = np.random.default_rng(0)
    result = []
    for _ in range(3):
        points, axis = rng.uniform(-2, 2, (5000, 3)), rng.integers(0, 3, 5000)
        points[np.arange(5000), axis] = rng.choice([-2.0, 2.0], 5000)
        result.append(BenchmarkScan(points, rng.uniform(-0.5, 0.5, 3), axis, np.full(5000, 0.9)))
    return result


def test_upper_and_lower_bounds_are_met_on_their_own_side():
    assert Figure("time", 5.0, "ms", 5.0).met
    assert not Figure("time", 5.1, "ms", 5.0).met
    assert Figure("rate", 5.0, "MB/s", 5.0, at_least=True).met
    assert not Figure("rate", 4.9, "MB/s", 5.0, at_least=True).met
    assert Figure("time", 5.0, "ms", 5.0).as_dict()["met"] is True


def test_every_operation_of_a_map_gets_a_figure(scans, monkeypatch):
    monkeypatch.setattr(map_figures, "QUERY_POINTS", 2000)
    monkeypatch.setattr(map_figures, "PROBABILITY_POINTS", 500)
    monkeypatch.setattr(map_figures, "FILE_BYTES", 1)
    label_set = LabelSet.load("ade20k32")
    tree = map_figures.build_map(scans, 0.1, label_set.num_classes)
    figures = [
        *map_figures.query_figures(tree),
        *map_figures.ray_figures(tree, scans),
        *map_figures.message_figures(tree, label_set),
        *map_figures.file_figures(tree, label_set),
    ]
    assert len(figures) == 12
    assert len({figure.name for figure in figures}) == 12
    assert all(np.isfinite(figure.value) and figure.value > 0 and figure.how for figure in figures)


def test_random_points_are_half_in_occupied_voxels(scans):
    tree = map_figures.build_map(scans, 0.1, 3)
    points = map_figures.random_points(tree, 4000)
    share = (tree.log_odds(points) >= 0).mean()
    assert points.shape == (4000, 3) and 0.5 <= share < 0.75


def test_growth_is_measured_in_a_map_that_grows(scans):
    flat, stall = map_growth.flatness_figures(scans[0].points, scans[0].origin, 0.1, growth=3)
    first, last = (
        int(text.replace(",", "")) for text in flat.how.split("places, ")[1].split(" known")[0].split(" to ")
    )
    assert last == pytest.approx(3 * first, rel=0.01)
    assert np.isfinite([flat.value, stall.value]).all()


def test_the_costmap_of_a_house_that_is_explored_equals_its_rebuild():
    time, differing = map_growth.costmap_figures(0.1, stride=100)
    assert time.value > 0 and differing.value == 0 and differing.met


def test_a_sparse_scan_far_beyond_any_window_takes_little_memory():
    (figure,) = map_growth.far_scan_figures([(0.02, 300.0, 4)])
    assert figure.met and figure.bound == 200
    # It went through the map in many parts, and arrived.
    assert int(figure.how.split(" voxels in ")[1].split(" parts")[0].replace(",", "")) > 100
    assert int(figure.how.split("rays, ")[1].split(" voxels")[0].replace(",", "")) > 4 * 300 / 0.02 * 0.9


def test_the_drive_stays_inside_of_the_house_and_clear_of_its_boxes():
    house, drive = box_house(), house_drive()
    assert len(drive) > 1500
    assert (drive[:, :2] > 3).all() and (drive[:, :2] < SIZE - 3).all()
    steps = np.linalg.norm(np.diff(drive[:, :2], axis=0), axis=1)
    assert steps.max() < 0.06
    for box in house.boxes:
        outside = np.maximum(box.lower[:2] - drive[:, :2], drive[:, :2] - box.upper[:2]).max(axis=1)
        assert outside.min() > 0.3
