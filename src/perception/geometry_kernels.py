# SPDX-License-Identifier: Apache-2.0
"""The compiled part of geometry."""

from __future__ import annotations

import numpy as np

from perception.numba_cache import inlined, inner, njit


@inlined
def matrix_rows(matrix):
    """The three rows of a matrix as numbers: in memory each store could change them, and no loop would vectorize."""
    return (
        (matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3]),
        (matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[1, 3]),
        (matrix[2, 0], matrix[2, 1], matrix[2, 2], matrix[2, 3]),
    )


@inlined
def transformed(point, rows):
    """A point (x, y, z) after a transform; everything that moves points computes it here, to the same bits."""
    x, y, z = point
    (a, b, c, d), (e, f, g, h), (k, m, n, o) = rows
    return a * x + b * y + c * z + d, e * x + f * y + g * z + h, k * x + m * y + n * z + o


@inner
def transform_into(points, count, matrix, result, place):
    """Transform the first ``count`` of (N, 3) float32 points by a (3, 4) or (4, 4) float32 matrix.

    Args:
        points: (N, 3) float32, contiguous.
        count: how many.
        matrix: its first three rows count.
        result: (M, 3) float32, contiguous, another array.
        place: row of the first one in the result.
    """
    rows = matrix_rows(matrix)
    given, to = points.reshape(-1), result.reshape(-1)
    for i in range(count):
        source, target = np.uint64(3) * np.uint64(i), np.uint64(3) * np.uint64(place + i)
        point = given[source], given[source + np.uint64(1)], given[source + np.uint64(2)]
        to[target], to[target + np.uint64(1)], to[target + np.uint64(2)] = transformed(point, rows)


@inner
def transform_axes_into(points, count, matrix, result):
    """The same for the first ``count`` of (3, N) points, into the first rows of (M, 3) ``result``."""
    rows = matrix_rows(matrix)
    from_x, from_y, from_z, to = points[0], points[1], points[2], result.reshape(-1)
    for i in range(count):
        source, target = np.uint64(i), np.uint64(3) * np.uint64(i)
        point = from_x[source], from_y[source], from_z[source]
        to[target], to[target + np.uint64(1)], to[target + np.uint64(2)] = transformed(point, rows)


@njit("float32[:, ::1](float32[:, ::1], float32[:, ::1])", cache=True, nogil=True)
def transform_points(points, matrix):
    """Apply a (4, 4) or (3, 4) float32 matrix to (N, 3) float32 points.

    A library's matrix product starts threads for the three columns here and is many times slower on a busy machine.
    """
    result = np.empty((len(points), 3), np.float32)
    transform_into(points, len(points), matrix, result, np.int64(0))
    return result
