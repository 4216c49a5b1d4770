# SPDX-License-Identifier: Apache-2.0
"""Map files: the same bytes as OctoMap's, bad files refused, saves that are whole or not there."""

from __future__ import annotations

import errno
import os

import numpy as np
import octomap
import pytest

from perception.errors import InputError, PerceptionError
from perception.evaluation.map_fuzz import random_leaves
from perception.mapping.octomap_io import bt_bytes, ot_bytes, parse_map, read_map, write_ot
from perception.mapping.octomap_stream import Leaves, encode_full

EMPTY = Leaves(np.empty((0, 3), np.uint16), np.empty(0, np.uint8), np.empty(0, np.float32))


def test_recorded_building_reads_and_writes_back_byte_for_byte(shared, tmp_path):
    source = shared / "data" / "octomap" / "geb079.bt"
    building = read_map(source)
    assert (building.tree_id, building.binary, building.resolution) == ("OcTree", True, 0.08)
    assert len(building.leaves.depths) == 428144
    assert bt_bytes(building.leaves, building.resolution) == source.read_bytes()
    tree = octomap.OcTree(0.1)
    tree.readBinary(os.fsencode(source))
    write_ot(tmp_path / "again.ot", building.leaves, building.resolution)
    assert (tmp_path / "again.ot").read_bytes() == tree.write()


@pytest.mark.parametrize("resolution", [0.05, 0.1, 1.0, 0.0123456, 25.0])
def test_files_equal_octomaps_own_header_included(tmp_path, resolution):
    tree = octomap.OcTree(resolution)
    points = np.random.default_rng(0).uniform(-30, 30, (400, 3)) * resolution
    tree.insertPointCloud(points, np.zeros(3), discretize=True)
    tree.write(os.fsencode(tmp_path / "theirs.ot"))
    leaves = read_map(tmp_path / "theirs.ot").leaves
    write_ot(tmp_path / "map.ot", leaves, resolution)
    assert (tmp_path / "map.ot").read_bytes() == tree.write()
    assert bt_bytes(leaves, resolution) == tree.writeBinary()


def test_empty_maps_equal_octomaps_and_read_back(tmp_path):
    write_ot(tmp_path / "map.ot", EMPTY, 0.1)
    assert (tmp_path / "map.ot").read_bytes() == octomap.OcTree(0.1).write()
    assert bt_bytes(EMPTY, 0.1) == octomap.OcTree(0.1).writeBinary()
    assert len(read_map(tmp_path / "map.ot").leaves.depths) == 0
    assert len(parse_map(bt_bytes(EMPTY, 0.1)).leaves.depths) == 0


def test_resolution_with_many_digits_is_kept_exactly(tmp_path):
    write_ot(tmp_path / "map.ot", random_leaves(np.random.default_rng(2)), 1 / 30)
    assert read_map(tmp_path / "map.ot").resolution == 1 / 30
    assert octomap.OcTree.read(os.fsencode(tmp_path / "map.ot")).getResolution() == 1 / 30


def test_header_may_have_comments_unknown_words_and_another_order():
    data = encode_full(*random_leaves(np.random.default_rng(2))[:3])
    size = len(data) // 5
    header = f"# Octomap OcTree file v2\n\nres 0.5\nauthor me\n# note\nsize {size}\nid 1\ndata\n".encode()
    parsed = parse_map(header + data)
    assert (parsed.tree_id, parsed.resolution, parsed.labels) == ("OcTree", 0.5, None)


HEADER = {"id": "OcTree", "size": "2", "res": "0.1"}
TWO_NODES = encode_full(np.zeros((1, 3), np.uint16), np.ones(1, np.uint8), np.ones(1, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "OcTreeStampedSomehow"}, "expected id OcTree or ColorOcTree, got 'OcTreeStampedSomehow'"),
        ({"id": ""}, "expected id"),
        ({"size": "-2"}, "expected size and a number of nodes, got '-2'"),
        ({"size": "1" * 30}, "expected size"),
        ({"size": "4000000000"}, "expected at least 20000000000 bytes for 4000000000 nodes, got 10"),
        ({"size": "1"}, "expected 1 nodes as the header says, got 2"),
        ({"size": "0"}, "expected nothing or a label section, got 10 other bytes"),
        ({"res": "0"}, "resolution: expected 1e-6 to 1e6 meters, got 0.0"),
        ({"res": "nan"}, "expected res and a length in meters, got 'nan'"),
        ({"res": "1e999"}, "resolution: expected"),
        ({"id": "ColorOcTree"}, "expected at least 16 bytes for 2 nodes, got 10"),
    ],
)
def test_damaged_headers_are_refused_with_a_sentence(change, message):
    lines = [f"{word} {value}" for word, value in (HEADER | change).items()]
    file = "\n".join(["# Octomap OcTree file", *lines, "data\n"]).encode() + TWO_NODES
    with pytest.raises(InputError, match=message):
        parse_map(file)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "expected '# Octomap OcTree file'"),
        (b"\x89PNG\r\n\x1a\n" * 9, "expected '# Octomap OcTree file'"),
        (b"# Octomap OcTree file\nid OcTree\nsize 1\n", "expected a line 'data'"),
        (b"# Octomap OcTree file\n" + b"#\n" * 100_000, "within 65536 bytes"),
    ],
)
def test_files_that_are_no_maps_are_refused(file, message):
    with pytest.raises(InputError, match=message):
        parse_map(file)


def test_absent_files_and_folders_are_named_in_the_error(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.ot: expected a map file, got nothing there"):
        read_map(tmp_path / "nowhere.ot")
    with pytest.raises(InputError, match="expected a map file"):
        read_map(tmp_path)


def test_map_file_cut_in_half_is_refused_where_octomap_accepts_it(tmp_path):
    leaves = random_leaves(np.random.default_rng(5))
    for data, name in ((ot_bytes(leaves, 0.1), "map.ot"), (bt_bytes(leaves, 0.1), "map.bt")):
        path = tmp_path / name
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match=name):
            read_map(path)
    assert octomap.OcTree.read(os.fsencode(tmp_path / "map.ot")) is not None


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_the_old_map_and_no_temporary_file(tmp_path, monkeypatch, call):
    path = tmp_path / "map.ot"
    write_ot(path, random_leaves(np.random.default_rng(1)), 0.1)
    old = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(PerceptionError, match=r"map\.ot: No space left on device"):
        write_ot(path, random_leaves(np.random.default_rng(2)), 0.1)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["map.ot"]


def test_save_into_an_absent_folder_is_one_sentence(tmp_path):
    with pytest.raises(PerceptionError, match=r"cannot save .*No such file or directory"):
        write_ot(tmp_path / "absent" / "map.ot", EMPTY, 0.1)


def test_save_follows_a_symbolic_link_and_obeys_the_umask(tmp_path):
    write_ot(tmp_path / "real.ot", EMPTY, 0.1)
    (tmp_path / "link.ot").symlink_to("real.ot")
    write_ot(tmp_path / "link.ot", random_leaves(np.random.default_rng(1)), 0.1)
    assert (tmp_path / "link.ot").is_symlink() and len(read_map(tmp_path / "real.ot").leaves.depths) > 0
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "real.ot").stat().st_mode & 0o777 == 0o666 & ~mask
