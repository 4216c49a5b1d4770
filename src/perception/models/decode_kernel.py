# SPDX-License-Identifier: Apache-2.0
"""The inner loop of :mod:`perception.models.decoding`; imports numba."""

from __future__ import annotations

import numpy as np

from perception.models.base import MAX_CONFIDENCE
from perception.numba_cache import njit

_MAX = np.float32(MAX_CONFIDENCE)


@njit(cache=True, nogil=True)
def _candidates(top_left, top_right, bottom_left, bottom_right, highest, candidates):  # type: ignore[no-untyped-def]
    """Classes that can be the largest somewhere in a cell; bilinear values lie between those of the corners."""
    bound = np.float32(-np.inf)
    for k in range(top_left.size):
        a, b, c, d = top_left[k], top_right[k], bottom_left[k], bottom_right[k]
        highest[k] = max(max(a, b), max(c, d))
        bound = max(bound, min(min(a, b), min(c, d)))
    # Interpolated values may lie a rounding error outside of the corners'.
    bound -= np.float32(1e-5) * (np.float32(1) + abs(bound))
    count = 0
    for k in range(top_left.size):
        if highest[k] >= bound:
            candidates[count] = k
            count += 1
    return count


@njit(cache=True, nogil=True, inline="always")
def _exp(x):  # type: ignore[no-untyped-def]
    """Exponential of x ≤ 0 for sums: relative error below 1e-5 down to −10, exp(−32) below −32; vectorizes."""
    z = max(x * np.float32(1 / 64), np.float32(-0.5))
    e = z * np.float32(1 / 120) + np.float32(1 / 24)
    e = ((e * z + np.float32(1 / 6)) * z + np.float32(0.5)) * z + np.float32(1)
    e = e * z + np.float32(1)
    for _ in range(6):
        e *= e
    return e


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _denominator(left, slope, weight, largest):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for k in range(left.size):
        total += _exp(left[k] + weight * slope[k] - largest)
    return total


@njit(cache=True, nogil=True)
def decode(logits, row_starts, row_weights, column_starts, column_weights, labels, confidence):  # type: ignore[no-untyped-def]
    """Fill labels and confidence; the arguments are those of :func:`perception.models.decoding.decode_logits`."""
    height, width, classes = logits.shape
    highest, left, slope = (np.empty(classes, np.float32), np.empty(classes, np.float32), np.empty(classes, np.float32))
    candidates = np.empty(classes, np.int64)
    for a in range(height):
        b = min(a + 1, height - 1)
        for p in range(width):
            q = min(p + 1, width - 1)
            if row_starts[a] == row_starts[a + 1] or column_starts[p] == column_starts[p + 1]:
                continue
            count = _candidates(logits[a, p], logits[a, q], logits[b, p], logits[b, q], highest, candidates)
            for i in range(row_starts[a], row_starts[a + 1]):
                t = row_weights[i]
                for k in range(classes):
                    left[k] = logits[a, p, k] + t * (logits[b, p, k] - logits[a, p, k])
                    slope[k] = logits[a, q, k] + t * (logits[b, q, k] - logits[a, q, k]) - left[k]
                for j in range(column_starts[p], column_starts[p + 1]):
                    u = column_weights[j]
                    best = candidates[0]
                    largest = left[best] + u * slope[best]
                    for c in range(1, count):
                        value = left[candidates[c]] + u * slope[candidates[c]]
                        if value > largest:
                            largest, best = value, candidates[c]
                    labels[i, j] = best
                    confidence[i, j] = min(np.float32(1) / _denominator(left, slope, u, largest), _MAX)
