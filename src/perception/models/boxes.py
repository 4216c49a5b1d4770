# SPDX-License-Identifier: Apache-2.0
"""Boxes in images: letterboxing, overlap, and suppression of boxes that show the same object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PADDING_GRAY = 114
"""What YOLOX sees beside an image of another shape."""


def letterbox(rgb: NDArray[np.uint8], size: tuple[int, int]) -> tuple[NDArray[np.float32], float]:
    """Fit an image into the upper left corner of a network's input, keeping its shape.

    Args:
        rgb: (H, W, 3) uint8.
        size: (height, width) of the result.

    Returns:
        (1, 3, height, width) float32, BGR 0 … 255, gray on the right or below; and result pixels per image pixel.
    """
    import cv2

    height, width = size
    scale = min(height / rgb.shape[0], width / rgb.shape[1])
    rows, columns = max(1, int(rgb.shape[0] * scale)), max(1, int(rgb.shape[1] * scale))
    # Linear whatever the scale, as the published evaluation does it.
    small = rgb if rgb.shape[:2] == (rows, columns) else cv2.resize(rgb, (columns, rows))
    result = np.full((1, 3, height, width), PADDING_GRAY, np.float32)
    for channel in range(3):
        result[0, channel, :rows, :columns] = small[:, :, 2 - channel]
    return result, scale


def box_iou(box: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.floating]:
    """Intersection over union.

    Args:
        box: (4,) left, top, right, bottom.
        others: (N, 4).

    Returns:
        (N,) in 0 … 1; 0 where the union has no area.
    """
    overlap = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    intersection = np.prod(np.maximum(overlap, 0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def suppress(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    iou_threshold: float,
    max_count: int,
) -> NDArray[np.int64]:
    """Non-maximum suppression class by class.

    Args:
        boxes: (N, 4) left, top, right, bottom.
        scores: (N,).
        labels: (N,) boxes of different labels never suppress each other.
        iou_threshold: boxes that overlap a surer one by more than this are dropped.
        max_count: at most this many are kept; bounds the time.

    Returns:
        Indices of the kept boxes, in descending order of score (the lower index first where scores are equal).
    """
    waiting = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(waiting) and len(kept) < max_count:
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        same = (box_iou(boxes[best], boxes[waiting]) > iou_threshold) & (labels[waiting] == labels[best])
        waiting = waiting[~same]
    return np.array(kept, np.int64)
