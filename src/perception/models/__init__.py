# SPDX-License-Identifier: Apache-2.0
"""Networks: images in, labels out. Nothing here imports PyTorch or ONNX Runtime before a network is made."""

from perception.models.base import Detector, Segmenter
from perception.models.registry import SEGMENTERS, create_segmenter, segmenter_from_config

__all__ = ["SEGMENTERS", "Detector", "Segmenter", "create_segmenter", "segmenter_from_config"]
