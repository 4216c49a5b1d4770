# SPDX-License-Identifier: Apache-2.0
"""Forgetting what lies outside of a region, for maps that follow the robot."""

from __future__ import annotations

import numpy as np

from perception.mapping.keys import KEY_ORIGIN, brick_corners
from perception.mapping.store import BrickStore, _remove_until, live_bricks

BRICK = 8
"""Voxels along an edge of a brick."""
NOTHING = -1
"""Bytes that no shard falls to: all bricks of a list go."""


def keep_within(store: BrickStore, center: tuple[float, float], radius: float, resolution: float) -> int:
    """Forget the bricks that do not touch a square column.

    Args:
        store: the bricks.
        center: (x, y) meters.
        radius: half the edge of the square, meters.
        resolution: edge of a voxel, meters.

    Returns:
        number of bricks forgotten.
    """
    low = np.floor((np.array(center) - radius) / resolution) + KEY_ORIGIN
    high = np.floor((np.array(center) + radius) / resolution) + KEY_ORIGIN
    removed = 0
    for shard in store.shards:
        numbers = live_bricks(shard)
        corners = brick_corners(shard.keys[numbers])[:, :2] * BRICK
        outside = ((corners + BRICK <= low) | (corners > high)).any(axis=1)
        removed += int(_remove_until(shard, numbers[outside], NOTHING))
    return removed
