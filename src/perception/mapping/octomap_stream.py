# SPDX-License-Identifier: Apache-2.0
"""OctoMap's tree data as bytes, from and to arrays of leaves: what .ot and .bt files hold after their header.

The same bytes travel in octomap_msgs/Octomap: `encode_full` for ``binary = false``, `encode_binary` for
``binary = true``. Leaves are listed in OctoMap's depth-first order, that is ascending by the Morton code of
their keys; inner nodes are not kept, because an inner node is the maximum of its children.

Source: the streams of OctoMap 1.10 (writeData, writeBinaryData), compared byte for byte in the tests.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.mapping import octomap_kernels as kernels

FULL_RECORD = {False: 5, True: 8}
"""Bytes of a node in a full stream, without and with color."""
CLAMPING_MAX = float(np.float32(np.log(0.971 / (1 - 0.971))))
"""Log-odds that OctoMap gives to an occupied leaf of a binary stream, unless told otherwise."""
CLAMPING_MIN = float(np.float32(np.log(0.1192 / (1 - 0.1192))))
"""The same for a free leaf."""

ByteData: TypeAlias = "bytes | bytearray | memoryview"

_NO_TAGS = np.empty(0, np.int64)
_NO_COLORS = np.empty((0, 3), np.uint8)


class Leaves(NamedTuple):
    """Leaves of an octree of depth 16.

    Attributes:
        keys: (M, 3) uint16 x, y, z key of each leaf's lowest voxel, a multiple of its size 2^(16 − depth).
        depths: (M,) uint8, 0 (the leaf is the root) to 16 (a voxel of the map's resolution).
        log_odds: (M,) float32.
        colors: (M, 3) uint8 red, green, blue; (255, 255, 255) means no color. None in a tree without colors.
    """

    keys: NDArray[np.uint16]
    depths: NDArray[np.uint8]
    log_odds: NDArray[np.float32]
    colors: NDArray[np.uint8] | None = None


def leaf_order(keys: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Indices that put leaves in OctoMap's depth-first order.

    Args:
        keys: (M, 3) uint16 lowest-corner keys.

    Returns:
        (M,) int64.

    Raises:
        InputError: keys are not (M, 3) uint16.
    """
    return np.argsort(kernels.morton_codes(_array("keys", keys, np.uint16, (-1, 3))))


def sort_leaves(
    keys: NDArray[np.uint16],
    depths: NDArray[np.uint8],
    log_odds: NDArray[np.float32],
    colors: NDArray[np.uint8] | None = None,
) -> Leaves:
    """The same leaves (see Leaves) in OctoMap's depth-first order.

    Raises:
        InputError: an array has another dtype or shape than Leaves says.
    """
    leaves = _checked(keys, depths, log_odds, colors)
    codes = kernels.morton_codes(leaves.keys)
    if np.all(codes[1:] > codes[:-1]):
        return leaves
    return _take(leaves, np.argsort(codes))


def prune_leaves(
    keys: NDArray[np.uint16],
    depths: NDArray[np.uint8],
    log_odds: NDArray[np.float32],
    tags: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Merge eight leaves of one parent while their log-odds (and tags) are equal, as an updated OctoMap tree does.

    Args:
        keys: (M, 3) uint16, in depth-first order.
        depths: (M,) uint8.
        log_odds: (M,) float32.
        tags: (M,) int64 that must be equal too, such as the label; None merges by log-odds alone.

    Returns:
        index (K,) int64 of the first leaf of each group that became one, and depths (K,) uint8 of the new leaves;
        the key of a new leaf is the key of its first.

    Raises:
        InputError: an array has another dtype or shape, or the leaves are unordered, unaligned or overlap.
    """
    leaves = _checked(keys, depths, log_odds)
    codes = kernels.morton_codes(leaves.keys)
    _tree_size(leaves, codes)
    if tags is not None:
        tags = _array("tags", tags, np.int64, (len(codes),))
    index, new_depths, _ = kernels.prune(codes, leaves.depths, leaves.log_odds, _NO_TAGS if tags is None else tags, 0)
    return index, new_depths


def encode_full(
    keys: NDArray[np.uint16],
    depths: NDArray[np.uint8],
    log_odds: NDArray[np.float32],
    colors: NDArray[np.uint8] | None = None,
) -> bytes:
    """The tree with its log-odds, as OctoMap's writeData writes an OcTree, or a ColorOcTree when colors are given.

    A node is its log-odds (float32, little-endian), its color, and a byte with one bit per existing child;
    parents come before children. An inner node has the maximum of its children and the mean of the set colors
    of its children, rounded down. Nothing is pruned.

    Args:
        keys: (M, 3) uint16, in depth-first order (see sort_leaves).
        depths: (M,) uint8.
        log_odds: (M,) float32, finite.
        colors: (M, 3) uint8 or None.

    Returns:
        5 bytes per node, 8 with colors; nothing for no leaves.

    Raises:
        InputError: an array has another dtype or shape, a value is not finite, or the leaves are unordered,
            unaligned or overlap.
    """
    leaves = _checked(keys, depths, log_odds, colors)
    codes = kernels.morton_codes(leaves.keys)
    nodes = _tree_size(leaves, codes)
    if not np.isfinite(leaves.log_odds).all():
        raise InputError("log_odds: expected finite values, got infinity or NaN")
    out = np.empty(nodes * FULL_RECORD[colors is not None], np.uint8)
    leaf_colors = _NO_COLORS if leaves.colors is None else leaves.colors
    kernels.write_full(codes, leaves.depths, leaves.log_odds, leaf_colors, out)
    return out.tobytes()


def encode_binary(keys: NDArray[np.uint16], depths: NDArray[np.uint8], log_odds: NDArray[np.float32]) -> bytes:
    """The tree as free and occupied space only, pruned, as OctoMap's writeBinary writes it.

    An inner node is two bytes, two bits per child: 0 unknown, 1 free, 2 occupied (log-odds ≥ 0), 3 inner node.

    Args:
        keys: (M, 3) uint16, in depth-first order (see sort_leaves).
        depths: (M,) uint8.
        log_odds: (M,) float32.

    Returns:
        2 bytes per inner node; nothing for no leaves.

    Raises:
        InputError: an array has another dtype or shape, a value is NaN, or the leaves are unordered, unaligned
            or overlap.
    """
    return binary_stream(keys, depths, log_odds)[0]


def binary_stream(
    keys: NDArray[np.uint16], depths: NDArray[np.uint8], log_odds: NDArray[np.float32]
) -> tuple[bytes, int]:
    """As encode_binary, with the number of nodes of the pruned tree, which a .bt header names."""
    leaves = _checked(keys, depths, log_odds)
    if np.isnan(leaves.log_odds).any():
        raise InputError("log_odds: expected numbers, got NaN")
    if len(leaves.depths) == 1 and leaves.depths[0] == 0 and not leaves.keys.any():
        # The stream has no word for a root without children; readers take the empty node as occupied.
        if leaves.log_odds[0] >= 0:
            return b"\0\0", 1
        return b"\x55\x55", 9
    if len(leaves.depths) == 0:
        return b"", 0
    # Reserved, not touched, as far as the tree does not need it.
    out = np.empty(32 * len(leaves.depths), np.uint8)
    # OctoMap prunes depth by depth from the bottom and stops at the first depth without a merge; never the root.
    size, merges, bad = kernels.write_binary(*leaves[:3], 1, out)
    if bad >= 0:
        raise _bad_leaf(leaves, bad)
    stop = next((depth for depth in range(15, 0, -1) if merges[depth] == 0), 0)
    if merges[:stop].any():
        size, merges, _ = kernels.write_binary(*leaves[:3], stop + 1, out)
    return out[:size].tobytes(), size // 2 + len(leaves.depths) - 7 * int(merges.sum())


def decode_full(data: ByteData, colored: bool) -> Leaves:
    """Leaves of a full stream; the inverse of encode_full.

    Args:
        data: the whole stream, nothing else.
        colored: whether the nodes have colors (a ColorOcTree).

    Returns:
        Leaves in depth-first order; inner nodes' values are dropped. At most three times the size of data.

    Raises:
        InputError: data is truncated, has bytes after the tree, nodes below depth 16 or log-odds that are not
            finite.
    """
    leaves, used = decode_full_prefix(data, colored)
    total = memoryview(data).nbytes
    if used != total:
        raise InputError(f"tree data: expected {used} bytes as its nodes say, got {total}")
    return leaves


def decode_full_prefix(data: ByteData, colored: bool) -> tuple[Leaves, int]:
    """As decode_full for a stream that something else may follow; also returns the bytes that the tree took."""
    stream = np.frombuffer(data, np.uint8)
    record = FULL_RECORD[colored]
    if stream.size == 0:
        return _empty(0, colored), 0
    status, used, count = kernels.scan_full(stream, record)
    if status == kernels.TRUNCATED:
        raise InputError(f"tree data: expected a node of {record} bytes at byte {used}, got {stream.size - used} bytes")
    if status == kernels.TOO_DEEP:
        raise InputError(f"tree data: expected at most 16 levels, got a child of the node of depth 16 at byte {used}")
    leaves = _empty(count, colored)
    colors = _NO_COLORS if leaves.colors is None else leaves.colors
    kernels.read_full(stream, record, leaves.keys, leaves.depths, leaves.log_odds.view(np.uint32), colors)
    if not np.isfinite(leaves.log_odds).all():
        raise InputError("tree data: expected finite log-odds, got infinity or NaN")
    return leaves, int(used)


def decode_binary(data: ByteData, occupied: float = CLAMPING_MAX, free: float = CLAMPING_MIN) -> Leaves:
    """Leaves of a binary stream; the inverse of encode_binary.

    Args:
        data: the whole stream, nothing else.
        occupied: log-odds to give to occupied leaves, ≥ 0.
        free: log-odds to give to free leaves, < 0.

    Returns:
        Leaves in depth-first order, without colors. At most 50 times the size of data: two bytes can say eight
        leaves.

    Raises:
        InputError: data is truncated, has bytes after the tree, nodes below depth 16 or inner nodes without
            children.
    """
    if not 0 <= occupied < np.inf or not -np.inf < free < 0:
        raise InputError(f"log-odds of a binary tree: expected occupied ≥ 0 and free < 0, got {occupied} and {free}")
    stream = np.frombuffer(data, np.uint8)
    if stream.size == 0:
        return _empty(0, False)
    if stream.size == 2 and not stream.any():
        return Leaves(np.zeros((1, 3), np.uint16), np.zeros(1, np.uint8), np.full(1, occupied, np.float32))
    count = kernels.count_binary_leaves(stream)
    leaves = _empty(count + 1, False)
    status, used = kernels.read_binary(stream, np.float32(free), np.float32(occupied), *leaves[:3])
    check_binary(int(status), int(used), stream.size)
    return Leaves(leaves.keys[:count], leaves.depths[:count], leaves.log_odds[:count])


def check_binary(status: int, used: int, size: int) -> None:
    """Raise the InputError that the status of a walk through a binary stream stands for.

    Args:
        status: 0 or an error of octomap_kernels.
        used: bytes walked.
        size: bytes of the stream.
    """
    if status == kernels.TRUNCATED:
        raise InputError(f"tree data: expected an inner node of 2 bytes at byte {used}, got {size - used} bytes")
    if status == kernels.TOO_DEEP:
        raise InputError(
            f"tree data: expected at most 16 levels, got an inner child of the node of depth 15 at byte {used}"
        )
    if status == kernels.CHILDLESS:
        raise InputError(f"tree data: expected children of the inner node at byte {used}, got none")
    if used != size:
        raise InputError(f"tree data: expected {used} bytes as its nodes say, got {size}")


def count_nodes(leaves: Leaves) -> int:
    """Number of nodes of the tree that has these leaves, inner ones included, as a .ot header names it.

    Raises:
        InputError: an array has another dtype or shape, or the leaves are unordered, unaligned or overlap.
    """
    checked = _checked(*leaves)
    return _tree_size(checked, kernels.morton_codes(checked.keys))


def _empty(count: int, colored: bool) -> Leaves:
    colors = np.empty((count, 3), np.uint8) if colored else None
    return Leaves(np.empty((count, 3), np.uint16), np.empty(count, np.uint8), np.empty(count, np.float32), colors)


def _take(leaves: Leaves, index: NDArray[np.int64]) -> Leaves:
    colors = None if leaves.colors is None else leaves.colors[index]
    return Leaves(leaves.keys[index], leaves.depths[index], leaves.log_odds[index], colors)


def _checked(keys: Any, depths: Any, log_odds: Any, colors: Any = None) -> Leaves:
    """The leaves in contiguous arrays of the right dtype and shape."""
    keys = _array("keys", keys, np.uint16, (-1, 3))
    depths = _array("depths", depths, np.uint8, (len(keys),))
    log_odds = _array("log_odds", log_odds, np.float32, (len(keys),))
    if colors is not None:
        colors = _array("colors", colors, np.uint8, (len(keys), 3))
    return Leaves(keys, depths, log_odds, colors)


def _array(name: str, values: Any, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """The values as a contiguous array; −1 in shape stands for any length."""
    array = np.asarray(values)
    wanted = len(array) if array.ndim and shape[0] < 0 else shape[0]
    if array.dtype != dtype or array.shape != (wanted, *shape[1:]):
        expected = f"({', '.join('M' if n < 0 else str(n) for n in shape)}{',' if len(shape) == 1 else ''})"
        raise InputError(f"{name}: expected {expected} {np.dtype(dtype)}, got {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)


def _tree_size(leaves: Leaves, codes: NDArray[np.int64]) -> int:
    """Number of nodes of the tree, once it is sure that the leaves form one."""
    nodes, bad = kernels.count_nodes(codes, leaves.depths)
    if bad >= 0:
        raise _bad_leaf(leaves, bad)
    return int(nodes)


def _bad_leaf(leaves: Leaves, index: int) -> InputError:
    key, depth = tuple(leaves.keys[index].tolist()), int(leaves.depths[index])
    return InputError(
        "leaves: expected depths to 16 and keys that are multiples of the leaf's size, ascending by Morton code "
        f"without overlap, got key {key} at depth {depth} as leaf {index}"
    )
