# SPDX-License-Identifier: Apache-2.0
"""Builds the DeepLabV3+ segmenter, on any backend, from one weights file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from perception.labels import LabelSet
from perception.models import deeplab_layers
from perception.models.backends import choose_backend, require_backend, torch_run_batch
from perception.models.cards import shipped_card
from perception.models.network import NetworkSegmenter, Run, RunBatch
from perception.models.onnx_runtimes import open_onnx
from perception.models.options import ModelOptions
from perception.models.weights import check_arrays, find_weights, load_arrays

Arrays = Mapping[str, NDArray[Any]]


PUBLISHED = "deeplabv3plus_mobilenetv2"
"""Card of the network as it was published."""
ROOMS = "deeplabv3plus_mobilenetv2_rooms"
"""Card of its copy that was fine-tuned on rendered rooms: the default network."""


def build_deeplab_segmenter(options: ModelOptions, card_name: str = PUBLISHED) -> NetworkSegmenter:
    """DeepLabV3+ on MobileNetV2 with the shipped weights of a card, or the user's file for the same layers.

    Raises:
        InputError: the weights do not fit the network or the label set.
        MissingDependencyError: the backend is not installed.
    """
    card = shipped_card(card_name).with_input_size(options.input_size)
    assert card.weights is not None
    label_set = LabelSet.load(options.labels or card.labels)
    path = find_weights(card.weights, options.weights, options.download)
    arrays = load_deeplab_arrays(path, len(label_set))
    backend, device = choose_backend(options.backend, options.device, options.precision)
    require_backend(backend)
    threads = options.num_threads
    if backend == "torch":
        batch = _torch(arrays, len(label_set), device, options)
        return NetworkSegmenter(
            card.name, device, label_set, card.input, lambda image: batch(image)[0], "legacy", threads, batch
        )
    run = _onnx(arrays, len(label_set), card.input.size_for(512, 512), backend, device, options)
    return NetworkSegmenter(card.name, device, label_set, card.input, run, "legacy", threads)


def build_rooms_segmenter(options: ModelOptions) -> NetworkSegmenter:
    """The network fine-tuned on rooms; as :func:`build_deeplab_segmenter`."""
    return build_deeplab_segmenter(options, ROOMS)


def load_deeplab_arrays(path: Path, num_classes: int) -> dict[str, NDArray[Any]]:
    """Tensors of a weights file of this network, checked; raises InputError when they do not fit."""
    arrays = load_arrays(path)
    check_arrays(arrays, deeplab_layers.tensor_shapes(num_classes), str(path))
    return arrays


def _torch(arrays: Arrays, num_classes: int, device: str, options: ModelOptions) -> RunBatch:
    from perception.models.deeplab import DeepLabV3Plus

    module = DeepLabV3Plus(num_classes)
    module.load_arrays(arrays)
    return torch_run_batch(module, module.coarse_logits, device, options)


def _onnx(
    arrays: Arrays, num_classes: int, size: tuple[int, int], backend: str, device: str, options: ModelOptions
) -> Run:
    from perception.models.onnx_graph import build_deeplab

    model = build_deeplab(arrays, num_classes, *size)
    network = open_onnx(model, backend, device, options.num_threads, options.precision)
    return lambda image: network(image)[0].transpose(1, 2, 0)
