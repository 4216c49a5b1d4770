# SPDX-License-Identifier: Apache-2.0
"""A detector that needs no library: red pixels are a chair."""

from __future__ import annotations

import numpy as np

from perception.labels import LabelSet


def build(device: str = "cpu"):
    """A callable as ``detection.model`` names it."""
    label_set = LabelSet.load("coco")

    def predict(rgb):
        rows, columns = np.nonzero((rgb[..., 0] > 200) & (rgb[..., 1] < 50))
        if not len(rows):
            return np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return np.array([box]), np.array([0.75]), np.array([label_set["chair"].id])

    predict.label_set = label_set
    return predict
