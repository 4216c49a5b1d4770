# SPDX-License-Identifier: Apache-2.0
"""xz files of any make are read whole, and what asks for too much memory is refused."""

from __future__ import annotations

import io
import lzma
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import InputError
from perception.simulation.scene_archive import unpacked
from perception.simulation.xz_reader import XzReader

CONTENT = np.random.default_rng(0).integers(0, 40, 300_000).astype(np.uint8).tobytes()
SHORT = lzma.compress(b"scene")


def content_of(data: bytes, size: int = 10_240) -> bytes:
    reader = XzReader(io.BytesIO(data))
    parts = list(iter(lambda: reader.read(size), b""))
    assert all(len(part) <= size for part in parts) and reader.read(size) == b""
    return b"".join(parts)


def asking_for(memory_code: int) -> bytes:
    """A small xz file whose header claims a dictionary of (2 | code & 1) << (code // 2 + 11) bytes."""
    data = bytearray(SHORT)
    block = 12
    end = block + 4 * (data[block] + 1)
    assert data[block + 2 : block + 4] == b"\x21\x01"
    data[block + 4] = memory_code
    data[end - 4 : end] = zlib.crc32(data[block : end - 4]).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("size", [1 << 9, 10_240, 1 << 20])
@pytest.mark.parametrize("preset", [0, 6, 9])
def test_what_was_packed_is_read(preset, size):
    assert content_of(lzma.compress(CONTENT, preset=preset), size) == CONTENT


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=200), st.integers(0, 5))), st.integers(1, 300))
def test_streams_behind_each_other_are_one_file_also_with_padding(streams, size):
    packed = b"".join(lzma.compress(part) + bytes(4 * padding) for part, padding in streams)
    assert content_of(packed, size) == b"".join(part for part, _ in streams)


@pytest.mark.parametrize("cut", range(1, len(SHORT)))
def test_a_file_that_is_cut_off_anywhere_is_no_whole_one(cut):
    with pytest.raises((EOFError, lzma.LZMAError)):
        content_of(SHORT[:cut])


def test_anything_behind_the_last_stream_is_damage():
    for more in (b"more", b"much more than a header", SHORT[:-1]):
        with pytest.raises((EOFError, lzma.LZMAError)):
            content_of(SHORT + more)


def test_128_megabytes_of_memory_are_given_and_4_gigabytes_are_not(tmp_path):
    assert content_of(asking_for(30)) == b"scene"
    for code in (32, 40):
        (tmp_path / "a.tar.xz").write_bytes(asking_for(code))
        with pytest.raises(InputError, match=r"a.tar.xz: cannot be unpacked \(it takes more than 256 MB of memory"):
            unpacked(tmp_path / "a.tar.xz", tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == []
