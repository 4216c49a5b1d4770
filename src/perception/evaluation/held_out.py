# SPDX-License-Identifier: Apache-2.0
"""How well a map predicts scans that it has not seen.

Source: Hornung, Wurm, Bennewitz, Stachniss, Burgard, OctoMap, 2013, section 5.2 (map accuracy): of the voxels that a
held-out scan would mark, occupied at the ends of its rays and free along them, the share that the map has in the same
state; voxels that the map does not know are left out of the share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.config import OctomapConfig
from perception.evaluation.voxel_scores import leaf_voxels, voxel_centers
from perception.geometry import Transform
from perception.mapping import SemanticOcTree
from perception.types import LabeledCloud

MAX_VOXELS = 16_000_000
"""Voxels of held-out scans that are kept until the end (7 bytes each); of longer runs every second one is left away."""


@dataclass(frozen=True, slots=True)
class _Scan:
    keys: NDArray[np.int16]
    occupied: NDArray[np.bool_]


class HeldOutScans:
    """Builds a second map, without labels, from all scans but every n-th, and asks it for those.

    Args:
        config: resolution and sensor model of the map.
        every: every so many scans one is kept out.
        max_voxels: bound of what is remembered of the scans kept out.
    """

    def __init__(self, config: OctomapConfig, every: int = 5, max_voxels: int = MAX_VOXELS) -> None:
        self.every, self._max_voxels = every, max_voxels
        self._tree = SemanticOcTree(config.resolution, config.sensor_model)
        self._single = SemanticOcTree(config.resolution, config.sensor_model)
        self._scans: list[_Scan] = []
        self._count, self._held, self._step = 0, 0, 1

    def add(self, cloud: LabeledCloud, map_T_camera: Transform) -> None:
        """Take the next scan into the map, or keep it out."""
        points, clear = map_T_camera.apply(cloud.points), map_T_camera.apply(cloud.clear_points)
        self._count += 1
        if self._count % self.every:
            self._tree.insert_cloud(points, map_T_camera.translation, clear_points=clear)
            return
        if self._held % self._step == 0:
            self._single.reset()
            self._single.insert_cloud(points, map_T_camera.translation, clear_points=clear)
            self._keep()
        self._held += 1

    def _keep(self) -> None:
        leaves = self._single.leaves()
        keys, owners = leaf_voxels(leaves, self._single.resolution)
        self._scans.append(_Scan(keys.astype(np.int16), leaves.log_odds[owners] >= 0))
        if sum(len(scan.keys) for scan in self._scans) > self._max_voxels and len(self._scans) > 1:
            self._scans, self._step = self._scans[::2], 2 * self._step

    def summary(self) -> dict[str, Any] | None:
        """Shares of voxels predicted right; None when no scan was kept out.

        ``accuracy`` is over all voxels that the map knows, ``occupied_accuracy`` over the ends of rays,
        ``free_accuracy`` over the voxels before them, ``unknown_share`` of all voxels that the map does not know.
        """
        if not self._scans:
            return None
        # Rows: occupied or not in the scan; columns: wrong, right, unknown.
        counts = np.zeros((2, 3), np.int64)
        for scan in self._scans:
            log_odds = self._tree.log_odds(voxel_centers(scan.keys, self._tree.resolution))
            state = np.where(np.isfinite(log_odds), ((log_odds >= 0) == scan.occupied).astype(np.int64), 2)
            counts += np.bincount(scan.occupied * 3 + state, minlength=6).reshape(2, 3)
        known = counts[:, :2]
        total = int(counts.sum())
        return {
            "every": self.every,
            "scans": len(self._scans),
            "voxels": total,
            "accuracy": _share(known[:, 1].sum(), known.sum()),
            "occupied_accuracy": _share(known[1, 1], known[1].sum()),
            "free_accuracy": _share(known[0, 1], known[0].sum()),
            "unknown_share": _share(counts[:, 2].sum(), total),
        }


def _share(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None
