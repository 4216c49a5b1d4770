# SPDX-License-Identifier: Apache-2.0
"""Takes the weights of a published ONNX file into our own layout, and checks that the network still does the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.models import deeplab_layers
from perception.models.backends import onnx_session
from perception.models.base import require
from perception.models.decoding import upsample_logits
from perception.models.weights import save_arrays

LOGIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        tensors: number of tensors written.
        parameters: numbers in them.
        num_classes: channels of the logits.
        max_difference: largest difference of a logit between the source and our network with the tensors in float32,
            on random input.
        label_agreement: share of pixels whose label the written file (after rounding to its type) leaves as it was.
    """

    tensors: int
    parameters: int
    num_classes: int
    max_difference: float
    label_agreement: float


def import_deeplab(source: Path, target: Path, dtype: str = "float16") -> ImportReport:
    """Convert an ONNX file of DeepLabV3+ on MobileNetV2, batch norm folded in, to .safetensors.

    Args:
        source: ONNX file with its weights inside and a fixed input (1, 3, H, W) in −1 … 1.
        target: file to write.
        dtype: "float16" (see :func:`rounded`) or "float32".

    Raises:
        InputError: not that network, or our layers give other logits (by more than 1e-3).
        MissingDependencyError: onnx or onnxruntime is not installed.
        PerceptionError: the target cannot be written.
    """
    if dtype not in ("float16", "float32"):
        raise InputError(f"dtype: expected float16 or float32, got {dtype!r}")
    arrays = read_deeplab_onnx(source)
    num_classes = len(arrays["classifier.bias"])
    written = rounded(arrays) if dtype == "float16" else arrays
    height, width, reference = _reference(source)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    expected = reference(image)
    difference = float(np.abs(_logits(arrays, num_classes, image) - expected).max())
    if not difference <= LOGIT_TOLERANCE:
        raise InputError(
            f"{source}: expected the logits of DeepLabV3+ on MobileNetV2 within {LOGIT_TOLERANCE}, "
            f"they differ by {difference:.3g}; this is another network"
        )
    agreement = float((_logits(written, num_classes, image).argmax(0) == expected.argmax(0)).mean())
    save_arrays(target, written)
    return ImportReport(len(arrays), sum(array.size for array in arrays.values()), num_classes, difference, agreement)


def rounded(arrays: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    """Half precision for the 1×1 convolutions, which are 96 % of the numbers; the rest stays as it is.

    Depthwise weights and biases are few and sensitive: on photographs 99.9 % of the labels stay the same this way,
    99.6 % with everything in half precision.
    """
    return {name: array.astype(np.float16) if _is_pointwise(array) else array for name, array in arrays.items()}


def _is_pointwise(array: NDArray[Any]) -> bool:
    return array.ndim == 4 and array.shape[2:] == (1, 1)


def read_deeplab_onnx(source: Path) -> dict[str, NDArray[np.float32]]:
    """The convolutions of an ONNX graph under our names, in graph order; raises InputError where shapes differ."""
    onnx = require("onnx", "onnx", "importing weights")
    try:
        graph = onnx.load(str(source), load_external_data=False).graph
        initializers = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise InputError(f"{source}: expected an ONNX file with its weights inside ({error})") from error
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    weights = [[initializers.get(name) for name in node.input[1:3]] for node in convolutions]
    last = weights[-1][0] if weights else None
    layers = deeplab_layers.conv_layers(len(last) if last is not None else 1)
    if len(convolutions) != len(layers):
        raise InputError(f"{source}: expected {len(layers)} convolutions, got {len(convolutions)}; another network")
    arrays: dict[str, NDArray[np.float32]] = {}
    for layer, (node, tensors) in zip(layers, zip(convolutions, weights, strict=True), strict=True):
        shapes = [None if tensor is None else tensor.shape for tensor in tensors]
        if shapes != [layer.weight_shape, (layer.outputs,)]:
            expected = [layer.weight_shape, (layer.outputs,)]
            raise InputError(
                f"{source}: {node.name} as {layer.name}: expected weight and bias {expected}, got {shapes}"
            )
        for kind, tensor in zip(("weight", "bias"), tensors, strict=True):
            arrays[f"{layer.name}.{kind}"] = np.asarray(tensor, np.float32)
    return arrays


def _reference(source: Path) -> tuple[int, int, Any]:
    session = onnx_session(str(source))
    item = session.get_inputs()[0]
    if len(item.shape) != 4 or not all(isinstance(length, int) for length in item.shape):
        raise InputError(f"{source}: expected a fixed input (1, 3, height, width), got {item.shape}")
    return item.shape[2], item.shape[3], lambda image: session.run(None, {item.name: image})[0][0]


def _logits(arrays: dict[str, NDArray[Any]], num_classes: int, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Our network's logits (C, H, W) at the size of its input."""
    from perception.models.onnx_graph import build_deeplab

    session = onnx_session(build_deeplab(arrays, num_classes, image.shape[2], image.shape[3]))
    return upsample_logits(session.run(None, {"image": image})[0][0], deeplab_layers.LOGIT_STRIDE)
