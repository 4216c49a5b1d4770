# SPDX-License-Identifier: Apache-2.0
"""Read an MCAP file, whole, without an index, or cut off in the middle, record by record up to the break.

A recorder that was killed leaves files that readers refuse which start from the index at the end. And images are large:
a message is read into the memory that is handed on, where a general reader copies it three times, and what nobody asked
for is stepped over. Only a chunk that is compressed, or has a checksum, is read as a whole; its messages are views of
it. The file is not mapped into memory: if it shrank meanwhile, the system would end the process.
Source: MCAP format specification, https://mcap.dev/spec.
"""

from __future__ import annotations

import bisect
import itertools
import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from perception.errors import InputError
from perception.sources.mcap_records import (
    CHANNEL,
    CHUNK,
    CHUNK_HEADER,
    DATA_END,
    FOOTER,
    MAGIC,
    MAX_RECORD_BYTES,
    MESSAGE,
    MESSAGE_HEADER,
    MESSAGE_INDEX,
    RECORD_HEADER,
    SCHEMA,
    BreakError,
    ChunkHeader,
    read_text,
    split_records,
    unpack_chunk,
)

RUN_BYTES = 1 << 22
"""Plain messages are listed together up to this many bytes, so that the list stays short."""
MAX_WAITING_BYTES, _MESSAGE_BYTES = 1 << 28, 256
"""What may be held back to put messages in order, as chunks may all claim the whole time; a message beside its data."""
_ALIGNMENT = 32
"""A message's data begins at a multiple of this many bytes in its buffer, so that the numbers in it are aligned."""


@dataclass
class _Stretch:
    """A part of the file that holds messages: one chunk, or a run of plain messages.

    Attributes:
        offset: of its first byte.
        end: of the byte behind its last one.
        is_chunk: whether the messages are packed in one record.
        start_ns: log time of the first message.
        end_ns: log time of the last message.
        channels: which channels its messages belong to.
    """

    offset: int
    end: int
    is_chunk: bool
    start_ns: int
    end_ns: int
    channels: set[int]


class _Message(NamedTuple):
    """Fields in the order in which messages compare: ``stretch`` is where its stretch begins, ``number`` in there."""

    log_ns: int
    stretch: int
    number: int
    channel: int
    body: memoryview

    def alone(self) -> _Message:
        """The same in memory of its own: a view of a chunk keeps all of it."""
        shared = memoryview(self.body.obj).nbytes > self.body.nbytes + _ALIGNMENT
        return self._replace(body=memoryview(bytearray(self.body))) if shared else self


class McapFile:
    """The whole records of an MCAP file, up to where it breaks off if it does.

    Args:
        path: the file; it is scanned once, message data is skipped where an index of the chunk allows it.

    Attributes:
        topics: channel id to (topic, message type).
        counts: messages per channel id.
        start_ns: log time of the first message; 0 when there is none.
        end_ns: log time of the last message.
        note: why the file ends early; empty when it is whole.
        disorder: why messages came out of order; empty while they did not.

    Raises:
        InputError: not an MCAP file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schemas: dict[int, str] = {}
        self._stretches: list[_Stretch] = []
        self.topics: dict[int, tuple[str, str]] = {}
        self.counts: Counter[int] = Counter()
        self.note = self.disorder = ""
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        start = self._file.read(len(MAGIC))
        if start != MAGIC:
            self._file.close()
            raise InputError(f"{path}: expected an MCAP file, which begins with {MAGIC!r}, got {_described(start)}")
        try:
            self._scan()
        except BreakError as error:
            self.note = f"{path.name}: {error}"
        self.start_ns = min((stretch.start_ns for stretch in self._stretches), default=0)
        self.end_ns = max((stretch.end_ns for stretch in self._stretches), default=0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(
        self, channels: Collection[int], start_ns: int = 0, stop_ns: int | None = None
    ) -> Iterator[tuple[int, int, memoryview]]:
        """Channel id, log time and data of messages with a log time in [start, stop).

        In the order of log time, and of the file where that is equal; in a file that is cut off, of the file. Where
        more than ``MAX_WAITING_BYTES`` would wait for later chunks, they are put in order among themselves only.
        """
        wanted, stop = set(channels), stop_ns if stop_ns is not None else 1 << 63
        chosen = [
            stretch
            for stretch in self._stretches
            if start_ns <= stretch.end_ns and stretch.start_ns < stop and stretch.channels & wanted
        ]
        if self.note:
            for stretch in chosen:
                for message in self._messages_of(stretch, wanted, start_ns, stop):
                    yield message.channel, message.log_ns, message.body
            return
        chosen.sort(key=lambda stretch: (stretch.start_ns, stretch.offset))
        waiting: list[_Message] = []
        for stretch, after in itertools.zip_longest(chosen, chosen[1:]):
            waiting += self._messages_of(stretch, wanted, start_ns, stop)
            waiting.sort()
            until = len(waiting) if after is None else bisect.bisect_left(waiting, (after.start_ns, after.offset))
            if sum(_MESSAGE_BYTES + message.body.nbytes for message in waiting[until:]) > MAX_WAITING_BYTES:
                self.disorder = f"{self._path.name}: its chunks overlap too widely in time to put messages in order"
                until = len(waiting)
            for message in waiting[:until]:
                yield message.channel, message.log_ns, message.body
            waiting = [message.alone() if message.stretch == stretch.offset else message for message in waiting[until:]]

    def _messages_of(self, stretch: _Stretch, wanted: set[int], start_ns: int, stop_ns: int) -> Iterator[_Message]:
        """Those that are wanted, in the order of the file."""
        for number, (kind, body) in enumerate(self._records_of(stretch, wanted)):
            if kind == MESSAGE and len(body) >= MESSAGE_HEADER.size:
                channel, _, log_ns, _ = MESSAGE_HEADER.unpack_from(body)
                if channel in wanted and start_ns <= log_ns < stop_ns:
                    yield _Message(log_ns, stretch.offset, number, channel, body[MESSAGE_HEADER.size :])

    def _scan(self) -> None:
        """List chunks, channels and counts; raise BreakError where the whole records end."""
        while True:
            offset = self._file.tell()
            kind, size = self._header()
            if kind in (DATA_END, FOOTER):
                return
            if kind == CHUNK:
                self._scan_chunk(offset, size)
            elif kind in (SCHEMA, CHANNEL):
                self._learn(kind, memoryview(self._take(size)))
            elif kind == MESSAGE:
                self._scan_message(offset, size)
            else:
                self._skip(size)

    def _scan_chunk(self, offset: int, size: int) -> None:
        """Take up one chunk: from the index behind it where that names known channels, else from its records."""
        if size < CHUNK_HEADER.size:
            raise BreakError(f"damaged chunk at byte {offset}")
        start_ns, end_ns, _, _ = CHUNK_HEADER.unpack(self._take(CHUNK_HEADER.size))
        self._skip(size - CHUNK_HEADER.size)
        counts = self._message_index()
        stretch = _Stretch(offset, offset + 9 + size, True, start_ns, end_ns, set(counts))
        if not counts or not set(counts) <= set(self.topics):
            after = self._file.tell()
            counts = Counter()
            for kind, body in self._records_of(stretch):
                if kind in (SCHEMA, CHANNEL):
                    self._learn(kind, body)
                elif kind == MESSAGE and len(body) >= MESSAGE_HEADER.size:
                    counts[MESSAGE_HEADER.unpack_from(body)[0]] += 1
            stretch.channels = set(counts)
            self._file.seek(after)
        self.counts.update(counts)
        if counts:
            self._stretches.append(stretch)

    def _scan_message(self, offset: int, size: int) -> None:
        """Take up a message outside of any chunk."""
        if size < MESSAGE_HEADER.size:
            raise BreakError(f"damaged message at byte {offset}")
        channel, _, log_ns, _ = MESSAGE_HEADER.unpack(self._take(MESSAGE_HEADER.size))
        self._skip(size - MESSAGE_HEADER.size)
        self.counts[channel] += 1
        end = offset + 9 + size
        last = self._stretches[-1] if self._stretches else None
        if last is None or last.is_chunk or last.end != offset or end - last.offset > RUN_BYTES:
            self._stretches.append(_Stretch(offset, end, False, log_ns, log_ns, {channel}))
            return
        last.end, last.start_ns, last.end_ns = end, min(last.start_ns, log_ns), max(last.end_ns, log_ns)
        last.channels.add(channel)

    def _message_index(self) -> Counter[int]:
        """Messages per channel from the index records behind a chunk; the file stands behind them afterwards."""
        counts: Counter[int] = Counter()
        while True:
            before = self._file.tell()
            try:
                kind, size = self._header()
                if kind != MESSAGE_INDEX or size < 6:
                    self._file.seek(before)
                    return counts
                channel, length = struct.unpack("<HI", self._take(6))
                self._skip(size - 6)
                counts[channel] += length // 16
            except BreakError:
                # The chunk itself is whole: it is read for what the cut index would have told.
                self._file.seek(before)
                return Counter()

    def _records_of(self, stretch: _Stretch, wanted: Collection[int] | None = None) -> Iterator[tuple[int, memoryview]]:
        """Kind and body of each record; of messages that are not ``wanted`` perhaps only the header."""
        if not stretch.is_chunk:
            return self._walk(stretch.offset, stretch, wanted)
        self._file.seek(stretch.offset)
        _, size = self._header()
        chunk = ChunkHeader.read(self._take(min(size, ChunkHeader.MAX_BYTES)), size, stretch.offset)
        start = stretch.offset + RECORD_HEADER.size + chunk.length
        if not chunk.compression and not chunk.checksum:
            return self._walk(start, stretch, wanted)
        self._file.seek(start)
        return split_records(unpack_chunk(self._fill(size - chunk.length), chunk, stretch.offset), stretch.offset)

    def _walk(
        self, position: int, stretch: _Stretch, wanted: Collection[int] | None
    ) -> Iterator[tuple[int, memoryview]]:
        """Records of a stretch from there on as they lie in the file, each in memory of its own."""
        while position + RECORD_HEADER.size <= stretch.end:
            # Others may read from the file between two records.
            self._file.seek(position)
            head = self._file.read(RECORD_HEADER.size + MESSAGE_HEADER.size)
            kind, size = self._parse_header(head)
            if position + RECORD_HEADER.size + size > stretch.end:
                what = f"chunk at byte {stretch.offset}" if stretch.is_chunk else f"message at byte {position}"
                raise BreakError(f"damaged {what}")
            position += RECORD_HEADER.size + size
            head = head[RECORD_HEADER.size :][:size]
            if kind != MESSAGE or wanted is None or int.from_bytes(head[:2], "little") in wanted:
                yield kind, self._fill(size, head)
            else:
                yield kind, memoryview(head)

    def _learn(self, kind: int, body: memoryview) -> None:
        try:
            if kind == SCHEMA:
                (key,) = struct.unpack_from("<H", body)
                self._schemas[key] = read_text(body, 2)[0]
            else:
                key, schema = struct.unpack_from("<HH", body)
                self.topics[key] = (read_text(body, 4)[0], self._schemas.get(schema, ""))
        except (struct.error, UnicodeDecodeError) as error:
            raise BreakError(f"damaged schema or channel ({error})") from error

    def _header(self) -> tuple[int, int]:
        return self._parse_header(self._file.read(RECORD_HEADER.size))

    def _parse_header(self, data: bytes) -> tuple[int, int]:
        """Kind and size of a record from what was read last."""
        if len(data) < RECORD_HEADER.size:
            raise self._cut_off()
        kind, size = RECORD_HEADER.unpack_from(data)
        if size > MAX_RECORD_BYTES:
            raise BreakError(f"damaged at byte {self._file.tell() - len(data)}")
        return kind, size

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise self._cut_off()
        return data

    def _fill(self, size: int, head: bytes = b"") -> memoryview:
        """The next bytes of the file behind ``head``, which was taken before: ``size`` altogether, writable."""
        skipped = _ALIGNMENT - MESSAGE_HEADER.size
        data = np.empty(skipped + size, np.uint8).data[skipped:]
        data[: len(head)] = head
        if self._file.readinto(data[len(head) :]) < size - len(head):  # type: ignore[attr-defined]
            raise self._cut_off()
        return data

    def _cut_off(self) -> BreakError:
        # Not where the file was read: what was skipped may lie behind its end.
        return BreakError(f"cut off after {os.fstat(self._file.fileno()).st_size} bytes")

    def _skip(self, size: int) -> None:
        # Seeking past the end succeeds, so the last byte is read to see that it is there.
        if size > 0:
            self._file.seek(size - 1, 1)
            self._take(1)


def _described(start: bytes) -> str:
    """What a file is that begins with these bytes in place of the magic ones, or is no longer than they are."""
    if not start:
        return "an empty file"
    if len(start) < len(MAGIC):
        return f"a file of {len(start)} byte{'s' if len(start) > 1 else ''}, {start!r}"
    return f"one that begins with {start!r}"
