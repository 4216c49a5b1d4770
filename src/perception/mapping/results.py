# SPDX-License-Identifier: Apache-2.0
"""What the octree answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.mapping.keys import KEY_ORIGIN, TREE_DEPTH


@dataclass(frozen=True, slots=True)
class OctreeLeaves:
    """Leaves of the octree in depth-first order.

    Attributes:
        centers: (M, 3) float32, meters, map frame.
        sizes: (M,) float32 edges, meters.
        log_odds: (M,) float32; occupied where ≥ 0.
        labels: (M,) int32 best class of occupied leaves, -1 for none.
        depths: (M,) uint8.
    """

    centers: NDArray[np.float32]
    sizes: NDArray[np.float32]
    log_odds: NDArray[np.float32]
    labels: NDArray[np.int32]
    depths: NDArray[np.uint8]

    @classmethod
    def from_keys(
        cls,
        keys: NDArray[np.uint16],
        depths: NDArray[np.uint8],
        log_odds: NDArray[np.float32],
        labels: NDArray[np.int64],
        resolution: float,
    ) -> OctreeLeaves:
        """Leaves given by the keys of their lowest voxels."""
        voxels = np.float64(2.0) ** (TREE_DEPTH - depths.astype(np.int64))
        centers = (keys.astype(np.float64) - KEY_ORIGIN + voxels[:, None] / 2) * resolution
        sizes = (voxels * resolution).astype(np.float32)
        return cls(centers.astype(np.float32), sizes, log_odds, labels.astype(np.int32), depths)


class OccupiedColumns(NamedTuple):
    """Occupied voxels of tiles of 8 x 8 columns.

    Attributes:
        offsets: (64 T + 1,) int64: column 8 · (y & 7) + (x & 7) of tile t holds the voxels offsets[64 t + column] to
            offsets[64 t + column + 1].
        keys: (V,) int32 z keys, ascending in a column.
        labels: (V,) int32 best class, -1 for none.
        probabilities: (V,) float32 of that class, 0 for none.
    """

    offsets: NDArray[np.int64]
    keys: NDArray[np.int32]
    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]
