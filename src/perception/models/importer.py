# SPDX-License-Identifier: Apache-2.0
"""Takes the weights of a published ONNX file into our own layout, and checks that the network still does the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.models import deeplab_layers, yolox_layers
from perception.models.base import require
from perception.models.decoding import upsample_logits
from perception.models.onnx_runtimes import onnx_session
from perception.models.weights import save_arrays

TOLERANCE = 1e-3
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        network: name of the architecture.
        tensors: number of tensors written.
        parameters: numbers in them.
        num_classes: classes of the network.
        max_difference: largest difference of an output between the source and our network with the tensors in float32,
            on random input.
        label_agreement: share of pixels or cells whose label the written file (after rounding to its type) leaves as
            it was.
    """

    network: str
    tensors: int
    parameters: int
    num_classes: int
    max_difference: float
    label_agreement: float


@dataclass(frozen=True)
class _Family:
    """A network that can be imported.

    Attributes:
        name: for people.
        layers: number of classes to convolutions, in graph order.
        classes_layer: the convolution that has one output per class.
        outputs: runs our network: (arrays, classes, input) to what the published file gives, without the batch.
        input_range: of random input.
        label_axis: of the outputs; the label is the largest number along it …
        first_class: … from this one on.
        rounds_above: convolutions with more numbers are rounded.
    """

    name: str
    layers: Callable[[int], Sequence[deeplab_layers.ConvLayer | yolox_layers.ConvLayer]]
    classes_layer: str
    outputs: Callable[[Arrays, int, NDArray[np.float32]], NDArray[np.float32]]
    input_range: tuple[float, float]
    label_axis: int
    first_class: int = 0
    rounds_above: int = 0

    def labels(self, output: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.moveaxis(output, self.label_axis, -1)[..., self.first_class :].argmax(-1)


def import_network(source: Path, target: Path, dtype: str = "float16") -> ImportReport:
    """Convert an ONNX file of one of our networks, batch norm folded in, to .safetensors.

    Args:
        source: ONNX file with its weights inside and a fixed input (1, 3, H, W): DeepLabV3+ on MobileNetV2 for RGB in
            −1 … 1, or YOLOX-Nano for BGR in 0 … 255.
        target: file to write.
        dtype: "float16" (see :func:`rounded`) or "float32".

    Raises:
        InputError: another network, or our layers give other outputs (by more than 1e-3).
        MissingDependencyError: onnx or onnxruntime is not installed.
        PerceptionError: the target cannot be written.
    """
    count = len(_convolutions(source))
    for family in FAMILIES:
        if len(family.layers(1)) == count:
            return _import(family, source, target, dtype)
    expected = " or ".join(f"{len(family.layers(1))} ({family.name})" for family in FAMILIES)
    raise InputError(f"{source}: expected {expected} convolutions, got {count}; another network")


def _import(family: _Family, source: Path, target: Path, dtype: str) -> ImportReport:
    if dtype not in ("float16", "float32"):
        raise InputError(f"dtype: expected float16 or float32, got {dtype!r}")
    arrays = _read_arrays(family, source)
    num_classes = len(arrays[f"{family.classes_layer}.bias"])
    written = rounded(arrays, family.rounds_above) if dtype == "float16" else arrays
    height, width, reference = _reference(source)
    image = np.random.default_rng(0).uniform(*family.input_range, (1, 3, height, width)).astype(np.float32)
    expected = reference(image)
    found = family.outputs(arrays, num_classes, image)
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if not difference <= TOLERANCE:
        raise InputError(
            f"{source}: expected the outputs of {family.name} within {TOLERANCE}, they differ by {difference:.3g}; "
            "this is another network"
        )
    kept = family.labels(family.outputs(written, num_classes, image)) == family.labels(expected)
    save_arrays(target, written)
    parameters = sum(array.size for array in arrays.values())
    return ImportReport(family.name, len(arrays), parameters, num_classes, difference, float(kept.mean()))


def rounded(arrays: dict[str, NDArray[np.float32]], larger_than: int = 0) -> Arrays:
    """Half precision for the 1×1 convolutions of more than so many numbers; the rest stays as it is.

    They are nearly all of the numbers. Depthwise weights and biases are few and sensitive: on photographs 99.9 % of
    DeepLab's labels stay the same this way, 99.6 % with everything in half precision. So are YOLOX's small
    convolutions: with those whole, scores on photographs move by 0.006 at most instead of 0.014.
    """
    large = {name for name, array in arrays.items() if _is_pointwise(array) and array.size > larger_than}
    return {name: array.astype(np.float16) if name in large else array for name, array in arrays.items()}


def _is_pointwise(array: NDArray[Any]) -> bool:
    return array.ndim == 4 and array.shape[2:] == (1, 1)


def read_deeplab_onnx(source: Path) -> dict[str, NDArray[np.float32]]:
    """The convolutions of DeepLabV3+'s ONNX graph under our names; raises InputError where shapes differ."""
    return _read_arrays(DEEPLAB, source)


def read_yolox_onnx(source: Path) -> dict[str, NDArray[np.float32]]:
    """The convolutions of YOLOX-Nano's ONNX graph under our names; raises InputError where shapes differ."""
    return _read_arrays(YOLOX, source)


def _convolutions(source: Path) -> list[tuple[str, list[NDArray[Any] | None]]]:
    """Name, and weight and bias where they are constants, of every convolution in graph order."""
    onnx = require("onnx", "onnx", "importing weights")
    try:
        graph = onnx.load(str(source), load_external_data=False).graph
        constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise InputError(f"{source}: expected an ONNX file with its weights inside ({error})") from error
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    return [(node.name, [constants.get(name) for name in node.input[1:3]]) for node in nodes]


def _read_arrays(family: _Family, source: Path) -> dict[str, NDArray[np.float32]]:
    convolutions = _convolutions(source)
    names = [layer.name for layer in family.layers(1)]
    if len(convolutions) != len(names):
        raise InputError(f"{source}: expected {len(names)} convolutions, got {len(convolutions)}; another network")
    last = convolutions[names.index(family.classes_layer)][1][0]
    arrays: dict[str, NDArray[np.float32]] = {}
    layers = family.layers(len(last) if last is not None else 1)
    for layer, (name, tensors) in zip(layers, convolutions, strict=True):
        shapes = [None if tensor is None else tensor.shape for tensor in tensors]
        if shapes != [layer.weight_shape, (layer.outputs,)]:
            expected = [layer.weight_shape, (layer.outputs,)]
            raise InputError(f"{source}: {name} as {layer.name}: expected weight and bias {expected}, got {shapes}")
        for kind, tensor in zip(("weight", "bias"), tensors, strict=True):
            arrays[f"{layer.name}.{kind}"] = np.asarray(tensor, np.float32)
    return arrays


def _reference(source: Path) -> tuple[int, int, Any]:
    session = onnx_session(str(source))
    item = session.get_inputs()[0]
    if len(item.shape) != 4 or not all(isinstance(length, int) for length in item.shape):
        raise InputError(f"{source}: expected a fixed input (1, 3, height, width), got {item.shape}")
    return item.shape[2], item.shape[3], lambda image: session.run(None, {item.name: image})[0][0]


def _deeplab_outputs(arrays: Arrays, num_classes: int, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (C, H, W) at the size of the input."""
    from perception.models.onnx_graph import build_deeplab

    session = onnx_session(build_deeplab(arrays, num_classes, image.shape[2], image.shape[3]))
    return upsample_logits(session.run(None, {"image": image})[0][0], deeplab_layers.LOGIT_STRIDE)


def _yolox_outputs(arrays: Arrays, num_classes: int, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Objects (cells, 5 + C)."""
    from perception.models.yolox_graph import build_yolox

    session = onnx_session(build_yolox(arrays, num_classes, image.shape[2], image.shape[3]))
    return session.run(None, {"image": image})[0][0]


DEEPLAB = _Family(
    "DeepLabV3+ on MobileNetV2", deeplab_layers.conv_layers, "classifier", _deeplab_outputs, (-1, 1), label_axis=0
)
YOLOX = _Family(
    "YOLOX-Nano",
    yolox_layers.conv_layers,
    "head.0.class_scores",
    _yolox_outputs,
    (0, 255),
    label_axis=1,
    first_class=yolox_layers.BOX_CHANNELS,
    rounds_above=2048,
)
FAMILIES = (DEEPLAB, YOLOX)
