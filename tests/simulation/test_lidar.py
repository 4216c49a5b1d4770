# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from perception.simulation.lidar import RANGE, SENSOR_HEIGHT, synthetic_lidar_scans


@pytest.fixture(scope="module")
def scans():
    return list(synthetic_lidar_scans(2, seed=3))


def test_scan_has_the_size_of_a_64_beam_lidar_and_reaches_far(scans):
    points, origin = scans[0]
    distance = np.linalg.norm(points - origin, axis=1)
    assert 60_000 < len(points) <= 64 * 2048
    assert 70 < distance.max() < RANGE + 0.2


def test_lowest_beam_meets_the_ground_where_geometry_says():
    points, origin = next(synthetic_lidar_scans(1, noise=0.0))
    ground = points[np.abs(points[:, 2]) < 1e-4]
    nearest = np.linalg.norm(ground[:, :2] - origin[:2], axis=1).min()
    assert nearest == pytest.approx(SENSOR_HEIGHT / np.tan(np.radians(25.0)), rel=1e-3)


def test_same_seed_gives_the_same_scans_and_every_place_another(scans):
    again, _ = next(synthetic_lidar_scans(1, seed=3))
    assert np.array_equal(scans[0][0], again)
    assert not np.array_equal(scans[0][0], scans[1][0])
