# SPDX-License-Identifier: Apache-2.0
"""YOLOX-Nano as a PyTorch module (imports torch; loaded only when that backend is used)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from perception.errors import InputError
from perception.models import yolox_layers as layers


class YoloX(nn.Module):
    """YOLOX-Nano.

    Args:
        num_classes: number of class scores.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for layer in layers.conv_layers(num_classes):
            *folders, last = layer.name.split(".")
            place: nn.Module = self
            for folder in folders:
                if folder not in place._modules:
                    place.add_module(folder, nn.Module())
                place = place.get_submodule(folder)
            place.add_module(
                last,
                nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, groups=layer.groups),
            )

    def forward(self, image: Tensor) -> Tensor:
        """Find objects.

        Args:
            image: (N, 3, H, W) float, BGR 0 … 255; H and W multiples of 32.

        Returns:
            (N, cells, 5 + num_classes), the cells of the three strides one after the other, row by row: center x and y
            and log width and height in cells as the network gives them, objectness and class scores in 0 … 1.

        Raises:
            InputError: a size is no multiple of 32.
        """
        if image.shape[-1] % layers.STRIDES[-1] or image.shape[-2] % layers.STRIDES[-1]:
            raise InputError(f"network input: expected sizes that are multiples of 32, got {tuple(image.shape[-2:])}")
        levels = layers.run_yolox(_TorchOperations(self), image, self.num_classes)
        return torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2)

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take the tensors of a weights file that was checked against ``yolox_layers.tensor_shapes``."""
        self.load_state_dict({name: torch.tensor(np.asarray(array, np.float32)) for name, array in arrays.items()})


class _TorchOperations:
    """Carries the operations out with the module's convolutions."""

    def __init__(self, module: YoloX) -> None:
        self._module = module

    def conv(self, value: Tensor, layer: layers.ConvLayer) -> Tensor:
        output = self._module.get_submodule(layer.name)(value)
        return functional.silu(output, inplace=not self._module.training) if layer.activated else output

    def add(self, first: Tensor, second: Tensor) -> Tensor:
        return first + second

    def concat(self, values: list[Tensor]) -> Tensor:
        return torch.cat(values, 1)

    def pool(self, value: Tensor, size: int) -> Tensor:
        return functional.max_pool2d(value, size, stride=1, padding=size // 2)

    def double(self, value: Tensor) -> Tensor:
        return functional.interpolate(value, scale_factor=2, mode="nearest")

    def quarter(self, value: Tensor) -> Tensor:
        even, odd = value[..., ::2, :], value[..., 1::2, :]
        return torch.cat([even[..., ::2], odd[..., ::2], even[..., 1::2], odd[..., 1::2]], 1)

    def sigmoid(self, value: Tensor) -> Tensor:
        return torch.sigmoid(value)
