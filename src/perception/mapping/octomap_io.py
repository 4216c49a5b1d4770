# SPDX-License-Identifier: Apache-2.0
"""Map files: OctoMap's .ot (log-odds, color, and our labels behind the tree) and .bt (free and occupied).

A .ot with labels is a ColorOcTree whose colors show the labels; OctoMap's own tools open it and ignore the
section with the labels (see label_section), which they also drop when they write the map again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perception.atomic_file import atomic_write
from perception.errors import InputError
from perception.mapping import binary_maps
from perception.mapping.binary_maps import BinaryMap
from perception.mapping.label_section import LeafLabels, decode_labels, encode_labels
from perception.mapping.octomap_stream import (
    CLAMPING_MAX,
    CLAMPING_MIN,
    FULL_RECORD,
    Leaves,
    binary_stream,
    decode_binary,
    decode_full_prefix,
    encode_full,
)

FULL_MAGIC = b"# Octomap OcTree file"
BINARY_MAGIC = b"# Octomap OcTree binary file"
COLORED = {"OcTree": False, "ColorOcTree": True}
"""The kinds of tree that are read and written, and whether their nodes have colors."""
MAX_HEADER_BYTES = 1 << 16

_COMMENT = b"# (feel free to add / change comments, but leave the first line as it is!)\n#\n"
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class MapFile:
    """What a map file holds.

    Attributes:
        tree_id: "OcTree" or "ColorOcTree".
        binary: whether it is a .bt, whose leaves are only free or occupied.
        resolution: edge of a voxel of depth 16, meters.
        leaves: in depth-first order; colors only from the .ot of a ColorOcTree.
        labels: label evidence and metadata; None when the file has no such section.
    """

    tree_id: str
    binary: bool
    resolution: float
    leaves: Leaves
    labels: LeafLabels | None = None


def write_ot(path: str | Path, leaves: Leaves, resolution: float, labels: LeafLabels | None = None) -> None:
    """Save a map with its log-odds, as an OcTree, or a ColorOcTree when the leaves have colors.

    The file appears whole or not at all: a crash or a full disk leaves an older file of that name as it was.

    Args:
        path: usually ends in .ot.
        leaves: in depth-first order (see octomap_stream.sort_leaves).
        resolution: edge of a voxel of depth 16, meters.
        labels: evidence of these leaves and metadata, stored behind the tree.

    Raises:
        InputError: leaves, resolution or labels are not as described.
        PerceptionError: the file cannot be written.
    """
    atomic_write(path, (ot_bytes(leaves, resolution, labels),))


def ot_bytes(leaves: Leaves, resolution: float, labels: LeafLabels | None = None) -> bytes:
    """The file that write_ot saves."""
    data = encode_full(*leaves)
    colored = leaves.colors is not None
    section = b"" if labels is None else encode_labels(labels, len(leaves.depths))
    header = _header(FULL_MAGIC, "ColorOcTree" if colored else "OcTree", len(data) // FULL_RECORD[colored], resolution)
    return b"".join((header, data, section))


def bt_bytes(leaves: Leaves, resolution: float) -> bytes:
    """A .bt of leaves in depth-first order, pruned, as OctoMap's OcTree.writeBinary makes it; colors are not stored.

    Raises:
        InputError: leaves or resolution are not as described.
    """
    return bt_file(*binary_stream(leaves.keys, leaves.depths, leaves.log_odds), resolution)


def bt_file(stream: bytes, nodes: int, resolution: float) -> bytes:
    """A .bt from the stream of its tree, pruned, and the number of nodes."""
    return _header(BINARY_MAGIC, "OcTree", nodes, resolution) + stream


def read_map(path: str | Path, occupied: float = CLAMPING_MAX, free: float = CLAMPING_MIN) -> MapFile:
    """Read a .ot or .bt file; which one it is, its first line says.

    Args:
        path: the file.
        occupied: log-odds for the occupied leaves of a .bt.
        free: the same for its free leaves.

    Raises:
        InputError: the file is absent, not a map, truncated, damaged, or goes on after the map.
    """
    data = read_bytes(path)
    try:
        return parse_map(data, occupied, free)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_bytes(path: str | Path) -> bytes:
    """The content of a map file.

    Raises:
        InputError: it is absent, no file, or cannot be read.
    """
    try:
        if not Path(path).is_file():
            raise InputError(
                f"{path}: expected a map file, got {'no file' if Path(path).exists() else 'nothing there'}"
            )
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read it: {error.strerror}") from error


def is_binary(data: bytes) -> bool:
    """Whether a file's first line is that of a .bt."""
    return data.startswith(BINARY_MAGIC)


def is_binary_file(path: str | Path) -> bool:
    """The same of a file; False where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return is_binary(file.read(len(BINARY_MAGIC)))
    except OSError:
        return False


def parse_binary(data: bytes) -> tuple[BinaryMap, float]:
    """The bricks and the resolution of a .bt, from the bytes of the file.

    Raises:
        InputError: the file is truncated, damaged, or goes on after the map.
    """
    _, _, nodes, resolution, start = _parse_header(data)
    content = binary_maps.scan(memoryview(data)[start:])
    if content.nodes != nodes:
        raise InputError(f"map data: expected {nodes} nodes as the header says, got {content.nodes}")
    return content, resolution


def parse_map(data: bytes, occupied: float = CLAMPING_MAX, free: float = CLAMPING_MIN) -> MapFile:
    """As read_map, from the bytes of a file."""
    binary, tree_id, nodes, resolution, start = _parse_header(data)
    colored = COLORED[tree_id] and not binary
    body = memoryview(data)[start:]
    least = -(-(nodes - 1) // 4) if binary else nodes * FULL_RECORD[colored]
    if least > len(body):
        raise InputError(f"map data: expected at least {least} bytes for {nodes} nodes, got {len(body)}")
    if binary:
        leaves = decode_binary(body, occupied, free)
        found = _binary_nodes(leaves, len(body))
        labels = None
    else:
        leaves, used = decode_full_prefix(body if nodes else body[:0], colored)
        found = used // FULL_RECORD[colored]
        labels = decode_labels(body[used:], len(leaves.depths)) if used < len(body) else None
    if found != nodes:
        raise InputError(f"map data: expected {nodes} nodes as the header says, got {found}")
    return MapFile(tree_id, binary, resolution, leaves, labels)


def _binary_nodes(leaves: Leaves, size: int) -> int:
    """Nodes of a binary stream of this size: two bytes for each inner one, and the leaves, unless it is one node."""
    alone = len(leaves.depths) == 1 and leaves.depths[0] == 0
    return 1 if alone else size // 2 + len(leaves.depths)


def _header(magic: bytes, tree_id: str, nodes: int, resolution: float) -> bytes:
    """The lines before the data. OctoMap writes six digits of the resolution; more only where six would change it."""
    resolution = _checked_resolution(float(resolution))
    digits = f"{resolution:g}" if float(f"{resolution:g}") == resolution else repr(resolution)
    return magic + b"\n" + _COMMENT + f"id {tree_id}\nsize {nodes}\nres {digits}\ndata\n".encode()


def _checked_resolution(resolution: float) -> float:
    if not 1e-6 <= resolution <= 1e6:
        raise InputError(f"resolution: expected 1e-6 to 1e6 meters, got {resolution}")
    return resolution


def _parse_header(data: bytes) -> tuple[bool, str, int, float, int]:
    """Whether it is a .bt, the kind of tree, its number of nodes, its resolution, and where the data start."""
    lines = _lines(data)
    first, _ = next(lines, (b"", 0))
    binary = first.startswith(BINARY_MAGIC)
    if not binary and not first.startswith(FULL_MAGIC):
        raise InputError(f"map header: expected {FULL_MAGIC.decode()!r} or its binary kind, got {first[:32]!r}")
    fields: dict[str, str] = {}
    for line, end in lines:
        words = line.decode("ascii", "replace").split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "data":
            return binary, *_header_fields(fields), end
        # OctoMap skips words it does not know; so newer files stay readable.
        fields[words[0]] = words[1].strip() if len(words) > 1 else ""
    raise InputError(f"map header: expected a line 'data' within {MAX_HEADER_BYTES} bytes, got none")


def _lines(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Each line of the header with the position after it."""
    start = 0
    while (end := data.find(b"\n", start, MAX_HEADER_BYTES)) >= 0:
        yield data[start:end], end + 1
        start = end + 1


def _header_fields(fields: dict[str, str]) -> tuple[str, int, float]:
    # "1" is what OctoMap once called an OcTree.
    tree_id = {"1": "OcTree"}.get(fields.get("id", ""), fields.get("id", ""))
    if tree_id not in COLORED:
        raise InputError(f"map header: expected id {' or '.join(COLORED)}, got {tree_id[:40]!r}")
    size, resolution = fields.get("size", ""), fields.get("res", "")
    if not re.fullmatch(r"\d{1,19}", size, re.ASCII):
        raise InputError(f"map header: expected size and a number of nodes, got {size[:40]!r}")
    if not _NUMBER.fullmatch(resolution):
        raise InputError(f"map header: expected res and a length in meters, got {resolution[:40]!r}")
    return tree_id, int(size), _checked_resolution(float(resolution))
