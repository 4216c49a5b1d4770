# SPDX-License-Identifier: Apache-2.0
"""What a user may choose about a detector, and the checks that every detector's answer passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.labels import LabelSet
from perception.models.base import MAX_CONFIDENCE, MIN_CONFIDENCE
from perception.models.options import ModelOptions
from perception.types import Detections


@dataclass(frozen=True)
class DetectorOptions(ModelOptions):
    """Options of :func:`perception.models.create_detector`, besides those of all networks.

    Attributes:
        score_threshold: objects below this score are dropped.
        iou_threshold: of two boxes of one class that overlap by more than this, the less sure one is dropped.
        max_detections: the surest ones are kept.
        classes: names of the classes that are kept; empty keeps all.
    """

    score_threshold: float = 0.3
    iou_threshold: float = 0.45
    max_detections: int = 100
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("score_threshold", "iou_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        if self.max_detections < 1:
            raise InputError(f"max_detections: expected at least 1, got {self.max_detections}")

    def wanted(self, label_set: LabelSet) -> NDArray[np.bool_]:
        """(num_classes,) bool: which ids are kept; raises InputError for a name that the set lacks."""
        if not self.classes:
            return np.ones(label_set.num_classes, np.bool_)
        table = np.zeros(label_set.num_classes, np.bool_)
        table[[label_set[name].id for name in self.classes]] = True
        return table


def checked_detections(
    boxes: Any,
    scores: Any,
    labels: Any,
    label_set: LabelSet,
    size: tuple[int, int],
    name: str,
    options: DetectorOptions,
    masks: Any = None,
    keypoints: Any = None,
) -> Detections:
    """What a network says, as Detections, if it may be believed.

    Args:
        boxes: (N, 4) left, top, right, bottom in pixels; cut at the image's edges here.
        scores: (N,) 0 … 1; 0 and 1 become the nearest float32 inside.
        labels: (N,) integer ids of the label set.
        label_set: what the ids mean.
        size: (height, width) of the image.
        name: of the network, for the message.
        options: which are kept.
        masks: (N, height, width) bool, or None.
        keypoints: (N, K, 3) x, y in pixels and score, or None.

    Returns:
        The wanted ones in descending order of score; boxes of no size are dropped.

    Raises:
        InputError: wrong shapes or types, unknown ids, scores that are no probabilities, or numbers that are not
            finite.
    """
    boxes, scores, labels = np.asarray(boxes), np.asarray(scores), np.asarray(labels)
    _check_answer(boxes, scores, labels, name)
    label_set.check_ids(labels, f"network {name}")
    height, width = size
    edges = np.array([width, height, width, height], np.float32)
    clipped = np.clip(boxes.astype(np.float32), 0, edges)
    kept = (scores >= options.score_threshold) & (clipped[:, 2:] > clipped[:, :2]).all(1)
    kept &= (labels >= 0) & options.wanted(label_set)[labels]
    best = np.flatnonzero(kept)
    best = best[np.argsort(-scores[best], kind="stable")][: options.max_detections]
    return Detections(
        clipped[best],
        np.clip(scores[best], MIN_CONFIDENCE, MAX_CONFIDENCE).astype(np.float32),
        labels[best].astype(np.int32),
        label_set,
        None if masks is None else _checked_masks(masks, (len(scores), *size), name)[best],
        None if keypoints is None else _checked_keypoints(keypoints, len(scores), name)[best],
    )


def _check_answer(boxes: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any], name: str) -> None:
    count = len(scores) if scores.ndim else -1
    if scores.shape != (count,) or boxes.shape != (count, 4) or labels.shape != (count,):
        raise InputError(
            f"network {name}: expected boxes (N, 4), scores (N,) and labels (N,), "
            f"got {boxes.shape}, {scores.shape} and {labels.shape}"
        )
    kinds = (boxes.dtype.kind in "fiu", scores.dtype.kind == "f", labels.dtype.kind in "iu")
    if not all(kinds):
        raise InputError(
            f"network {name}: expected boxes of numbers, floating point scores and integer labels, "
            f"got {boxes.dtype}, {scores.dtype} and {labels.dtype}"
        )
    if not np.isfinite(boxes).all():
        raise InputError(f"network {name}: expected finite boxes, got NaN or infinity")
    if count and not (scores.min() >= 0 and scores.max() <= 1):
        raise InputError(f"network {name}: expected scores from 0 to 1, got NaN or numbers outside")


def _checked_masks(masks: Any, shape: tuple[int, ...], name: str) -> NDArray[np.bool_]:
    masks = np.asarray(masks)
    if masks.shape != shape or masks.dtype != np.bool_:
        raise InputError(f"network {name}: expected masks {shape} bool, got {masks.shape} {masks.dtype}")
    return masks


def _checked_keypoints(keypoints: Any, count: int, name: str) -> NDArray[np.float32]:
    keypoints = np.asarray(keypoints)
    if keypoints.ndim != 3 or len(keypoints) != count or keypoints.shape[2] != 3:
        raise InputError(f"network {name}: expected keypoints ({count}, K, 3), got {keypoints.shape}")
    if keypoints.dtype.kind != "f" or not np.isfinite(keypoints).all():
        raise InputError(f"network {name}: expected finite floating point keypoints, got {keypoints.dtype}")
    return keypoints.astype(np.float32)
