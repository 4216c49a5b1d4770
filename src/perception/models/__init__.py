# SPDX-License-Identifier: Apache-2.0
"""Networks: images in, labels or objects out. Nothing here imports PyTorch or ONNX Runtime before a network is made."""

import numpy as np

from perception.models.base import Detector, Segmenter
from perception.models.detectors import DETECTORS, create_detector, detector_from_config
from perception.models.instances import label_image_of
from perception.models.registry import SEGMENTERS, create_segmenter, segmenter_from_config

# Networks run in threads that take the smallest numbers for zero. NumPy 1.26 warns where it first sees that.
for _kind in (np.float32, np.float64):
    _ = np.finfo(_kind).smallest_subnormal

__all__ = [
    "DETECTORS",
    "SEGMENTERS",
    "Detector",
    "Segmenter",
    "create_detector",
    "create_segmenter",
    "detector_from_config",
    "label_image_of",
    "segmenter_from_config",
]
