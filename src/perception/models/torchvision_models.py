# SPDX-License-Identifier: Apache-2.0
"""torchvision's segmentation networks with torchvision's own weights (PyTorch only)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from perception.errors import InputError
from perception.labels import LabelSet
from perception.models.backends import choose_backend, torch_run_batch
from perception.models.base import require
from perception.models.cards import shipped_card
from perception.models.network import NetworkSegmenter
from perception.models.options import ModelOptions
from perception.models.weights import check_arrays, find_weights, load_arrays


def build_torchvision_segmenter(architecture: str, options: ModelOptions) -> NetworkSegmenter:
    """One of torchvision's networks.

    Args:
        architecture: name of a function of ``torchvision.models.segmentation`` that has a model card.
        options: the user's.

    Raises:
        InputError: the weights do not fit the network or the label set, or another backend than torch is asked for.
        MissingDependencyError: torch or torchvision is not installed.
        PerceptionError: the weights are found nowhere.
    """
    if options.backend not in ("auto", "torch"):
        raise InputError(f"network {architecture}: expected backend torch or auto, got {options.backend}")
    torch = require("torch", "torch", f"network {architecture}")
    segmentation = require("torchvision.models.segmentation", "torch", f"network {architecture}")
    _, device = choose_backend("torch", options.device)
    card = shipped_card(architecture).with_input_size(options.input_size)
    assert card.weights is not None
    label_set = LabelSet.load(options.labels or card.labels)
    module = getattr(segmentation, architecture)(weights=None, weights_backbone=None, num_classes=len(label_set))
    path = find_weights(card.weights, options.weights, options.download)
    arrays = load_arrays(path)
    check_arrays(arrays, {name: tuple(value.shape) for name, value in module.state_dict().items()}, str(path))
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    batch = torch_run_batch(module, _coarse(module), device, options)
    return NetworkSegmenter(architecture, device, label_set, card.input, lambda image: batch(image)[0], run_batch=batch)


def _coarse(module: Any) -> Callable[[Any], Any]:
    """The network without its last upsampling, which the decoder does for the wanted pixels only."""

    def forward(image: Any) -> Any:
        features = module.backbone(image)
        # LR-ASPP's head takes two levels of features, DeepLabV3's only the last.
        return module.classifier(features if "low" in features else features["out"])

    return forward


TORCHVISION_SEGMENTERS = {
    name: partial(build_torchvision_segmenter, name)
    for name in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")
}
