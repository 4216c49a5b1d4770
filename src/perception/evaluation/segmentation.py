# SPDX-License-Identifier: Apache-2.0
"""Scores of labels against the truth.

Source of the definitions: Long, Shelhamer, Darrell, Fully Convolutional Networks for Semantic Segmentation, 2015,
section 5 (pixel accuracy, mean accuracy, mean and frequency-weighted intersection over union).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError


class ConfusionMatrix:
    """Counts of (true class, predicted class) pairs, summed over any number of images.

    Args:
        num_classes: ids 0 … num_classes − 1. A prediction outside of them (−1: no label) counts as wrong; a truth
            outside of them is not counted.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes + 1), np.int64)

    def add(self, truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Count two label arrays of the same shape; raises InputError when the shapes differ."""
        if truth.shape != predicted.shape:
            raise InputError(f"predicted labels: expected {truth.shape} as the truth, got {predicted.shape}")
        counted = (truth >= 0) & (truth < self.num_classes)
        rows = truth[counted].astype(np.int64)
        columns = predicted[counted].astype(np.int64)
        columns = np.where((columns >= 0) & (columns < self.num_classes), columns, self.num_classes)
        width = self.num_classes + 1
        self.counts += np.bincount(rows * width + columns, minlength=self.counts.size).reshape(self.counts.shape)

    @property
    def total(self) -> int:
        """Number of counted pixels."""
        return int(self.counts.sum())

    def accuracy(self) -> float:
        """Share of counted pixels whose prediction is right; NaN when nothing was counted."""
        return float(np.trace(self.counts[:, :-1])) / self.total if self.total else float("nan")

    def iou(self) -> NDArray[np.float64]:
        """(num_classes,) intersection over union, NaN for classes in neither truth nor prediction."""
        hit = np.diag(self.counts[:, :-1]).astype(np.float64)
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - hit
        with np.errstate(invalid="ignore"):
            return hit / union

    def mean_iou(self) -> float:
        """Mean of :meth:`iou` over the classes that occur in the truth."""
        present = self.counts.sum(axis=1) > 0
        return float(self.iou()[present].mean()) if present.any() else float("nan")

    def class_accuracy(self) -> NDArray[np.float64]:
        """(num_classes,) share of each true class's pixels that are right (recall), NaN where there is none."""
        return _share(np.diag(self.counts[:, :-1]), self.counts.sum(axis=1))

    def precision(self) -> NDArray[np.float64]:
        """(num_classes,) share of the pixels predicted as a class that are it, NaN for classes never predicted."""
        return _share(np.diag(self.counts[:, :-1]), self.counts[:, :-1].sum(axis=0))

    def mean_accuracy(self) -> float:
        """Mean of :meth:`class_accuracy` over the classes that occur in the truth."""
        present = self.counts.sum(axis=1) > 0
        return float(self.class_accuracy()[present].mean()) if present.any() else float("nan")

    def frequency_weighted_iou(self) -> float:
        """:meth:`iou` weighted by how many true pixels each class has; NaN when nothing was counted."""
        true = self.counts.sum(axis=1)
        present = true > 0
        return float((self.iou()[present] * true[present]).sum() / self.total) if self.total else float("nan")


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return part.astype(np.float64) / whole
