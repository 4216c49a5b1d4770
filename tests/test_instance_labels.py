# SPDX-License-Identifier: Apache-2.0
"""Masks of objects as one label image."""

from __future__ import annotations

import numpy as np
import pytest

from perception.errors import InputError
from perception.instance_labels import label_image_from_masks
from perception.labels import LabelSet
from perception.types import Detections

COCO = LabelSet.load("coco")


def detections(masks, scores, labels) -> Detections:
    count = len(scores)
    return Detections(
        np.zeros((count, 4), np.float32), np.array(scores, np.float32), np.array(labels, np.int64), COCO, masks
    )


def test_surest_object_wins_where_masks_overlap():
    masks = np.zeros((2, 2, 4), np.bool_)
    masks[0, :, :3], masks[1, :, 2:] = True, True
    painted = label_image_from_masks(detections(masks, [0.9, 0.5], [3, 7]))
    assert painted.labels.tolist() == [[3, 3, 3, 7]] * 2
    np.testing.assert_allclose(painted.confidence, [[0.9, 0.9, 0.9, 0.5]] * 2)
    assert painted.label_set is COCO


def test_image_without_objects_has_no_labels():
    painted = label_image_from_masks(detections(np.zeros((0, 3, 5), np.bool_), [], []))
    assert painted.labels.shape == (3, 5) and (painted.labels == -1).all() and not painted.confidence.any()


def test_certain_object_stays_below_certainty():
    painted = label_image_from_masks(detections(np.ones((1, 1, 1), np.bool_), [1.0], [0]))
    assert 0.98 < painted.confidence[0, 0] < 1


def test_boxes_without_masks_are_an_error():
    with pytest.raises(InputError, match="got boxes alone"):
        label_image_from_masks(detections(None, [0.5], [1]))
