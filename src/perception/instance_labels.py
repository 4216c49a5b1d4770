# SPDX-License-Identifier: Apache-2.0
"""Masks of single objects as one label image, so that they reach the map as a segmentation does."""

from __future__ import annotations

import numpy as np

from perception.errors import InputError
from perception.labels import UNLABELED
from perception.types import Detections, LabelImage

MAX_CONFIDENCE = 0.99


def label_image_from_masks(detections: Detections) -> LabelImage:
    """Paint the masks of objects into a label image; where they overlap, the surest object wins.

    Args:
        detections: objects with masks.

    Returns:
        (H, W) labels, −1 on no object, with the objects' scores as confidence.

    Raises:
        InputError: the detections have no masks.
    """
    if detections.masks is None:
        raise InputError("instance labels: expected detections with masks, got boxes alone")
    size = detections.masks.shape[1:]
    labels, confidence = np.full(size, UNLABELED, np.int32), np.zeros(size, np.float32)
    for index in np.argsort(detections.scores, kind="stable"):
        mask = detections.masks[index]
        labels[mask] = detections.labels[index]
        confidence[mask] = min(float(detections.scores[index]), MAX_CONFIDENCE)
    return LabelImage(labels, confidence, detections.label_set)
