# SPDX-License-Identifier: Apache-2.0
"""The compiled part of geometry."""

from __future__ import annotations

import numpy as np

from perception.numba_cache import njit


@njit("float32[:, ::1](float32[:, ::1], float32[:, ::1])", cache=True, nogil=True)
def transform_points(points, matrix):
    """Apply a (4, 4) or (3, 4) float32 matrix to (N, 3) float32 points.

    A library's matrix product starts threads for the three columns here and is many times slower on a busy machine.
    """
    result = np.empty((len(points), 3), np.float32)
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for row in range(3):
            result[i, row] = matrix[row, 0] * x + matrix[row, 1] * y + matrix[row, 2] * z + matrix[row, 3]
    return result
