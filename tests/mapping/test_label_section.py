# SPDX-License-Identifier: Apache-2.0
"""Labels behind the tree of a .ot: kept for us, ignored by OctoMap, refused when damaged."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace

import numpy as np
import octomap
import pytest

from perception.errors import InputError
from perception.evaluation.map_fuzz import random_leaves
from perception.mapping import SemanticOcTree
from perception.mapping.label_section import LeafLabels, decode_labels, encode_labels
from perception.mapping.octomap_io import MapFile, parse_map, read_map, write_ot
from perception.mapping.octomap_stream import Leaves, encode_binary, encode_full


def make_labels(leaves: Leaves, classes: int = 4) -> LeafLabels:
    rng = np.random.default_rng(0)
    index = np.flatnonzero(leaves.log_odds >= 0).astype(np.uint32)
    ids = rng.integers(0, 65536, (len(index), classes)).astype(np.uint16)
    scores = rng.uniform(0, 10, ids.shape).astype(np.float32)
    return LeafLabels(index, ids, scores, {"frame_id": "map", "label_set": {"name": "größe", "classes": [1, 2]}})


@pytest.fixture
def labeled(tmp_path) -> tuple[MapFile, bytes]:
    leaves = random_leaves(np.random.default_rng(1), colored=True)
    write_ot(tmp_path / "map.ot", leaves, 0.05, make_labels(leaves))
    return read_map(tmp_path / "map.ot"), (tmp_path / "map.ot").read_bytes()


def test_labels_and_metadata_come_back_as_they_were(labeled):
    stored, _ = labeled
    expected = make_labels(random_leaves(np.random.default_rng(1), colored=True))
    assert stored.labels is not None and stored.labels.metadata == expected.metadata
    for name in ("index", "ids", "scores"):
        left, right = getattr(stored.labels, name), getattr(expected, name)
        assert left.dtype == right.dtype and np.array_equal(left, right), name


def test_metadata_alone_is_stored_and_a_map_without_section_is_unlabeled(tmp_path):
    leaves = random_leaves(np.random.default_rng(1))
    write_ot(tmp_path / "a.ot", leaves, 0.1, LeafLabels.none({"frame_id": "odom"}))
    stored = read_map(tmp_path / "a.ot").labels
    assert stored is not None and stored.metadata == {"frame_id": "odom"} and len(stored.index) == 0
    write_ot(tmp_path / "b.ot", leaves, 0.1)
    assert read_map(tmp_path / "b.ot").labels is None


def test_octomap_reads_a_labeled_map_as_if_the_labels_were_not_there(labeled, tmp_path):
    stored, data = labeled
    tree = octomap.ColorOcTree.read(os.fsencode(tmp_path / "map.ot"))
    written = tree.write()
    assert written.endswith(encode_full(*stored.leaves))
    assert data.startswith(written) and len(data) > len(written)


@pytest.mark.skipif(shutil.which("convert_octree") is None, reason="needs Debian's octomap-tools")
def test_octomap_tools_convert_a_labeled_map(labeled, tmp_path):
    stored, data = labeled
    for target in ("out.ot", "out.bt"):
        subprocess.run(["convert_octree", "map.ot", target], cwd=tmp_path, check=True, capture_output=True)
    again = read_map(tmp_path / "out.ot")
    assert again.labels is None and data.startswith((tmp_path / "out.ot").read_bytes())
    assert encode_full(*again.leaves) == encode_full(*stored.leaves)
    assert (tmp_path / "out.bt").read_bytes().endswith(b"\ndata\n" + encode_binary(*stored.leaves[:3]))


@pytest.mark.skipif(shutil.which("compare_octrees") is None, reason="needs Debian's octomap-tools")
def test_octomap_tools_find_our_copy_of_a_tree_equal(tmp_path):
    tree = octomap.OcTree(0.1)
    tree.insertPointCloud(np.random.default_rng(0).uniform(-3, 3, (400, 3)), np.zeros(3), discretize=True)
    tree.write(os.fsencode(tmp_path / "theirs.ot"))
    write_ot(tmp_path / "ours.ot", read_map(tmp_path / "theirs.ot").leaves, 0.1, LeafLabels.none({"frame_id": "map"}))
    command = ["compare_octrees", "theirs.ot", "ours.ot"]
    result = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "KLD: 0\n" in result.stdout


def test_label_section_cut_anywhere_or_damaged_is_refused(labeled):
    stored, data = labeled
    start = len(data) - len(encode_labels(stored.labels, len(stored.leaves.depths)))
    for size in range(start + 1, len(data)):
        with pytest.raises(InputError, match="label section"):
            parse_map(data[:size])
    with pytest.raises(InputError, match="label section"):
        parse_map(data + b"\0")
    for position in range(start, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(InputError, match="label section"):
            parse_map(bytes(damaged))


def section(body: bytes, classes: int, leaves: int, count: int, text: int, magic: bytes = b"\0LABELS\0") -> memoryview:
    header = struct.pack("<8sIIQQI", magic, 1, classes, leaves, count, text)
    return memoryview(header + struct.pack("<I", zlib.crc32(header + body)) + body)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (section(b"{}", 4, 9, 2**60, 2), "expected .* bytes as its header says, got 42"),
        (section(b"{}", 2**32 - 1, 9, 2**40, 2), "bytes as its header says"),
        (section(b"{}", 4, 8, 0, 2), "expected 9 leaves"),
        (section(b"[]", 4, 9, 0, 2), "expected a JSON object, got list"),
        (section(b"{]", 4, 9, 0, 2), "expected JSON"),
        (section(b"[" * 100_000, 4, 9, 0, 100_000), "expected JSON"),
        (section(b'{"a": ' + b"9" * 9000 + b"}", 4, 9, 0, 9007), "expected JSON"),
        (section(b"\xff\xff", 4, 9, 0, 2), "expected JSON"),
        (section(b"{}" + struct.pack("<IHf", 9, 1, 1.0), 1, 9, 1, 2), "expected leaves below 9, got 9"),
        (section(b"{}" + struct.pack("<IIHHff", 1, 1, 1, 1, 1.0, 1.0), 1, 9, 2, 2), "ascending"),
        (section(b"{}" + struct.pack("<IHf", 1, 1, np.nan), 1, 9, 1, 2), "finite"),
        (section(b"{}", 4, 9, 0, 2, b"whatever"), "expected nothing or a label section"),
    ],
)
def test_label_section_that_lies_with_a_right_checksum_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        decode_labels(data, 9)


def test_labels_of_leaves_that_do_not_exist_or_metadata_without_json_are_not_written(tmp_path):
    leaves = random_leaves(np.random.default_rng(1))
    labels = make_labels(leaves)
    with pytest.raises(InputError, match="expected leaves below 1, got"):
        encode_labels(labels, 1)
    with pytest.raises(InputError, match="values that JSON can write"):
        write_ot(tmp_path / "map.ot", leaves, 0.1, LeafLabels.none({"path": object()}))
    assert not (tmp_path / "map.ot").exists()


@pytest.mark.parametrize("name", ["num_classes", "labels_per_voxel", "max_label_score", "sensor_model", "decay_s"])
@pytest.mark.parametrize("value", ["many", None, [3], {"a": 1}, -1])
def test_metadata_that_no_octree_has_are_refused(name, value, tmp_path):
    tree = SemanticOcTree(0.1, num_classes=3)
    tree.insert_cloud(np.array([[1.05, 0.05, 0.05]]), (0.05, 0.05, 0.05), np.array([2]))
    tree.write(tmp_path / "good.ot", None)
    file = read_map(tmp_path / "good.ot")
    assert file.labels is not None and name in file.labels.metadata
    evil = replace(file.labels, metadata={**file.labels.metadata, name: value})
    write_ot(tmp_path / "evil.ot", file.leaves, 0.1, evil)
    with pytest.raises(InputError):
        SemanticOcTree.read(tmp_path / "evil.ot")
