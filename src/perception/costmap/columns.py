# SPDX-License-Identifier: Apache-2.0
"""What the projection reads of an octree: which columns changed, and their occupied voxels."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

TILE = 8
"""Columns per side of a tile, the footprint of a brick."""


class Voxels(NamedTuple):
    """Occupied voxels of tiles of 8 x 8 columns."""

    offsets: NDArray[np.int64]
    """(64 T + 1,): voxels of column 8 · (y & 7) + (x & 7) of tile t are offsets[64 t + c] to offsets[64 t + c + 1]."""
    keys: NDArray[np.int32]
    """(V,) z keys."""
    labels: NDArray[np.int32]
    """(V,) classes, −1 for none."""
    probabilities: NDArray[np.float32]
    """(V,) of the label, 0 where there is none."""


class ColumnSource(Protocol):
    """An octree, as the projection sees it."""

    resolution: float
    num_classes: int

    def changed_columns(self, cursor: Any) -> tuple[NDArray[np.int64] | None, Any]:
        """(T, 2) tiles (x key // 8, y key // 8) that changed since a cursor, None for all; and the new cursor."""
        ...

    def columns(self) -> NDArray[np.int64]:
        """(T, 2) tiles in which anything is known."""
        ...

    def occupied_in(self, tiles: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """The fields of :class:`Voxels` for (T, 2) tiles."""
        ...
