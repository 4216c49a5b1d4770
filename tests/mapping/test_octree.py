# SPDX-License-Identifier: Apache-2.0
"""What the octree answers, how it changes, and what it refuses."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import numpy as np
import octomap
import pytest

from perception.errors import InputError
from perception.labels import LabelClass, LabelSet
from perception.mapping import SemanticOcTree, SensorModel
from perception.mapping.octomap_io import read_map

spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)

COLORS = LabelSet("two", (LabelClass(0, "floor", (10, 20, 30)), LabelClass(1, "wall", (200, 100, 50))))


def room(rng, count=4000):
    """Points on the walls of a box of 4 x 3 x 2 m, with the wall's number as label."""
    points = rng.uniform([-2, -1.5, -1], [2, 1.5, 1], (count, 3))
    axis, side = rng.integers(0, 3, count), rng.integers(0, 2, count)
    size = np.array([2, 1.5, 1])
    points[np.arange(count), axis] = (2 * side - 1) * size[axis]
    return points, (axis == 2).astype(np.int64)


@pytest.fixture
def mapped():
    rng = np.random.default_rng(0)
    tree, judge = oracle.make_pair(0.1, SensorModel(max_range=5.0), num_classes=2)
    for _ in range(3):
        points, labels = room(rng)
        oracle.insert_both(tree, judge, points, rng.uniform(-0.5, 0.5, 3), labels=labels)
    return tree, judge


def test_queries_of_nothing_and_outside_of_the_map():
    tree = SemanticOcTree(0.1, num_classes=2)
    far = np.array([[0, 0, 0], [1e9, 0, 0], [np.nan, 0, 0]])
    assert np.isnan(tree.log_odds(far)).all()
    assert (tree.label_of(far) == -1).all()
    assert tree.log_odds(np.empty((0, 3))).shape == (0,)
    assert tree.leaves().centers.shape == (0, 3)
    assert tree.columns().shape == (0, 2)
    assert tree.cast_ray([0, 0, 0], [1, 0, 0], 5.0) is None


def test_an_empty_scan_changes_nothing():
    tree = SemanticOcTree(0.1)
    report = tree.insert_cloud(np.empty((0, 3)), [0, 0, 0])
    assert (report.points, report.hits, tree.known_voxels()) == (0, 0, 0)


def test_clear_points_clear_their_rays_and_mark_nothing():
    tree = SemanticOcTree(0.1, SensorModel(max_range=5.0))
    tree.insert_cloud(np.empty((0, 3)), [0.05, 0.05, 0.05], clear_points=[[1.05, 0.05, 0.05], [0.05, 9.0, 0.05]])
    along_x = np.stack([np.arange(12) * 0.1 + 0.05, np.full(12, 0.05), np.full(12, 0.05)], axis=1)
    assert (tree.log_odds(along_x[:10]) < 0).all()
    assert np.isnan(tree.log_odds(along_x[10:])).all()
    assert tree.log_odds([[0.05, 4.9, 0.05]])[0] < 0
    assert np.isnan(tree.log_odds([[0.05, 5.2, 0.05]])[0])


def test_a_hit_wins_over_a_clearing_ray():
    tree = SemanticOcTree(0.1)
    tree.insert_cloud([[0.55, 0.05, 0.05]], [0.05, 0.05, 0.05], clear_points=[[1.05, 0.05, 0.05], [0.55, 0.05, 0.05]])
    assert tree.log_odds([[0.55, 0.05, 0.05]])[0] == np.float32(np.log(0.7 / 0.3))


def test_coarser_leaves_hold_the_highest_value_of_their_children(mapped):
    tree, judge = mapped
    fine, coarse = tree.leaves(), tree.leaves(13)
    assert coarse.depths.max() == 13
    parents = np.floor(fine.centers / 0.8)
    for center, size, value in zip(coarse.centers[::7], coarse.sizes[::7], coarse.log_odds[::7], strict=True):
        inside = (np.abs(fine.centers - center) < size / 2).all(axis=1)
        if inside.any():
            assert value == fine.log_odds[inside].max()
    assert len(parents) > len(coarse.depths)
    node = judge.search(coarse.centers[5].astype(np.float64), 13)
    assert node.getLogOdds() == coarse.log_odds[5]


def test_leaves_cover_every_known_voxel_once(mapped):
    tree, _ = mapped
    leaves = tree.leaves()
    assert int(np.rint((leaves.sizes / 0.1) ** 3).sum()) == tree.known_voxels()
    np.testing.assert_array_equal(tree.log_odds(leaves.centers), leaves.log_odds)
    occupied = leaves.log_odds >= 0
    single = occupied & (leaves.depths == 16)
    np.testing.assert_array_equal(tree.label_of(leaves.centers[single]), leaves.labels[single])


def test_clear_box_frees_known_voxels_and_drops_their_labels(mapped):
    tree, _ = mapped
    before = tree.known_voxels()
    assert tree.clear_box([1.5, -2, -2], [2.5, 2, 2]) > 0
    leaves = tree.leaves()
    inside = (leaves.centers > [1.5, -2, -2]).all(axis=1) & (leaves.centers < [2.5, 2, 2]).all(axis=1)
    assert (leaves.log_odds[inside] < 0).all()
    assert (tree.label_of(leaves.centers[inside & (leaves.depths == 16)]) == -1).all()
    assert (leaves.log_odds[~inside] >= 0).any()
    assert tree.known_voxels() == before


def test_changed_columns_name_exactly_what_the_costmap_must_read_again(mapped):
    tree, _ = mapped
    tiles, cursor = tree.changed_columns(None)
    assert tiles is None
    assert len(tree.changed_columns(cursor)[0]) == 0
    before = tree.occupied_in(tree.columns())
    tiles = tree.columns()
    tree.insert_cloud([[0.75, 0.35, 0.25]], [0.05, 0.05, 0.05], labels=[1])
    changed, later = tree.changed_columns(cursor)
    after = tree.occupied_in(tiles)
    for t, tile in enumerate(tiles):
        old = before.keys[before.offsets[64 * t] : before.offsets[64 * t + 64]]
        new = after.keys[after.offsets[64 * t] : after.offsets[64 * t + 64]]
        assert np.array_equal(old, new) or (changed == tile).all(axis=1).any()
    assert 0 < len(changed) <= 4
    tree.reset()
    assert tree.changed_columns(later)[0] is None


def test_occupied_columns_equal_the_occupied_leaves(mapped):
    tree, _ = mapped
    tiles = tree.columns()
    columns = tree.occupied_in(tiles)
    counts = np.diff(columns.offsets)
    tile, column = np.divmod(np.repeat(np.arange(64 * len(tiles)), counts), 64)
    keys = np.stack([tiles[tile, 0] * 8 + column % 8, tiles[tile, 1] * 8 + column // 8, columns.keys], axis=1)
    points = (keys - 32768 + 0.5) * 0.1
    assert (tree.log_odds(points) >= 0).all()
    np.testing.assert_array_equal(tree.label_of(points), columns.labels)
    best = tree.top_labels(points, 1)[1][:, 0]
    np.testing.assert_allclose(columns.probabilities, best, atol=1e-6)
    leaves = tree.leaves()
    assert len(keys) == int(np.rint((leaves.sizes[leaves.log_odds >= 0] / 0.1) ** 3).sum())


def test_saved_maps_come_back_whole_and_open_in_octomap(mapped, tmp_path):
    tree, judge = mapped
    tree.write(tmp_path / "map.ot", COLORS)
    again = SemanticOcTree.read(tmp_path / "map.ot")
    leaves = tree.leaves()
    for name in ("centers", "sizes", "log_odds", "labels"):
        np.testing.assert_array_equal(getattr(again.leaves(), name), getattr(leaves, name))
    np.testing.assert_array_equal(again.label_probabilities(leaves.centers), tree.label_probabilities(leaves.centers))
    assert (again.num_classes, again.sensor_model) == (tree.num_classes, tree.sensor_model)
    theirs = octomap.ColorOcTree.read(str(tmp_path / "map.ot").encode())
    for leaf in np.flatnonzero(leaves.depths == 16)[::97]:
        node = theirs.search(leaves.centers[leaf].astype(np.float64))
        assert node.getLogOdds() == leaves.log_odds[leaf]
    tree.write_binary(tmp_path / "map.bt")
    mine = octomap.OcTree(str(tmp_path / "map.bt").encode())
    judge.writeBinary(str(tmp_path / "judge.bt").encode())
    assert mine.size() == judge.size()
    ours, judges = read_map(tmp_path / "map.bt").leaves, read_map(tmp_path / "judge.bt").leaves
    np.testing.assert_array_equal(ours.keys, judges.keys)
    np.testing.assert_array_equal(ours.log_odds, judges.log_odds)


def test_insertion_goes_on_after_reading(mapped, tmp_path):
    tree, judge = mapped
    tree.write(tmp_path / "map.ot")
    again = SemanticOcTree.read(tmp_path / "map.ot")
    points, _ = room(np.random.default_rng(5))
    oracle.insert_both(again, judge, points, [0.1, 0.1, 0.1])
    oracle.assert_equal(again, judge, tmp_path)


def test_a_map_too_large_for_the_memory_bound_is_refused(tmp_path):
    judge = octomap.OcTree(0.1)
    judge.updateNode(np.array([0.0, 0.0, 0.0]), True)
    path = tmp_path / "big.ot"
    from perception.mapping.octomap_io import write_ot
    from perception.mapping.octomap_stream import Leaves

    write_ot(path, Leaves(np.zeros((1, 3), np.uint16), np.array([2], np.uint8), np.array([1.0], np.float32)), 0.1)
    with pytest.raises(InputError, match="bytes of memory"):
        SemanticOcTree.read(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": np.zeros((3, 2))}, "points: expected"),
        ({"points": [["a", "b", "c"]]}, "points: expected"),
        ({"sensor_origin": [0, 0]}, "sensor_origin: expected"),
        ({"sensor_origin": [np.nan, 0, 0]}, "sensor_origin: expected"),
        ({"sensor_origin": [1e6, 0, 0]}, "sensor_origin: expected"),
        ({"labels": np.zeros(4, int)}, "labels: expected"),
        ({"labels": np.zeros(5, float)}, "labels: expected"),
        ({"labels": np.zeros(5, int), "confidence": np.zeros(4)}, "confidence: expected"),
        ({"confidence": np.zeros(5)}, "confidence: expected"),
        ({"clear_points": np.zeros(4)}, "clear_points: expected"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_lost(mapped, arguments, message):
    tree, _ = mapped
    before = tree.leaves()
    with pytest.raises(InputError, match=message):
        tree.insert_cloud(**{"points": np.zeros((5, 3)), "sensor_origin": [0, 0, 0], **arguments})
    np.testing.assert_array_equal(tree.leaves().log_odds, before.log_odds)


@pytest.mark.parametrize(
    "arguments",
    [
        {"resolution": 0},
        {"resolution": np.nan},
        {"num_classes": 65536},
        {"num_classes": -1},
        {"labels_per_voxel": 9},
        {"decay_s": [1.0, 2.0]},
        {"max_memory": 1000},
    ],
)
def test_bad_settings_are_refused(arguments):
    with pytest.raises(InputError, match=f"{next(iter(arguments))}: expected"):
        SemanticOcTree(**{"resolution": 0.1, **arguments})


def test_other_threads_see_whole_scans_only():
    tree = SemanticOcTree(0.1, SensorModel(max_range=20.0), num_classes=2)
    rng = np.random.default_rng(0)
    points, labels = room(rng, 20000)
    tree.insert_cloud(points, [0, 0, 0], labels)
    hit = tree.leaves()
    probe = hit.centers[(hit.log_odds >= 0) & (hit.depths == 16)][::50]
    states, errors, stop = set(), [], threading.Event()

    def ask():
        try:
            while not stop.is_set():
                values = tree.log_odds(probe)
                # All probed voxels got the same hits, so they differ only inside a scan.
                states.add(len(np.unique(values)))
                tree.leaves()
                tree.label_of(probe)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        tree.insert_cloud(points, [0, 0, 0], labels)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert states == {1}


def test_saves_from_other_threads_hold_whole_scans_only(tmp_path):
    rng = np.random.default_rng(0)
    scans = [room(rng, 20000) for _ in range(12)]
    reference = SemanticOcTree(0.1, SensorModel(max_range=20.0), num_classes=2)
    wanted = {"message": set(), ".ot": set(), ".bt": set()}
    for points, labels in scans:
        reference.insert_cloud(points, [0, 0, 0], labels)
        wanted["message"].add(reference.octomap_data(False)[1])
        wanted[".ot"].add(file_bytes(reference.write, tmp_path / "reference"))
        wanted[".bt"].add(file_bytes(reference.write_binary, tmp_path / "reference"))
    tree = SemanticOcTree(0.1, SensorModel(max_range=20.0), num_classes=2)
    tree.insert_cloud(*scans[0][:1], [0, 0, 0], scans[0][1])
    saved, stop = {"message": [], ".ot": [], ".bt": []}, threading.Event()
    ways = {
        "message": lambda: tree.octomap_data(False)[1],
        ".ot": lambda: file_bytes(tree.write, tmp_path / "ot"),
        ".bt": lambda: file_bytes(tree.write_binary, tmp_path / "bt"),
    }

    def save(kind):
        while not stop.is_set():
            saved[kind].append(ways[kind]())

    threads = [threading.Thread(target=save, args=(kind,)) for kind in ways]
    for thread in threads:
        thread.start()
    for points, labels in scans[1:]:
        tree.insert_cloud(points, [0, 0, 0], labels)
    stop.set()
    for thread in threads:
        thread.join()
    for kind, found in saved.items():
        assert found and set(found) <= wanted[kind], kind


def file_bytes(write, path) -> bytes:
    write(path)
    return path.read_bytes()


def test_two_maps_are_filled_from_two_threads_at_once():
    rng = np.random.default_rng(0)
    clouds = [rng.normal(0, 2, (5000, 3)) for _ in range(6)]
    alone = SemanticOcTree(0.1)
    trees = [SemanticOcTree(0.1) for _ in range(3)]

    def fill(tree):
        for cloud in clouds:
            tree.insert_cloud(cloud, [0, 0, 0])

    fill(alone)
    threads = [threading.Thread(target=fill, args=(tree,)) for tree in trees]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for tree in trees:
        np.testing.assert_array_equal(tree.leaves().log_odds, alone.leaves().log_odds)
