# SPDX-License-Identifier: Apache-2.0
"""The faces of a voxel map that can be seen, merged into rectangles: what a page needs to draw it.

A face counts where the voxel behind it is not occupied or has another class, so that a class that is switched off
leaves no hole in its neighbors. Faces of one class in one plane are merged along one axis and then along the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = ((0, -1), (0, 1), (1, -1), (1, 1), (2, -1), (2, 1))
"""Axis and sign of the normals of the six groups of faces."""
MAX_FACES = 240_000
"""Of one map in a page: about 1 MB after compression."""
MAX_VOXELS = 6_000_000
"""More are not expanded; the map is made coarser first."""


@dataclass(frozen=True, slots=True)
class Voxels:
    """Occupied voxels of one size.

    Attributes:
        keys: (N, 3) int64 distinct voxel indices along x, y and z.
        labels: (N,) int32 classes, -1 for none.
        size: edge of a voxel, meters.
        origin: (3,) float64 map coordinates of the lower corner of voxel (0, 0, 0), meters.
    """

    keys: NDArray[np.int64]
    labels: NDArray[np.int32]
    size: float
    origin: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Faces:
    """Rectangles of voxel faces, those of one direction after those of the other, as in ``DIRECTIONS``.

    Attributes:
        corners: (F, 3) uint16 index of the lowest voxel of each rectangle, from ``low`` on.
        extents: (F, 2) uint16 voxels along the two other axes, the lower axis first.
        labels: (F,) int32 classes, -1 for none.
        counts: (6,) int64 rectangles per direction.
        low: (3,) int64 index of the lowest voxel of the map.
        size: edge of a voxel, meters.
        origin: (3,) float64 map coordinates of the lower corner of voxel ``low``, meters.
        voxels: how many voxels are drawn.
        class_ids: (C,) int32 classes that occur, ascending.
        class_voxels: (C,) int64 how many voxels each of them has.
    """

    corners: NDArray[np.uint16]
    extents: NDArray[np.uint16]
    labels: NDArray[np.int32]
    counts: NDArray[np.int64]
    low: NDArray[np.int64]
    size: float
    origin: NDArray[np.float64]
    voxels: int
    class_ids: NDArray[np.int32]
    class_voxels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def occupied_voxels(tree: Any, depth: int = 16) -> Voxels:
    """The occupied voxels of a map at a depth.

    Args:
        tree: a SemanticOcTree.
        depth: 16 for single voxels, less for coarser ones.
    """
    leaves = tree.leaves(depth)
    size = tree.resolution * 2.0 ** (16 - depth)
    occupied = leaves.log_odds >= 0
    centers, labels = leaves.centers[occupied].astype(np.float64), leaves.labels[occupied]
    edges = np.rint(leaves.sizes[occupied] / size).astype(np.int64)
    lowest = np.rint(centers / size - edges[:, None] / 2).astype(np.int64)
    return Voxels(*_expanded(lowest, edges, labels), size, np.zeros(3))


def _expanded(
    lowest: NDArray[np.int64], edges: NDArray[np.int64], labels: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Single voxels of cubes."""
    keys, ids = [], []
    for edge in np.unique(edges):
        chosen = edges == edge
        offsets = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        keys.append((lowest[chosen, None] + offsets).reshape(-1, 3))
        ids.append(np.repeat(labels[chosen], len(offsets)))
    if not keys:
        return np.empty((0, 3), np.int64), np.empty(0, np.int32)
    return np.concatenate(keys), np.concatenate(ids).astype(np.int32)


def map_faces(tree: Any, max_faces: int = MAX_FACES) -> Faces:
    """The faces of a map, as fine as a number of rectangles allows.

    Args:
        tree: a SemanticOcTree.
        max_faces: bound; the map is halved in resolution until it holds.
    """
    depth = 16
    while depth > 8 and _volume(tree, depth) > MAX_VOXELS:
        depth -= 1
    return limited_faces(occupied_voxels(tree, depth), max_faces)


def _volume(tree: Any, depth: int) -> float:
    """How many occupied voxels a map has at a depth."""
    leaves = tree.leaves(depth)
    edges = leaves.sizes[leaves.log_odds >= 0].astype(np.float64) / (tree.resolution * 2.0 ** (16 - depth))
    return float((np.rint(edges) ** 3).sum())


def limited_faces(voxels: Voxels, max_faces: int = MAX_FACES) -> Faces:
    """The faces of voxels, of larger ones where there would be more than a number of rectangles."""
    faces = merged_faces(voxels)
    while len(faces) > max_faces and faces.voxels > 1:
        voxels = halved(voxels)
        faces = merged_faces(voxels)
    return faces


def halved(voxels: Voxels) -> Voxels:
    """Voxels of twice the edge: occupied where one of eight is, of the class of most (the lowest id of several)."""
    parents, inverse = np.unique(voxels.keys >> 1, axis=0, return_inverse=True)
    pairs, counts = np.unique(np.stack([inverse.ravel(), voxels.labels], axis=1), axis=0, return_counts=True)
    # The last one written wins: most voxels, then a class before none, then the lowest id.
    order = np.lexsort((-pairs[:, 1], pairs[:, 1] >= 0, counts))
    labels = np.empty(len(parents), np.int32)
    labels[pairs[order, 0]] = pairs[order, 1]
    return Voxels(parents, labels, 2 * voxels.size, voxels.origin)


def merged_faces(voxels: Voxels) -> Faces:
    """Faces of voxels that border on none or on another class, merged into rectangles of one class."""
    if len(voxels.keys) == 0:
        empty = np.empty((0, 3), np.uint16), np.empty((0, 2), np.uint16), np.empty(0, np.int32)
        none = np.empty(0, np.int32), np.empty(0, np.int64)
        return Faces(*empty, np.zeros(6, np.int64), np.zeros(3, np.int64), voxels.size, voxels.origin, 0, *none)
    low = voxels.keys.min(axis=0)
    keys = voxels.keys - low
    order = np.argsort(_packed(keys))
    keys, labels = keys[order], voxels.labels[order]
    packed = _packed(keys)
    parts = [_direction(keys, labels, packed, axis, sign) for axis, sign in DIRECTIONS]
    return Faces(
        np.concatenate([part[0] for part in parts]).astype(np.uint16),
        np.concatenate([part[1] for part in parts]).astype(np.uint16),
        np.concatenate([part[2] for part in parts]).astype(np.int32),
        np.array([len(part[2]) for part in parts], np.int64),
        low,
        voxels.size,
        voxels.origin + low * voxels.size,
        len(keys),
        *np.unique(labels, return_counts=True),
    )


def _packed(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number per voxel index; indices from -1 to 2^20 stay distinct."""
    shifted = keys + 1
    return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]


def _direction(
    keys: NDArray[np.int64], labels: NDArray[np.int32], packed: NDArray[np.int64], axis: int, sign: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Rectangles of one direction: lowest voxels (F, 3), extents (F, 2) and classes (F,)."""
    step = np.zeros(3, np.int64)
    step[axis] = sign
    wanted = _packed(keys + step)
    place = np.minimum(np.searchsorted(packed, wanted), len(packed) - 1)
    hidden = (packed[place] == wanted) & (labels[place] == labels)
    keys, labels = keys[~hidden], labels[~hidden]
    first, second = (other for other in range(3) if other != axis)
    plane, u, v = keys[:, axis], keys[:, first], keys[:, second]
    ids = labels.astype(np.int64)
    # Runs along u, then runs of equal runs along v.
    order, starts, lengths = _runs((plane, v, ids), u)
    u, v, plane, ids = (values[order][starts] for values in (u, v, plane, ids))
    order, starts, heights = _runs((plane, u, lengths, ids), v)
    corners = np.empty((len(starts), 3), np.int64)
    corners[:, axis] = plane[order][starts]
    corners[:, first] = u[order][starts]
    corners[:, second] = v[order][starts]
    extents = np.stack([lengths[order][starts], heights], axis=1)
    return corners, extents, ids[order][starts].astype(np.int32)


def _runs(
    groups: tuple[NDArray[np.int64], ...], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Runs of consecutive values among elements whose groups agree.

    Returns:
        the order that sorts the elements, where in it runs start, and how long they are.
    """
    order = np.lexsort((values, *groups))
    sorted_values = values[order]
    breaks = np.ones(len(order), np.bool_)
    breaks[1:] = np.diff(sorted_values) != 1
    for group in groups:
        in_order = group[order]
        breaks[1:] |= in_order[1:] != in_order[:-1]
    starts = np.flatnonzero(breaks)
    return order, starts, np.diff(np.append(starts, len(order)))
