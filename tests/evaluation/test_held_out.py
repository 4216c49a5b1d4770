# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from perception.config import OctomapConfig
from perception.evaluation.held_out import HeldOutScans
from perception.geometry import Transform
from perception.types import LabeledCloud


def cloud_of(points):
    points = np.array(points, np.float32).reshape(-1, 3)
    count = len(points)
    return LabeledCloud(
        points,
        np.zeros((count, 3), np.uint8),
        np.full(count, -1, np.int32),
        np.zeros(count, np.float32),
        np.zeros((0, 3), np.float32),
        np.arange(count, dtype=np.int32),
        0,
        "camera",
    )


AT_ORIGIN = Transform.from_translation_quaternion((0.05, 0.05, 0.05), (0, 0, 0, 1))
CONFIG = OctomapConfig(resolution=0.1)


def test_scan_like_the_map_is_predicted_in_every_voxel():
    scans = HeldOutScans(CONFIG, every=2)
    for _ in range(2):
        scans.add(cloud_of([[1.0, 0, 0]]), AT_ORIGIN)
    result = scans.summary()
    assert result is not None
    # Ten voxels before the one with the point.
    assert (result["scans"], result["voxels"]) == (1, 11)
    assert result["accuracy"] == result["occupied_accuracy"] == result["free_accuracy"] == 1.0
    assert result["unknown_share"] == 0.0


def test_shares_of_a_scan_that_ends_elsewhere_equal_hand_computed_values():
    scans = HeldOutScans(CONFIG, every=2)
    scans.add(cloud_of([[0.5, 0, 0]]), AT_ORIGIN)
    scans.add(cloud_of([[1.0, 0, 0]]), AT_ORIGIN)
    result = scans.summary()
    assert result is not None
    # Of ten free voxels the map has five free, one occupied and four unknown; the end is unknown, too.
    assert result["free_accuracy"] == pytest.approx(5 / 6)
    assert result["occupied_accuracy"] is None
    assert result["unknown_share"] == pytest.approx(5 / 11)


def test_only_every_nth_scan_is_kept_out_and_memory_is_bounded():
    scans = HeldOutScans(CONFIG, every=2, max_voxels=40)
    for _ in range(20):
        scans.add(cloud_of([[1.0, 0, 0]]), AT_ORIGIN)
    result = scans.summary()
    assert result is not None
    assert result["scans"] <= 4 and result["voxels"] <= 44


def test_too_few_scans_give_no_score():
    scans = HeldOutScans(CONFIG, every=5)
    scans.add(cloud_of([[1.0, 0, 0]]), AT_ORIGIN)
    assert scans.summary() is None
