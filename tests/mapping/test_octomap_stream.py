# SPDX-License-Identifier: Apache-2.0
"""Streams of nodes: equal to OctoMap's own byte for byte, and refused when damaged."""

from __future__ import annotations

import os
import struct
from array import array

import numpy as np
import octomap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import InputError
from perception.evaluation.map_fuzz import random_leaves
from perception.mapping.octomap_io import read_map, write_ot
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


def body(file: bytes) -> bytes:
    return file[file.index(b"\ndata\n") + 6 :]


def make_leaves(*rows: tuple[int, int, int, int, float]) -> Leaves:
    keys = np.array([row[:3] for row in rows], np.uint16).reshape(-1, 3)
    return Leaves(keys, np.array([row[3] for row in rows], np.uint8), np.array([row[4] for row in rows], np.float32))


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


def test_streams_decode_from_the_int8_array_of_a_message():
    leaves = random_leaves(np.random.default_rng(1))
    signed = array("b", encode_full(*leaves[:3]))
    assert_same(decode_full(memoryview(signed), False), leaves)


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
    leaves = random_leaves(np.random.default_rng(seed), colored)
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
    leaves = random_leaves(np.random.default_rng(3), colored=True)
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


@pytest.mark.parametrize("colored", [False, True])
def test_full_stream_cut_anywhere_or_followed_by_bytes_is_refused(colored):
    data = encode_full(*random_leaves(np.random.default_rng(1), colored))
    assert len(data) > 500
    for size in range(1, len(data)):
        with pytest.raises(InputError, match="expected a node of"):
            decode_full(data[:size], colored)
    with pytest.raises(InputError, match=f"expected {len(data)} bytes as its nodes say, got {len(data) + 1}"):
        decode_full(data + b"\0", colored)


def test_binary_stream_cut_anywhere_or_followed_by_bytes_is_refused():
    data = encode_binary(*random_leaves(np.random.default_rng(1))[:3])
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
