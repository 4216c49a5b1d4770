# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import InputError
from perception.evaluation.photographs import Agreement, agreement, compare_on_photographs, photographs
from perception.labels import LabelSet
from perception.types import LabelImage

LABELS = LabelSet.load("ade20k32")


def image_of(labels: list[list[int]], confidence: list[list[float]]) -> LabelImage:
    return LabelImage(np.array(labels, np.int32), np.array(confidence, np.float32), LABELS)


def test_agreement_counts_all_pixels_and_those_on_which_the_reference_is_confident():
    reference = image_of([[1, 2], [3, 4]], [[0.9, 0.81], [0.8, 0.3]])
    other = image_of([[1, 5], [3, 6]], [[0.1, 0.99], [0.5, 0.5]])
    found = agreement(reference, other)
    assert found == Agreement(pixels=4, same=2, confident=2, confident_same=1)
    assert found.share == 0.5 and found.confident_share == 0.5
    assert found + Agreement(6, 6, 2, 2) == Agreement(10, 8, 4, 3)
    assert np.isnan(Agreement().share) and np.isnan(Agreement().confident_share)


def test_answers_that_cannot_be_compared_are_refused():
    reference = image_of([[1, 2]], [[0.9, 0.9]])
    with pytest.raises(InputError, match=r"expected \(1, 2\), got \(1, 1\)"):
        agreement(reference, image_of([[1]], [[0.9]]))
    other = LabelImage(np.array([[1, 2]], np.int32), np.full((1, 2), 0.9, np.float32), LabelSet.load("voc21"))
    with pytest.raises(InputError, match="label set 'ade20k32', got 'voc21'"):
        agreement(reference, other)


def test_photographs_are_found_below_a_folder_without_depth_and_masks(tmp_path: Path):
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 2] = 200
    for name in ("b/x.color.png", "a.jpg", "b/x.depth.png", "depth/1.png", "b/x.segm.png", "c_mask.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), image)
    (tmp_path / "notes.txt").write_text("x")
    found = list(photographs(tmp_path))
    assert [str(path.relative_to(tmp_path)) for path, _ in found] == ["a.jpg", "b/x.color.png"]
    # RGB: red comes first.
    np.testing.assert_array_equal(found[1][1][0, 0], (200, 0, 0))
    with pytest.raises(InputError, match="expected photographs"):
        list(photographs(tmp_path / "depth"))


def test_every_network_is_compared_with_the_reference(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 2, 3), np.uint8))

    class Fixed:
        name, device, label_set = "fixed", "cpu", LABELS

        def __init__(self, labels: list[list[int]]) -> None:
            self.labels = labels

        def __call__(self, rgb: np.ndarray) -> LabelImage:
            return image_of(self.labels, [[0.9, 0.9], [0.9, 0.5]])

        def warm_up(self) -> None: ...

    reference, same, other = Fixed([[1, 1], [1, 1]]), Fixed([[1, 1], [1, 1]]), Fixed([[1, 2], [2, 2]])
    ((path, found),) = compare_on_photographs(reference, [same, other], tmp_path)
    assert path.name == "a.png"
    assert [one.share for one in found] == [1.0, 0.25]
    assert found[1].confident_share == pytest.approx(1 / 3)
