# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from perception.simulation.lidar import RANGE, SENSOR_HEIGHT, synthetic_lidar_scans


def test_scan_has_the_size_of_a_64_beam_lidar_and_reaches_far():
    points, origin = next(synthetic_lidar_scans(1))
    distance = np.linalg.norm(points - origin, axis=1)
    assert 60_000 < len(points) <= 64 * 2048
    assert 70 < distance.max() < RANGE + 0.2


def test_lowest_beam_meets_the_ground_where_geometry_says():
    points, origin = next(synthetic_lidar_scans(1, noise=0.0))
    ground = points[np.abs(points[:, 2]) < 1e-4]
    nearest = np.linalg.norm(ground[:, :2] - origin[:2], axis=1).min()
    assert nearest == pytest.approx(SENSOR_HEIGHT / np.tan(np.radians(25.0)), rel=1e-3)


def test_same_seed_gives_the_same_scans():
    first, second = (list(synthetic_lidar_scans(2, seed=3)) for _ in range(2))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0][0], first[1][0])
