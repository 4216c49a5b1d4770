# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from perception.errors import InputError
from perception.evaluation.segmentation import ConfusionMatrix


def test_scores_equal_hand_computed_values():
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 0, 1], [1, 2, -1]]), np.array([[0, 1, 1], [1, -1, 0]]))
    # Five counted pixels, three right; intersections 1, 2, 0; unions 2, 3, 1.
    assert matrix.total == 5
    assert matrix.accuracy() == pytest.approx(3 / 5)
    assert matrix.iou().tolist() == pytest.approx([1 / 2, 2 / 3, 0.0])
    assert matrix.mean_iou() == pytest.approx((1 / 2 + 2 / 3) / 3)


def test_class_that_never_occurs_has_no_iou_and_does_not_count_in_the_mean():
    matrix = ConfusionMatrix(4)
    matrix.add(np.array([0, 0, 3]), np.array([0, 0, 3]))
    assert np.isnan(matrix.iou()[1])
    assert matrix.mean_iou() == 1.0


def test_images_add_up():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(-1, 5, (2, 20, 30)), rng.integers(-1, 5, (2, 20, 30))
    together, apart = ConfusionMatrix(5), ConfusionMatrix(5)
    together.add(truth, predicted)
    for i in range(2):
        apart.add(truth[i], predicted[i])
    assert np.array_equal(together.counts, apart.counts)


def test_prediction_outside_of_the_classes_counts_as_wrong():
    matrix = ConfusionMatrix(2)
    matrix.add(np.array([0, 1]), np.array([7, 1]))
    assert matrix.accuracy() == 0.5


def test_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"expected \(2, 2\).*got \(2, 3\)"):
        ConfusionMatrix(2).add(np.zeros((2, 2), int), np.zeros((2, 3), int))


def test_class_accuracy_precision_and_weighted_iou_equal_hand_computed_values():
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert matrix.class_accuracy()[:2].tolist() == pytest.approx([2 / 3, 1.0])
    assert np.isnan(matrix.class_accuracy()[2])
    assert matrix.precision()[:2].tolist() == pytest.approx([1.0, 1 / 2])
    assert matrix.mean_accuracy() == pytest.approx((2 / 3 + 1) / 2)
    assert matrix.frequency_weighted_iou() == pytest.approx(3 / 4 * 2 / 3 + 1 / 4 * 1 / 2)
    empty = ConfusionMatrix(3)
    assert np.isnan(empty.mean_accuracy()) and np.isnan(empty.frequency_weighted_iou())


def test_scores_equal_torchmetrics():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 6, 5000), rng.integers(0, 6, 5000)
    matrix = ConfusionMatrix(6)
    matrix.add(truth, predicted)
    pair = torch.from_numpy(predicted), torch.from_numpy(truth)
    accuracy = metrics.multiclass_accuracy(*pair, num_classes=6, average=None)
    iou = metrics.multiclass_jaccard_index(*pair, num_classes=6, average=None)
    precision = metrics.multiclass_precision(*pair, num_classes=6, average=None)
    weighted = metrics.multiclass_jaccard_index(*pair, num_classes=6, average="weighted")
    assert matrix.class_accuracy() == pytest.approx(accuracy.numpy(), abs=1e-6)
    assert matrix.iou() == pytest.approx(iou.numpy(), abs=1e-6)
    assert matrix.precision() == pytest.approx(precision.numpy(), abs=1e-6)
    assert matrix.frequency_weighted_iou() == pytest.approx(float(weighted), abs=1e-6)
    assert matrix.mean_accuracy() == pytest.approx(float(accuracy.mean()), abs=1e-6)
    assert matrix.counts[:, :-1].tolist() == metrics.multiclass_confusion_matrix(*pair, num_classes=6).tolist()
