# SPDX-License-Identifier: Apache-2.0
"""Instance masks as label images, so that a detector with masks can label the cloud in a segmenter's place."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.labels import UNLABELED
from perception.models.base import MIN_CONFIDENCE, Detector, check_image
from perception.models.detector_base import DetectorOptions
from perception.models.options import ModelOptions
from perception.models.torchvision_detectors import TORCHVISION_DETECTORS
from perception.types import Detections, LabelImage


def label_image_of(detections: Detections, size: tuple[int, int], background: LabelImage | None = None) -> LabelImage:
    """Paint instance masks, the surest on top.

    Args:
        detections: with masks.
        size: (H, W) of the image.
        background: labels elsewhere, of that size; its label set stays, and classes that it lacks by name are not
            painted. None: no label elsewhere, and the detections' label set.

    Returns:
        Labels with the score of the object as confidence.

    Raises:
        InputError: there are no masks, or sizes differ.
    """
    if background is None:
        labels, confidence = np.full(size, UNLABELED, np.int32), np.full(size, MIN_CONFIDENCE, np.float32)
        label_set = detections.label_set
    else:
        labels, confidence = background.labels.astype(np.int32), background.confidence.copy()
        label_set = background.label_set
    if labels.shape != size:
        raise InputError(f"background: expected labels {size}, got {labels.shape}")
    if detections.masks is None:
        raise InputError("detections: expected instance masks, got boxes only; use a network with masks")
    if detections.masks.shape[1:] != size:
        raise InputError(f"masks: expected {size} as the image, got {detections.masks.shape[1:]}")
    ids = {label.name: label.id for label in label_set.classes}
    for index in np.argsort(detections.scores, kind="stable"):
        label = ids.get(detections.label_set.name_of(int(detections.labels[index])))
        if label is not None:
            mask = detections.masks[index]
            labels[mask], confidence[mask] = label, detections.scores[index]
    return LabelImage(labels, confidence, label_set)


class InstanceSegmenter:
    """A detector with masks as a segmenter: pixels of no object have no label.

    Args:
        detector: gives detections with masks.
    """

    def __init__(self, detector: Detector) -> None:
        self.name = detector.name
        self.device = detector.device
        self.label_set = detector.label_set
        self._detector = detector

    def __call__(self, rgb: NDArray[np.uint8]) -> LabelImage:
        """Label an (H, W, 3) uint8 RGB image; raises InputError as :func:`label_image_of` does."""
        check_image(rgb)
        return label_image_of(self._detector(rgb), (rgb.shape[0], rgb.shape[1]))

    def warm_up(self) -> None:
        """The detector's."""
        self._detector.warm_up()


def build_instance_segmenter(architecture: str, options: ModelOptions) -> InstanceSegmenter:
    """One of torchvision's detectors that have masks, as a segmenter; raises as that detector's builder."""
    return InstanceSegmenter(TORCHVISION_DETECTORS[architecture](DetectorOptions(**vars(options))))


INSTANCE_SEGMENTERS = {
    name: partial(build_instance_segmenter, name) for name in TORCHVISION_DETECTORS if name.startswith("maskrcnn")
}
