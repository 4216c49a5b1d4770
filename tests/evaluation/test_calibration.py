# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from perception.evaluation.calibration import Calibration


def test_error_equals_hand_computed_value():
    calibration = Calibration(bins=2)
    # Bin (0, 0.5]: two pixels, one right, mean confidence 0.3. Bin (0.5, 1]: three, two right, mean confidence 0.8.
    calibration.add(np.array([1, 1, 0, 0, 0]), np.array([1, 0, 0, 0, 1]), np.array([0.2, 0.4, 0.7, 0.8, 0.9]))
    assert calibration.error() == pytest.approx(2 / 5 * abs(1 / 2 - 0.3) + 3 / 5 * abs(2 / 3 - 0.8))
    first, second = calibration.rows()
    assert (first["count"], second["count"]) == (2, 3)
    assert first["accuracy"] == pytest.approx(0.5) and first["confidence"] == pytest.approx(0.3)


def test_pixels_without_truth_or_label_do_not_count():
    calibration = Calibration()
    calibration.add(np.array([-1, 0]), np.array([0, -1]), np.array([0.9, 0.9]))
    assert np.isnan(calibration.error())
    assert all(row["accuracy"] is None for row in calibration.rows())


def test_confidences_of_zero_and_one_fall_into_the_outer_bins():
    calibration = Calibration(bins=4)
    calibration.add(np.zeros(3, int), np.zeros(3, int), np.array([0.0, 0.25, 1.0]))
    assert calibration.count.tolist() == [2, 0, 0, 1]


def test_error_equals_torchmetrics():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5), 2000).astype(np.float32)
    truth = rng.integers(0, 5, 2000)
    calibration = Calibration(bins=15)
    calibration.add(truth, probabilities.argmax(1), probabilities.max(1))
    expected = metrics.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(truth), num_classes=5, n_bins=15, norm="l1"
    )
    assert calibration.error() == pytest.approx(float(expected), abs=1e-6)
