# SPDX-License-Identifier: Apache-2.0
"""How much of what the labels said is still said by the map: every pixel's voxel is asked for its label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.segmentation import ConfusionMatrix
from perception.labels import LabelSet


class LabelReadback:
    """Remembers where each pixel with depth went, and compares after the last frame.

    Points are kept (16 bytes per pixel) until :meth:`summary`, since later frames may change a voxel.

    Args:
        tree: the map that takes the frames in.
    """

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._points: list[NDArray[np.float32]] = []
        self._truth: list[NDArray[np.int32]] = []

    @property
    def frames(self) -> int:
        """How many frames were added."""
        return len(self._points)

    def add(self, result: Any, truth: NDArray[np.integer], step: int = 1) -> NDArray[np.integer]:
        """Note the points of one frame and the true labels of their pixels.

        Args:
            result: the frame's :class:`~perception.pipeline.FrameResult`.
            truth: (H, W) class ids; negative ones are not counted.
            step: only every so many points are asked for.

        Returns:
            The pixels that are asked for, as indices of the flat image.
        """
        pixels = result.cloud.pixels[::step]
        self._points.append(result.frame.map_T_camera.apply(result.cloud.points[::step]))
        self._truth.append(truth.ravel()[pixels].astype(np.int32))
        return pixels

    def summary(self, label_set: LabelSet) -> dict[str, Any]:
        """Agreement over all pixels with depth, by frame, and for occupied voxels only; and IoU by class."""
        matrix, occupied_matrix = ConfusionMatrix(label_set.num_classes), ConfusionMatrix(label_set.num_classes)
        occupied_count, by_frame = 0, []
        for points, truth in zip(self._points, self._truth, strict=True):
            read = self._tree.label_of(points)
            occupied = self._tree.log_odds(points) >= 0
            frame = ConfusionMatrix(label_set.num_classes)
            frame.add(truth, read)
            matrix.counts += frame.counts
            by_frame.append(frame.accuracy())
            # A voxel that OctoMap cleared holds no label for anyone who asks the map: it counts as missed.
            occupied_matrix.add(truth, np.where(occupied, read, -1))
            occupied_count += int(occupied.sum())
        return {
            "pixels": matrix.total,
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
