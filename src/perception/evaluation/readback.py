# SPDX-License-Identifier: Apache-2.0
"""How much of what the labels said is still said by the map: every pixel's voxel is asked for its label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.segmentation import ConfusionMatrix
from perception.labels import LabelSet

MAX_POINTS = 8_000_000
"""Pixels that are remembered (20 bytes each); of longer runs every second frame is left away, and again."""


@dataclass(frozen=True, slots=True)
class _Sample:
    points: NDArray[np.float32]
    truth: NDArray[np.int32]
    predicted: NDArray[np.int32] | None


class LabelReadback:
    """Remembers where each pixel with depth went, and compares after the last frame, in bounded memory.

    Points are kept until :meth:`summary`, since later frames may change a voxel.

    Args:
        tree: the map that takes the frames in.
        max_points: bound of what is remembered.
    """

    def __init__(self, tree: Any, max_points: int = MAX_POINTS) -> None:
        self._tree, self._max_points = tree, max_points
        self._samples: list[_Sample] = []
        self._kept, self._added, self._every = 0, 0, 1

    @property
    def frames(self) -> int:
        """How many frames are remembered, evenly spread over those added."""
        return len(self._samples)

    def add(
        self,
        result: Any,
        truth: NDArray[np.integer],
        step: int = 1,
        predicted: NDArray[np.integer] | None = None,
    ) -> NDArray[np.integer]:
        """Note the points of one frame and the true labels of their pixels.

        Args:
            result: the frame's :class:`~perception.pipeline.FrameResult`.
            truth: (H, W) class ids; negative ones are not counted.
            step: only every so many points are asked for.
            predicted: (H, W) class ids before fusion, for :meth:`single_frames`.

        Returns:
            The pixels that are asked for, as indices of the flat image.
        """
        pixels = result.cloud.pixels[::step]
        if self._added % self._every == 0:
            points = result.frame.map_T_camera.apply(result.cloud.points[::step])
            said = None if predicted is None else predicted.ravel()[pixels].astype(np.int32)
            self._samples.append(_Sample(points, truth.ravel()[pixels].astype(np.int32), said))
            self._kept += len(pixels)
        self._added += 1
        while self._kept > self._max_points and len(self._samples) > 1:
            self._samples, self._every = self._samples[::2], 2 * self._every
            self._kept = sum(len(sample.truth) for sample in self._samples)
        return pixels

    def single_frames(self, num_classes: int) -> ConfusionMatrix:
        """What was said before fusion of the pixels that :meth:`summary` asks for."""
        matrix = ConfusionMatrix(num_classes)
        for sample in self._samples:
            if sample.predicted is not None:
                matrix.add(sample.truth, sample.predicted)
        return matrix

    def summary(self, label_set: LabelSet) -> dict[str, Any]:
        """Agreement over all pixels with depth, by frame, and for occupied voxels only; and IoU by class."""
        matrix, occupied_matrix = ConfusionMatrix(label_set.num_classes), ConfusionMatrix(label_set.num_classes)
        occupied_count, by_frame = 0, []
        for sample in self._samples:
            truth, read = sample.truth, self._tree.label_of(sample.points)
            occupied = self._tree.log_odds(sample.points) >= 0
            frame = ConfusionMatrix(label_set.num_classes)
            frame.add(truth, read)
            matrix.counts += frame.counts
            by_frame.append(frame.accuracy())
            # A voxel that OctoMap cleared holds no label for anyone who asks the map: it counts as missed.
            occupied_matrix.add(truth, np.where(occupied, read, -1))
            occupied_count += int(occupied.sum())
        return {
            "pixels": matrix.total,
            "frames": self.frames,
            "agreement": round(matrix.accuracy(), 5),
            "agreement_by_frame": [None if np.isnan(share) else round(share, 4) for share in by_frame],
            "agreement_occupied": round(occupied_matrix.accuracy(), 5),
            "mean_iou": round(matrix.mean_iou(), 5),
            "occupied_share": round(occupied_count / max(matrix.total, 1), 5),
            "iou": _by_name(matrix, label_set),
            "iou_occupied": _by_name(occupied_matrix, label_set),
        }


def _by_name(matrix: ConfusionMatrix, label_set: LabelSet) -> dict[str, float]:
    """IoU of the classes that were there or were seen."""
    iou = matrix.iou()
    return {label.name: round(float(iou[label.id]), 4) for label in label_set.classes if np.isfinite(iou[label.id])}
