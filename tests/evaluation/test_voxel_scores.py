# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from perception.errors import InputError
from perception.evaluation.class_mapping import ClassMapping
from perception.evaluation.voxel_scores import leaf_voxels, resampled, score_map, voxel_centers
from perception.labels import LabelClass, LabelSet
from perception.mapping import SemanticOcTree, SensorModel
from perception.simulation.voxels import VoxelMap

SET = LabelSet("two", (LabelClass(0, "wall", (9, 9, 9)), LabelClass(1, "chair", (8, 8, 8))))
SAME = ClassMapping.build(SET, SET)


def row_of_voxels(labels, resolution=0.1, first=10):
    """True voxels along x, one per label."""
    keys = np.array([[first + i, 0, 0] for i in range(len(labels))], np.int32)
    return VoxelMap(keys, np.array(labels, np.int32), resolution, SET)


def tree_with(keys, labels, resolution=0.1):
    """A map in which exactly these voxels are occupied; seen from above, one scan each, so that nothing else is hit."""
    tree = SemanticOcTree(resolution, SensorModel(), 2)
    for key, label in zip(keys, labels, strict=True):
        point = voxel_centers(np.array([key]), resolution)
        origin = point[0].astype(float) + np.array([0, 0, 2 * resolution])
        tree.insert_cloud(point, origin, np.array([label]))
    return tree


def test_scores_equal_hand_computed_values():
    truth = row_of_voxels([0, 0, 1, 1])
    # Right, right, labeled wrongly, never seen; one voxel more where nothing is, labeled chair.
    tree = tree_with([(10, 0, 0), (11, 0, 0), (12, 0, 0), (30, 0, 0)], [0, 0, 0, 1])
    scores = score_map(tree, truth, SAME)
    occupancy = scores["occupancy"]
    assert (occupancy["true_positive"], occupancy["false_positive"], occupancy["false_negative"]) == (3, 1, 0)
    assert occupancy["precision"] == pytest.approx(3 / 4) and occupancy["recall"] == 1.0
    assert occupancy["f1"] == pytest.approx(6 / 7) and occupancy["iou"] == pytest.approx(3 / 4)
    assert occupancy["coverage"] == pytest.approx(3 / 4)
    wall, chair = scores["semantic"]["classes"]
    # Wall: two right, one chair taken for a wall. Chair: one known voxel missed, one where nothing is.
    assert (wall["true"], wall["predicted"], wall["iou"]) == (2, 3, pytest.approx(2 / 3))
    assert (chair["true"], chair["predicted"], chair["iou"]) == (1, 1, 0.0)
    assert scores["semantic"]["mean_iou"] == pytest.approx(1 / 3)
    assert scores["semantic"]["accuracy"] == pytest.approx(2 / 3)


def test_true_voxel_that_the_map_calls_free_is_missed():
    truth = row_of_voxels([0])
    tree = SemanticOcTree(0.1, SensorModel(), 2)
    tree.insert_cloud(voxel_centers(np.array([[12, 0, 0]]), 0.1), (0.75, 0.05, 0.05), np.array([0]))
    scores = score_map(tree, truth, SAME)
    assert scores["occupancy"]["recall"] == 0.0 and scores["occupancy"]["coverage"] == 1.0
    assert scores["semantic"]["mean_iou"] == 0.0


def test_neighbor_counts_within_one_voxel_and_not_beyond():
    truth = row_of_voxels([0])
    near = score_map(tree_with([(11, 1, 1)], [0]), truth, SAME)["occupancy_tolerant"]
    far = score_map(tree_with([(12, 0, 0)], [0]), truth, SAME)["occupancy_tolerant"]
    assert near["precision"] == 1.0 and far["precision"] == 0.0
    assert near["tolerance_m"] == 0.1


def test_classes_are_left_out_without_a_mapping():
    scores = score_map(tree_with([(10, 0, 0)], [0]), row_of_voxels([0]), None)
    assert scores["semantic"] is None and scores["occupancy"]["precision"] == 1.0


def test_leaves_unfold_into_single_voxels():
    class Leaves:
        centers = np.array([[0.1, 0.1, -0.1], [0.45, 0.05, 0.05]], np.float32)
        sizes = np.array([0.2, 0.1], np.float32)

    keys, owners = leaf_voxels(Leaves, 0.1)
    assert sorted(map(tuple, keys[owners == 0].tolist())) == [
        (x, y, z) for x in (0, 1) for y in (0, 1) for z in (-2, -1)
    ]
    assert keys[owners == 1].tolist() == [[4, 0, 0]]


def test_coarser_voxel_takes_the_class_of_most_and_the_lowest_of_several():
    truth = row_of_voxels([1, 1, 0, 0, 1, 1, 0, 1], first=0)
    coarse = resampled(truth, 0.3, SAME)
    assert coarse.keys[:, 0].tolist() == [0, 1, 2]
    assert coarse.labels.tolist() == [1, 1, 0]
    assert np.array_equal(resampled(truth, 0.1, SAME).labels, truth.labels)


def test_voxels_coarser_than_the_map_are_refused():
    with pytest.raises(InputError, match=r"expected at most 0.05 m as the map's, got 0.1 m"):
        resampled(row_of_voxels([0]), 0.05, SAME)


def test_intersection_over_union_equals_torchmetrics_on_random_voxels():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(0)
    truth = row_of_voxels(rng.integers(0, 2, 40), first=0)
    predicted = rng.integers(0, 2, 40)
    scores = score_map(tree_with(truth.keys, predicted), truth, SAME)
    expected = metrics.multiclass_jaccard_index(
        torch.from_numpy(predicted), torch.from_numpy(truth.labels), num_classes=2, average=None
    )
    assert [entry["iou"] for entry in scores["semantic"]["classes"]] == pytest.approx(expected.tolist())
