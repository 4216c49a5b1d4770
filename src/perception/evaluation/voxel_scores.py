# SPDX-License-Identifier: Apache-2.0
"""How right a map is, voxel by voxel, against the true voxels of a scene.

Only what the map has looked at is judged: a true voxel that is unknown in the map is neither right nor wrong but lowers
``coverage``.

Sources: precision, recall and IoU over voxels and per class as in Song et al., Semantic Scene Completion from a Single
Depth Image, 2017, section 5; precision and recall within a distance as in Knapitsch et al., Tanks and Temples, 2017,
section 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.evaluation.class_mapping import ClassMapping
from perception.evaluation.segmentation import ConfusionMatrix
from perception.labels import LabelSet
from perception.simulation.voxels import VoxelMap

_BITS = 21
_OFFSET = 1 << (_BITS - 1)


def leaf_voxels(leaves: Any, resolution: float) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The single voxels of an octree's leaves.

    Args:
        leaves: :class:`~perception.mapping.results.OctreeLeaves`, or any part of one with ``centers`` and ``sizes``.
        resolution: edge of a voxel, meters.

    Returns:
        (V, 3) int32 keys, voxel k spanning k · resolution to (k + 1) · resolution, and (V,) the leaf that each is of.
    """
    edges = np.rint(leaves.sizes / resolution).astype(np.int64)
    lowest = np.rint(leaves.centers.astype(np.float64) / resolution - edges[:, None] / 2).astype(np.int32)
    keys, owners = [np.empty((0, 3), np.int32)], [np.empty(0, np.int64)]
    for edge in np.unique(edges):
        chosen = np.flatnonzero(edges == edge)
        offsets = np.indices((edge,) * 3).reshape(3, -1).T.astype(np.int32)
        keys.append((lowest[chosen, None] + offsets).reshape(-1, 3))
        owners.append(np.repeat(chosen, len(offsets)))
    return np.concatenate(keys), np.concatenate(owners)


def voxel_centers(keys: NDArray[np.integer], resolution: float) -> NDArray[np.float32]:
    """(V, 3) float32 centers in meters of voxels by key."""
    return ((keys.astype(np.float64) + 0.5) * resolution).astype(np.float32)


def resampled(truth: VoxelMap, resolution: float, mapping: ClassMapping | None) -> VoxelMap:
    """True voxels in the resolution and the classes of a map.

    A coarser voxel is occupied where a true one is, and of the class of most of them (the lowest id of several).

    Args:
        truth: the true voxels.
        resolution: of the map, meters.
        mapping: to the classes of the map; None drops the classes.

    Raises:
        InputError: the true voxels are coarser than the map's.
    """
    if resolution < truth.resolution * (1 - 1e-6):
        raise InputError(f"true voxels: expected at most {resolution:g} m as the map's, got {truth.resolution:g} m")
    labels = mapping.true_ids(truth.labels) if mapping else np.full(len(truth.keys), -1, np.int32)
    names = mapping.label_set if mapping else truth.label_set
    if abs(resolution - truth.resolution) < 1e-6 * resolution:
        return VoxelMap(truth.keys, labels, truth.resolution, names)
    keys = np.floor((truth.keys + 0.5) * truth.resolution / resolution).astype(np.int32)
    packed = _packed(keys)
    order = np.lexsort((labels, packed))
    pairs = np.stack([packed[order], labels[order].astype(np.int64)], axis=1)
    unique, first, counts = np.unique(pairs, axis=0, return_index=True, return_counts=True)
    best = np.lexsort((unique[:, 1], -counts, unique[:, 0]))
    best = best[np.unique(unique[best, 0], return_index=True)[1]]
    return VoxelMap(keys[order][first[best]], unique[best, 1].astype(np.int32), resolution, names)


def score_map(tree: Any, truth: VoxelMap, mapping: ClassMapping | None) -> dict[str, Any]:
    """Compare a map with the true voxels.

    Args:
        tree: a :class:`~perception.mapping.SemanticOcTree`.
        truth: as :func:`resampled` to the map's resolution and classes.
        mapping: as which classes the map's are scored; None scores occupancy only.

    Returns:
        ``occupancy`` (precision, recall, f1, iou of occupied voxels, their counts, and coverage: the share of true
        voxels that are known in the map), ``occupancy_tolerant`` (the same where a neighbor within one voxel counts)
        and ``semantic`` (IoU per class over known voxels, a free or unlabeled one counting as missed; None without
        classes).
    """
    leaves = tree.leaves()
    occupied = leaves.log_odds >= 0
    keys, owners = leaf_voxels(_Chosen(leaves.centers[occupied], leaves.sizes[occupied]), tree.resolution)
    labels = leaves.labels[occupied][owners]
    log_odds = tree.log_odds(voxel_centers(truth.keys, tree.resolution))
    known = np.isfinite(log_odds)
    true_packed, map_packed = _packed(truth.keys), _packed(keys)
    place, is_true = _find(true_packed, map_packed)
    hits, misses = int(is_true.sum()), int((known & (log_odds < 0)).sum())
    result: dict[str, Any] = {
        "resolution": tree.resolution,
        "occupancy": {
            **_scores(hits, int((~is_true).sum()), misses),
            "coverage": _ratio(int(known.sum()), len(known)),
        },
        "occupancy_tolerant": _tolerant(true_packed[known], true_packed, map_packed, tree.resolution),
        "semantic": None,
    }
    if mapping is not None and (truth.labels >= 0).any():
        result["semantic"] = _semantic(truth, known, place, is_true, mapping.scored_ids(labels), mapping.label_set)
    return result


class _Chosen:
    """Some leaves."""

    def __init__(self, centers: NDArray[np.float32], sizes: NDArray[np.float32]) -> None:
        self.centers, self.sizes = centers, sizes


def _semantic(
    truth: VoxelMap,
    known: NDArray[np.bool_],
    place: NDArray[np.int64],
    is_true: NDArray[np.bool_],
    labels: NDArray[np.int32],
    label_set: LabelSet,
) -> dict[str, Any]:
    """IoU per class: true voxels that are known, and voxels of the map where nothing is in truth."""
    found = np.full(len(truth.keys), -1, np.int32)
    found[place[is_true]] = labels[is_true]
    matrix = ConfusionMatrix(label_set.num_classes)
    matrix.add(truth.labels[known], found[known])
    # Voxels where nothing is in truth belong to the union of the class that the map says.
    extra = labels[~is_true]
    extra = np.bincount(extra[extra >= 0], minlength=label_set.num_classes)
    hit = np.diag(matrix.counts[:, :-1])
    true, predicted = matrix.counts.sum(axis=1), matrix.counts[:, :-1].sum(axis=0) + extra
    with np.errstate(invalid="ignore"):
        iou = hit / (true + predicted - hit).astype(np.float64)
    accuracy, present = matrix.class_accuracy(), true > 0
    both = (truth.labels[place[is_true]] >= 0) & (labels[is_true] >= 0)
    right = truth.labels[place[is_true]][both] == labels[is_true][both]
    return {
        "mean_iou": float(iou[present].mean()) if present.any() else None,
        "accuracy": float(right.mean()) if len(right) else None,
        "classes": [
            {
                "id": label.id,
                "name": label.name,
                "true": int(true[label.id]),
                "predicted": int(predicted[label.id]),
                "iou": _number(iou[label.id]),
                "accuracy": _number(accuracy[label.id]),
            }
            for label in label_set.classes
            if true[label.id] or predicted[label.id]
        ],
    }


def _scores(hits: int, extra: int, missed: int) -> dict[str, Any]:
    return {
        "precision": _ratio(hits, hits + extra),
        "recall": _ratio(hits, hits + missed),
        "f1": _ratio(2 * hits, 2 * hits + extra + missed),
        "iou": _ratio(hits, hits + extra + missed),
        "true_positive": hits,
        "false_positive": extra,
        "false_negative": missed,
    }


def _tolerant(
    judged: NDArray[np.int64], true: NDArray[np.int64], mapped: NDArray[np.int64], resolution: float
) -> dict[str, Any]:
    """Precision and recall where one of the 26 neighbors will do."""
    precision, recall = _near(mapped, true), _near(judged, mapped)
    f1 = None if precision is None or recall is None else _ratio(2 * precision * recall, precision + recall)
    return {"tolerance_m": resolution, "precision": precision, "recall": recall, "f1": f1}


def _near(asked: NDArray[np.int64], there: NDArray[np.int64]) -> float | None:
    """Share of voxels with one of the others in or next to them."""
    if not len(asked):
        return None
    ordered = np.sort(there)
    found = np.zeros(len(asked), np.bool_)
    for step in (np.indices((3, 3, 3)).reshape(3, -1).T - 1).tolist():
        rest = np.flatnonzero(~found)
        found[rest] = _contains(ordered, asked[rest] + _shift(*step))
    return float(found.mean())


def _find(known: NDArray[np.int64], asked: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each of the asked is among the known, and whether it is."""
    if not len(known):
        return np.zeros(len(asked), np.int64), np.zeros(len(asked), np.bool_)
    order = np.argsort(known)
    place = order[np.searchsorted(known[order], asked).clip(max=len(known) - 1)]
    return place, known[place] == asked


def _contains(ordered: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(asked), np.bool_)
    return ordered[np.searchsorted(ordered, asked).clip(max=len(ordered) - 1)] == asked


def _packed(keys: NDArray[np.integer]) -> NDArray[np.int64]:
    x, y, z = (keys.astype(np.int64) + _OFFSET).T
    return (x << (2 * _BITS)) | (y << _BITS) | z


def _shift(x: int, y: int, z: int) -> int:
    """What a step adds to a packed key."""
    return x * (1 << (2 * _BITS)) + y * (1 << _BITS) + z


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
