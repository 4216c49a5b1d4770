# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from perception.errors import InputError
from perception.evaluation.class_mapping import ClassMapping
from perception.labels import LabelClass, LabelSet

TRUTH = LabelSet(
    "truth", tuple(LabelClass(i, n, (i, 1, 1)) for i, n in enumerate(["floor", "window", "chair", "lamp"]))
)
NETWORK = LabelSet(
    "network",
    tuple(LabelClass(2 * i, n, (i, 2, 2)) for i, n in enumerate(["chair", "armchair", "floor", "windowpane"])),
)


def test_classes_match_by_name_and_the_rest_is_reported():
    mapping = ClassMapping.build(TRUTH, NETWORK)
    assert mapping.true_ids(np.array([[0, 1], [2, 3], [-1, 99]])).tolist() == [[4, -1], [0, -1], [-1, -1]]
    assert mapping.unmapped_truth == ["lamp", "window"]
    assert mapping.unmapped_predicted == ["armchair", "windowpane"]
    assert mapping.pairs == {"floor": "floor", "window": None, "chair": "chair", "lamp": None}


def test_file_maps_merges_and_ignores(tmp_path: Path):
    path = tmp_path / "classes.yaml"
    path.write_text("truth: {window: windowpane}\npredicted: {armchair: chair}\nignore: [lamp]\n")
    mapping = ClassMapping.build(TRUTH, NETWORK, path)
    assert mapping.true_ids(np.array([0, 1, 2, 3])).tolist() == [4, 6, 0, -1]
    assert mapping.scored_ids(np.array([0, 2, 4, 6, -1])).tolist() == [0, 0, 4, 6, -1]
    assert mapping.unmapped_truth == []
    assert mapping.unmapped_predicted == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("truth: {windw: windowpane}", "of the truth has no classes \\['windw'\\]"),
        ("truth: {window: glass}", "of the map has no classes \\['glass'\\]"),
        ("predicted: {sofa: chair}", "of the map has no classes \\['sofa'\\]"),
        ("ignore: [desk]", "of the truth has no classes \\['desk'\\]"),
        ("classes: {}", "expected some of"),
        ("truth: [a]", "expected truth to be a dict"),
        ("- a", "expected some of"),
        ("{", "cannot be read"),
    ],
)
def test_wrong_files_are_refused_by_name(text: str, message: str, tmp_path: Path):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        ClassMapping.build(TRUTH, NETWORK, path)
