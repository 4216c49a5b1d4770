# SPDX-License-Identifier: Apache-2.0
"""DeepLabV3+ on MobileNetV2 as a PyTorch module (imports torch; loaded only when that backend is used)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from perception.errors import InputError
from perception.models import deeplab_layers as layers


class Conv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding and its activation."""

    def __init__(self, layer: layers.ConvLayer) -> None:
        before, after = layer.padding
        super().__init__(
            layer.inputs,
            layer.outputs,
            layer.kernel,
            stride=layer.stride,
            padding=before if before == after else 0,
            dilation=layer.dilation,
            groups=layer.groups,
        )
        self.extra_padding = (before, after, before, after) if before != after else None
        self.activation = layer.activation

    def forward(self, input: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride); H and W even where the stride is 2."""
        if self.extra_padding is not None:
            input = functional.pad(input, self.extra_padding)
        output = super().forward(input)
        if self.activation == "relu6":
            return functional.relu6(output, inplace=not self.training)
        return functional.relu(output, inplace=not self.training) if self.activation == "relu" else output


class InvertedResidual(nn.Module):
    """MobileNetV2's block; ``forward`` also returns the depthwise output, which the decoder uses."""

    def __init__(self, block: layers.Block) -> None:
        super().__init__()
        self.residual = block.residual
        for layer in block.layers:
            self.add_module(layer.name.rsplit(".", 1)[1], Conv(layer))

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the block's output and its depthwise output."""
        expanded = self.get_submodule("expand")(input) if "expand" in self._modules else input
        inner = self.get_submodule("depthwise")(expanded)
        output = self.get_submodule("project")(inner)
        return (output + input if self.residual else output), inner


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ with a MobileNetV2 backbone, output stride 16.

    Args:
        num_classes: channels of the logits.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = Conv(layers.STEM)
        self.blocks = nn.ModuleList([InvertedResidual(block) for block in layers.BLOCKS])
        self.pyramid = _branches(layers.PYRAMID_POINT, layers.PYRAMID_POOL, layers.PYRAMID_PROJECT)
        self.decoder = _branches(layers.DECODER_LOW, *layers.DECODER)
        self.classifier = Conv(layers.classifier(num_classes))

    def coarse_logits(self, image: Tensor) -> Tensor:
        """Logits before the last upsampling.

        Args:
            image: (N, 3, H, W) float, RGB scaled to −1 … 1 (x / 127.5 − 1); H and W multiples of 16.

        Returns:
            (N, num_classes, H / 4, W / 4).

        Raises:
            InputError: a size is no multiple of 16.
        """
        if image.shape[-1] % layers.OUTPUT_STRIDE or image.shape[-2] % layers.OUTPUT_STRIDE:
            raise InputError(f"network input: expected sizes that are multiples of 16, got {tuple(image.shape[-2:])}")
        features = self.stem(image)
        low = features
        for index, block in enumerate(self.blocks):
            features, inner = block(features)
            if index == layers.LOW_LEVEL_BLOCK:
                low = self.decoder["low_level"](inner)
        pooled = self.pyramid["pool"](features.mean((2, 3), keepdim=True)).expand(-1, -1, *features.shape[2:])
        pyramid = self.pyramid["project"](torch.cat([pooled, self.pyramid["point"](features)], 1))
        joined = torch.cat([upsample(pyramid, layers.OUTPUT_STRIDE // layers.LOGIT_STRIDE), low], 1)
        for layer in layers.DECODER:
            joined = self.decoder[layer.name.rsplit(".", 1)[1]](joined)
        return self.classifier(joined)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) as in :meth:`coarse_logits` to logits (N, num_classes, H, W)."""
        return upsample(self.coarse_logits(image), layers.LOGIT_STRIDE)

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take the tensors of a weights file that was checked against ``deeplab_layers.tensor_shapes``."""
        self.load_state_dict({name: torch.tensor(np.asarray(array, np.float32)) for name, array in arrays.items()})


def _branches(*parts: layers.ConvLayer) -> nn.ModuleDict:
    return nn.ModuleDict({part.name.rsplit(".", 1)[1]: Conv(part) for part in parts})


def upsample(features: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling on the grid of TensorFlow 1: source = destination / factor, the last row and column repeated.

    Repeating one row and column first makes that grid equal to ``align_corners`` on one more sample.
    """
    height, width = features.shape[-2:]
    padded = functional.pad(features, (0, 1, 0, 1), mode="replicate")
    size = (height * factor + 1, width * factor + 1)
    return functional.interpolate(padded, size, mode="bilinear", align_corners=True)[..., :-1, :-1]
