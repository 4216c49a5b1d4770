# SPDX-License-Identifier: Apache-2.0
"""Label fusion against a dense reference that keeps every class."""

from __future__ import annotations

import numpy as np
import pytest

from perception.mapping import SemanticOcTree
from perception.mapping.bricks import DECAYING


class DenseFusion:
    """The rules in plain NumPy: scores of all classes for each voxel."""

    def __init__(self, num_classes: int, score_max: float) -> None:
        self.num_classes, self.score_max = num_classes, score_max
        self.scores: dict[tuple, np.ndarray] = {}

    def insert(self, keys, labels, confidence) -> None:
        for key in {tuple(k) for k in keys}:
            here = (keys == key).all(axis=1) & (labels >= 0) & (labels < self.num_classes)
            if not here.any():
                continue
            sums = np.bincount(labels[here], confidence[here], self.num_classes)
            counts = np.bincount(labels[here], minlength=self.num_classes)
            winner = int(np.argmax(np.where(counts > 0, sums, -1)))
            q = np.clip(sums[winner] / counts[winner], 1 / self.num_classes, 0.99)
            scores = self.scores.setdefault(key, np.zeros(self.num_classes))
            scores[winner] += np.log(q * (self.num_classes - 1) / (1 - q))
            scores[:] = np.maximum(scores - max(scores.max() - self.score_max, 0), 0)

    def probabilities(self, key) -> np.ndarray:
        scores = self.scores.get(tuple(key), np.zeros(self.num_classes))
        exponentials = np.exp(scores - scores.max())
        return exponentials / exponentials.sum()


def insert_voxels(tree, keys, labels, confidence=None):
    return tree.insert_cloud((np.asarray(keys) + 0.5) * tree.resolution, [0.05, 0.05, 5], labels, confidence)


@pytest.mark.parametrize("num_classes", [2, 32, 3000])
def test_probabilities_equal_the_dense_reference_while_no_class_is_forgotten(num_classes):
    rng = np.random.default_rng(0)
    tree = SemanticOcTree(0.1, num_classes=num_classes)
    dense = DenseFusion(num_classes, 10.0)
    favorites = rng.integers(0, num_classes, (8, 4))
    for _ in range(12):
        keys = np.stack([rng.integers(0, 8, 300), np.zeros(300, int), np.zeros(300, int)], axis=1)
        labels = favorites[keys[:, 0], rng.integers(0, 4, 300)]
        confidence = rng.uniform(0, 1, 300).astype(np.float32)
        insert_voxels(tree, keys, labels, confidence)
        dense.insert(keys, labels, confidence.astype(np.float64))
    voxels = np.array([[x, 0, 0] for x in range(8)])
    expected = np.array([dense.probabilities(v) for v in voxels])
    found = tree.label_probabilities((voxels + 0.5) * 0.1)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(tree.label_of((voxels + 0.5) * 0.1), expected.argmax(axis=1))
    ids, probabilities = tree.top_labels((voxels + 0.5) * 0.1, 3)
    np.testing.assert_allclose(probabilities[:, 0], expected.max(axis=1), atol=2e-5)
    assert (np.diff(probabilities, axis=1) <= 0).all()
    assert ids.shape == (8, 3)


def test_one_vote_adds_the_log_odds_of_its_mean_confidence():
    tree = SemanticOcTree(0.1, num_classes=4)
    insert_voxels(tree, np.zeros((2, 3)), np.array([1, 1]), np.array([0.5, 0.9]))
    odds = 0.7 * 3 / 0.3
    np.testing.assert_allclose(tree.label_probabilities([[0.05] * 3])[0], np.array([1, odds, 1, 1]) / (odds + 3), 1e-6)


def test_summed_confidence_wins_over_the_number_of_points_and_a_tie_goes_to_the_lowest_class():
    tree = SemanticOcTree(0.1, num_classes=8)
    insert_voxels(tree, np.zeros((4, 3)), np.array([5, 2, 2, 2]), np.array([0.9, 0.2, 0.2, 0.2]))
    assert tree.label_of([[0.05] * 3]).tolist() == [5]
    insert_voxels(tree, np.ones((4, 3)), np.array([7, 3, 7, 3]), np.array([0.5, 0.75, 0.5, 0.25]))
    assert tree.label_of([[0.15] * 3]).tolist() == [3]


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1)])
def test_a_changed_thing_is_relabeled_after_a_bounded_number_of_looks(old, new):
    tree = SemanticOcTree(0.1, num_classes=4)
    for _ in range(500):
        insert_voxels(tree, np.zeros((1, 3)), np.array([old]), np.array([0.9]))
    looks = 0
    while tree.label_of([[0.05] * 3])[0] != new:
        insert_voxels(tree, np.zeros((1, 3)), np.array([new]), np.array([0.9]))
        looks += 1
    # log(0.9 · 3 / 0.1) = 3.3 a look against a bound of 10.
    assert looks == 4


def test_a_fifth_class_replaces_the_weakest_only_with_a_stronger_vote():
    tree = SemanticOcTree(0.1, num_classes=8)
    for label, confidence in ((0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6), (4, 0.5)):
        insert_voxels(tree, np.zeros((1, 3)), np.array([label]), np.array([confidence]))
    assert set(tree.top_labels([[0.05] * 3], 4)[0][0].tolist()) == {0, 1, 2, 3}
    insert_voxels(tree, np.zeros((1, 3)), np.array([5]), np.array([0.65]))
    assert tree.top_labels([[0.05] * 3], 4)[0][0].tolist() == [0, 1, 2, 5]


def test_a_cleared_voxel_keeps_its_votes():
    tree = SemanticOcTree(0.1, num_classes=4)
    insert_voxels(tree, np.zeros((1, 3)), np.array([2]))
    for _ in range(20):
        tree.insert_cloud([[0.05, 0.05, -1.0]], [0.05, 0.05, 5])
    assert tree.log_odds([[0.05] * 3])[0] < 0
    assert tree.label_of([[0.05] * 3]).tolist() == [2]
    leaves = tree.leaves()
    assert (leaves.labels == -1).all()


def test_points_without_a_usable_label_map_geometry_and_are_counted():
    tree = SemanticOcTree(0.1, num_classes=4)
    keys = np.stack([np.arange(6), np.zeros(6), np.zeros(6)], axis=1)
    report = insert_voxels(tree, keys, np.array([-1, 255, 65535, 4, -7, 1]), np.array([1, 1, 1, 1, 1, np.nan]))
    assert (report.hits, report.unlabeled, report.invalid_labels, report.invalid_confidences) == (6, 3, 2, 1)
    assert (tree.label_of((keys + 0.5) * 0.1) == -1).all()
    assert (tree.log_odds((keys + 0.5) * 0.1) > 0).all()
    assert (tree.label_probabilities((keys + 0.5) * 0.1) == 0.25).all()


def test_all_65535_classes_can_be_used():
    tree = SemanticOcTree(0.1, num_classes=65535)
    keys = np.stack([np.arange(3), np.zeros(3), np.zeros(3)], axis=1)
    insert_voxels(tree, keys, np.array([0, 65534, 40000], np.uint16))
    assert tree.label_of((keys + 0.5) * 0.1).tolist() == [0, 65534, 40000]


def test_many_labels_in_one_voxel():
    rng = np.random.default_rng(0)
    tree = SemanticOcTree(0.1, num_classes=1000)
    labels = np.concatenate([rng.permutation(1000), [77]])
    insert_voxels(tree, np.zeros((1001, 3)), labels, np.full(1001, 0.5))
    assert tree.label_of([[0.05] * 3]).tolist() == [77]


def test_moving_classes_fade_and_the_others_stay():
    tree = SemanticOcTree(0.1, num_classes=3, decay_s=[np.inf, 2.0, np.inf])
    keys = np.stack([np.arange(4), np.zeros(4), np.zeros(4)], axis=1)
    points = (keys + 0.5) * 0.1
    insert_voxels(tree, keys, np.array([0, 1, 1, 2]))
    before = tree.log_odds(points)
    assert tree.decay(1.0) == 0
    np.testing.assert_allclose(tree.log_odds(points)[1:3], before[1:3] * np.exp(-0.5), rtol=1e-6)
    assert tree.decay(1.0) == 2
    after = tree.log_odds(points)
    assert np.isnan(after[1:3]).all()
    np.testing.assert_array_equal(after[[0, 3]], before[[0, 3]])
    assert tree.label_of(points).tolist() == [0, -1, -1, 2]
    assert tree.decay(1000.0) == 0


def test_decay_looks_at_no_brick_without_a_class_that_fades():
    tree = SemanticOcTree(0.1, num_classes=3, decay_s=[np.inf, 2.0, np.inf])
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(0, 160, (4000, 3)), axis=0)
    labels = np.where((keys[:, 0] < 8) & (keys[:, 1] < 8), 1, 2)
    insert_voxels(tree, keys, labels)
    points = (keys + 0.5) * 0.1
    before, scores = tree.log_odds(points), tree.label_probabilities(points)
    fading = labels == 1
    bricks = len(np.unique(keys[fading] // 8, axis=0))
    assert sum(int(shard.counters[DECAYING]) for shard in tree._store.shards) == bricks < 25
    _, cursor = tree.changed_columns(None)
    assert tree.decay(10.0) == fading.sum()
    np.testing.assert_array_equal(tree.changed_columns(cursor)[0], [[4096, 4096]])
    np.testing.assert_array_equal(tree.log_odds(points)[~fading].view(np.int32), before[~fading].view(np.int32))
    np.testing.assert_array_equal(tree.label_probabilities(points)[~fading], scores[~fading])
    assert np.isnan(tree.log_odds(points)[fading]).all()
    assert sum(int(shard.counters[DECAYING]) for shard in tree._store.shards) == 0
