# SPDX-License-Identifier: Apache-2.0
"""Maps of several robots or recordings become one: log-odds and label scores add, within their bounds.

Both are sums of independent evidence: maps in which nothing was clamped merge into what mapping all scans in one run
gives (up to the rounding of the sums). A .bt says of a voxel that it is free or occupied and no more. OctoMap gives it
the lowest or highest log-odds when it reads it, and so these add: a few scans of another map do not outweigh them.

Source of the addition: Hornung et al., OctoMap, 2013, equation 2, and :mod:`perception.mapping.fusion`; of what a .bt
means: OctoMap, OccupancyOcTreeBase::readBinaryNode.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import Transform
from perception.mapping import inputs, map_files, octomap_io
from perception.mapping.fusion import NO_LABEL
from perception.mapping.keys import KEY_END, KEY_ORIGIN, TREE_DEPTH
from perception.mapping.loading import load_evidence, load_leaves
from perception.mapping.map_files import Snapshot
from perception.mapping.octomap_kernels import morton_codes
from perception.mapping.octree import SemanticOcTree

MAX_VOXELS = 1 << 28
"""Most voxels of all maps together; they are handled one by one."""
CHUNK = 1 << 20
"""Voxels that are moved at a time."""
NEIGHBORS = np.indices((3, 3, 3)).reshape(3, -1).T - 1


class _Voxels:
    """Known voxels of a map: keys (V, 3) int64, log_odds (V,) float32, evidence: line (V,) of ids and scores or −1."""

    def __init__(
        self,
        keys: NDArray[np.int64],
        log_odds: NDArray[np.float32],
        lines: NDArray[np.int64],
        ids: NDArray[np.uint16],
        scores: NDArray[np.float32],
    ) -> None:
        self.keys, self.log_odds, self.lines, self.ids, self.scores = keys, log_odds, lines, ids, scores

    def at(self, keys: NDArray[np.int64], rows: NDArray[np.int64]) -> _Voxels:
        """The voxels of some rows, at other places."""
        return _Voxels(keys, self.log_odds[rows], self.lines[rows], self.ids, self.scores)


def read_maps(paths: Sequence[str | Path]) -> list[SemanticOcTree]:
    """Map files that are to be merged: voxels of a .bt get the bounds that the merged map will have.

    Raises:
        InputError: a file is absent or damaged.
    """
    full = {index: SemanticOcTree.read(path) for index, path in enumerate(paths) if not octomap_io.is_binary_file(path)}
    options = {"sensor_model": leader(list(full.values())).sensor_model} if full else {}
    return [full[index] if index in full else SemanticOcTree.read(path, **options) for index, path in enumerate(paths)]


def leader(maps: Sequence[SemanticOcTree]) -> SemanticOcTree:
    """The map whose sensor model, classes and metadata a merged one has: the first with classes, else the first."""
    return next((tree for tree in maps if tree.num_classes), maps[0])


def merge_maps(maps: Sequence[SemanticOcTree], transforms: Sequence[Transform | None] = ()) -> SemanticOcTree:
    """Add maps together.

    A map that is moved by whole voxels is taken over exactly; one that is turned, or moved by parts of voxels, is
    sampled at the centers of the new voxels (the nearest voxel counts).

    Args:
        maps: of one resolution and of the same classes, or of none (geometry alone); they stay as they are. Sensor
            model, bounds and metadata of the result are those of :func:`leader`, its frame is that of the first map
            that stays in place.
        transforms: ``merged_T_map`` of each map, None where it stays in place; may be shorter than ``maps``.

    Returns:
        a new map.

    Raises:
        InputError: no map, different resolutions or numbers of classes, more transforms than maps, or voxels moved
            out of the map's ±32768 voxels.
    """
    if not maps or len(transforms) > len(maps):
        raise InputError(f"merge: expected maps and at most as many transforms, got {len(maps)} and {len(transforms)}")
    first = leader(maps)
    for other in maps:
        for name in ("resolution", "num_classes"):
            if getattr(other, name) != getattr(first, name) and (other.num_classes or name != "num_classes"):
                raise InputError(
                    f"merge: expected maps of one {name}, got {getattr(first, name)} and {getattr(other, name)}"
                )
    moves = [*transforms, *[None] * (len(maps) - len(transforms))]
    snapshots = [tree._snapshot(evidence=True) for tree in maps]
    options = map_files.options_of(first, first._decay_s)
    options["sensor_model"] = first.sensor_model
    options["decay_s"] = first._decay_s[: first.num_classes] if first.num_classes else None
    merged = SemanticOcTree(**options)
    named = [
        one.metadata["frame_id"]
        for one, move in zip(maps, moves, strict=True)
        if move is None and "frame_id" in one.metadata
    ]
    merged.metadata = first.metadata | ({"frame_id": named[0]} if named else {})
    parts = [_moved(_voxels(snapshot), move, first.resolution) for snapshot, move in zip(snapshots, moves, strict=True)]
    _fill(merged, parts)
    return merged


def _voxels(snapshot: Snapshot) -> _Voxels:
    """The single voxels of a map's leaves."""
    leaves = snapshot.leaves
    edges = np.int64(1) << (TREE_DEPTH - leaves.depths.astype(np.int64))
    total = int((edges.astype(np.float64) ** 3).sum())
    if total > MAX_VOXELS:
        raise InputError(f"merge: expected maps of at most {MAX_VOXELS} known voxels, got one of {total}")
    lines = np.full(len(edges), -1, np.int64)
    lines[snapshot.labeled] = np.arange(len(snapshot.labeled))
    keys, rows = [np.empty((0, 3), np.int64)], [np.empty(0, np.int64)]
    for edge in np.unique(edges).tolist():
        chosen = np.flatnonzero(edges == edge)
        offsets = np.indices((edge,) * 3).reshape(3, -1).T
        keys.append((leaves.keys[chosen, None].astype(np.int64) + offsets).reshape(-1, 3))
        rows.append(np.repeat(chosen, len(offsets)))
    row = np.concatenate(rows)
    return _Voxels(np.concatenate(keys), leaves.log_odds[row], lines[row], snapshot.ids, snapshot.scores)


def _moved(voxels: _Voxels, merged_T_map: Transform | None, resolution: float) -> _Voxels:
    """The voxels in the merged map."""
    if merged_T_map is None or not len(voxels.keys):
        return voxels
    matrix = merged_T_map.matrix
    steps = matrix[:3, 3] / resolution
    if np.allclose(matrix[:3, :3], np.eye(3), atol=1e-9) and np.allclose(steps, np.rint(steps), atol=1e-6):
        keys = voxels.keys + np.rint(steps).astype(np.int64)
        _check_range(keys)
        return voxels.at(keys, np.arange(len(keys)))
    return _resampled(voxels, merged_T_map, resolution)


def _resampled(voxels: _Voxels, merged_T_map: Transform, resolution: float) -> _Voxels:
    """Every voxel of the merged map whose center lies in a known voxel of the map."""
    # Each such center is less than a voxel's diagonal from a moved one: it is among the neighbors of its voxel.
    reached = _unique_keys(_keys_of(_apply(merged_T_map, _centers(voxels.keys, resolution)), resolution))
    _check_range(reached)
    inverse = merged_T_map.inverse()
    codes = _codes(voxels.keys)
    order = np.argsort(codes)
    codes = codes[order]
    keys, rows = [np.empty((0, 3), np.int64)], [np.empty(0, np.int64)]
    share = CHUNK // len(NEIGHBORS)
    candidates = [(reached[i : i + share, None] + NEIGHBORS).reshape(-1, 3) for i in range(0, len(reached), share)]
    for part in candidates:
        asked = _keys_of(_apply(inverse, _centers(part, resolution)), resolution)
        inside = ((asked >= 0) & (asked < KEY_END) & (part >= 0) & (part < KEY_END)).all(axis=1)
        part, asked = part[inside], _codes(asked[inside])
        place = np.searchsorted(codes, asked).clip(max=len(codes) - 1)
        found = codes[place] == asked
        keys.append(part[found])
        rows.append(order[place[found]])
    taken, row = np.concatenate(keys), np.concatenate(rows)
    _, once = np.unique(_codes(taken), return_index=True)
    return voxels.at(taken[once], row[once])


def _fill(tree: SemanticOcTree, parts: list[_Voxels]) -> None:
    """Add the voxels up and put them into an empty map."""
    codes = _codes(np.concatenate([part.keys for part in parts]))
    unique, place = np.unique(codes, return_inverse=True)
    if not len(unique):
        return
    sums = np.bincount(place, np.concatenate([part.log_odds for part in parts]), len(unique))
    low, high = (inputs.log_odds(value) for value in (tree.sensor_model.min, tree.sensor_model.max))
    keys = np.empty((len(unique), 3), np.uint16)
    keys[place] = np.concatenate([part.keys for part in parts]).astype(np.uint16)
    depths = np.full(len(unique), TREE_DEPTH, np.uint8)
    load_leaves(tree._store, keys, depths, np.clip(sums, low, high).astype(np.float32))
    rows, ids, scores = _evidence(parts, place, tree.labels_per_voxel, np.float32(tree.max_label_score))
    if len(rows):
        load_evidence(tree._store, keys[rows], ids, scores)


def _evidence(
    parts: list[_Voxels], place: NDArray[np.int64], kept: int, score_max: np.float32
) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.float32]]:
    """Label scores summed by voxel and class: rows of voxels, ascending, and their best classes."""
    voxels, classes, scores, start = [], [], [], 0
    for part in parts:
        rows = np.flatnonzero(part.lines >= 0)
        ids, values = part.ids[part.lines[rows]], part.scores[part.lines[rows]]
        used = ids != NO_LABEL
        voxels.append(np.repeat(place[start + rows], used.sum(axis=1)))
        classes.append(ids[used])
        scores.append(values[used])
        start += len(part.keys)
    pair = np.concatenate(voxels) * np.int64(NO_LABEL + 1) + np.concatenate(classes)
    pairs, group = np.unique(pair, return_inverse=True)
    sums = np.bincount(group, np.concatenate(scores), len(pairs)).astype(np.float32)
    voxel, label = np.divmod(pairs, NO_LABEL + 1)
    order = np.lexsort((label, -sums, voxel))
    voxel, label, sums = voxel[order], label[order], sums[order]
    rows, first, line = np.unique(voxel, return_index=True, return_inverse=True)
    rank = np.arange(len(voxel)) - first[line]
    best = rank < kept
    ids = np.full((len(rows), kept), NO_LABEL, np.uint16)
    result = np.zeros((len(rows), kept), np.float32)
    ids[line[best], rank[best]] = label[best]
    result[line[best], rank[best]] = sums[best]
    # As when a vote passes the bound: the excess comes off all classes.
    excess = np.maximum(result[:, :1] - score_max, 0)
    return rows, ids, np.maximum(result - excess, 0).astype(np.float32)


def _apply(transform: Transform, points: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = transform.matrix
    return (points @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float64)


def _centers(keys: NDArray[np.int64], resolution: float) -> NDArray[np.float64]:
    return np.asarray((keys - KEY_ORIGIN + 0.5) * resolution, np.float64)


def _keys_of(points: NDArray[np.float64], resolution: float) -> NDArray[np.int64]:
    return np.floor(points / resolution).astype(np.int64) + KEY_ORIGIN


def _unique_keys(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    _check_range(keys)
    return keys[np.unique(_codes(keys), return_index=True)[1]]


def _codes(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    return morton_codes(keys.astype(np.uint16))


def _check_range(keys: NDArray[np.int64]) -> None:
    if len(keys) and (keys.min() < 0 or keys.max() >= KEY_END):
        raise InputError("merge: expected voxels within ±32768 of the origin, a transform moves some out of the map")
