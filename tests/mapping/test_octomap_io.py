# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import zlib

import numpy as np
import octomap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import InputError, PerceptionError
from perception.mapping.label_section import LeafLabels, decode_labels, encode_labels
from perception.mapping.octomap_io import MapFile, parse_map, read_map, write_bt, write_ot
from perception.mapping.octomap_stream import (
    Leaves,
    count_nodes,
    decode_binary,
    decode_full,
    encode_binary,
    encode_full,
    leaf_order,
    prune_leaves,
    sort_leaves,
)

VALUES = np.array([-2.0, -0.4, -0.4, 0.0, 0.85, 0.85, 3.5], np.float32)


def body(file: bytes) -> bytes:
    return file[file.index(b"\ndata\n") + 6 :]


def make_leaves(*rows: tuple[int, int, int, int, float]) -> Leaves:
    keys = np.array([row[:3] for row in rows], np.uint16).reshape(-1, 3)
    return Leaves(keys, np.array([row[3] for row in rows], np.uint8), np.array([row[4] for row in rows], np.float32))


def random_leaves(seed: int, colored: bool = False) -> Leaves:
    """Leaves of depths 0 to 16 in blocks of siblings (so that some merge), disjoint, in depth-first order."""
    rng = np.random.default_rng(seed)
    rows, near = [], rng.integers(0, 65536, 3)
    depths = rng.choice([16, 16, 16, 15, 14, 13], rng.integers(10, 60)).tolist()
    if seed % 3 == 0:
        depths = [*depths[: rng.integers(0, 10)], *rng.integers(0, 17, 3).tolist()]
    for depth in depths:
        size = 1 << (16 - depth)
        key = (near + rng.integers(-8, 8, 3)) % 65536 if depth > 12 else rng.integers(0, 65536, 3)
        value = rng.choice(VALUES)
        for child in range(8 if depth else 1):
            if rng.random() < 0.95:
                corner = (key // (2 * size) * 2 + [child & 1, child >> 1 & 1, child >> 2 & 1]) * size
                rows.append((*corner, depth, value if rng.random() < 0.95 else rng.choice(VALUES)))
    leaves = sort_leaves(*make_leaves(*rows)[:3])
    keep, end = [], 0
    for i, (key, depth) in enumerate(zip(leaves.keys.tolist(), leaves.depths.tolist(), strict=True)):
        code = sum((key[axis] >> bit & 1) << (3 * bit + axis) for bit in range(16) for axis in range(3))
        if code >= end:
            keep.append(i)
            end = code + 8 ** (16 - depth)
    colors = rng.choice(np.array([255, 255, 0, 7, 200], np.uint8), (len(keep), 3)) if colored else None
    return Leaves(leaves.keys[keep], leaves.depths[keep], leaves.log_odds[keep], colors)


def assert_same(a: Leaves, b: Leaves) -> None:
    for name, left, right in zip(Leaves._fields, a, b, strict=True):
        assert (left is None) == (right is None), name
        if left is not None and right is not None:
            assert left.dtype == right.dtype and np.array_equal(left, right), name


def oracle_leaves(tree: octomap.OcTree | octomap.ColorOcTree, colored: bool = False) -> Leaves:
    rows, colors = [], []
    for leaf in tree.begin_leafs():
        key = leaf.getIndexKey()
        rows.append((key[0], key[1], key[2], leaf.getDepth(), leaf.getValue()))
        if colored:
            colors.append(leaf.getColor())
    leaves = make_leaves(*rows)
    return leaves._replace(colors=np.array(colors, np.uint8).reshape(-1, 3)) if colored else leaves


def scanned_tree(kind: type, seed: int = 0, scans: int = 2) -> octomap.OcTree:
    rng = np.random.default_rng(seed)
    tree = kind(0.1)
    for _ in range(scans):
        tree.insertPointCloud(rng.uniform(-3, 3, (400, 3)), rng.uniform(-1, 1, 3), discretize=True)
    return tree


# --- the streams ---------------------------------------------------------------------------------------------


def test_full_stream_of_one_coarse_leaf_is_two_nodes():
    # Child 6 = y and z high: its bit in the root's mask is 64; both nodes have log-odds 0.5.
    value = struct.pack("<f", 0.5)
    assert encode_full(*make_leaves((0, 32768, 32768, 1, 0.5))[:3]) == value + b"\x40" + value + b"\0"


def test_full_stream_gives_inner_nodes_the_maximum_and_the_mean_of_set_colors():
    leaves = make_leaves((0, 0, 0, 1, -1.0), (32768, 0, 0, 1, 2.0), (0, 32768, 0, 1, 1.0))
    colors = np.array([[10, 0, 5], [255, 255, 255], [21, 1, 6]], np.uint8)
    data = encode_full(*leaves[:3], colors)
    assert data[:8] == struct.pack("<f", 2.0) + bytes([15, 0, 5, 0b111])


def test_binary_stream_codes_free_as_1_occupied_as_2_inner_as_3():
    leaves = sort_leaves(*make_leaves((0, 0, 0, 1, -1.0), (32768, 0, 0, 1, 0.0), (0, 0, 32768, 2, -1.0))[:3])
    # Root: child 0 free, child 1 occupied (log-odds 0 counts), child 4 inner; then its child 0 free.
    assert encode_binary(*leaves[:3]) == bytes([0b1001, 0b11, 0b01, 0])


def test_no_leaves_are_no_bytes_both_ways():
    none = make_leaves()
    assert encode_full(*none[:3]) == encode_binary(*none[:3]) == b""
    assert_same(decode_full(b"", False), none)
    assert_same(decode_binary(b""), none)


def test_binary_stream_of_a_free_root_leaf_stays_free():
    # OctoMap's own two zero bytes would come back occupied.
    data = encode_binary(*make_leaves((0, 0, 0, 0, -1.0))[:3])
    assert data == b"\x55\x55" and (decode_binary(data).log_odds < 0).all()
    assert decode_binary(encode_binary(*make_leaves((0, 0, 0, 0, 1.0))[:3])).log_odds.tolist() == [
        pytest.approx(3.511, abs=1e-4)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_streams_of_a_scanned_tree_equal_octomaps_byte_for_byte(seed):
    tree = scanned_tree(octomap.OcTree, seed)
    leaves = oracle_leaves(tree)
    full = body(tree.write())
    assert encode_full(*leaves[:3]) == full
    assert_same(decode_full(full, False), leaves)
    assert count_nodes(leaves) == tree.size()
    binary = body(tree.writeBinary())
    assert encode_binary(*leaves[:3]) == binary
    assert_same(decode_binary(binary), oracle_leaves(tree))


def test_streams_of_a_color_tree_equal_octomaps_byte_for_byte():
    tree = octomap.ColorOcTree(0.1)
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (300, 3))
    for point in points:
        tree.updateNode(point, bool(rng.random() < 0.7))
    for point in points[::2]:
        tree.setNodeColor(point, *rng.integers(0, 256, 3).tolist())
    tree.updateInnerOccupancy()
    leaves = oracle_leaves(tree, colored=True)
    full = body(tree.write())
    assert encode_full(*leaves) == full
    assert_same(decode_full(full, True), leaves)
    assert encode_binary(*leaves[:3]) == body(tree.writeBinary())


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), colored=st.booleans())
def test_any_tree_survives_octomap_and_binary_pruning_equals_octomaps(tmp_path_factory, seed, colored):
    leaves = random_leaves(seed, colored)
    path = tmp_path_factory.mktemp("octomap") / "map.ot"
    write_ot(path, leaves, 0.05)
    tree = (octomap.ColorOcTree if colored else octomap.OcTree).read(os.fsencode(path))
    assert_same(oracle_leaves(tree, colored), leaves)
    assert tree.write() == path.read_bytes()
    assert_same(read_map(path).leaves, leaves)
    binary = body(tree.writeBinary())
    assert encode_binary(*leaves[:3]) == binary
    decoded = decode_binary(binary)
    assert_same(decoded, oracle_leaves(tree)._replace(colors=None))


def test_binary_pruning_stops_at_the_first_depth_without_a_merge_as_octomap_does(tmp_path):
    blocks = [(x << 14, y << 14, z << 14, 2, -1.0) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    leaves = sort_leaves(*make_leaves(*blocks, (65535, 65535, 65535, 16, 1.0))[:3])
    write_ot(tmp_path / "map.ot", leaves, 0.1)
    tree = octomap.OcTree.read(os.fsencode(tmp_path / "map.ot"))
    assert encode_binary(*leaves[:3]) == body(tree.writeBinary())
    assert len(decode_binary(encode_binary(*leaves[:3])).depths) == 9


def test_prune_leaves_merges_equal_siblings_upward_and_keeps_different_tags_apart():
    cube = [(x, y, z, 16, -0.4) for z in range(4) for y in range(4) for x in range(4)]
    leaves = sort_leaves(*make_leaves(*cube, (8, 0, 0, 16, 1.0))[:3])
    index, depths = prune_leaves(*leaves[:3])
    assert leaves.keys[index].tolist() == [[0, 0, 0], [8, 0, 0]] and depths.tolist() == [14, 16]
    tags = np.zeros(65, np.int64)
    tags[0] = 5
    index, depths = prune_leaves(*leaves[:3], tags)
    assert len(depths) == 8 + 7 + 1 and depths.tolist() == [16] * 8 + [15] * 7 + [16]


def test_prune_leaves_equals_the_tree_that_octomap_prunes_while_updating():
    rng = np.random.default_rng(0)
    tree = octomap.OcTree(0.1)
    cells = [(x, y, z) for z in range(8) for y in range(8) for x in range(8) if x < 6 or rng.random() < 0.9]
    for cell in cells:
        tree.updateNode((np.array(cell) + 0.5) * 0.1, -0.4)
    voxels = sort_leaves(*make_leaves(*[(*(32768 + np.array(c)), 16, np.float32(-0.4)) for c in cells])[:3])
    index, depths = prune_leaves(*voxels[:3])
    assert_same(Leaves(voxels.keys[index], depths, voxels.log_odds[index]), oracle_leaves(tree))


def test_sort_leaves_orders_by_morton_code_whatever_comes_in():
    leaves = random_leaves(3, colored=True)
    order = np.random.default_rng(0).permutation(len(leaves.depths))
    shuffled = Leaves(*(array[order] for array in leaves if array is not None))
    assert_same(sort_leaves(*shuffled), leaves)
    assert np.array_equal(order[leaf_order(shuffled.keys)], np.arange(len(order)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": np.zeros((2, 3), np.int32)}, r"keys: expected \(M, 3\) uint16, got \(2, 3\) int32"),
        ({"keys": np.zeros((2, 2), np.uint16)}, r"keys: expected \(M, 3\) uint16, got \(2, 2\)"),
        ({"depths": np.full(1, 16, np.uint8)}, r"depths: expected \(2,\) uint8, got \(1,\)"),
        ({"depths": np.array([16, 17], np.uint8)}, "got key .* at depth 17 as leaf 1"),
        ({"depths": np.array([16, 15], np.uint8)}, "multiples of the leaf's size"),
        ({"keys": np.array([[1, 0, 0], [0, 0, 0]], np.uint16)}, "ascending by Morton code"),
        ({"keys": np.zeros((2, 3), np.uint16)}, "without overlap"),
        ({"log_odds": np.array([0, np.nan], np.float32)}, "NaN"),
        ({"log_odds": np.zeros(2)}, r"log_odds: expected \(2,\) float32, got \(2,\) float64"),
    ],
)
def test_encoders_refuse_arrays_that_are_no_tree(change, message):
    good = make_leaves((0, 0, 0, 16, 0.0), (1, 0, 0, 16, 0.0))._replace(**change)
    for encode in (encode_full, encode_binary):
        with pytest.raises(InputError, match=message):
            encode(*good[:3])


# --- damaged streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("colored", [False, True])
def test_full_stream_cut_anywhere_or_followed_by_bytes_is_refused(colored):
    data = encode_full(*random_leaves(1, colored))
    assert len(data) > 500
    for size in range(1, len(data)):
        with pytest.raises(InputError, match="expected a node of"):
            decode_full(data[:size], colored)
    with pytest.raises(InputError, match=f"expected {len(data)} bytes as its nodes say, got {len(data) + 1}"):
        decode_full(data + b"\0", colored)


def test_binary_stream_cut_anywhere_or_followed_by_bytes_is_refused():
    data = encode_binary(*random_leaves(1)[:3])
    assert len(data) > 60
    for size in range(1, len(data)):
        with pytest.raises(InputError, match="expected an inner node of 2 bytes"):
            decode_binary(data[:size])
    with pytest.raises(InputError, match="bytes as its nodes say"):
        decode_binary(data + b"\1\0")


def test_nodes_below_depth_16_are_refused():
    with pytest.raises(InputError, match="at most 16 levels"):
        decode_full(b"\0\0\0\0\1" * 40, False)
    with pytest.raises(InputError, match="at most 16 levels"):
        decode_binary(b"\3\0" * 40)


def test_inner_node_without_children_is_refused_in_a_binary_stream():
    with pytest.raises(InputError, match="expected children of the inner node at byte 2"):
        decode_binary(b"\3\0\0\0")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_log_odds_that_are_not_finite_are_refused_in_a_full_stream(value):
    with pytest.raises(InputError, match="finite"):
        decode_full(struct.pack("<fB", value, 0), False)


# --- files ---------------------------------------------------------------------------------------------------


def test_recorded_building_reads_and_writes_back_byte_for_byte(shared, tmp_path):
    source = shared / "data" / "octomap" / "geb079.bt"
    building = read_map(source)
    assert (building.tree_id, building.binary, building.resolution) == ("OcTree", True, 0.08)
    assert len(building.leaves.depths) == 428144
    write_bt(tmp_path / "again.bt", building.leaves, building.resolution)
    assert (tmp_path / "again.bt").read_bytes() == source.read_bytes()
    tree = octomap.OcTree(0.1)
    tree.readBinary(os.fsencode(source))
    write_ot(tmp_path / "again.ot", building.leaves, building.resolution)
    assert (tmp_path / "again.ot").read_bytes() == tree.write()


@pytest.mark.parametrize("resolution", [0.05, 0.1, 1.0, 0.0123456, 25.0])
def test_files_equal_octomaps_own_header_included(tmp_path, resolution):
    tree = scanned_tree(octomap.OcTree)
    tree.setResolution(resolution)
    leaves = oracle_leaves(tree)
    write_ot(tmp_path / "map.ot", leaves, resolution)
    write_bt(tmp_path / "map.bt", leaves, resolution)
    assert (tmp_path / "map.ot").read_bytes() == tree.write()
    assert (tmp_path / "map.bt").read_bytes() == tree.writeBinary()


def test_empty_maps_equal_octomaps_and_read_back(tmp_path):
    write_ot(tmp_path / "map.ot", make_leaves(), 0.1)
    write_bt(tmp_path / "map.bt", make_leaves(), 0.1)
    assert (tmp_path / "map.ot").read_bytes() == octomap.OcTree(0.1).write()
    assert (tmp_path / "map.bt").read_bytes() == octomap.OcTree(0.1).writeBinary()
    for name in ("map.ot", "map.bt"):
        assert len(read_map(tmp_path / name).leaves.depths) == 0


def test_resolution_with_many_digits_is_kept_exactly(tmp_path):
    write_ot(tmp_path / "map.ot", random_leaves(2), 1 / 30)
    assert read_map(tmp_path / "map.ot").resolution == 1 / 30
    assert octomap.OcTree.read(os.fsencode(tmp_path / "map.ot")).getResolution() == 1 / 30


def test_header_may_have_comments_unknown_words_and_another_order():
    data = encode_full(*random_leaves(2)[:3])
    size = len(data) // 5
    header = f"# Octomap OcTree file v2\n\nres 0.5\nauthor me\n# note\nsize {size}\nid 1\ndata\n".encode()
    parsed = parse_map(header + data)
    assert (parsed.tree_id, parsed.resolution, parsed.labels) == ("OcTree", 0.5, None)


HEADER = {"id": "OcTree", "size": "2", "res": "0.1"}
TWO_NODES = encode_full(*make_leaves((0, 0, 0, 1, 0.5))[:3])


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
    for write, name in ((write_ot, "map.ot"), (write_bt, "map.bt")):
        path = tmp_path / name
        write(path, random_leaves(5), 0.1)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match=name):
            read_map(path)
    assert octomap.OcTree.read(os.fsencode(tmp_path / "map.ot")) is not None


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_the_old_map_and_no_temporary_file(tmp_path, monkeypatch, call):
    path = tmp_path / "map.ot"
    write_ot(path, random_leaves(1), 0.1)
    old = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(PerceptionError, match=r"map\.ot: No space left on device"):
        write_ot(path, random_leaves(2), 0.1)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["map.ot"]


def test_save_into_an_absent_folder_is_one_sentence(tmp_path):
    with pytest.raises(PerceptionError, match="cannot save .*No such file or directory"):
        write_bt(tmp_path / "absent" / "map.bt", make_leaves(), 0.1)


def test_save_follows_a_symbolic_link_and_obeys_the_umask(tmp_path):
    write_ot(tmp_path / "real.ot", make_leaves(), 0.1)
    (tmp_path / "link.ot").symlink_to("real.ot")
    write_ot(tmp_path / "link.ot", random_leaves(1), 0.1)
    assert (tmp_path / "link.ot").is_symlink() and len(read_map(tmp_path / "real.ot").leaves.depths) > 0
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "real.ot").stat().st_mode & 0o777 == 0o666 & ~mask


# --- labels --------------------------------------------------------------------------------------------------


def make_labels(leaves: Leaves, classes: int = 4) -> LeafLabels:
    rng = np.random.default_rng(0)
    index = np.flatnonzero(leaves.log_odds >= 0).astype(np.uint32)
    ids = rng.integers(0, 65536, (len(index), classes)).astype(np.uint16)
    scores = rng.uniform(0, 10, ids.shape).astype(np.float32)
    return LeafLabels(index, ids, scores, {"frame_id": "map", "label_set": {"name": "größe", "classes": [1, 2]}})


@pytest.fixture
def labeled(tmp_path) -> tuple[MapFile, bytes]:
    leaves = random_leaves(1, colored=True)
    write_ot(tmp_path / "map.ot", leaves, 0.05, make_labels(leaves))
    return read_map(tmp_path / "map.ot"), (tmp_path / "map.ot").read_bytes()


def test_labels_and_metadata_come_back_as_they_were(labeled):
    stored, _ = labeled
    expected = make_labels(random_leaves(1, colored=True))
    assert stored.labels is not None and stored.labels.metadata == expected.metadata
    for name in ("index", "ids", "scores"):
        left, right = getattr(stored.labels, name), getattr(expected, name)
        assert left.dtype == right.dtype and np.array_equal(left, right), name


def test_metadata_alone_is_stored_and_a_map_without_section_is_unlabeled(tmp_path):
    write_ot(tmp_path / "a.ot", make_leaves(), 0.1, LeafLabels.none({"frame_id": "odom"}))
    stored = read_map(tmp_path / "a.ot").labels
    assert stored is not None and stored.metadata == {"frame_id": "odom"} and len(stored.index) == 0
    write_ot(tmp_path / "b.ot", random_leaves(1), 0.1)
    assert read_map(tmp_path / "b.ot").labels is None


def test_octomap_reads_a_labeled_map_as_if_the_labels_were_not_there(labeled, tmp_path):
    stored, data = labeled
    tree = octomap.ColorOcTree.read(os.fsencode(tmp_path / "map.ot"))
    assert_same(oracle_leaves(tree, colored=True), stored.leaves)
    written = tree.write()
    assert data.startswith(written) and len(data) > len(written)


@pytest.mark.skipif(shutil.which("convert_octree") is None, reason="needs Debian's octomap-tools")
def test_octomap_tools_convert_a_labeled_map(labeled, tmp_path):
    stored, data = labeled
    for target in ("out.ot", "out.bt"):
        subprocess.run(["convert_octree", "map.ot", target], cwd=tmp_path, check=True, capture_output=True)
    again = read_map(tmp_path / "out.ot")
    assert again.labels is None and data.startswith((tmp_path / "out.ot").read_bytes())
    assert_same(again.leaves, stored.leaves)
    assert body((tmp_path / "out.bt").read_bytes()) == encode_binary(*stored.leaves[:3])


@pytest.mark.skipif(shutil.which("compare_octrees") is None, reason="needs Debian's octomap-tools")
def test_octomap_tools_find_our_copy_of_a_tree_equal(tmp_path):
    tree = scanned_tree(octomap.OcTree)
    tree.write(os.fsencode(tmp_path / "theirs.ot"))
    write_ot(tmp_path / "ours.ot", oracle_leaves(tree), 0.1, LeafLabels.none({"frame_id": "map"}))
    command = ["compare_octrees", "theirs.ot", "ours.ot"]
    result = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "KLD" in result.stdout + result.stderr


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
    leaves = random_leaves(1)
    labels = make_labels(leaves)
    with pytest.raises(InputError, match="expected leaves below 1, got"):
        encode_labels(labels, 1)
    with pytest.raises(InputError, match="values that JSON can write"):
        write_ot(tmp_path / "map.ot", leaves, 0.1, LeafLabels.none({"path": object()}))
    assert not (tmp_path / "map.ot").exists()
