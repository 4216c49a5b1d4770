# SPDX-License-Identifier: Apache-2.0
"""The section with the labels that follows the tree of a .ot file.

OctoMap's reader stops at the last node of the tree, so what follows does not disturb it. The section is,
little-endian: the magic of 8 bytes; version (uint32); K, classes per leaf (uint32); leaves of the tree
(uint64); N, leaves with labels (uint64); bytes of metadata (uint32); CRC-32 (uint32) of all before it and all
after it; metadata as a JSON object in UTF-8; (N,) uint32 indices of the leaves in the order of the tree;
(N, K) uint16 label ids; (N, K) float32 scores.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError

MAGIC = b"\0LABELS\0"
VERSION = 1
MAX_METADATA_BYTES = 1 << 24
_HEADER = struct.Struct("<8sIIQQI")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class LeafLabels:
    """Label evidence of the leaves that have any.

    Attributes:
        index: (N,) uint32, ascending: which leaves, in the depth-first order of the tree.
        ids: (N, K) uint16 label ids; 65535 where a leaf has fewer than K.
        scores: (N, K) float32, finite.
        metadata: what the ids mean and the frame of the map; a dict that JSON can write.
    """

    index: NDArray[np.uint32]
    ids: NDArray[np.uint16]
    scores: NDArray[np.float32]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.index.ndim != 1 or self.index.dtype != np.uint32:
            raise InputError(f"label index: expected (N,) uint32, got {self.index.shape} {self.index.dtype}")
        if self.ids.ndim != 2 or len(self.ids) != len(self.index) or self.ids.dtype != np.uint16:
            raise InputError(
                f"label ids: expected ({len(self.index)}, K) uint16, got {self.ids.shape} {self.ids.dtype}"
            )
        if self.scores.shape != self.ids.shape or self.scores.dtype != np.float32:
            got = f"{self.scores.shape} {self.scores.dtype}"
            raise InputError(f"label scores: expected {self.ids.shape} float32, got {got}")
        if not np.all(self.index[1:] > self.index[:-1]):
            raise InputError("label index: expected ascending leaves without repeats, got another order")
        if not np.isfinite(self.scores).all():
            raise InputError("label scores: expected finite values, got infinity or NaN")

    @classmethod
    def none(cls, metadata: dict[str, Any]) -> LeafLabels:
        """Metadata alone, for a map without labels."""
        empty = np.empty((0, 0))
        return cls(np.empty(0, np.uint32), empty.astype(np.uint16), empty.astype(np.float32), metadata)

    def check_leaves(self, count: int) -> None:
        """Raise InputError unless all indices are below the number of leaves."""
        if len(self.index) and self.index[-1] >= count:
            raise InputError(f"label index: expected leaves below {count}, got {self.index[-1]}")


def encode_labels(labels: LeafLabels, leaf_count: int) -> bytes:
    """The section as bytes.

    Args:
        labels: what to store.
        leaf_count: number of leaves of the tree it belongs to.

    Raises:
        InputError: an index is not below leaf_count, or the metadata is not a JSON object or over 16 MiB.
    """
    labels.check_leaves(leaf_count)
    try:
        metadata = json.dumps(labels.metadata, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"metadata of the map: expected values that JSON can write, got {error}") from error
    if not isinstance(labels.metadata, dict) or len(metadata) > MAX_METADATA_BYTES:
        raise InputError(
            f"metadata of the map: expected a dict of at most {MAX_METADATA_BYTES} bytes, "
            f"got {type(labels.metadata).__name__} of {len(metadata)}"
        )
    count, classes = labels.ids.shape
    header = _HEADER.pack(MAGIC, VERSION, classes, leaf_count, count, len(metadata))
    arrays = (labels.index.astype("<u4"), labels.ids.astype("<u2"), labels.scores.astype("<f4"))
    body = b"".join((metadata, *(array.tobytes() for array in arrays)))
    return header + _CRC.pack(zlib.crc32(body, zlib.crc32(header))) + body


def decode_labels(data: memoryview, leaf_count: int) -> LeafLabels:
    """The labels from a whole section.

    Args:
        data: all bytes that follow the tree.
        leaf_count: number of leaves of that tree.

    Returns:
        Labels as large as the section says, which is the size of data.

    Raises:
        InputError: data is no section, of another version or tree, truncated, too long or damaged.
    """
    start = _HEADER.size + _CRC.size
    if len(data) < start or data[: len(MAGIC)] != MAGIC:
        raise InputError(f"after the tree data: expected nothing or a label section, got {len(data)} other bytes")
    _, version, classes, leaves, count, text_size = _HEADER.unpack(data[: _HEADER.size])
    if version != VERSION:
        raise InputError(f"label section: expected version {VERSION}, got {version}")
    size = start + text_size + count * (4 + 6 * classes)
    if size != len(data):
        raise InputError(f"label section: expected {size} bytes as its header says, got {len(data)}")
    if leaves != leaf_count or text_size > MAX_METADATA_BYTES:
        expected = f"{leaf_count} leaves and at most {MAX_METADATA_BYTES} bytes of metadata"
        raise InputError(f"label section: expected {expected}, got {leaves} and {text_size}")
    (crc,) = _CRC.unpack(data[_HEADER.size : start])
    actual = zlib.crc32(data[start:], zlib.crc32(data[: _HEADER.size]))
    if crc != actual:
        raise InputError(
            f"label section: expected CRC-32 {crc:08x} as its header says, got {actual:08x}; it is damaged"
        )
    index_at = start + text_size
    ids_at, scores_at = index_at + 4 * count, index_at + (4 + 2 * classes) * count
    labels = LeafLabels(
        np.frombuffer(data[index_at:ids_at], "<u4").astype(np.uint32),
        np.frombuffer(data[ids_at:scores_at], "<u2").astype(np.uint16).reshape(count, classes),
        np.frombuffer(data[scores_at:], "<f4").astype(np.float32).reshape(count, classes),
        _metadata(bytes(data[start:index_at])),
    )
    labels.check_leaves(leaf_count)
    return labels


def _metadata(text: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"metadata of the label section: expected JSON, got {error}") from error
    if not isinstance(metadata, dict):
        raise InputError(f"metadata of the label section: expected a JSON object, got {type(metadata).__name__}")
    return metadata
