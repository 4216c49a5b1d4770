# SPDX-License-Identifier: Apache-2.0
"""MCAP files record by record: what is read of them, and what damage does."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from perception.sources import mcap_file
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


def in_steps(file: McapFile, channel: int) -> list[tuple[int, int]]:
    """Log time of each message, and how many bytes were read from the file when it came."""
    file._file = counting = _CountingFile(file._file)
    return [(log_ns, counting.count) for _, log_ns, _ in file.messages([channel])]


@pytest.mark.parametrize("compression", ["", "zstd"])
def test_chunks_of_the_same_time_are_handed_on_one_by_one_in_the_order_of_the_file(tmp_path, compression):
    chunks = [chunk(message(SMALL, 0, bytes([i]) * 1000), compression, times=(0, 0)) for i in range(50)]
    file = mcap(tmp_path / "a.mcap", channels(), *chunks)
    before = [count for _, count in in_steps(file, SMALL)]
    assert before[0] < before[10] < before[49] and before[0] < 1500
    assert [data[0] for data in small(file)] == list(range(50)) and not file.disorder
    file.close()


@pytest.mark.parametrize(("compression", "checksum"), [("", 0), ("", None), ("zstd", None)])
def test_chunks_that_all_claim_the_whole_time_hold_back_no_more_than_the_bound(
    tmp_path, monkeypatch, compression, checksum
):
    monkeypatch.setattr(mcap_file, "MAX_WAITING_BYTES", 25_000)
    chunks = [chunk(message(SMALL, 99 - i, bytes(2000)), compression, checksum, (0, 99)) for i in range(50)]
    file = mcap(tmp_path / "a.mcap", channels(), *chunks)
    assert not file.disorder
    found = [log_ns for log_ns, _ in in_steps(file, SMALL)]
    # 12 messages wait with 2256 bytes each, that is more than the bound: every dozen is in order.
    assert found == [time for first in (99, 87, 75, 63) for time in range(first - 11, first + 1)] + [50, 51]
    assert "a.mcap: its chunks overlap too widely in time" in file.disorder and not file.note
    file.close()


def test_a_small_message_that_waits_does_not_keep_its_chunk(tmp_path):
    records = message(SMALL, 1, b"first") + message(LARGE, 2, bytes(1_000_000)) + message(SMALL, 9, b"waits")
    overlapping = [chunk(message(SMALL, time, b"between"), times=(time, time)) for time in (5, 6)]
    file = mcap(tmp_path / "a.mcap", channels(), chunk(records, "zstd"), *overlapping)
    found = {log_ns: data for _, log_ns, data in file.messages([SMALL])}
    assert {log_ns: bytes(data) for log_ns, data in found.items()} == {
        1: b"first", 5: b"between", 6: b"between", 9: b"waits",
    }  # fmt: skip
    assert memoryview(found[9].obj).nbytes == 5
    file.close()


def test_messages_of_overlapping_chunks_and_one_time_come_in_the_order_of_the_file(tmp_path):
    first = message(SMALL, 1, b"a") + message(SMALL, 5, b"b") + message(SMALL, 5, b"c")
    second = message(SMALL, 5, b"d") + message(SMALL, 2, b"e")
    file = mcap(tmp_path / "a.mcap", channels(), *(chunk(one, "zstd", times=(1, 5)) for one in (first, second)))
    assert small(file) == [b"a", b"e", b"b", b"c", b"d"]
    file.close()


def test_a_chunk_with_more_messages_than_bytes_comes_before_the_next_one_of_its_time(tmp_path):
    packed = chunk(message(SMALL, 5, b"a") * 500, "zstd", times=(4, 5))
    assert len(packed) < 500
    file = mcap(tmp_path / "a.mcap", channels(), packed, chunk(message(SMALL, 5, b"b"), times=(4, 5)))
    assert small(file) == [b"a"] * 500 + [b"b"]
    file.close()


@pytest.mark.parametrize("in_chunk", [False, True])
def test_damage_since_the_file_was_scanned_is_named_for_what_it_is(tmp_path, in_chunk):
    path, plain = tmp_path / "a.mcap", message(SMALL, 1, bytes(100_000)) + message(SMALL, 2, b"two")
    file = mcap(path, channels(), chunk(plain, checksum=0) if in_chunk else plain)
    stretch, content = file._stretches[0].offset, path.read_bytes()
    second = content.index(message(SMALL, 2, b"two"))
    with path.open("r+b") as other:
        other.seek(second + 1)
        other.write(bytes([200]))
    expected = f"damaged chunk at byte {stretch}" if in_chunk else f"damaged message at byte {second}"
    with pytest.raises(Exception, match=f"^{expected}$"):
        list(file.messages([SMALL]))
    file.close()
