# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from perception.errors import InputError
from perception.geometry import Transform
from perception.mapping import SemanticOcTree, SensorModel, merge_maps

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
    with pytest.raises(InputError, match="num_classes, got 0 and 3"):
        merge_maps([SemanticOcTree(0.1), SemanticOcTree(0.1, num_classes=3)])
    with pytest.raises(InputError, match="expected maps"):
        merge_maps([])
    far = Transform.from_translation_quaternion((1e5, 0, 0), (0, 0, 0, 1))
    with pytest.raises(InputError, match="out of the map"):
        merge_maps([mapped(scans(1))], [far])


def test_empty_maps_merge_into_an_empty_one():
    assert merge_maps([SemanticOcTree(0.1), SemanticOcTree(0.1)]).known_voxels() == 0
