# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from perception.errors import InputError
from perception.geometry import Transform
from perception.mapping import SemanticOcTree, SensorModel, merge_maps
from perception.mapping.merging import read_maps

# So wide that nothing is clamped in a few scans.
UNCLAMPED = SensorModel(min=0.001, max=0.999)


def scans(count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        points = rng.uniform(-2, 2, (400, 3)).astype(np.float32)
        yield points, rng.uniform(-0.5, 0.5, 3), rng.integers(0, 3, 400), rng.uniform(0.4, 0.9, 400)


def mapped(these, **options):
    tree = SemanticOcTree(0.1, **{"sensor_model": UNCLAMPED, "num_classes": 3, "max_label_score": 1000.0, **options})
    for points, origin, labels, confidence in these:
        tree.insert_cloud(points, origin, labels, confidence)
    return tree


def known_points(tree):
    leaves = tree.leaves()
    return leaves.centers[leaves.sizes < 0.15]


def assert_same(a, b):
    points = np.concatenate([known_points(a), known_points(b)])
    assert np.array_equal(np.isnan(a.log_odds(points)), np.isnan(b.log_odds(points)))
    assert a.log_odds(points) == pytest.approx(b.log_odds(points), abs=1e-5, nan_ok=True)
    assert a.label_probabilities(points) == pytest.approx(b.label_probabilities(points), abs=1e-5)
    assert a.known_voxels() == b.known_voxels()


def test_merged_maps_equal_one_run_over_all_scans_when_nothing_was_clamped():
    everything = list(scans(6))
    merged = merge_maps([mapped(everything[:2]), mapped(everything[2:5]), mapped(everything[5:])])
    assert_same(merged, mapped(everything))


def test_sums_are_clamped_to_the_bounds():
    one = list(scans(1))
    tree = mapped(one * 3, sensor_model=SensorModel(), max_label_score=2.0)
    merged = merge_maps([tree] * 4)
    values = merged.log_odds(known_points(tree))
    assert values.max() == pytest.approx(np.log(0.97 / 0.03)) and values.min() == pytest.approx(np.log(0.12 / 0.88))
    best = merged.top_labels(known_points(tree), 1)[1].max()
    assert best == pytest.approx(np.exp(2) / (np.exp(2) + 2), rel=1e-5)


def test_map_moved_by_whole_voxels_is_taken_over_exactly():
    tree = mapped(scans(2))
    moved = merge_maps([tree], [Transform.from_translation_quaternion((0.3, -1.2, 0.5), (0, 0, 0, 1))])
    points = known_points(tree)
    there = (points.astype(np.float64) + np.array([0.3, -1.2, 0.5])).astype(np.float32)
    assert np.array_equal(moved.log_odds(there), tree.log_odds(points))
    assert np.array_equal(moved.label_of(there), tree.label_of(points))
    assert moved.known_voxels() == tree.known_voxels()


def test_quarter_turn_takes_every_voxel_along():
    tree = mapped(scans(2))
    half = np.sqrt(0.5)
    moved = merge_maps([tree], [Transform.from_translation_quaternion((0, 0, 0), (0, 0, half, half))])
    points = known_points(tree)
    there = np.stack([-points[:, 1], points[:, 0], points[:, 2]], axis=1)
    assert np.array_equal(moved.log_odds(there), tree.log_odds(points))
    assert moved.known_voxels() == tree.known_voxels()


def test_turned_wall_has_no_holes():
    tree = SemanticOcTree(0.1, UNCLAMPED, 3)
    y, z = np.meshgrid(np.arange(-10, 10) * 0.1 + 0.05, np.arange(0, 20) * 0.1 + 0.05)
    wall = np.stack([np.full(y.size, 0.05), y.ravel(), z.ravel()], axis=1)
    for point in wall[:: len(wall)]:
        tree.insert_cloud(point[None], point, np.array([1]))
    tree.insert_cloud(
        np.concatenate([wall, wall + np.array([0.1, 0, 0])]), (0.05, 0.05, 0.05), np.ones(2 * len(wall), int)
    )
    angle = np.radians(30)
    turn = Transform.from_translation_quaternion((0.5, 0.2, 0.03), (0, 0, np.sin(angle / 2), np.cos(angle / 2)))
    moved = merge_maps([tree], [turn])
    rng = np.random.default_rng(0)
    inside = np.stack([rng.uniform(0.08, 0.12, 500), rng.uniform(-0.8, 0.8, 500), rng.uniform(0.2, 1.8, 500)], axis=1)
    there = turn.apply(inside.astype(np.float32))
    assert (moved.log_odds(there) > 0).all() and (moved.label_of(there) == 1).all()


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"resolution, got 0\.1 and 0\.2"):
        merge_maps([SemanticOcTree(0.1), SemanticOcTree(0.2)])
    with pytest.raises(InputError, match="num_classes, got 2 and 3"):
        merge_maps([SemanticOcTree(0.1), *(SemanticOcTree(0.1, num_classes=count) for count in (2, 3))])
    with pytest.raises(InputError, match="expected maps"):
        merge_maps([])
    far = Transform.from_translation_quaternion((1e5, 0, 0), (0, 0, 0, 1))
    with pytest.raises(InputError, match="out of the map"):
        merge_maps([mapped(scans(1))], [far])


HIT, MISS = np.log(0.7 / 0.3), np.log(0.4 / 0.6)
LOW, HIGH = np.log(0.12 / 0.88), np.log(0.97 / 0.03)
A, B, C, D, E, F = ((0.1 * i + 0.05, 0.05, 0.05) for i in range(6))
POINTS = np.array([A, B, C, D, E, F], np.float32)


def one_ray(sensor_model: SensorModel, end, classes: int = 0) -> SemanticOcTree:
    """A map of the voxels from A to an end, all free but that one, which has class 2 where there are classes."""
    tree = SemanticOcTree(0.1, sensor_model, classes, max_label_score=7.5)
    tree.insert_cloud(np.array([end]), A, np.array([2]) if classes else None)
    return tree


def test_voxels_of_a_bt_count_with_the_bounds_and_labels_stay(tmp_path):
    one_ray(SensorModel(), E, classes=3).write(tmp_path / "labeled.ot", None)
    # Free from A to B, occupied at C, and nothing behind.
    one_ray(SensorModel(), C).write_binary(tmp_path / "plain.bt")
    for names in (("labeled.ot", "plain.bt"), ("plain.bt", "labeled.ot")):
        merged = merge_maps(read_maps([tmp_path / name for name in names]))
        expected = [LOW, LOW, HIGH + MISS, MISS, HIT, np.nan]
        assert merged.log_odds(POINTS) == pytest.approx(expected, abs=1e-6, nan_ok=True)
        assert merged.label_of(POINTS).tolist() == [-1, -1, -1, -1, 2, -1]
        assert merged.num_classes == 3 and merged.max_label_score == 7.5
    assert merged.label_probabilities(POINTS) == pytest.approx(
        SemanticOcTree.read(tmp_path / "labeled.ot").label_probabilities(POINTS)
    )


def test_a_labeled_voxel_that_a_bt_calls_free_is_free_and_one_that_it_calls_occupied_is_bounded(tmp_path):
    one_ray(SensorModel(), C, classes=3).write(tmp_path / "labeled.ot", None)
    one_ray(SensorModel(), E).write_binary(tmp_path / "free.bt")
    one_ray(SensorModel(), C).write_binary(tmp_path / "occupied.bt")
    labeled, free, occupied = read_maps([tmp_path / name for name in ("labeled.ot", "free.bt", "occupied.bt")])
    assert merge_maps([labeled, free]).log_odds(POINTS)[2] == pytest.approx(HIT + LOW)
    assert merge_maps([labeled, free]).label_of(POINTS)[2] == 2
    assert merge_maps([labeled, occupied]).log_odds(POINTS)[2] == pytest.approx(HIGH)


def test_a_bt_is_read_with_the_bounds_of_the_map_whose_bounds_the_result_has(tmp_path):
    one_ray(SensorModel(), C).write_binary(tmp_path / "plain.bt")
    one_ray(SensorModel(min=0.3, max=0.8), E).write(tmp_path / "geometry.ot", None)
    one_ray(SensorModel(min=0.2, max=0.9), E, classes=3).write(tmp_path / "labeled.ot", None)
    maps = read_maps([tmp_path / name for name in ("plain.bt", "geometry.ot", "labeled.ot")])
    assert maps[0].log_odds(POINTS)[:3] == pytest.approx([-np.log(4), -np.log(4), np.log(9)])
    # The bounds of the labeled map hold; the one without labels adds its own misses.
    expected = [-np.log(4), -np.log(4), np.log(9) + 2 * MISS, 2 * MISS, 2 * HIT, np.nan]
    assert merge_maps(maps).log_odds(POINTS) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    maps = read_maps([tmp_path / name for name in ("plain.bt", "geometry.ot")])
    assert merge_maps(maps).log_odds(POINTS)[2] == pytest.approx(np.log(4) + MISS)


def test_octomaps_own_library_reads_a_bt_with_the_same_log_odds(tmp_path):
    octomap = pytest.importorskip("octomap")
    one_ray(SensorModel(), C).write_binary(tmp_path / "plain.bt")
    tree = octomap.OcTree(0.1)
    tree.setClampingThresMin(0.12)
    tree.setClampingThresMax(0.97)
    assert tree.readBinary(str(tmp_path / "plain.bt").encode())
    theirs = [tree.search(point.astype(np.float64)).getLogOdds() for point in POINTS[:3]]
    assert read_maps([tmp_path / "plain.bt"])[0].log_odds(POINTS)[:3] == pytest.approx(theirs, abs=1e-6)


def test_empty_maps_merge_into_an_empty_one():
    assert merge_maps([SemanticOcTree(0.1), SemanticOcTree(0.1)]).known_voxels() == 0
