# SPDX-License-Identifier: Apache-2.0
"""Which depth image belongs to which color image, by their stamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def associate(color_ns: NDArray[np.int64], depth_ns: NDArray[np.int64], tolerance_ns: int) -> list[tuple[int, int]]:
    """Pair stamps one to one, the closest pairs first.

    Args:
        color_ns: (N,) int64, ascending.
        depth_ns: (M,) int64, ascending.
        tolerance_ns: pairs farther apart than this are no pairs; exactly this far is one.

    Returns:
        (color index, depth index) of each pair, by color index. Of equally close pairs the earlier color, then the
        earlier depth image counts.
    """
    low = np.searchsorted(depth_ns, color_ns - tolerance_ns, side="left")
    high = np.searchsorted(depth_ns, color_ns + tolerance_ns, side="right")
    counts = np.maximum(high - low, 0)
    color = np.repeat(np.arange(len(color_ns)), counts)
    # Number of each candidate within its color image, counted from that image's first one.
    within = np.arange(len(color)) - np.repeat(np.cumsum(counts) - counts, counts)
    depth = np.repeat(low, counts) + within
    order = np.lexsort((depth, color, np.abs(color_ns[color] - depth_ns[depth])))
    used_color, used_depth, pairs = set(), set(), []
    for i, j in zip(color[order].tolist(), depth[order].tolist(), strict=True):
        if i not in used_color and j not in used_depth:
            used_color.add(i)
            used_depth.add(j)
            pairs.append((i, j))
    return sorted(pairs)
