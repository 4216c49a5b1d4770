# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import numpy as np
import pytest

from perception.evaluation.class_mapping import ClassMapping
from perception.evaluation.fusion_gain import FusionGain
from perception.geometry import Transform
from perception.labels import LabelClass, LabelSet

SET = LabelSet("two", (LabelClass(0, "wall", (9, 9, 9)), LabelClass(1, "chair", (8, 8, 8))))


class Map:
    """Knows one class everywhere."""

    def label_of(self, points):
        return np.zeros(len(points), np.int32)


def result():
    cloud = SimpleNamespace(pixels=np.arange(4), points=np.ones((4, 3), np.float32))
    return SimpleNamespace(cloud=cloud, frame=SimpleNamespace(map_T_camera=Transform.identity()))


def test_both_are_scored_on_the_same_pixels():
    gain = FusionGain(Map(), ClassMapping.build(SET, SET), step=1)
    gain.add(7, result(), np.array([[0, 0], [0, 1]]), np.array([[0, 1], [1, 1]]))
    gain.add(8, result(), np.full((2, 2), -1), np.zeros((2, 2), np.int32))
    found = gain.summary()
    assert found is not None
    assert found["pixels"] == 4
    assert found["single"]["pixel_accuracy"] == pytest.approx(2 / 4)
    assert found["single"]["mean_iou"] == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert found["fused"]["pixel_accuracy"] == pytest.approx(3 / 4)
    assert found["fused"]["mean_iou"] == pytest.approx((3 / 4 + 0) / 2)
    assert gain.by_frame == {7: {"single_accuracy": 0.5, "fused_accuracy": 0.75, "fused_mean_iou": 0.375}}


def remembered(indices, limit=5):
    gain = FusionGain(Map(), ClassMapping.build(SET, SET), step=1, max_points=4 * limit)
    for index in indices:
        gain.add(index, result(), np.zeros((2, 2), np.int32), np.zeros((2, 2), np.int32))
    found = gain.summary()
    assert found is not None and found["frames"] == len(gain.by_frame) <= limit
    return list(gain.by_frame)


def test_memory_is_bounded_on_long_runs():
    # Multiples of 0.618034 whose fraction is below 1 / 32: 34 has 0.0132, 68 0.0263, 89 0.0050.
    assert remembered(range(100)) == [0, 34, 68, 89]


def test_runs_that_lost_different_frames_remember_the_same_ones():
    assert remembered(range(1, 100)) == [34, 68, 89]
    assert set(remembered(sorted({*range(100)} - {3, 40, 41, 68}))) == {0, 34, 89}


@pytest.mark.parametrize("first", range(8))
def test_true_labels_of_every_eighth_frame_are_enough(first):
    assert len(remembered(range(first, 8000, 8), limit=100)) >= 40
