# SPDX-License-Identifier: Apache-2.0
"""Builds the DeepLabV3+ segmenter, on either backend, from one weights file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.labels import LabelSet
from perception.models import deeplab_layers
from perception.models.backends import choose_backend, onnx_session, torch_run
from perception.models.base import require
from perception.models.cards import shipped_card
from perception.models.network import NetworkSegmenter, Run
from perception.models.options import ModelOptions
from perception.models.weights import check_arrays, find_weights, load_arrays

Arrays = Mapping[str, NDArray[Any]]


def build_deeplab_segmenter(options: ModelOptions) -> NetworkSegmenter:
    """DeepLabV3+ on MobileNetV2 with the shipped weights, or the user's file for the same layers.

    Raises:
        InputError: the weights do not fit the network or the label set.
        MissingDependencyError: the backend is not installed.
    """
    card = shipped_card("deeplabv3plus_mobilenetv2").with_input_size(options.input_size)
    assert card.weights is not None
    label_set = LabelSet.load(options.labels or card.labels)
    path = find_weights(card.weights, options.weights, options.download)
    arrays = load_deeplab_arrays(path, len(label_set))
    backend, device = choose_backend(options.backend, options.device)
    if backend == "torch":
        run = _torch(arrays, len(label_set), device, options.num_threads)
    else:
        run = _onnx(arrays, len(label_set), card.input.size_for(512, 512), device, options.num_threads)
    return NetworkSegmenter(card.name, device, label_set, card.input, run, grid="legacy")


def load_deeplab_arrays(path: Path, num_classes: int) -> dict[str, NDArray[Any]]:
    """Tensors of a weights file of this network, checked; raises InputError when they do not fit."""
    arrays = load_arrays(path)
    check_arrays(arrays, deeplab_layers.tensor_shapes(num_classes), str(path))
    return arrays


def _torch(arrays: Arrays, num_classes: int, device: str, num_threads: int) -> Run:
    require("torch", "torch", "the torch backend")
    from perception.models.deeplab import DeepLabV3Plus

    module = DeepLabV3Plus(num_classes)
    module.load_arrays(arrays)
    return torch_run(module, module.coarse_logits, device, num_threads)


def _onnx(arrays: Arrays, num_classes: int, size: tuple[int, int], device: str, num_threads: int) -> Run:
    require("onnx", "onnx", "the onnx backend")
    from perception.models.onnx_graph import build_deeplab

    session = onnx_session(build_deeplab(arrays, num_classes, *size), device, num_threads)

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return session.run(None, {"image": image})[0][0].transpose(1, 2, 0)

    return run
