# SPDX-License-Identifier: Apache-2.0
"""From an image to a network's input, and from its coarse logits back to labels and confidence at image size.

Images are stretched to the network's input size, as the published evaluation of the shipped network does it. Logits
are interpolated bilinearly at the place of every image pixel; the label is the largest of them and the confidence its
softmax. Upsampling 32 channels in full would cost more than some networks: here only the classes that can win within
a cell of the logit grid compete, and nothing larger than a cell's channels is stored.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError

SPLIT_PIXELS = 50_000
"""Smaller images are decoded before a second thread has begun."""


@dataclass(frozen=True)
class InputSpec:
    """What a network wants to see.

    Attributes:
        height: of its input, pixels; 0 where any will do.
        width: of its input, pixels; 0 where any will do.
        short_side: keep the aspect ratio and scale the shorter side to this, where height and width are 0; 0 keeps
            the image's size.
        mean: subtracted from the channels, in units of 0 … 255.
        std: the channels are then divided by this.
        channels: "rgb" or "bgr".
        multiple_of: height and width must be multiples of this.
    """

    height: int = 0
    width: int = 0
    short_side: int = 0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: str = "rgb"
    multiple_of: int = 1

    def __post_init__(self) -> None:
        if self.channels not in ("rgb", "bgr"):
            raise InputError(f"network input: expected channels 'rgb' or 'bgr', got {self.channels!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise InputError(f"network input: expected 3 means and 3 positive deviations, got {self.mean}, {self.std}")
        sizes = (self.height, self.width)
        if min(sizes) < 0 or (0 in sizes and any(sizes)) or any(size % self.multiple_of for size in sizes):
            raise InputError(
                f"network input: expected height and width, both or neither, in multiples of {self.multiple_of}, "
                f"got {self.width}x{self.height}"
            )

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the network's input for an image of the given size."""
        if self.height and self.width:
            return self.height, self.width
        scale = self.short_side / min(height, width) if self.short_side else 1.0
        return self._rounded(height * scale), self._rounded(width * scale)

    def _rounded(self, length: float) -> int:
        return max(1, round(length / self.multiple_of)) * self.multiple_of


def prepare(rgb: NDArray[np.uint8], size: tuple[int, int], spec: InputSpec) -> NDArray[np.float32]:
    """Resize and normalize an image.

    Args:
        rgb: (H, W, 3) uint8.
        size: (height, width) of the result; the image is stretched to it.
        spec: normalization and order of the channels.

    Returns:
        (1, 3, height, width) float32.
    """
    import cv2

    height, width = size
    if rgb.shape[:2] != size:
        shrinks = rgb.shape[0] >= 2 * height and rgb.shape[1] >= 2 * width
        # Linear interpolation looks at four pixels only and would skip most of a large image.
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)  # pyright: ignore[reportAssignmentType]
    scale = (1 / np.asarray(spec.std)).astype(np.float32)
    offset = (-np.asarray(spec.mean) / np.asarray(spec.std)).astype(np.float32)
    result = np.empty((1, 3, height, width), np.float32)
    for channel in range(3):
        source = channel if spec.channels == "rgb" else 2 - channel
        np.multiply(rgb[:, :, source], scale[channel], out=result[0, channel])
        result[0, channel] += offset[channel]
    return result


@dataclass(frozen=True)
class _Axis:
    """Where the pixels of one image axis lie on the logit grid.

    Attributes:
        starts: (cells + 1,) int64: pixels starts[c] … starts[c + 1] − 1 lie between logits c and c + 1.
        weights: (pixels,) float32 in 0 … 1, the share of logit c + 1.
    """

    starts: NDArray[np.int64]
    weights: NDArray[np.float32]


def _axis(pixels: int, inputs: int, cells: int, grid: str) -> _Axis:
    place = (np.arange(pixels) + 0.5) / pixels
    # Image and input share their edges in both; TensorFlow 1 puts logit i on the center of input pixel i · in / out.
    source = (place * inputs - 0.5) * (cells / inputs) if grid == "legacy" else place * cells - 0.5
    source = np.clip(source, 0, cells - 1)
    cell = np.floor(source).astype(np.int64)
    return _Axis(np.searchsorted(cell, np.arange(cells + 1)), (source - cell).astype(np.float32))


def decode_logits(
    logits: NDArray[np.float32],
    size: tuple[int, int],
    input_size: tuple[int, int],
    grid: str = "half_pixel",
    num_threads: int = 0,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Labels and confidence at image size from coarse logits.

    Args:
        logits: (h, w, C) float32, finite.
        size: (H, W) of the image.
        input_size: (height, width) of the network's input, which shows the whole image.
        grid: how logits lie on the input: "half_pixel" (PyTorch's ``align_corners=False``) or "legacy" (TensorFlow 1:
            logit i at input pixel i · input / logits).
        num_threads: 1 for the calling thread alone; otherwise images of some size are done by two.

    Returns:
        (H, W) int32 index of the largest interpolated logit (the lowest index of equal ones) and (H, W) float32 its
        softmax, in (0, 1), within 1e-5.
    """
    from perception.models.decode_kernel import decode

    logits = np.ascontiguousarray(logits, np.float32)
    rows = _axis(size[0], input_size[0], logits.shape[0], grid)
    columns = _axis(size[1], input_size[1], logits.shape[1], grid)
    labels, confidence = np.empty(size, np.int32), np.empty(size, np.float32)

    def decode_rows(first: int, last: int) -> None:
        """Pixels between the logit rows ``first`` and ``last``; the next row is needed too, as their lower neighbor."""
        starts = np.append(rows.starts[first : last + 1], rows.starts[last])  # no pixel lies beyond ``last``
        decode(logits[first : last + 1], starts, rows.weights, columns.starts, columns.weights, labels, confidence)

    height = len(logits)
    middle = height // 2
    if num_threads == 1 or labels.size < SPLIT_PIXELS or middle == 0:
        decode_rows(0, height)
        return labels, confidence
    helper = threading.Thread(target=decode_rows, args=(middle, height))
    helper.start()
    try:
        decode_rows(0, middle)
    finally:
        helper.join()
    return labels, confidence


def upsample_logits(logits: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Logits at the size of the network's input, for comparisons with other implementations; slow.

    Args:
        logits: (C, h, w) float32.
        factor: of the upsampling.

    Returns:
        (C, h · factor, w · factor) float32, bilinear on TensorFlow 1's grid ("legacy" of :func:`decode_logits`).
    """
    result = logits
    for axis in (1, 2):
        length = result.shape[axis]
        source = np.minimum(np.arange(length * factor) / factor, length - 1)
        below = np.floor(source).astype(np.int64)
        shape = (1, -1, 1) if axis == 1 else (1, 1, -1)
        weight = (source - below).astype(np.float32).reshape(shape)
        above = np.take(result, np.minimum(below + 1, length - 1), axis)
        below_values = np.take(result, below, axis)
        result = below_values + weight * (above - below_values)
    return result
