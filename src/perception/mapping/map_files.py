# SPDX-License-Identifier: Apache-2.0
"""The octree to and from map files and message data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.config import SensorModelConfig
from perception.errors import InputError
from perception.mapping import binary_encoding, binary_maps, octomap_io, octomap_stream
from perception.mapping.binary_maps import BinaryMap
from perception.mapping.fusion import NO_LABEL
from perception.mapping.label_section import LeafLabels
from perception.mapping.leaves import TreeLeaves, extract_leaves
from perception.mapping.loading import load_evidence, load_leaves
from perception.mapping.octomap_stream import Leaves
from perception.mapping.store import BrickStore

NO_COLOR = 255
SENSOR_FIELDS = ("hit", "miss", "min", "max", "max_range")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of a map at one moment.

    Attributes:
        leaves: in depth-first order; tags as extract_leaves made them.
        labeled: (N,) int64 which leaves have evidence; empty unless it was asked for.
        ids: (N, K) uint16 their classes.
        scores: (N, K) float32.
        options: arguments of the octree's constructor.
    """

    leaves: TreeLeaves
    labeled: NDArray[np.int64]
    ids: NDArray[np.uint16]
    scores: NDArray[np.float32]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SavedMap:
    """A file's content (bricks of a .bt, leaves of a .ot), the octree arguments it tells, and what else it says."""

    content: BinaryMap | octomap_io.MapFile
    options: dict[str, Any]
    metadata: dict[str, Any]

    def load_into(self, store: BrickStore, sensor_model: SensorModelConfig, num_classes: int) -> None:
        """Fill an empty store; voxels of a .bt get the sensor model's clamping bounds."""
        if isinstance(self.content, BinaryMap):
            low, high = (float(np.log(p / (1 - p))) for p in (sensor_model.min, sensor_model.max))
            binary_maps.load(store, self.content, low, high)
            return
        leaves, labels = self.content.leaves, self.content.labels
        load_leaves(store, leaves.keys, leaves.depths, leaves.log_odds)
        if labels is None or len(labels.index) == 0:
            return
        highest = int(labels.ids[labels.ids != NO_LABEL].max(initial=0))
        if highest >= num_classes or (leaves.depths[labels.index] != 16).any():
            raise InputError(
                f"label section: expected classes below {num_classes} on single voxels, got class {highest}"
            )
        load_evidence(store, leaves.keys[labels.index], labels.ids, labels.scores)


def options_of(tree: Any, decay_s: NDArray[np.float32]) -> dict[str, Any]:
    """The constructor's arguments of a tree, as values that JSON can write."""
    return {
        "resolution": float(tree.resolution),
        "sensor_model": {name: float(getattr(tree.sensor_model, name)) for name in SENSOR_FIELDS},
        "num_classes": tree.num_classes,
        "labels_per_voxel": tree.labels_per_voxel,
        "max_label_score": float(tree.max_label_score),
        "decay_s": [float(t) if np.isfinite(t) else None for t in decay_s[: tree.num_classes]],
    }


def write(snapshot: Snapshot, path: str | Path, label_set: Any, about: Mapping[str, Any] | None = None) -> None:
    """Save a snapshot with evidence, and what else is to be known of the map, as .ot."""
    metadata = {**(about or {}), **snapshot.options}
    if label_set is not None:
        metadata["label_set"] = label_set.to_dict()
    labels = LeafLabels(snapshot.labeled.astype(np.uint32), snapshot.ids, snapshot.scores, metadata)
    leaves = snapshot.leaves
    best = np.full(len(leaves.depths), -1, np.int64)
    best[snapshot.labeled] = snapshot.ids[:, 0]
    best[leaves.log_odds < 0] = -1
    colors = None if label_set is None else _colors(best, label_set)
    plain = Leaves(leaves.keys, leaves.depths, leaves.log_odds, colors)
    octomap_io.write_ot(path, plain, snapshot.options["resolution"], labels)


def binary_stream(store: BrickStore) -> tuple[bytes, int]:
    """The tree of free and occupied space as OctoMap writes it, and its number of nodes."""
    found = binary_encoding.encode(store.shards)
    if found is None:
        leaves = extract_leaves(store.shards, evidence=False)
        found = octomap_stream.binary_stream(leaves.keys, leaves.depths, leaves.log_odds)
    return found


def full_data(snapshot: Snapshot, label_set: Any) -> tuple[str, bytes]:
    """Id and data of a message with log-odds from a snapshot whose tags are labels."""
    leaves = snapshot.leaves
    if label_set is None:
        return "OcTree", octomap_stream.encode_full(leaves.keys, leaves.depths, leaves.log_odds)
    colors = _colors(leaves.tags, label_set)
    return "ColorOcTree", octomap_stream.encode_full(leaves.keys, leaves.depths, leaves.log_odds, colors)


def read(path: str | Path) -> SavedMap:
    """A map file with the arguments for the octree that takes it.

    Raises:
        InputError: the file is absent or damaged, or its metadata are not those of an octree.
    """
    data = octomap_io.read_bytes(path)
    try:
        if octomap_io.is_binary(data):
            content, resolution = octomap_io.parse_binary(data)
            return SavedMap(content, {"resolution": resolution}, {})
        file = octomap_io.parse_map(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    options: dict[str, Any] = {"resolution": file.resolution}
    metadata = {} if file.labels is None else file.labels.metadata
    try:
        for name in ("num_classes", "labels_per_voxel", "max_label_score"):
            if name in metadata:
                options[name] = metadata[name]
        if "sensor_model" in metadata:
            options["sensor_model"] = SensorModelConfig(**metadata["sensor_model"])
        if "decay_s" in metadata:
            options["decay_s"] = [np.inf if t is None else float(t) for t in metadata["decay_s"]]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the metadata of an octree, got {error}") from error
    return SavedMap(file, options, {name: value for name, value in metadata.items() if name not in options})


def _colors(labels: NDArray[np.int64], label_set: Any) -> NDArray[np.uint8]:
    """(M, 3) uint8 colors of classes; OctoMap's "no color" for -1 and for classes that the set lacks."""
    table = np.full((len(label_set.colors) + 1, 3), NO_COLOR, np.uint8)
    table[1:] = label_set.colors
    return table[np.where(labels < len(label_set.colors), labels, -1) + 1]
