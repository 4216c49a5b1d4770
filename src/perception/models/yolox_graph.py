# SPDX-License-Identifier: Apache-2.0
"""YOLOX-Nano as an ONNX graph built in memory, so that ONNX Runtime runs it without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from perception.errors import InputError
from perception.models import yolox_layers as layers
from perception.models.onnx_graph import IR_VERSION, OPSET


class _OnnxOperations:
    """Writes the operations down as nodes; values are names."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {"scales": np.array([1, 1, 2, 2], np.float32)}
        self._arrays = arrays

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: list[int]) -> str:
        self.constants[name] = np.array(values, np.int64)
        return name

    def conv(self, value: str, layer: layers.ConvLayer) -> str:
        weight, bias = f"{layer.name}.weight", f"{layer.name}.bias"
        self.constants[weight] = np.asarray(self._arrays[weight], np.float32)
        self.constants[bias] = np.asarray(self._arrays[bias], np.float32)
        kernel, strides, pads = [layer.kernel] * 2, [layer.stride] * 2, [layer.padding] * 4
        output = self.node(
            "Conv", [value, weight, bias], kernel_shape=kernel, strides=strides, pads=pads, group=layer.groups
        )
        return self.node("Mul", [output, self.sigmoid(output)]) if layer.activated else output

    def add(self, first: str, second: str) -> str:
        return self.node("Add", [first, second])

    def concat(self, values: list[str]) -> str:
        return self.node("Concat", values, axis=1)

    def pool(self, value: str, size: int) -> str:
        return self.node("MaxPool", [value], kernel_shape=[size] * 2, strides=[1, 1], pads=[size // 2] * 4)

    def double(self, value: str) -> str:
        modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", [value, "", "scales"], **modes)

    def quarter(self, value: str) -> str:
        axes, steps = self.constant("axes", [2, 3]), self.constant("steps", [2, 2])
        ends = self.constant("ends", [np.iinfo(np.int64).max] * 2)
        starts = [self.constant(f"starts{row}{column}", [row, column]) for column in (0, 1) for row in (0, 1)]
        return self.concat([self.node("Slice", [value, start, ends, axes, steps]) for start in starts])

    def sigmoid(self, value: str) -> str:
        return self.node("Sigmoid", [value])


def build_yolox(arrays: Mapping[str, NDArray[Any]], num_classes: int, height: int, width: int) -> bytes:
    """The network as a serialized ONNX model.

    Args:
        arrays: tensors checked against ``yolox_layers.tensor_shapes(num_classes)``.
        num_classes: number of class scores.
        height: of the input, a multiple of 32.
        width: of the input, a multiple of 32.

    Returns:
        A model with input ``image`` (1, 3, height, width) float32 BGR 0 … 255 and output ``objects``
        (1, cells, 5 + num_classes), equal to ``YoloX.forward``.

    Raises:
        InputError: a size is no positive multiple of 32.
    """
    if height <= 0 or width <= 0 or height % layers.STRIDES[-1] or width % layers.STRIDES[-1]:
        raise InputError(f"network input: expected sizes that are multiples of 32, got {height}x{width}")
    ops, channels = _OnnxOperations(arrays), layers.BOX_CHANNELS + num_classes
    flat = ops.constant("flat", [1, channels, -1])
    levels = [ops.node("Reshape", [level, flat]) for level in layers.run_yolox(ops, "image", num_classes)]
    ops.node("Transpose", [ops.node("Concat", levels, axis=2)], perm=[0, 2, 1])
    ops.nodes[-1].output[0] = "objects"
    cells = sum((height // stride) * (width // stride) for stride in layers.STRIDES)
    graph = helper.make_graph(
        ops.nodes,
        "yolox_nano",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("objects", TensorProto.FLOAT, [1, cells, channels])],
        [numpy_helper.from_array(value, name) for name, value in ops.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="perception")
    model.ir_version = IR_VERSION
    return model.SerializeToString()
