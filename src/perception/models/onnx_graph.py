# SPDX-License-Identifier: Apache-2.0
"""DeepLabV3+ on MobileNetV2 as an ONNX graph built in memory, so that ONNX Runtime runs it without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from perception.errors import InputError
from perception.models import deeplab_layers as layers

OPSET = 13
IR_VERSION = 8
"""Old enough for every ONNX Runtime since 1.14; the graph needs nothing newer."""


class _GraphBuilder:
    """Collects nodes and constants; every method returns the name of its output."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {
            "zero": np.array(0, np.float32),
            "six": np.array(6, np.float32),
        }
        self._arrays = arrays

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def conv(self, source: str, layer: layers.ConvLayer) -> str:
        weight, bias = f"{layer.name}.weight", f"{layer.name}.bias"
        self.constants[weight] = np.asarray(self._arrays[weight], np.float32)
        self.constants[bias] = np.asarray(self._arrays[bias], np.float32)
        before, after = layer.padding
        output = self.add(
            "Conv",
            [source, weight, bias],
            f"{layer.name}.conv",
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            dilations=[layer.dilation] * 2,
            group=layer.groups,
            pads=[before, before, after, after],
        )
        if layer.activation == "relu6":
            return self.add("Clip", [output, "zero", "six"], f"{layer.name}.relu6")
        return self.add("Relu", [output], f"{layer.name}.relu") if layer.activation == "relu" else output

    def block(self, source: str, block: layers.Block) -> tuple[str, str]:
        """Returns the block's output and its depthwise output."""
        value = inner = source
        for layer in block.layers:
            value = self.conv(value, layer)
            if layer.name.endswith("depthwise"):
                inner = value
        if block.residual:
            value = self.add("Add", [value, source], f"{block.layers[-1].name}.sum")
        return value, inner

    def upsample(self, source: str, factor: int, output: str) -> str:
        """Source = destination / factor, edges repeated: the grid of TensorFlow 1."""
        self.constants[f"{output}.scales"] = np.array([1, 1, factor, factor], np.float32)
        return self.add(
            "Resize",
            [source, "", f"{output}.scales"],
            output,
            mode="linear",
            coordinate_transformation_mode="asymmetric",
        )


def build_deeplab(arrays: Mapping[str, NDArray[Any]], num_classes: int, height: int, width: int) -> bytes:
    """The network as a serialized ONNX model.

    Args:
        arrays: tensors checked against ``deeplab_layers.tensor_shapes(num_classes)``.
        num_classes: channels of the logits.
        height: of the input, a multiple of 16.
        width: of the input, a multiple of 16.

    Returns:
        A model with input ``image`` (1, 3, height, width) float32 RGB in −1 … 1 and output ``logits``
        (1, num_classes, height / 4, width / 4), equal to ``DeepLabV3Plus.coarse_logits``.

    Raises:
        InputError: a size is no positive multiple of 16.
    """
    stride = layers.OUTPUT_STRIDE
    if height <= 0 or width <= 0 or height % stride or width % stride:
        raise InputError(f"network input: expected sizes that are multiples of {stride}, got {height}x{width}")
    builder = _GraphBuilder(arrays)
    low = features = builder.conv("image", layers.STEM)
    for index, block in enumerate(layers.BLOCKS):
        features, inner = builder.block(features, block)
        low = inner if index == layers.LOW_LEVEL_BLOCK else low
    joined = _head(builder, features, low, height // stride, width // stride)
    builder.conv(joined, layers.classifier(num_classes))
    builder.nodes[-1].output[0] = "logits"
    size = [height // layers.LOGIT_STRIDE, width // layers.LOGIT_STRIDE]
    graph = helper.make_graph(
        builder.nodes,
        "deeplabv3plus_mobilenetv2",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, num_classes, *size])],
        [numpy_helper.from_array(value, name) for name, value in builder.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="perception")
    model.ir_version = IR_VERSION
    return model.SerializeToString()


def _head(builder: _GraphBuilder, features: str, low: str, height: int, width: int) -> str:
    point = builder.conv(features, layers.PYRAMID_POINT)
    low = builder.conv(low, layers.DECODER_LOW)
    pooled = builder.add("GlobalAveragePool", [features], "pyramid.mean")
    pooled = builder.conv(pooled, layers.PYRAMID_POOL)
    builder.constants["pyramid.size"] = np.array([1, 1, height, width], np.int64)
    pooled = builder.add("Expand", [pooled, "pyramid.size"], "pyramid.pooled")
    joined = builder.add("Concat", [pooled, point], "pyramid.joined", axis=1)
    pyramid = builder.conv(joined, layers.PYRAMID_PROJECT)
    raised = builder.upsample(pyramid, layers.OUTPUT_STRIDE // layers.LOGIT_STRIDE, "pyramid.raised")
    value = builder.add("Concat", [raised, low], "decoder.joined", axis=1)
    for layer in layers.DECODER:
        value = builder.conv(value, layer)
    return value
