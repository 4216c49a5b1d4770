# SPDX-License-Identifier: Apache-2.0
"""The layers of DeepLabV3+ on MobileNetV2 as plain data, shared by the PyTorch module and the ONNX graph.

Source: Sandler et al., MobileNetV2, 2018 (backbone); Chen et al., DeepLabV3+, 2018 (head). Output stride 16: the last
stage keeps its resolution and dilates by 2. The pyramid is reduced to a 1×1 convolution and image pooling. The decoder
joins the 144-channel depthwise output at 1/4 of the input. Batch norm is folded into the convolutions' biases.
"""

from __future__ import annotations

from dataclasses import dataclass

OUTPUT_STRIDE = 16
"""Input height and width must be multiples of this."""
LOGIT_STRIDE = 4
"""Logits have 1/4 of the input's height and width."""
LOW_LEVEL_BLOCK = 2
"""The block whose depthwise output feeds the decoder."""
PYRAMID_CHANNELS = 256
LOW_LEVEL_CHANNELS = 48


@dataclass(frozen=True)
class ConvLayer:
    """A convolution with bias and TensorFlow's SAME padding.

    Attributes:
        name: prefix of its tensors, ``<name>.weight`` and ``<name>.bias``.
        inputs: channels.
        outputs: channels.
        kernel: 1 or 3.
        stride: 1 or 2.
        dilation: 1 or 2.
        groups: 1, or ``inputs`` for a depthwise convolution.
        activation: "relu6", "relu" or "none".
    """

    name: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    activation: str = "none"

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros (before, after) on each axis; on even sizes stride 2 pads right and bottom only."""
        total = (self.kernel - 1) * self.dilation - (self.stride - 1)
        return total // 2, total - total // 2

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(outputs, inputs / groups, kernel, kernel)."""
        return self.outputs, self.inputs // self.groups, self.kernel, self.kernel


@dataclass(frozen=True)
class Block:
    """An inverted residual block: expand (absent in the first), depthwise, project.

    Attributes:
        layers: in order.
        residual: add the block's input to its output.
    """

    layers: tuple[ConvLayer, ...]
    residual: bool


# (output channels, expansion, stride of the first block, dilation of all but the stage's first block, blocks)
_STAGES = (
    (16, 1, 1, 1, 1),
    (24, 6, 2, 1, 2),
    (32, 6, 2, 1, 3),
    (64, 6, 2, 1, 4),
    (96, 6, 1, 1, 3),
    (160, 6, 1, 2, 3),
    (320, 6, 1, 2, 1),
)

STEM = ConvLayer("stem", 3, 32, kernel=3, stride=2, activation="relu6")


def _block(index: int, inputs: int, outputs: int, expansion: int, stride: int, dilation: int) -> Block:
    prefix, hidden = f"blocks.{index}", inputs * expansion
    layers = [
        ConvLayer(f"{prefix}.depthwise", hidden, hidden, 3, stride, dilation, groups=hidden, activation="relu6"),
        ConvLayer(f"{prefix}.project", hidden, outputs),
    ]
    if expansion > 1:
        layers.insert(0, ConvLayer(f"{prefix}.expand", inputs, hidden, activation="relu6"))
    return Block(tuple(layers), residual=stride == 1 and inputs == outputs)


def _blocks() -> tuple[Block, ...]:
    blocks: list[Block] = []
    inputs = STEM.outputs
    for outputs, expansion, stride, dilation, count in _STAGES:
        for repeat in range(count):
            # The block that would have had stride 2 (the first of 160 channels) still sees undilated input.
            undilated = repeat == 0 and outputs != 320
            blocks.append(
                _block(
                    len(blocks), inputs, outputs, expansion, stride if repeat == 0 else 1, 1 if undilated else dilation
                )
            )
            inputs = outputs
    return tuple(blocks)


BLOCKS = _blocks()
_FEATURES = BLOCKS[-1].layers[-1].outputs
_LOW = BLOCKS[LOW_LEVEL_BLOCK].layers[-1].inputs
_JOINED = PYRAMID_CHANNELS + LOW_LEVEL_CHANNELS

PYRAMID_POINT = ConvLayer("pyramid.point", _FEATURES, PYRAMID_CHANNELS, activation="relu")
PYRAMID_POOL = ConvLayer("pyramid.pool", _FEATURES, PYRAMID_CHANNELS, activation="relu")
PYRAMID_PROJECT = ConvLayer("pyramid.project", 2 * PYRAMID_CHANNELS, PYRAMID_CHANNELS, activation="relu")
DECODER_LOW = ConvLayer("decoder.low_level", _LOW, LOW_LEVEL_CHANNELS, activation="relu")
DECODER = (
    ConvLayer("decoder.depthwise1", _JOINED, _JOINED, kernel=3, groups=_JOINED, activation="relu"),
    ConvLayer("decoder.pointwise1", _JOINED, PYRAMID_CHANNELS, activation="relu"),
    ConvLayer("decoder.depthwise2", PYRAMID_CHANNELS, PYRAMID_CHANNELS, 3, groups=PYRAMID_CHANNELS, activation="relu"),
    ConvLayer("decoder.pointwise2", PYRAMID_CHANNELS, PYRAMID_CHANNELS, activation="relu"),
)


def classifier(num_classes: int) -> ConvLayer:
    """The last convolution."""
    return ConvLayer("classifier", PYRAMID_CHANNELS, num_classes)


def conv_layers(num_classes: int) -> tuple[ConvLayer, ...]:
    """Every convolution, in the order in which the published graph runs them."""
    backbone = (STEM, *(layer for block in BLOCKS for layer in block.layers))
    head = (PYRAMID_POINT, DECODER_LOW, PYRAMID_POOL, PYRAMID_PROJECT, *DECODER, classifier(num_classes))
    return backbone + head


def tensor_shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor in a weights file of this network."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in conv_layers(num_classes):
        shapes[f"{layer.name}.weight"] = layer.weight_shape
        shapes[f"{layer.name}.bias"] = (layer.outputs,)
    return shapes
