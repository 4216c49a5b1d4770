# SPDX-License-Identifier: Apache-2.0
"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from perception.config import SegmentationConfig
from perception.errors import InputError
from perception.models.base import Segmenter, chosen_input_size
from perception.models.deeplab_segmenter import build_deeplab_segmenter, build_rooms_segmenter
from perception.models.instances import INSTANCE_SEGMENTERS
from perception.models.label_map import LabelMap, MappedSegmenter
from perception.models.model_folder import build_model_folder, is_model_folder
from perception.models.onnx_model import build_onnx_segmenter
from perception.models.options import ModelOptions
from perception.models.torchvision_models import TORCHVISION_SEGMENTERS
from perception.models.user import build_user_segmenter

SEGMENTERS: dict[str, Callable[[ModelOptions], Segmenter]] = {
    "default": build_rooms_segmenter,
    "deeplabv3plus_mobilenetv2_rooms": build_rooms_segmenter,
    "deeplabv3plus_mobilenetv2": build_deeplab_segmenter,
    **TORCHVISION_SEGMENTERS,
    **INSTANCE_SEGMENTERS,
}
"""Name → builder. Programs may add their own."""


def create_segmenter(
    name: str = "default",
    device: str = "auto",
    *,
    label_map: str = "",
    min_confidence: float = 0.0,
    **options: Any,
) -> Segmenter:
    """Make a segmenter.

    Args:
        name: a key of ``SEGMENTERS``, ``package.module:function`` for a network of your own, or the path of a .onnx
            file or of a model folder, as training writes it.
        device: "auto", "cpu", "cuda" or "cuda:N".
        label_map: YAML file that translates the network's classes (:class:`perception.models.label_map.LabelMap`).
        min_confidence: labels less probable than this become −1.
        options: other fields of :class:`perception.models.options.ModelOptions`: backend, weights, labels, input_size,
            num_threads, precision, torch_mode, download.

    Returns:
        A segmenter whose ``label_set`` is the map's where a ``label_map`` is given.

    Raises:
        InputError: unknown name or option, or a file that does not fit.
        MissingDependencyError: a library is not installed; the message names the extra.
        PerceptionError: weights are found nowhere.
    """
    known = [item.name for item in fields(ModelOptions)]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise InputError(f"create_segmenter: unknown options {unknown}; expected some of {known}")
    chosen = ModelOptions(device=device, **options)
    if name in SEGMENTERS:
        segmenter = SEGMENTERS[name](chosen)
    elif is_model_folder(name):
        segmenter = build_model_folder(name, chosen, SEGMENTERS)
    elif name.lower().endswith(".onnx"):
        segmenter = build_onnx_segmenter(name, chosen)
    elif ":" in name:
        segmenter = build_user_segmenter(name, chosen)
    else:
        raise InputError(
            f"network {name!r}: expected one of {sorted(SEGMENTERS)}, package.module:function, a .onnx file or "
            "a model folder"
        )
    if not label_map and not min_confidence:
        return segmenter
    return MappedSegmenter(
        segmenter, LabelMap.load(label_map, segmenter.label_set) if label_map else None, min_confidence
    )


def segmenter_from_config(config: SegmentationConfig) -> Segmenter | None:
    """The segmenter that the configuration asks for; None for ``model: none``.

    Raises:
        InputError: only one of input_width and input_height is given, and as :func:`create_segmenter`.
    """
    if config.model == "none":
        return None
    return create_segmenter(
        config.model,
        config.device,
        label_map=config.label_map,
        min_confidence=config.min_confidence,
        backend=config.backend,
        weights=config.weights,
        labels=config.labels,
        input_size=chosen_input_size(config),
        num_threads=config.num_threads,
        precision=config.precision,
    )
