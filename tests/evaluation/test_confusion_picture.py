# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import InputError
from perception.evaluation.confusion_picture import confusion_picture
from perception.evaluation.segmentation import ConfusionMatrix


def test_right_answers_are_dark_on_the_diagonal_and_the_rest_is_light(tmp_path: Path):
    pytest.importorskip("matplotlib")
    confusion = ConfusionMatrix(2)
    confusion.add(np.array([0] * 100 + [1] * 100), np.array([0] * 100 + [1] * 50 + [0] * 50))
    confusion_picture(tmp_path / "c.png", confusion, ["wall", "floor"], "test")
    image = cv2.imread(str(tmp_path / "c.png"))
    dark = (image < (140, 90, 60)).all(2)
    assert 0.02 < dark.mean() < 0.5
    with pytest.raises(InputError, match="expected 2, got 1"):
        confusion_picture(tmp_path / "c.png", confusion, ["wall"], "test")
