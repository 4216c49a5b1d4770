# SPDX-License-Identifier: Apache-2.0
"""A network that takes half a minute for a frame, and says so in the file that SLOW_NETWORK_FILE names."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from perception.labels import LabelSet


def build(device: str = "cpu"):
    """A callable as ``segmentation.model`` names it."""

    def predict(rgb):
        Path(os.environ["SLOW_NETWORK_FILE"]).touch()
        time.sleep(30)
        return np.zeros(rgb.shape[:2], np.int32), np.ones(rgb.shape[:2], np.float32)

    predict.warm_up = lambda: None
    predict.label_set = LabelSet.load("ade20k32")
    return predict
