# SPDX-License-Identifier: Apache-2.0
"""The records of MCAP files, in memory: their layout, what a chunk says of itself, and its content unpacked.

Source: MCAP format specification, https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from perception.inflate import crc32

MAGIC = b"\x89MCAP0\r\n"
MAX_RECORD_BYTES = 1 << 30
"""Longer records and larger chunks are taken for damage."""
SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, DATA_END, FOOTER = 0x03, 0x04, 0x05, 0x06, 0x07, 0x0F, 0x02
RECORD_HEADER = struct.Struct("<BQ")
MESSAGE_HEADER = struct.Struct("<HIQQ")
CHUNK_HEADER = struct.Struct("<QQQI")


class BreakError(Exception):
    """The file is cut off or damaged here."""


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """What stands before the records of a chunk.

    Attributes:
        size: bytes of the records once decompressed.
        checksum: CRC-32 of them, 0 for none.
        compression: name of it, "" for none.
        length: bytes of this header.
    """

    MAX_BYTES: ClassVar[int] = 256

    size: int
    checksum: int
    compression: str
    length: int

    @classmethod
    def read(cls, data: bytes, record_size: int, offset: int) -> ChunkHeader:
        """From the first bytes of a chunk record of that size, which begins at ``offset``."""
        try:
            _, _, size, checksum = CHUNK_HEADER.unpack_from(data)
            compression, position = read_text(memoryview(data), CHUNK_HEADER.size)
        except (struct.error, UnicodeDecodeError) as error:
            raise BreakError(f"damaged chunk at byte {offset} ({error})") from error
        length = position + 8
        stored = record_size - length
        if size > MAX_RECORD_BYTES or stored < 0 or (not compression and size != stored):
            raise BreakError(f"damaged chunk at byte {offset}")
        return cls(size, checksum, compression, length)


def split_records(data: bytes | memoryview, offset: int) -> Iterator[tuple[int, memoryview]]:
    """Kind and body of each record of a chunk that began at ``offset``."""
    records, position = memoryview(data), 0
    while position + RECORD_HEADER.size <= len(records):
        kind, size = RECORD_HEADER.unpack_from(records, position)
        position += RECORD_HEADER.size
        if position + size > len(records):
            raise BreakError(f"damaged chunk at byte {offset}")
        yield kind, records[position : position + size]
        position += size


def unpack_chunk(stored: memoryview, chunk: ChunkHeader, offset: int) -> bytes | memoryview:
    """The records of a chunk, decompressed to at most the size that it states; its checksum must fit if it has one."""
    records: bytes | memoryview = stored
    if chunk.compression:
        try:
            records = _decompressor(chunk.compression).decompress(stored, max_length=chunk.size)
        except BreakError:
            raise
        except Exception as error:  # The decompressors raise types of their own for damaged data.
            raise BreakError(f"damaged chunk at byte {offset} ({error})") from error
    if len(records) != chunk.size or (chunk.checksum and crc32(records) != chunk.checksum):
        raise BreakError(f"damaged chunk at byte {offset}")
    return records


def _decompressor(compression: str) -> Any:
    if compression == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        return LZ4FrameDecompressor()
    if compression == "zstd":
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        return zstd.ZstdDecompressor()
    raise BreakError(f"unknown compression {compression[:20]!r}")


def read_text(body: memoryview, position: int) -> tuple[str, int]:
    """A string with its length in front, and the position behind it."""
    (length,) = struct.unpack_from("<I", body, position)
    end = position + 4 + length
    if end > len(body):
        raise struct.error("a string is longer than its record")
    return bytes(body[position + 4 : end]).decode(), end
