# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import numpy as np
import pytest

from perception.evaluation.readback import LabelReadback
from perception.geometry import Transform
from perception.labels import LabelClass, LabelSet

SET = LabelSet("two", (LabelClass(0, "wall", (9, 9, 9)), LabelClass(1, "chair", (8, 8, 8))))


class Map:
    """Says wall everywhere, and has only what is left of x = 1 as occupied."""

    def label_of(self, points):
        return np.zeros(len(points), np.int32)

    def log_odds(self, points):
        return np.where(points[:, 0] < 1, 1.0, -1.0)


def result(count=4):
    points = np.zeros((count, 3), np.float32)
    points[:, 0] = np.arange(count)
    cloud = SimpleNamespace(pixels=np.arange(count), points=points)
    return SimpleNamespace(cloud=cloud, frame=SimpleNamespace(map_T_camera=Transform.identity()))


def test_map_and_images_are_compared_on_the_same_pixels():
    readback = LabelReadback(Map())
    readback.add(result(), np.array([[0, 0], [0, 1]]), predicted=np.array([[0, 1], [1, 1]]))
    found = readback.summary(SET)
    assert (found["pixels"], found["frames"]) == (4, 1)
    assert found["agreement"] == pytest.approx(3 / 4)
    assert found["agreement_occupied"] == pytest.approx(1 / 4)
    assert readback.single_frames(2).accuracy() == pytest.approx(2 / 4)


def test_long_runs_are_thinned_evenly_and_stay_comparable():
    readback = LabelReadback(Map(), max_points=20)
    for _ in range(100):
        readback.add(result(), np.zeros((2, 2), np.int32), predicted=np.ones((2, 2), np.int32))
        assert readback.frames * 4 <= 20
    found = readback.summary(SET)
    assert 2 <= found["frames"] == found["pixels"] // 4
    assert found["agreement"] == 1.0
    single = readback.single_frames(2)
    assert (single.total, single.accuracy()) == (found["pixels"], 0.0)
