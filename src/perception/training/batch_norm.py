# SPDX-License-Identifier: Apache-2.0
"""Batch norm behind the convolutions of a network that has none, and back into them.

DeepLab's published weights have batch norm folded into the convolutions. New layers are set so that they change nothing
on average; afterwards they are folded again, and the network is as small and as fast as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from perception.models.deeplab import Conv

ACTIVATIONS = {"relu6": functional.relu6, "relu": functional.relu}


class NormalizedConv(nn.Module):
    """A convolution, batch norm and the convolution's activation.

    Args:
        conv: its activation moves behind the batch norm.
    """

    def __init__(self, conv: Conv) -> None:
        super().__init__()
        self.activation = conv.activation
        conv.activation = "none"
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels)
        with torch.no_grad():
            self.norm.weight.fill_((1.0 + self.norm.eps) ** 0.5)

    def forward(self, input: Tensor) -> Tensor:
        """As the convolution alone, normalized."""
        output = self.norm(self.conv(input))
        return output if self.activation == "none" else ACTIVATIONS[self.activation](output)

    def folded(self) -> dict[str, Tensor]:
        """Weight and bias of one convolution that does the same in evaluation."""
        norm, bias = self.norm, self.conv.bias
        assert norm.running_mean is not None and norm.running_var is not None and bias is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return {
            "weight": self.conv.weight * scale.view(-1, 1, 1, 1),
            "bias": (bias - norm.running_mean) * scale + norm.bias,
        }


def insert_batch_norm(module: nn.Module, without: Iterable[str] = ()) -> None:
    """Put batch norm behind the convolutions of a module, in place; evaluation gives what it gave.

    Args:
        module: changed.
        without: names of convolutions that stay bare: those whose output has too few pixels, and the classifier.
    """
    skipped = set(without)
    for name, child in list(module.named_modules()):
        if isinstance(child, Conv) and name not in skipped:
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, NormalizedConv(child))


def calibrate(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set inserted batch norm to the statistics that the bare network has on some images; it still changes nothing.

    Args:
        module: with inserted batch norm; left in evaluation mode.
        batches: inputs of the module.
    """
    layers = [child for child in module.modules() if isinstance(child, NormalizedConv)]
    sums = {layer: torch.zeros(3, layer.conv.out_channels, dtype=torch.float64) for layer in layers}

    def count(layer: NormalizedConv, output: Tensor) -> None:
        values = output.double()
        pixels = torch.full((values.shape[1],), values.numel() / values.shape[1], device=values.device)
        total = torch.stack([pixels, values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        sums[layer] += total.cpu()

    def hook(layer: NormalizedConv) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, __, output: count(layer, output)

    handles = [layer.conv.register_forward_hook(hook(layer)) for layer in layers]
    module.eval()
    try:
        with torch.no_grad():
            for images in batches:
                module(images)
    finally:
        for handle in handles:
            handle.remove()
    for layer, (pixels, total, squares) in sums.items():
        if pixels[0] > 1:
            mean = total / pixels
            _set_identity(layer.norm, mean.float(), (squares / pixels - mean**2).clamp(min=0).float())


def _set_identity(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(torch.sqrt(variance + norm.eps))
        norm.bias.copy_(mean)


def folded_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module with inserted batch norm folded into its convolutions, under the convolutions' names."""
    prefixes = [name for name, child in module.named_modules() if isinstance(child, NormalizedConv)]
    state = {
        name: value
        for name, value in module.state_dict().items()
        if not any(name.startswith(f"{prefix}.") for prefix in prefixes)
    }
    for prefix in prefixes:
        layer = module.get_submodule(prefix)
        assert isinstance(layer, NormalizedConv)
        state |= {f"{prefix}.{name}": value.detach() for name, value in layer.folded().items()}
    return state
