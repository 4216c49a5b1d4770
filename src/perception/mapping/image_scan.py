# SPDX-License-Identifier: Apache-2.0
"""From a depth image straight to the voxels its points lie in: what scan.py does with points, a row at a time.

An image of 300 000 pixels makes 4 MB of points, which would be written, transformed and read again. A row of them stays
in the fastest cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perception.depth_kernels import RowBuffers, lift_row, make_row_buffers, pick_row_labels
from perception.geometry_kernels import transform_axes_into, transform_into
from perception.mapping.scan import INVALID, add_points, finish_points
from perception.numba_cache import inner, kernel

POINTS, CLEARS, NOT_FINITE = 0, 1, 2
"""Places in ImageBuffers.counts."""


class ImageBuffers(NamedTuple):
    """What one thread needs for the rows of an image."""

    row: RowBuffers
    points: np.ndarray
    """(W, 3) float32, map frame."""
    labels: np.ndarray
    """(W,) int32."""
    confidence: np.ndarray
    """(W,) float32."""
    clear: np.ndarray
    """(C, 3) float32, map frame: all ends of rays that only clear."""
    counts: np.ndarray
    """(3,) int64: points, clearing points, points that are not finite."""


def make_image_buffers(columns: int, pixels: int) -> ImageBuffers:
    """Room for so many pixels in rows of so many columns."""
    return ImageBuffers(
        make_row_buffers(columns),
        np.empty((columns, 3), np.float32),
        np.empty(columns, np.int32),
        np.empty(columns, np.float32),
        np.empty((pixels, 3), np.float32),
        np.zeros(3, np.int64),
    )


@inner
def _count_not_finite(points, count):
    found = 0
    for i in range(count):
        # Zero times what is not finite is NaN.
        zero = np.float32(0.0)
        found += np.int64(points[i, 0] * zero + points[i, 1] * zero + points[i, 2] * zero != zero)
    return found


@kernel
def collect_image(rows, known, matrix, first, last, num_classes, inverse_resolution, entries, scratch, buffers):
    """Turn the pixels of the rows [first, last) into entries; the ends of rays that only clear are kept for later.

    Args:
        rows: the image.
        known: its labels, see depth_kernels.PixelLabels.
        matrix: (4, 4) float32 map_T_camera.
        first: a row, a multiple of the stride.
        last: behind the last one.
        num_classes: classes of the map.
        inverse_resolution: 1 / m.
        entries: result.
        scratch: of this thread.
        buffers: of this thread.
    """
    row, points, counts = buffers.row, buffers.points, buffers.counts
    labels, confidence = buffers.labels, buffers.confidence
    # Numba compiles a function anew for a number that it reads in the call.
    zero, marks = np.int64(0), np.bool_(True)
    rest = (num_classes, inverse_resolution, marks, entries, scratch)
    counts[:] = 0
    has_labels = known.labels.size > 0
    for v in range(first, last, rows.stride):
        found, empty, moved = lift_row(rows, v, row)
        transform_axes_into(row.points, found, matrix, points)
        transform_into(row.clear, empty, matrix, buffers.clear, counts[CLEARS])
        transform_into(row.movers, moved, matrix, buffers.clear, counts[CLEARS] + empty)
        counts[POINTS] += found
        counts[CLEARS] += empty + moved
        invalid = scratch.used[INVALID]
        if has_labels:
            pick_row_labels(known, v, row.columns, found, labels, confidence)
            add_points(points, labels, confidence, zero, found, *rest)
        else:
            add_points(points, labels[:0], confidence[:0], zero, found, *rest)
        if scratch.used[INVALID] > invalid:
            counts[NOT_FINITE] += _count_not_finite(points, found)
    finish_points(marks, has_labels, entries, scratch)
