# SPDX-License-Identifier: Apache-2.0
"""Bags whose chunks, messages or whole files are packed in ways that our own writer does not use."""

import sys
from pathlib import Path

import pytest

from perception.sources import open_source
from perception.sources.bag_writer import BagLayout, BagWriter

sys.path.insert(0, str(Path(__file__).parent))
from bag_frames import frames


def write_lz4(path: Path, written) -> Path:
    """An MCAP with chunks of LZ4, as ros2 bag's preset "fastwrite" with compression makes them."""
    lz4 = pytest.importorskip("lz4.frame")
    with BagWriter(path, BagLayout(compressed=True)) as bag:
        bag._writer.storage.compression, bag._writer.storage.compressor = "lz4", lz4.compress
        for frame in written:
            bag.write_frame(frame)
    return next(path.glob("*.mcap"))


def stamps(path):
    with open_source(path) as source:
        return [frame.stamp_ns for frame in source], source


def test_chunks_of_lz4_are_read(tmp_path):
    written = frames(6)
    storage = write_lz4(tmp_path / "bag", written)
    assert b"lz4" in storage.read_bytes()
    assert stamps(tmp_path / "bag")[0] == [frame.stamp_ns for frame in written]


def test_chunks_of_lz4_are_read_up_to_the_break(tmp_path):
    written = frames(2000)
    storage = write_lz4(tmp_path / "bag", written)
    storage.write_bytes(storage.read_bytes()[: storage.stat().st_size * 2 // 3])
    found, source = stamps(storage)
    assert 0 < len(found) < 2000 and found == [frame.stamp_ns for frame in written[: len(found)]]
    assert "read up to" in source.note


def test_whole_files_of_zstd_are_read(tmp_path):
    from rosbags.rosbag2 import CompressionFormat, CompressionMode

    class Packed(BagWriter):
        def __init__(self, path):
            import rosbags.rosbag2 as rosbag2

            original = rosbag2.Writer.open

            def open_packed(writer):
                writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
                original(writer)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rosbag2.Writer, "open", open_packed)
                super().__init__(path, BagLayout(storage="sqlite3"))

    written = frames(4)
    with Packed(tmp_path / "bag") as bag:
        for frame in written:
            bag.write_frame(frame)
    assert next((tmp_path / "bag").glob("*.zstd"), None) is not None
    assert stamps(tmp_path / "bag")[0] == [frame.stamp_ns for frame in written]
