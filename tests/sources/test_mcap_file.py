# SPDX-License-Identifier: Apache-2.0
"""MCAP files record by record: what is read of them, and what damage does."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from perception.sources.mcap_file import MAGIC, McapFile

HEADER, SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 0x01, 0x03, 0x04, 0x05, 0x06, 0x0F
SMALL, LARGE = 1, 2


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(body)) + body


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def channels() -> bytes:
    schema = record(SCHEMA, struct.pack("<H", 1) + text("std_msgs/msg/Byte") + text("ros2msg") + text("byte data"))
    names = {SMALL: "/small", LARGE: "/large"}
    each = [struct.pack("<HH", key, 1) + text(name) + text("cdr") + text("") for key, name in names.items()]
    return schema + b"".join(record(CHANNEL, body) for body in each)


def message(channel: int, time_ns: int, data: bytes) -> bytes:
    return record(MESSAGE, struct.pack("<HIQQ", channel, 0, time_ns, time_ns) + data)


def pack(records: bytes, compression: str) -> bytes:
    if compression == "lz4":
        return pytest.importorskip("lz4.frame").compress(records)
    return pytest.importorskip("backports.zstd").compress(records) if compression else records


def chunk(records: bytes, compression: str = "", checksum: int | None = None, times: tuple[int, int] = (1, 9)) -> bytes:
    checksum = zlib.crc32(records) if checksum is None else checksum
    stored = pack(records, compression)
    header = struct.pack("<QQQI", *times, len(records), checksum) + text(compression) + struct.pack("<Q", len(stored))
    return record(CHUNK, header + stored)


def mcap(path: Path, *parts: bytes) -> McapFile:
    path.write_bytes(MAGIC + record(HEADER, text("") + text("")) + b"".join(parts) + record(DATA_END, bytes(4)))
    return McapFile(path)


def small(file: McapFile) -> list[bytes]:
    return [bytes(data) for _, _, data in file.messages([SMALL])]


@pytest.mark.parametrize("compression", ["", "lz4", "zstd"])
@pytest.mark.parametrize("checked", [False, True])
def test_messages_are_the_same_however_their_chunk_is_stored(tmp_path, compression, checked):
    records = channels() + message(SMALL, 1, b"one") + message(LARGE, 2, bytes(50_000)) + message(SMALL, 3, b"three")
    file = mcap(tmp_path / "a.mcap", chunk(records, compression, None if checked else 0))
    assert [(c, t, bytes(d)) for c, t, d in file.messages([SMALL, LARGE])] == [
        (SMALL, 1, b"one"),
        (LARGE, 2, bytes(50_000)),
        (SMALL, 3, b"three"),
    ]
    assert small(file) == [b"one", b"three"]
    assert not file.note
    file.close()


@pytest.mark.parametrize("compression", ["", "zstd"])
def test_a_chunk_that_its_checksum_does_not_fit_is_damaged(tmp_path, compression):
    good = chunk(channels() + message(SMALL, 1, b"one"), compression)
    bad = chunk(message(SMALL, 2, b"two"), compression, checksum=12345)
    file = mcap(tmp_path / "a.mcap", good, bad, good)
    assert "damaged chunk at byte" in file.note
    assert small(file) == [b"one"]
    file.close()


class _CountingFile:
    """A file that counts the bytes that are read from it."""

    def __init__(self, file):
        self._file, self.count = file, 0

    def read(self, size):
        self.count += size
        return self._file.read(size)

    def readinto(self, data):
        self.count += len(data)
        return self._file.readinto(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("in_chunk", [False, True])
def test_messages_that_nobody_asked_for_are_stepped_over(tmp_path, in_chunk):
    records = b"".join(message(LARGE, i, bytes(100_000)) + message(SMALL, i, b"x" * 10) for i in range(1, 9))
    records = channels() + records
    file = mcap(tmp_path / "a.mcap", chunk(records, checksum=0) if in_chunk else records)
    file._file = counting = _CountingFile(file._file)
    assert small(file) == [b"x" * 10] * 8
    assert counting.count < 2_000
    file.close()


def test_data_of_a_message_is_aligned_writable_and_its_own(tmp_path):
    records = channels() + b"".join(message(SMALL, i, bytes(8 * i)) for i in range(1, 9))
    file = mcap(tmp_path / "a.mcap", chunk(records, checksum=0))
    arrays = [np.frombuffer(data, np.float64) for _, _, data in file.messages([SMALL])]
    assert all(array.flags.aligned and array.flags.writeable for array in arrays)
    arrays[0][:] = 7
    assert all((array == 0).all() for array in arrays[1:])
    file.close()


def test_a_record_longer_than_its_chunk_is_damage(tmp_path):
    longer = bytearray(message(SMALL, 2, b"two"))
    longer[1] += 4
    records = channels() + message(SMALL, 1, b"one") + longer
    file = mcap(tmp_path / "a.mcap", chunk(records, checksum=0), chunk(message(SMALL, 3, b"three")))
    assert "damaged chunk at byte" in file.note
    file.close()


def test_a_chunk_that_claims_another_size_than_it_has_is_damage(tmp_path):
    whole = bytearray(chunk(channels() + message(SMALL, 1, b"one"), checksum=0))
    whole[9 + 16] += 1
    file = mcap(tmp_path / "a.mcap", bytes(whole))
    assert "damaged chunk at byte" in file.note
    file.close()


def test_a_file_cut_off_while_it_is_read_ends_in_an_error_that_says_where(tmp_path):
    path = tmp_path / "a.mcap"
    chunks = [chunk(message(LARGE, i, bytes(100_000)), checksum=0, times=(i, i)) for i in range(1, 5)]
    file = mcap(path, channels(), *chunks)
    found = file.messages([LARGE])
    kept = next(found)[2]
    with path.open("r+b") as other:
        other.truncate(250_000)
    with pytest.raises(Exception, match="cut off after 250000 bytes"):
        list(found)
    assert bytes(kept) == bytes(100_000)
    file.close()
