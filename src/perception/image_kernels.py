# SPDX-License-Identifier: Apache-2.0
"""Compiled: the samples of depth images, from millimeters to meters and out of the rows of a PNG file."""

from __future__ import annotations

import numpy as np

from perception.numba_cache import inlined, kernel


@kernel
def to_meters(millimeters, meters):
    """(N,) uint16 to (N,) float32: one division each, as NumPy divides."""
    for i in range(len(millimeters)):
        meters[i] = np.float32(millimeters[i]) / np.float32(1000)


@inlined
def _paeth(left, above, corner):
    """Which of the three neighbors is nearest to left + above − corner."""
    of_left, of_above = abs(above - corner), abs(left - corner)
    of_corner = abs(left + above - 2 * corner)
    if of_left <= of_above and of_left <= of_corner:
        return left
    return above if of_above <= of_corner else corner


@inlined
def _predicted(kind, left, above, corner):
    if kind == 1:
        return left
    if kind == 2:
        return above
    if kind == 3:
        return (left + above) >> 1
    return _paeth(left, above, corner) if kind == 4 else np.int32(0)


@inlined
def _unfilter_row(kind, row, before, image):
    """One row of samples. The processor foresees the branches of ``kind``: a loop for each would gain nothing."""
    high = low = corner_high = corner_low = np.int32(0)
    for u in range(len(image)):
        i = np.uint64(u)
        above = np.int32(before[i])
        above_high, above_low = above >> 8, above & 255
        high = (np.int32(row[2 * i]) + _predicted(kind, high, above_high, corner_high)) & 255
        low = (np.int32(row[2 * i + np.uint64(1)]) + _predicted(kind, low, above_low, corner_low)) & 255
        corner_high, corner_low = above_high, above_low
        image[i] = np.uint16((high << 8) | low)


@kernel
def unfilter_16(rows, image):
    """Undo the filters of the rows of a PNG file with one channel of 16 bits.

    Args:
        rows: (H, 1 + 2·W) uint8, a filter's number and the filtered bytes, higher ones first.
        image: (H + 1, W) uint16: a row of zeros, which is above the first one, then what is written.

    Returns:
        Whether all filters are known.

    Source: ISO/IEC 15948, 9.2.
    """
    for v in range(len(rows)):
        if rows[v, 0] > 4:
            return False
        _unfilter_row(np.int32(rows[v, 0]), rows[v, 1:], image[v], image[v + 1])
    return True
