# SPDX-License-Identifier: Apache-2.0
"""The quick backward pass of depthwise convolutions against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perception.training.depthwise import QuickDepthwise, depthwise_geometry, input_gradient, weight_gradient


def gradients(conv: nn.Conv2d, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    output = conv(image)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    return output, list(torch.autograd.grad((output * weights).sum(), [image, *conv.parameters()]))


@pytest.mark.parametrize("size", [(2, 16, 7, 9), (3, 8, 12, 10)])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [(1, 1, 1), (1, 2, 2), (2, 0, 1), (2, 1, 1), (1, 0, 1), (2, 2, 2)]
)
def test_gradients_are_those_of_pytorch(size, stride: int, padding: int, dilation: int):
    torch.manual_seed(0)
    conv = nn.Conv2d(size[1], size[1], 3, stride, padding, dilation, groups=size[1], bias=False)
    image = torch.randn(size, requires_grad=True)
    output = conv(image)
    given = torch.randn(output.shape)
    of_image, of_weight = torch.autograd.grad((output * given).sum(), [image, conv.weight])
    geometry = (stride, padding, dilation)
    torch.testing.assert_close(input_gradient(given, conv.weight, image, geometry), of_image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weight_gradient(image.detach(), given, geometry), of_weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_half_precision_gradients_are_near_those_of_full_precision(stride: int):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, stride, 1, groups=8)
    image = torch.randn(2, 8, 10, 10, requires_grad=True)
    _, expected = gradients(conv, image)
    with torch.autocast("cpu", torch.bfloat16), QuickDepthwise():
        output, found = gradients(conv, image)
    assert output.dtype == torch.bfloat16 and all(value.dtype == torch.float32 for value in found)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


def test_other_convolutions_are_left_to_pytorch():
    image = torch.randn(1, 4, 6, 6)
    weight = torch.randn(4, 1, 3, 3, requires_grad=True)
    assert depthwise_geometry(image, weight, None, 1, 1, 1, 4) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise_geometry(image, weight, None, 1, 1, 1, 4) == (1, 1, 1)
        assert depthwise_geometry(image, weight.detach(), None, 1, 1, 1, 4) is None
        assert depthwise_geometry(image, torch.randn(4, 4, 3, 3, requires_grad=True), None, 1, 1, 1, 1) is None
        assert depthwise_geometry(image, torch.randn(4, 1, 5, 5, requires_grad=True), None, 1, 2, 1, 4) is None
        assert depthwise_geometry(image, weight, None, (1, 2), 1, 1, 4) is None
        assert depthwise_geometry(image, weight, None, 1, "same", 1, 4) is None
        with torch.no_grad():
            assert depthwise_geometry(image, weight, None, 1, 1, 1, 4) is None
