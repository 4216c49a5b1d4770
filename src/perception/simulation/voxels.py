# SPDX-License-Identifier: Apache-2.0
"""The true map of a scene: the class of every voxel that a surface passes through."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.labels import UNLABELED, LabelSet
from perception.simulation.scene import Scene

SPACING = 0.5
"""Distance of the points that stand for a surface, in voxels."""
MAX_POINTS = 1 << 21
"""Points held at once."""
_KEY_BITS = 21
_KEY_OFFSET = 1 << (_KEY_BITS - 1)


@dataclass(frozen=True, eq=False)
class VoxelMap:
    """Occupied voxels and their classes.

    Attributes:
        keys: (M, 3) int32; voxel k spans k · resolution to (k + 1) · resolution on each axis, in map.
        labels: (M,) int32 class ids, −1 for none.
        resolution: meters.
        label_set: what the ids mean.
    """

    keys: NDArray[np.int32]
    labels: NDArray[np.int32]
    resolution: float
    label_set: LabelSet

    @property
    def centers(self) -> NDArray[np.float32]:
        """(M, 3) float32 meters."""
        return ((self.keys + 0.5) * self.resolution).astype(np.float32)

    def label_at(self, points: NDArray[np.floating]) -> NDArray[np.int32]:
        """Classes of the voxels of (N, 3) points in meters; −2 where nothing is."""
        known = _packed(self.keys)
        order: NDArray[np.int64] = np.argsort(known)
        asked = np.floor(np.asarray(points, np.float64) / self.resolution)
        inside = np.max(np.abs(asked), axis=1) < _KEY_OFFSET
        packed = _packed(np.where(np.expand_dims(inside, 1), asked, 0))
        place = np.searchsorted(known[order], packed).clip(max=len(known) - 1)
        nearest = order[place]
        found = np.logical_and(inside, known[nearest] == packed)
        return np.where(found, self.labels[nearest], UNLABELED - 1).astype(np.int32)

    def save(self, path: str | Path) -> None:
        """Write an .npz: keys, labels, resolution, and the label set as JSON."""
        names = json.dumps(self.label_set.to_dict())
        np.savez_compressed(path, keys=self.keys, labels=self.labels, resolution=self.resolution, label_set=names)

    @classmethod
    def load(cls, path: str | Path) -> VoxelMap:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: missing or not such a file; or keys, labels or resolution are none that a map can have.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                keys, labels, resolution = data["keys"], data["labels"], float(data["resolution"])
                label_set = LabelSet.from_dict(json.loads(str(data["label_set"])), str(path))
        except InputError:
            raise
        except Exception as error:
            # An untrusted ZIP raises whatever its damage leads to.
            raise InputError(f"voxel map {path}: cannot be read ({error})") from error
        if keys.ndim != 2 or keys.shape[1] != 3 or labels.shape != keys.shape[:1] or not len(keys):
            raise InputError(
                f"voxel map {path}: expected keys (M, 3) and labels (M,) of at least one voxel, got {keys.shape}, "
                f"{labels.shape}"
            )
        _check_values(path, keys, labels, resolution, label_set.num_classes)
        return cls(keys.astype(np.int32), labels.astype(np.int32), resolution, label_set)


def _check_values(
    path: str | Path, keys: NDArray[Any], labels: NDArray[Any], resolution: float, num_classes: int
) -> None:
    """Raise InputError unless conversion changes no number and each voxel is there once, with a known class or none."""
    if keys.dtype.kind not in "iu" or labels.dtype.kind not in "iu":
        raise InputError(f"voxel map {path}: expected integers, got keys {keys.dtype} and labels {labels.dtype}")
    if not 1e-6 <= resolution <= 1e6:
        raise InputError(f"voxel map {path}: expected a resolution of 1e-6 to 1e6 meters, got {resolution}")
    if keys.min() < -_KEY_OFFSET or keys.max() >= _KEY_OFFSET:
        raise InputError(f"voxel map {path}: expected keys within ±{_KEY_OFFSET}, got {keys.min()} to {keys.max()}")
    if labels.min() < UNLABELED or labels.max() >= num_classes:
        raise InputError(
            f"voxel map {path}: expected labels below {num_classes}, or {UNLABELED} for none, got {labels.min()} to "
            f"{labels.max()}"
        )
    unique = len(np.unique(_packed(keys)))
    if unique != len(keys):
        raise InputError(f"voxel map {path}: expected each voxel once, got {len(keys)} keys of {unique} voxels")


def voxelize(scene: Scene, resolution: float = 0.05, seconds: float | None = None) -> VoxelMap:
    """The true voxels of a scene.

    Each surface is sampled at half a voxel; a voxel is of the class with most area in it.

    Args:
        scene: what there is.
        resolution: edge of a voxel, meters.
        seconds: time at which things that move are taken in; None leaves them away.

    Raises:
        InputError: the resolution is not positive, or the scene too large for it.
    """
    if not resolution > 0:
        raise InputError(f"voxels: expected a positive resolution, got {resolution}")
    keys: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int64]] = []
    areas: list[NDArray[np.float64]] = []
    for instance in scene.instances:
        if instance.motion is not None and seconds is None:
            continue
        triangles = instance.triangles(seconds or 0.0).astype(np.float64)
        if triangles.size and np.abs(triangles).max() / resolution >= _KEY_OFFSET:
            raise InputError(f"voxels: {instance.name} reaches too far for voxels of {resolution} m")
        packed, area = _surface_voxels(triangles, resolution)
        keys.append(packed)
        areas.append(area)
        labels.append(np.full(len(packed), instance.label))
    return _most_area(np.concatenate(keys), np.concatenate(labels), np.concatenate(areas), resolution, scene.label_set)


def _most_area(
    keys: NDArray[np.int64], labels: NDArray[np.int64], areas: NDArray[np.float64], resolution: float, known: LabelSet
) -> VoxelMap:
    """The class with most area of each voxel; the lowest id where two are even."""
    order = np.lexsort((labels, keys))
    keys, labels, areas = keys[order], labels[order], areas[order]
    new = np.flatnonzero(_changes(keys) | _changes(labels))
    keys, labels, areas = keys[new], labels[new], np.add.reduceat(areas, new)
    order = np.lexsort((labels, -areas, keys))
    keys, labels = keys[order], labels[order]
    first = _changes(keys)
    return VoxelMap(_unpacked(keys[first]), labels[first].astype(np.int32), resolution, known)


def _changes(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a value differs from the one before; True at the first."""
    changes = np.ones(len(values), np.bool_)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _surface_voxels(triangles: NDArray[np.float64], resolution: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Packed keys of the voxels of (T, 3, 3) triangles, and the area of surface in each."""
    edges = np.linalg.norm(triangles - triangles[:, (1, 2, 0)], axis=2).max(1)
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1) / 2
    steps = np.maximum(np.ceil(edges / (SPACING * resolution)), 1).astype(np.int64)
    found_keys: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    found_areas: list[NDArray[np.float64]] = [np.empty(0)]
    for n in np.unique(steps):
        weights = _lattice(int(n))
        chosen = np.flatnonzero(steps == n)
        share = max(MAX_POINTS // len(weights), 1)
        for part in (chosen[i : i + share] for i in range(0, len(chosen), share)):
            points = np.einsum("kc,tcx->tkx", weights, triangles[part]).reshape(-1, 3)
            packed = _packed(np.floor(points / resolution))
            spread = np.repeat(area[part] / len(weights), len(weights))
            unique, inverse = np.unique(packed, return_inverse=True)
            found_keys.append(unique)
            found_areas.append(np.bincount(inverse, spread, len(unique)).astype(np.float64))
    return np.concatenate(found_keys), np.concatenate(found_areas)


def _lattice(n: int) -> NDArray[np.float64]:
    """(n², 3) weights of the corners: the centers of the n² small triangles that a triangle is cut into."""
    i, j = np.indices((n, n)).reshape(2, -1)
    upright = i + j <= n - 1
    first = np.stack([i + 1 / 3, j + 1 / 3], 1)[upright]
    flipped = i + j <= n - 2
    second = np.stack([i + 2 / 3, j + 2 / 3], 1)[flipped]
    pair = np.concatenate([first, second]) / n
    return np.column_stack([1 - pair.sum(1), pair])


def _packed(keys: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.int64]:
    """(M, 3) keys as one number each."""
    x, y, z = (np.asarray(keys).astype(np.int64) + _KEY_OFFSET).T
    return (x << (2 * _KEY_BITS)) | (y << _KEY_BITS) | z


def _unpacked(packed: NDArray[np.int64]) -> NDArray[np.int32]:
    mask = (1 << _KEY_BITS) - 1
    columns = packed >> (2 * _KEY_BITS), (packed >> _KEY_BITS) & mask, packed & mask
    return (np.stack(columns, 1) - _KEY_OFFSET).astype(np.int32)
