# SPDX-License-Identifier: Apache-2.0
"""The color scales of pictures and reports: one for heights, one for navigation costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEIGHT_COLORS = ((51, 45, 120), (48, 92, 161), (32, 140, 150), (68, 184, 116), (168, 214, 72), (250, 228, 60))
"""From low to high; lightness rises all the way, so that the order is seen without colors, too."""
FREE_COLOR, LETHAL_COLOR, UNKNOWN_COLOR = (255, 255, 255), (35, 30, 40), (190, 190, 190)
COST_ANCHORS = ((0, FREE_COLOR), (1, (255, 246, 190)), (50, (250, 145, 60)), (99, (170, 15, 45)), (100, LETHAL_COLOR))


def height_colors(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(N, 3) uint8 colors of heights as shares of the way from the lowest, 0, to the highest, 1."""
    anchors = np.asarray(HEIGHT_COLORS, np.float64)
    places = np.linspace(0.0, 1.0, len(anchors))
    return np.rint(np.stack([np.interp(shares, places, anchors[:, i]) for i in range(3)], axis=-1)).astype(np.uint8)


def cost_table() -> NDArray[np.uint8]:
    """(102, 3) uint8 colors of the costs 0 to 100, all distinct, and of unknown at the end."""
    costs, colors = zip(*COST_ANCHORS, strict=True)
    anchors = np.asarray(colors, np.float64)
    table = np.stack([np.interp(np.arange(101), costs, anchors[:, channel]) for channel in range(3)], axis=1)
    return np.vstack([np.rint(table), UNKNOWN_COLOR]).astype(np.uint8)
