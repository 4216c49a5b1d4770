# SPDX-License-Identifier: Apache-2.0
"""How right a run was, against a recording's own labels: single images, and the map that fuses them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.readback import LabelReadback
from perception.evaluation.segmentation import ConfusionMatrix
from perception.labels import UNLABELED, LabelSet
from perception.types import LabelImage

PIXEL_STEP = 8
"""Of a network's pixels every so many are asked for in the map."""


class TruthScores:
    """Compares a run with the labels that its frames bring.

    A class of the truth counts where the map's label set has one of the same name.

    Args:
        tree: the map.
        label_set: what the map's labels mean; None: nothing is compared.
        truth_set: what the recording's labels mean; None: it has none.
        given: the recording's labels went into the map, so that only what it says afterwards is of interest.
    """

    def __init__(self, tree: Any, label_set: LabelSet | None, truth_set: LabelSet | None, given: bool) -> None:
        ids = {label.name: label.id for label in label_set.classes} if label_set else {}
        names = [label.name for label in truth_set.classes] if truth_set else []
        self._table = np.array([ids.get(name, UNLABELED) for name in names] + [UNLABELED], np.int32)
        self._label_set = label_set if (self._table >= 0).any() else None
        self._given = given
        count = label_set.num_classes if label_set else 1
        self._images = ConfusionMatrix(count)
        self._readback = LabelReadback(tree)
        self._by_frame: list[float] = []

    def add(self, truth: LabelImage | None, result: Any) -> None:
        """Count a frame: its true labels, None where it has none, and what came of it."""
        if truth is None or self._label_set is None:
            return
        true = self._table[truth.labels]
        if self._given:
            self._readback.add(result, true)
            return
        if result.labels is None:
            return
        self._images.add(true, result.labels.labels)
        frame = ConfusionMatrix(self._label_set.num_classes)
        pixels = self._readback.add(result, true, PIXEL_STEP, result.labels.labels)
        frame.add(true.ravel()[pixels], result.labels.labels.ravel()[pixels])
        self._by_frame.append(frame.accuracy())

    def summary(self) -> dict[str, Any] | None:
        """What ``result.json`` says of the truth; None where there was none.

        ``readback`` is the map's part. Of a network's labels there are also ``pixel_accuracy`` and ``mean_iou`` of
        all pixels, ``single_frames`` with both for the pixels that readback asks for, so that the two can be compared,
        and ``by_frame`` with the frames' accuracies before fusion.
        """
        if self._label_set is None or not self._readback.frames:
            return None
        readback = self._readback.summary(self._label_set)
        if self._given:
            return {"readback": readback}
        pixels = self._readback.single_frames(self._label_set.num_classes)
        single = {"agreement": round(pixels.accuracy(), 5), "mean_iou": round(pixels.mean_iou(), 5)}
        return {
            "pixel_accuracy": self._images.accuracy(),
            "mean_iou": self._images.mean_iou(),
            "single_frames": single,
            "readback": readback,
            "by_frame": [None if np.isnan(value) else round(value, 4) for value in self._by_frame],
        }


def spread(values: list[float | None]) -> NDArray[np.float64]:
    """Least, median and largest of the values that are there; NaN where none is."""
    known = [value for value in values if value is not None]
    return np.percentile(known, [0, 50, 100]) if known else np.full(3, np.nan)
