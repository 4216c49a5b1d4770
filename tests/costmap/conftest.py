# SPDX-License-Identifier: Apache-2.0
"""A map that is a dictionary, in place of the octree."""

from __future__ import annotations

import numpy as np
import pytest

from perception.labels import LabelClass, LabelSet

ORIGIN = 32768


class VoxelMap:
    """Occupied voxels by key, with the reading side of the octree."""

    def __init__(self, resolution=0.05, num_classes=8) -> None:
        self.resolution, self.num_classes = resolution, num_classes
        self.voxels: dict[tuple[int, int], dict[int, tuple[int, float]]] = {}
        self.log: list[tuple[int, int]] = []

    def set(self, x, y, z, label=-1, probability=0.9) -> None:
        """Occupy the voxel with lower corner (x, y, z) · resolution."""
        self.voxels.setdefault((x + ORIGIN, y + ORIGIN), {})[z + ORIGIN] = (label, probability)
        self.log.append(((x + ORIGIN) // 8, (y + ORIGIN) // 8))

    def clear(self, x, y, z) -> None:
        if self.voxels.get((x + ORIGIN, y + ORIGIN), {}).pop(z + ORIGIN, None) is None:
            return
        self.log.append(((x + ORIGIN) // 8, (y + ORIGIN) // 8))

    def fill(self, xs, ys, zs, label=-1, probability=0.9) -> None:
        for x in xs:
            for y in ys:
                for z in zs:
                    self.set(x, y, z, label, probability)

    def changed_columns(self, cursor):
        end = len(self.log)
        if cursor is None:
            return None, end
        return np.array(sorted(set(self.log[cursor:])), np.int64).reshape(-1, 2), end

    def columns(self):
        return np.array(sorted({(x // 8, y // 8) for x, y in self.voxels}), np.int64).reshape(-1, 2)

    def occupied_in(self, tiles):
        offsets, entries = [0], []
        for tx, ty in tiles:
            for c in range(64):
                column = self.voxels.get((int(tx) * 8 + (c & 7), int(ty) * 8 + (c >> 3)), {})
                entries += [(z, *value) for z, value in column.items()]
                offsets.append(len(entries))
        z, labels, probabilities = zip(*entries, strict=True) if entries else ((), (), ())
        return (
            np.array(offsets, np.int64),
            np.array(z, np.int32),
            np.array(labels, np.int32),
            np.array(probabilities, np.float32),
        )


FLOOR, RUG, WALL, TABLE, CURTAIN, GRASS = range(6)


@pytest.fixture
def classes() -> LabelSet:
    return LabelSet(
        "house",
        (
            LabelClass(FLOOR, "floor", (1, 1, 1), cost=0),
            LabelClass(RUG, "rug", (2, 2, 2), cost=10),
            LabelClass(WALL, "wall", (3, 3, 3), cost=254),
            LabelClass(TABLE, "table", (4, 4, 4), cost=254),
            LabelClass(CURTAIN, "curtain", (5, 5, 5), cost=127, traversable=True),
            LabelClass(GRASS, "grass", (6, 6, 6), cost=60),
        ),
    )


@pytest.fixture
def voxel_map() -> VoxelMap:
    return VoxelMap()
