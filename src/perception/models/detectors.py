# SPDX-License-Identifier: Apache-2.0
"""Detectors by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.config import DetectionConfig
from perception.errors import InputError
from perception.labels import LabelSet
from perception.models.base import Detector, check_image, chosen_input_size
from perception.models.detector_base import DetectorOptions, checked_detections
from perception.models.torchvision_detectors import TORCHVISION_DETECTORS
from perception.models.user import UserNetwork, load_user_network
from perception.models.yolox_detector import build_yolox_detector
from perception.types import Detections

DETECTORS: dict[str, Callable[[DetectorOptions], Detector]] = {
    "default": build_yolox_detector,
    "yolox_nano": build_yolox_detector,
    **TORCHVISION_DETECTORS,
}
"""Name → builder. Programs may add their own."""


def create_detector(name: str = "default", device: str = "auto", **options: Any) -> Detector:
    """Make a detector.

    Args:
        name: a key of ``DETECTORS``, or ``package.module:function`` for a network of your own: it is called with the
            keyword argument ``device`` and returns something with a ``label_set`` that takes an (H, W, 3) uint8 RGB
            image and gives Detections or (boxes, scores, labels).
        device: "auto", "cpu", "cuda" or "cuda:N".
        options: other fields of :class:`perception.models.detector_base.DetectorOptions`: backend, weights, labels,
            input_size, num_threads, download, score_threshold, iou_threshold, max_detections, classes.

    Raises:
        InputError: unknown name or option, or a file that does not fit.
        MissingDependencyError: a library is not installed; the message names the extra.
        PerceptionError: weights are found nowhere.
    """
    known = [item.name for item in fields(DetectorOptions)]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise InputError(f"create_detector: unknown options {unknown}; expected some of {known}")
    chosen = DetectorOptions(device=device, **options)
    if name in DETECTORS:
        return DETECTORS[name](chosen)
    if ":" in name:
        return UserDetector(name, *load_user_network(name, chosen), chosen)
    raise InputError(f"network {name!r}: expected one of {sorted(DETECTORS)} or package.module:function")


def detector_from_config(config: DetectionConfig) -> Detector:
    """The detector that the configuration asks for.

    Raises:
        InputError: only one of input_width and input_height is given, and as :func:`create_detector`.
    """
    return create_detector(
        config.model,
        config.device,
        backend=config.backend,
        weights=config.weights,
        labels=config.labels,
        input_size=chosen_input_size(config),
        num_threads=config.num_threads,
        score_threshold=config.score_threshold,
        iou_threshold=config.iou_threshold,
        max_detections=config.max_detections,
        classes=tuple(name.strip() for name in config.classes.split(",") if name.strip()),
    )


class UserDetector(UserNetwork):
    """Checks what goes into and comes out of a user's callable; it gives Detections or (boxes, scores, labels).

    Args:
        name: its specification.
        device: that it was asked to run on.
        predict: the callable; takes (H, W, 3) uint8 RGB.
        label_set: what its labels mean.
        options: which objects are kept; overlapping ones are the callable's own business.
    """

    def __init__(
        self,
        name: str,
        device: str,
        predict: Callable[[Any], Any],
        label_set: LabelSet,
        options: DetectorOptions | None = None,
    ) -> None:
        super().__init__(name, device, predict, label_set)
        self.options = options or DetectorOptions()

    def __call__(self, rgb: NDArray[np.uint8]) -> Detections:
        """Find objects in an (H, W, 3) uint8 RGB image; raises InputError for a wrong image or a wrong answer."""
        check_image(rgb)
        answer, masks, keypoints = self._predict(rgb), None, None
        if isinstance(answer, Detections):
            if answer.label_set != self.label_set:
                raise InputError(
                    f"network {self.name}: expected labels of set {self.label_set.name!r}, "
                    f"got Detections of another set, {answer.label_set.name!r}"
                )
            boxes, scores, labels = answer.boxes, answer.scores, answer.labels
            masks, keypoints = answer.masks, answer.keypoints
        elif isinstance(answer, tuple) and len(answer) == 3:
            boxes, scores, labels = answer
        else:
            raise InputError(
                f"network {self.name}: expected Detections or (boxes, scores, labels), got {type(answer).__name__}"
            )
        size = (rgb.shape[0], rgb.shape[1])
        return checked_detections(
            boxes, scores, labels, self.label_set, size, self.name, self.options, masks, keypoints
        )
