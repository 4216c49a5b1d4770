# SPDX-License-Identifier: Apache-2.0
"""Depthwise 3×3 convolutions whose backward pass is quick on a CPU in half precision.

oneDNN's backward pass of bfloat16 depthwise convolutions is slower than that of float32. Here the gradient of the input
is a convolution of the output's gradient with the turned kernel, and that of the weights a kernel of our own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Geometry = tuple[int, int, int]
"""Stride, padding and dilation, the same along both axes."""


class QuickDepthwise(TorchFunctionMode):
    """A context in which depthwise 3×3 convolutions in half precision on a CPU are :class:`DepthwiseConvolution`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See torch.overrides."""
        if func is functional.conv2d and not kwargs and (geometry := depthwise_geometry(*args)) is not None:
            return DepthwiseConvolution.apply(*args[:3], geometry)
        return func(*args, **(kwargs or {}))


def depthwise_geometry(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Geometry | None:
    """Stride, padding and dilation of a convolution that the quick form can do, else None; arguments as conv2d's."""
    fits = groups > 1 and weight.shape == (input.shape[1], 1, 3, 3) and input.device.type == "cpu" and input.ndim == 4
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if not fits or not half or not weight.requires_grad or not torch.is_grad_enabled():
        return None
    numbers = [(value, value) if isinstance(value, int) else value for value in (stride, padding, dilation)]
    if any(isinstance(pair, str) or pair[0] != pair[1] for pair in numbers):
        return None
    geometry = numbers[0][0], numbers[1][0], numbers[2][0]
    return geometry if geometry[0] <= 2 and geometry[1] <= 2 * geometry[2] else None


class DepthwiseConvolution(torch.autograd.Function):
    """conv2d of a depthwise 3×3 kernel in bfloat16; the gradient of the weights is summed in float32."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        """As functional.conv2d in half precision."""
        stride, padding, dilation = geometry
        input = input.to(torch.bfloat16)
        ctx.save_for_backward(input, weight)
        ctx.geometry, ctx.has_bias = geometry, bias is not None
        bias = None if bias is None else bias.to(input.dtype)
        return functional.conv2d(input, weight.to(input.dtype), bias, stride, padding, dilation, input.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of input, weight and bias."""
        input, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        wanted = ctx.needs_input_grad
        wide, image = gradient.float(), input.float()
        of_input = input_gradient(gradient, weight, image, ctx.geometry).to(input.dtype) if wanted[0] else None
        of_weight = weight_gradient(image, wide, ctx.geometry).to(weight.dtype) if wanted[1] else None
        of_bias = wide.sum((0, 2, 3)) if ctx.has_bias and wanted[2] else None
        return of_input, of_weight, of_bias, None


def input_gradient(gradient: Tensor, weight: Tensor, image: Tensor, geometry: Geometry) -> Tensor:
    """(N, C, H, W) from the output's gradient (N, C, h, w) and the input (N, C, H, W) float32."""
    stride, padding, dilation = geometry
    channels = gradient.shape[1]
    if stride == 1:
        kernel = weight.to(gradient.dtype).flip(2, 3)
        return functional.conv2d(gradient, kernel, None, 1, 2 * dilation - padding, dilation, channels)
    # With a stride PyTorch's own is quick enough, in float32 only.
    steps = [stride] * 2, [padding] * 2, [dilation] * 2
    arguments = (gradient.float(), image, weight.float(), None, *steps, False, [0, 0], channels)
    return torch.ops.aten.convolution_backward(*arguments, [True, False, False])[0]


def weight_gradient(input: Tensor, gradient: Tensor, geometry: Geometry) -> Tensor:
    """(C, 1, 3, 3) float32 from float32 input (N, C, H, W) and output's gradient (N, C, h, w)."""
    from perception.training.depthwise_kernel import add_weight_gradient

    rows = [
        value.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy() for value in (input, gradient)
    ]
    images, channels = input.shape[:2]
    threads = max(1, min(torch.get_num_threads(), images))
    parts = np.zeros((threads, 9, channels), np.float32)

    def work(part: int) -> None:
        chosen = slice(part * images // threads, (part + 1) * images // threads)
        add_weight_gradient(rows[0][chosen], rows[1][chosen], *geometry, parts[part])

    if threads == 1:
        work(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    return torch.from_numpy(np.ascontiguousarray(parts.sum(0).T)).view(channels, 1, 3, 3)
