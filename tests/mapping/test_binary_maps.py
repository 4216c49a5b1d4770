# SPDX-License-Identifier: Apache-2.0
"""Bricks to and from binary streams: the same bytes, voxels and errors as by way of leaves and as OctoMap's own."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import octomap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import InputError
from perception.evaluation.map_fuzz import random_leaves
from perception.mapping import SemanticOcTree, SensorModel, binary_encoding, map_files, octomap_stream
from perception.mapping.binary_maps import scan
from perception.mapping.bricks import LIVE_ROWS
from perception.mapping.leaves import extract_leaves
from perception.mapping.octomap_io import bt_bytes, bt_file, parse_binary, parse_map
from perception.mapping.store import BrickStore

spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)


def by_leaves(tree: SemanticOcTree) -> tuple[bytes, int]:
    leaves = extract_leaves(tree._store.shards, evidence=False)
    return octomap_stream.binary_stream(leaves.keys, leaves.depths, leaves.log_odds)


def voxels(file: bytes) -> dict[tuple[int, int, int], bool]:
    """State of each known voxel of a .bt, by way of leaves."""
    found = {}
    leaves = parse_map(file).leaves
    for key, depth, value in zip(leaves.keys.tolist(), leaves.depths.tolist(), leaves.log_odds.tolist(), strict=True):
        for x, y, z in np.ndindex((1 << (16 - depth),) * 3):
            found[key[0] + x, key[1] + y, key[2] + z] = value >= 0
    return found


def test_a_voxel_is_one_word_at_each_depth_above_it():
    tree = SemanticOcTree(1.0)
    tree.insert_cloud([[1.5, 0.5, 1.5]], [1.5, 0.5, 1.5])
    stream, nodes = map_files.binary_stream(tree._store)
    # Child 7 of the root holds all coordinates above zero, then it is child 0 at each of the depths 1 to 14; in the
    # word of depth 15 child 5 is occupied (2 << 10).
    assert np.frombuffer(stream, "<u2").tolist() == [3 << 14, *[3] * 14, 2 << 10]
    assert nodes == 17


@pytest.mark.parametrize("resolution", [0.05, 0.4])
def test_streams_equal_octomaps_write_binary(resolution, tmp_path):
    tree, judge = oracle.make_pair(resolution, SensorModel(max_range=6.0))
    rng = np.random.default_rng(0)
    for _ in range(6):
        oracle.insert_both(tree, judge, rng.uniform(-5, 5, (3000, 3)) * [1, 1, 0.3], rng.uniform(-1, 1, 3))
    tree.write_binary(tmp_path / "ours.bt")
    # writeBinary turns its tree into one of maximum likelihood, which nobody asks afterwards.
    assert (tmp_path / "ours.bt").read_bytes() == judge.writeBinary()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_random_maps_make_the_stream_that_their_leaves_make(seed, sameness):
    rng = np.random.default_rng(seed)
    leaves = random_leaves(rng)
    values = np.where(rng.random(len(leaves.depths)) < sameness, np.float32(-0.5), leaves.log_odds)
    file = bt_bytes(octomap_stream.Leaves(leaves.keys, leaves.depths, values), 0.1)
    content, _ = parse_binary(file)
    if 8.0 ** max(0, 13 - int(content.depths.min(initial=13))) > 4096:
        return
    tree = SemanticOcTree(0.1, max_memory=1 << 28)
    map_files.SavedMap(content, {}, {}).load_into(tree._store, tree.sensor_model, 0)
    assert map_files.binary_stream(tree._store) == by_leaves(tree)


def test_labels_and_log_odds_do_not_show_in_the_stream():
    plain, labeled = SemanticOcTree(0.1), SemanticOcTree(0.1, num_classes=5)
    rng = np.random.default_rng(0)
    for _ in range(3):
        points = rng.uniform(-2, 2, (2000, 3)).round(1)
        plain.insert_cloud(points, np.zeros(3))
        labeled.insert_cloud(points, np.zeros(3), rng.integers(0, 5, 2000), np.full(2000, 0.9))
    assert plain.octomap_data(True) == labeled.octomap_data(True)


def test_merges_above_a_depth_without_any_are_left_to_the_slow_way():
    # Four free bricks of eight and four of another free value: they become one node of depth 12, yet nothing merged
    # below, where all is uniform already.
    tree = SemanticOcTree(1.0)
    keys = np.array([[32768 + 8 * (i & 1), 32768 + 8 * (i >> 1 & 1), 32768 + 8 * (i >> 2)] for i in range(8)])
    values = np.where(np.arange(8) < 4, -0.5, -1.0).astype(np.float32)
    content = parse_binary(
        bt_bytes(octomap_stream.Leaves(keys.astype(np.uint16), np.full(8, 13, np.uint8), values), 1.0)
    )
    assert len(content[0].places) == 8, "the writer does not merge them either"
    map_files.SavedMap(content[0], {}, {}).load_into(tree._store, tree.sensor_model, 0)
    for shard in tree._store.shards:
        uniform = shard.uniform[: shard.counters[0]]
        uniform[shard.keys[: len(uniform)] % 2 == 0] = -0.5
        uniform[shard.keys[: len(uniform)] % 2 == 1] = -1.0
    assert binary_encoding.encode(tree._store.shards) is None
    assert map_files.binary_stream(tree._store) == by_leaves(tree)


def test_every_voxel_of_a_file_comes_back(tmp_path):
    tree = octomap.OcTree(0.1)
    rng = np.random.default_rng(0)
    for _ in range(4):
        tree.insertPointCloud(rng.uniform(-3, 3, (500, 3)), rng.uniform(-1, 1, 3), discretize=True)
    file = tree.writeBinary()
    (tmp_path / "map.bt").write_bytes(file)
    ours = SemanticOcTree.read(tmp_path / "map.bt")
    expected = voxels(file)
    keys = np.array(list(expected))
    values = ours.log_odds((keys - 32768 + 0.5) * 0.1)
    assert ours.known_voxels() == len(expected)
    np.testing.assert_array_equal(values >= 0, list(expected.values()))
    model = ours.sensor_model
    clamped = [np.float32(np.log(p / (1 - p))) for p in (model.min, model.max)]
    assert np.unique(values).tolist() == clamped


def test_what_was_not_pruned_in_a_file_is_uniform_in_the_map():
    # A brick whose first block is spelled out: eight nodes of eight free voxels each.
    stream = np.array([3 << 14, *[3] * 12, 3, 0xFFFF, *[0x5555] * 8], "<u2").tobytes()
    assert len(octomap_stream.decode_binary(stream).depths) == 64
    content, _ = parse_binary(bt_file(stream, 23 + 64, 1.0))
    store = BrickStore(1 << 24)
    map_files.SavedMap(content, {}, {}).load_into(store, SensorModel(), 0)
    assert sum(int(shard.counters[LIVE_ROWS]) for shard in store.shards) == 0, "no row of values is left"
    assert store.known_voxels() == 64


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_damaged_streams_are_refused_with_the_sentence_that_leaves_give(noise, seed, cut):
    rng = np.random.default_rng(seed)
    stream = bytearray(octomap_stream.encode_binary(*random_leaves(rng)[:3]))
    place = int(rng.integers(0, max(len(stream), 1)))
    stream[place : place + len(noise)] = noise
    data = bytes(stream[: max(len(stream) - cut, 0)])

    def outcome(function):
        try:
            return function(data), None
        except InputError as error:
            return None, str(error)

    (leaves, expected), (content, message) = outcome(octomap_stream.decode_binary), outcome(scan)
    assert message == expected
    if content is not None and leaves is not None:
        assert content.nodes == (1 if leaves.depths.tolist() == [0] else len(data) // 2 + len(leaves.depths))


def test_a_stream_with_more_bricks_than_room_was_made_for_is_read_whole(tmp_path):
    # 2197 voxels, one in each brick of a cube of 13 x 13 x 13.
    tree = octomap.OcTree(1.0)
    places = np.array(list(np.ndindex(13, 13, 13))) * 8.0 + 0.5
    for place in places:
        tree.updateNode(place, True)
    (tmp_path / "map.bt").write_bytes(tree.writeBinary())
    ours = SemanticOcTree.read(tmp_path / "map.bt")
    assert ours.known_voxels() == 2197
    assert (ours.log_odds(places) > 0).all()
    assert os.path.getsize(tmp_path / "map.bt") > 2 * 2197
