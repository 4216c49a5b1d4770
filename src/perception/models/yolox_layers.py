# SPDX-License-Identifier: Apache-2.0
"""YOLOX-Nano as a sequence of operations, written once: PyTorch runs them, the ONNX builder records them.

Source: Ge et al., YOLOX: Exceeding YOLO Series in 2021 (backbone and feature pyramid of Wang et al., CSPNet, 2020, and
Liu et al., PANet, 2018; pooling of He et al., SPP, 2014). Depth 1/3 and width 1/4 of the full network, 3×3 convolutions
depthwise separable, batch norm folded into the convolutions' biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")

STRIDES = (8, 16, 32)
"""Of the three feature maps on which objects are found; input sizes must be multiples of the last."""
BOX_CHANNELS = 5
"""Center x and y, log width and height in cells, and whether there is an object; class scores follow."""
POOL_SIZES = (5, 9, 13)
HEAD_CHANNELS = 64


@dataclass(frozen=True)
class ConvLayer:
    """A convolution with bias and zero padding of half its kernel.

    Attributes:
        name: prefix of its tensors, ``<name>.weight`` and ``<name>.bias``.
        inputs: channels.
        outputs: channels.
        kernel: 1 or 3.
        stride: 1 or 2.
        groups: 1, or ``inputs`` for a depthwise convolution.
        activated: followed by x · sigmoid(x).
    """

    name: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activated: bool = True

    @property
    def padding(self) -> int:
        """Zeros on each side."""
        return self.kernel // 2

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(outputs, inputs / groups, kernel, kernel)."""
        return self.outputs, self.inputs // self.groups, self.kernel, self.kernel


class Operations(Protocol[T]):
    """What the network is made of; values are (N, C, H, W) tensors or the names of some."""

    def conv(self, value: T, layer: ConvLayer) -> T:
        """Convolution and its activation."""
        ...

    def add(self, first: T, second: T) -> T:
        """Sum."""
        ...

    def concat(self, values: list[T]) -> T:
        """Channels one after the other."""
        ...

    def pool(self, value: T, size: int) -> T:
        """Maximum over a window, stride 1."""
        ...

    def double(self, value: T) -> T:
        """Twice the size, each sample repeated."""
        ...

    def quarter(self, value: T) -> T:
        """Half the size, four times the channels: even rows and columns, odd rows, odd columns, odd both."""
        ...

    def sigmoid(self, value: T) -> T:
        """1 / (1 + exp(−x))."""
        ...


def run_yolox(ops: Operations[T], image: T, num_classes: int) -> list[T]:
    """The network on an image.

    Args:
        ops: carries the operations out, in the order in which the published graph has them.
        image: (N, 3, H, W), BGR 0 … 255, H and W multiples of 32.
        num_classes: number of class scores.

    Returns:
        For each of ``STRIDES`` (N, 5 + num_classes, H / stride, W / stride): four box numbers as the network gives
        them, objectness and class scores as probabilities.
    """
    value = ops.conv(ops.quarter(image), ConvLayer("backbone.stem", 12, 16, kernel=3))
    value = _separable(ops, value, "backbone.stage2.down", 16, 32, stride=2)
    value = _stage(ops, value, "backbone.stage2.csp", 32, 32, blocks=1)
    value = _separable(ops, value, "backbone.stage3.down", 32, 64, stride=2)
    fine = _stage(ops, value, "backbone.stage3.csp", 64, 64, blocks=3)
    value = _separable(ops, fine, "backbone.stage4.down", 64, 128, stride=2)
    middle = _stage(ops, value, "backbone.stage4.csp", 128, 128, blocks=3)
    value = _separable(ops, middle, "backbone.stage5.down", 128, 256, stride=2)
    value = ops.conv(value, ConvLayer("backbone.pyramid.reduce", 256, 128))
    value = ops.concat([value, *(ops.pool(value, size) for size in POOL_SIZES)])
    value = ops.conv(value, ConvLayer("backbone.pyramid.expand", 512, 256))
    coarse = _stage(ops, value, "backbone.stage5.csp", 256, 256, blocks=1, residual=False)
    levels = _neck(ops, fine, middle, coarse)
    return [_head(ops, value, f"head.{index}", 64 << index, num_classes) for index, value in enumerate(levels)]


def _neck(ops: Operations[T], fine: T, middle: T, coarse: T) -> list[T]:
    """Coarse features flow up to the fine ones and back down."""
    coarse = ops.conv(coarse, ConvLayer("neck.reduce5", 256, 128))
    joined = ops.concat([ops.double(coarse), middle])
    joined = _stage(ops, joined, "neck.up4", 256, 128, blocks=1, residual=False)
    middle = ops.conv(joined, ConvLayer("neck.reduce4", 128, 64))
    joined = ops.concat([ops.double(middle), fine])
    fine = _stage(ops, joined, "neck.up3", 128, 64, blocks=1, residual=False)
    joined = ops.concat([_separable(ops, fine, "neck.down3", 64, 64, stride=2), middle])
    middle = _stage(ops, joined, "neck.down4", 128, 128, blocks=1, residual=False)
    joined = ops.concat([_separable(ops, middle, "neck.down5", 128, 128, stride=2), coarse])
    return [fine, middle, _stage(ops, joined, "neck.out5", 256, 256, blocks=1, residual=False)]


def _head(ops: Operations[T], value: T, name: str, inputs: int, num_classes: int) -> T:
    width = HEAD_CHANNELS
    value = ops.conv(value, ConvLayer(f"{name}.stem", inputs, width))
    classes = boxes = value
    for index in range(2):
        classes = _separable(ops, classes, f"{name}.class_branch.{index}", width, width)
    scores = ops.conv(classes, ConvLayer(f"{name}.class_scores", width, num_classes, activated=False))
    for index in range(2):
        boxes = _separable(ops, boxes, f"{name}.box_branch.{index}", width, width)
    box = ops.conv(boxes, ConvLayer(f"{name}.box", width, 4, activated=False))
    objectness = ops.conv(boxes, ConvLayer(f"{name}.objectness", width, 1, activated=False))
    return ops.concat([box, ops.sigmoid(objectness), ops.sigmoid(scores)])


def _separable(ops: Operations[T], value: T, name: str, inputs: int, outputs: int, stride: int = 1) -> T:
    """A depthwise 3×3 and a 1×1 convolution."""
    value = ops.conv(value, ConvLayer(f"{name}.depthwise", inputs, inputs, 3, stride, groups=inputs))
    return ops.conv(value, ConvLayer(f"{name}.pointwise", inputs, outputs))


def _stage(ops: Operations[T], value: T, name: str, inputs: int, outputs: int, blocks: int, residual: bool = True) -> T:
    """Cross-stage partial: half of the channels pass the blocks, the other half goes around them."""
    width = outputs // 2
    through = ops.conv(value, ConvLayer(f"{name}.through", inputs, width))
    around = ops.conv(value, ConvLayer(f"{name}.around", inputs, width))
    for index in range(blocks):
        block = f"{name}.blocks.{index}"
        inner = ops.conv(through, ConvLayer(f"{block}.reduce", width, width))
        inner = _separable(ops, inner, block, width, width)
        through = ops.add(inner, through) if residual else inner
    return ops.conv(ops.concat([through, around]), ConvLayer(f"{name}.join", outputs, outputs))


class _Collector:
    """Operations that only write down the convolutions."""

    def __init__(self) -> None:
        self.layers: list[ConvLayer] = []

    def conv(self, value: None, layer: ConvLayer) -> None:
        self.layers.append(layer)

    def add(self, first: None, second: None) -> None: ...

    def concat(self, values: list[None]) -> None: ...

    def pool(self, value: None, size: int) -> None: ...

    def double(self, value: None) -> None: ...

    def quarter(self, value: None) -> None: ...

    def sigmoid(self, value: None) -> None: ...


def conv_layers(num_classes: int) -> tuple[ConvLayer, ...]:
    """Every convolution, in the order in which the published graph runs them."""
    collector = _Collector()
    run_yolox(collector, None, num_classes)
    return tuple(collector.layers)


def tensor_shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor in a weights file of this network."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in conv_layers(num_classes):
        shapes[f"{layer.name}.weight"] = layer.weight_shape
        shapes[f"{layer.name}.bias"] = (layer.outputs,)
    return shapes
