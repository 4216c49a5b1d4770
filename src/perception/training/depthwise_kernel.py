# SPDX-License-Identifier: Apache-2.0
"""The gradient of depthwise 3×3 convolution weights, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def add_weight_gradient(
    image: NDArray[np.float32],
    gradient: NDArray[np.float32],
    stride: int,
    padding: int,
    dilation: int,
    sums: NDArray[np.float32],
) -> None:
    """Add the products of input and output's gradient for each of the nine taps.

    Args:
        image: (N, H, W, C) input.
        gradient: (N, h, w, C) of the output.
        stride: of the convolution.
        padding: zeros around the image.
        dilation: pixels between two taps.
        sums: (9, C), changed.
    """
    images, height, width, channels = image.shape
    rows, columns = gradient.shape[1:3]
    for n in range(images):
        for row in range(rows):
            for tap_y in range(3):
                y = row * stride - padding + tap_y * dilation
                if y < 0 or y >= height:
                    continue
                for column in range(columns):
                    for tap_x in range(3):
                        x = column * stride - padding + tap_x * dilation
                        if x < 0 or x >= width:
                            continue
                        # Channels innermost: contiguous in memory, one sum each, so it runs in vector registers.
                        for channel in range(channels):
                            product = image[n, y, x, channel] * gradient[n, row, column, channel]
                            sums[tap_y * 3 + tap_x, channel] += product
