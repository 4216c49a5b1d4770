# SPDX-License-Identifier: Apache-2.0
"""Voxels as visualization_msgs/MarkerArray, serialized here: a message object per voxel would hold a node for long.

rclpy wants one Python object per point, 0.4 s for 100 000 voxels; the same bytes written from arrays take milliseconds,
and ``publisher.publish`` accepts them.
Source: XCDR version 1, little-endian (OMG DDSI-RTPS, 10; DDS-XTypes, 7.4): values are aligned to their own size.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError

CUBE_LIST, ADD, DELETE_ALL = 6, 0, 3
"""Numbers of visualization_msgs/Marker."""
_ENCAPSULATION = b"\x00\x01\x00\x00"


def serialize_cubes(
    centers: NDArray[np.floating],
    sizes: NDArray[np.floating],
    colors: NDArray[np.uint8],
    frame_id: str,
    stamp_ns: int,
    groups: NDArray[np.integer] | None = None,
    group_names: Sequence[str] = ("",),
    alpha: float = 1.0,
) -> bytes:
    """Cubes as a serialized visualization_msgs/MarkerArray.

    The first marker deletes what was shown before; then comes one CUBE_LIST per group and cube size, with the group's
    name as namespace and the number of the size as id.

    Args:
        centers: (M, 3) meters, in the frame.
        sizes: (M,) edge lengths, meters.
        colors: (M, 3) uint8 RGB.
        frame_id: frame of the centers.
        stamp_ns: nanoseconds.
        groups: (M,) index into group_names for each cube; None puts all into the first.
        group_names: namespaces, which RViz shows as check boxes.
        alpha: opacity, 0 to 1.

    Raises:
        InputError: lengths differ, or a group has no name.
    """
    count = len(centers)
    groups = np.zeros(count, np.int64) if groups is None else groups
    if centers.shape != (count, 3) or sizes.shape != (count,) or colors.shape != (count, 3) or groups.shape != (count,):
        raise InputError(
            f"cubes: expected centers (M, 3), sizes (M,), colors (M, 3) and groups (M,), got {centers.shape}, "
            f"{sizes.shape}, {colors.shape} and {groups.shape}"
        )
    if count and not 0 <= groups.min() <= groups.max() < len(group_names):
        raise InputError(f"cubes: expected groups 0 to {len(group_names) - 1}, got {groups.min()} to {groups.max()}")
    edges, size_ids = np.unique(sizes, return_inverse=True)
    keys = groups.astype(np.int64) * max(len(edges), 1) + size_ids.reshape(-1)
    order = np.argsort(keys, kind="stable")
    keys, starts = np.unique(keys[order], return_index=True)
    writer = _CdrWriter()
    writer.pack("I", 1 + len(keys))
    writer.marker(frame_id, stamp_ns, "", 0, DELETE_ALL, 0.0, np.empty((0, 3)), np.empty((0, 4)))
    rgba = np.full((count, 4), alpha, np.float32)
    rgba[:, :3] = colors / np.float32(255)
    for key, start, stop in zip(keys, starts, np.append(starts, count)[1:], strict=True):
        group, size_id = divmod(int(key), len(edges))
        members = order[start:stop]
        name, edge = group_names[group], float(edges[size_id])
        writer.marker(frame_id, stamp_ns, name, size_id, ADD, edge, centers[members], rgba[members])
    return writer.data()


class _CdrWriter:
    """Appends values to a CDR stream."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0  # Without the encapsulation: alignment counts from after it.

    def data(self) -> bytes:
        return b"".join([_ENCAPSULATION, *self._parts])

    def pack(self, code: str, *values: float) -> None:
        """Values of one struct code."""
        self._append(struct.pack(f"<{len(values)}{code}", *values), struct.calcsize(f"<{code}"))

    def text(self, value: str) -> None:
        encoded = value.encode() + b"\x00"
        self.pack("I", len(encoded))
        self._append(encoded, 1)

    def sequence(self, values: NDArray[np.generic]) -> None:
        """A sequence of structs whose members all have the type of the (N, members) array."""
        self.pack("I", len(values))
        if len(values):
            self._append(values.tobytes(), values.itemsize)

    def header(self, frame_id: str, stamp_ns: int) -> None:
        sec, nanosec = divmod(int(stamp_ns), 1_000_000_000)
        self.pack("i", sec)
        self.pack("I", nanosec)
        self.text(frame_id)

    def marker(
        self,
        frame_id: str,
        stamp_ns: int,
        namespace: str,
        marker_id: int,
        action: int,
        edge: float,
        centers: NDArray[np.floating],
        rgba: NDArray[np.floating],
    ) -> None:
        """visualization_msgs/Marker, field by field."""
        self.header(frame_id, stamp_ns)
        self.text(namespace)
        self.pack("i", marker_id, CUBE_LIST, action)
        self.pack("d", 0, 0, 0, 0, 0, 0, 1, edge, edge, edge)  # Pose and scale.
        self.pack("f", 0, 0, 0, 0)  # The color of all: unused, each cube has its own.
        self.pack("i", 0)  # Lifetime: for ever.
        self.pack("I", 0)
        self.pack("B", 0)  # Not locked to the frame.
        self.sequence(np.ascontiguousarray(centers, "<f8"))
        self.sequence(np.ascontiguousarray(rgba, "<f4"))
        self.text("")  # Texture: name, header, format and data.
        self.header("", 0)
        self.text("")
        self.pack("I", 0, 0)  # No bytes of texture, no coordinates on it.
        self.text("")  # Text, then mesh: name, file's name and data, own materials.
        self.text("")
        self.text("")
        self.pack("I", 0)
        self.pack("B", 0)

    def _append(self, data: bytes, alignment: int) -> None:
        padding = -self._length % alignment
        self._parts.append(bytes(padding) + data)
        self._length += padding + len(data)
