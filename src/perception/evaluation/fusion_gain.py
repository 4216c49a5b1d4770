# SPDX-License-Identifier: Apache-2.0
"""What fusing images into a map gains: the labels of single images and of the finished map, on the same pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.class_mapping import ClassMapping
from perception.evaluation.segmentation import ConfusionMatrix

PIXEL_STEP = 8
"""Every so many pixels with depth are asked for."""
MAX_POINTS = 4_000_000
"""Pixels that are remembered (20 bytes each); of longer runs half of the frames are left away, again and again."""
GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class _Sample:
    index: int
    points: NDArray[np.float32]
    truth: NDArray[np.int32]
    predicted: NDArray[np.int32]


class FusionGain:
    """Remembers where pixels went and compares when the map is finished, in bounded memory.

    Args:
        tree: the map.
        mapping: to the classes in which is scored.
        step: every so many points of a cloud are asked for.
        max_points: bound of what is remembered.

    Attributes:
        by_frame: after :meth:`summary`, by number of the frame, ``single_accuracy`` and ``fused_accuracy`` of its
            pixels and ``fused_mean_iou``; only of frames that are remembered and have true labels.
    """

    def __init__(self, tree: Any, mapping: ClassMapping, step: int = PIXEL_STEP, max_points: int = MAX_POINTS) -> None:
        self._tree, self._mapping, self._step, self._max_points = tree, mapping, step, max_points
        self._samples: list[_Sample] = []
        self._every = 1
        self.by_frame: dict[int, dict[str, float]] = {}

    def add(self, index: int, result: Any, truth: NDArray[np.int32], predicted: NDArray[np.int32]) -> None:
        """Note pixels of a frame: its number and FrameResult, and (H, W) true and predicted ids as they are scored."""
        if not _kept(index, self._every):
            return
        pixels = result.cloud.pixels[:: self._step]
        points = result.frame.map_T_camera.apply(result.cloud.points[:: self._step])
        self._samples.append(_Sample(index, points, truth.ravel()[pixels], predicted.ravel()[pixels]))
        while sum(len(sample.truth) for sample in self._samples) > self._max_points and len(self._samples) > 1:
            self._every *= 2
            left = [sample for sample in self._samples if _kept(sample.index, self._every)]
            self._samples = left or self._samples[:1]

    def summary(self) -> dict[str, Any] | None:
        """Scores of ``single`` images and of the ``fused`` map on the same pixels; None when none was counted."""
        label_set = self._mapping.label_set
        single, fused = ConfusionMatrix(label_set.num_classes), ConfusionMatrix(label_set.num_classes)
        self.by_frame = {}
        for sample in self._samples:
            before, after = ConfusionMatrix(label_set.num_classes), ConfusionMatrix(label_set.num_classes)
            before.add(sample.truth, sample.predicted)
            after.add(sample.truth, self._mapping.scored_ids(self._tree.label_of(sample.points)))
            single.counts += before.counts
            fused.counts += after.counts
            if after.total:
                self.by_frame[sample.index] = {
                    "single_accuracy": before.accuracy(),
                    "fused_accuracy": after.accuracy(),
                    "fused_mean_iou": after.mean_iou(),
                }
        if not single.total:
            return None
        single_iou, fused_iou = single.iou(), fused.iou()
        return {
            "pixels": single.total,
            "frames": len(self._samples),
            "single": {"pixel_accuracy": single.accuracy(), "mean_iou": single.mean_iou()},
            "fused": {"pixel_accuracy": fused.accuracy(), "mean_iou": fused.mean_iou()},
            "classes": [
                {
                    "id": label.id,
                    "name": label.name,
                    "single_iou": float(single_iou[label.id]),
                    "fused_iou": float(fused_iou[label.id]),
                }
                for label in label_set.classes
                if single.counts[label.id].any()
            ],
        }


def _kept(index: int, every: int) -> bool:
    """Whether a frame is among the share 1 / every that is remembered.

    Its number alone decides, so that runs that lost different frames remember the same ones. Fractions of multiples of
    the golden ratio are spread evenly, and no stride misses them: true labels may be there for every n-th frame only.
    """
    return index * GOLDEN_RATIO % 1 < 1 / every
