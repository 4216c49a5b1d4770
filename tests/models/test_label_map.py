# SPDX-License-Identifier: Apache-2.0
"""Translation of a network's classes into the map's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from tiny_networks import label_set

from perception.errors import InputError
from perception.labels import LabelSet
from perception.models import create_segmenter
from perception.models.label_map import LabelMap, MappedSegmenter
from perception.types import LabelImage

NETWORK = label_set(4, first=2, step=2)  # a, b, c, d with ids 2, 4, 6, 8
CONFIDENCE = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]], np.float32)


class Fixed:
    """Always the same answer."""

    name, device, label_set = "fixed", "cpu", NETWORK

    def __call__(self, rgb):
        return LabelImage(np.array([[2, 4, 6, 8, -1]]), CONFIDENCE, NETWORK)

    def warm_up(self):
        """Nothing to do."""


def write(tmp_path, **data):
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_labels_become_the_classes_of_the_map_and_keep_their_confidence(tmp_path):
    path = write(tmp_path, labels="ade20k32", classes={"a": "wall", "b": "floor", "c": "wall"}, ignore=["d"])
    segmenter = MappedSegmenter(Fixed(), LabelMap.load(path, NETWORK))
    result = segmenter(np.zeros((1, 5, 3), np.uint8))
    target = LabelSet.load("ade20k32")
    assert result.labels.tolist() == [[target["wall"].id, target["floor"].id, target["wall"].id, -1, -1]]
    assert result.label_set == segmenter.label_set == target
    np.testing.assert_array_equal(result.confidence, CONFIDENCE)


def test_default_takes_the_rest_and_null_leaves_it_unlabeled(tmp_path):
    image = Fixed()(None)
    by_name = LabelMap.load(write(tmp_path, labels="ade20k32", classes={"a": "bed"}, default="other"), NETWORK)
    assert by_name.apply(image).labels.tolist() == [[8, 0, 0, 0, -1]]
    dropped = LabelMap.load(write(tmp_path, labels="ade20k32", classes={"a": "bed"}, default=None), NETWORK)
    assert dropped.apply(image).labels.tolist() == [[8, -1, -1, -1, -1]]


def test_classes_without_a_place_in_the_map_are_named(tmp_path):
    path = write(tmp_path, labels="ade20k32", classes={"a": "wall", "c": "wall"})
    with pytest.raises(InputError, match=r"classes of the network without a class of the map: \['b', 'd'\]"):
        LabelMap.load(path, NETWORK)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"labels": "ade20k32", "classes": {"a": "lawn"}, "default": "other"}, "has no class 'lawn'"),
        ({"labels": "ade20k32", "classes": {"z": "wall"}, "default": "other"}, r"'letters' has no classes \['z'\]"),
        ({"labels": "ade20k32", "ignore": ["z"], "default": "other"}, r"has no classes \['z'\]"),
        ({"classes": {"a": "wall"}}, "expected 'labels' and some of"),
        ({"labels": "ade20k32", "klasses": {}}, "expected 'labels' and some of"),
        ({"labels": "ade20k32", "classes": ["a"]}, "expected a mapping 'classes' and a list 'ignore'"),
        ({"labels": "none", "default": None}, "label set 'none': expected one of"),
    ],
)
def test_wrong_mapping_files_are_refused(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        LabelMap.load(write(tmp_path, **data), NETWORK)


def test_unreadable_mapping_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        LabelMap.load(tmp_path / "no.yaml", NETWORK)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match="cannot be read"):
        LabelMap.load(tmp_path / "bad.yaml", NETWORK)


def test_label_set_file_beside_the_mapping_is_used(tmp_path):
    (tmp_path / "house.yaml").write_text(yaml.safe_dump({"name": "house", "classes": [{"id": 1, "name": "thing"}]}))
    path = write(tmp_path, labels="house.yaml", default="thing")
    assert LabelMap.load(path, NETWORK).apply(Fixed()(None)).labels.tolist() == [[1, 1, 1, 1, -1]]


def test_unsure_labels_are_dropped():
    result = MappedSegmenter(Fixed(), None, min_confidence=0.7)(np.zeros((1, 5, 3), np.uint8))
    assert result.labels.tolist() == [[2, 4, 6, -1, -1]]


def test_create_segmenter_maps_the_shipped_network(tmp_path):
    path = write(tmp_path, labels="voc21", classes={"person": "person"}, default="background")
    segmenter = create_segmenter("default", "cpu", label_map=str(path), input_size=(32, 32))
    result = segmenter(np.full((20, 20, 3), 128, np.uint8))
    assert segmenter.label_set.name == result.label_set.name == "voc21"
    assert set(np.unique(result.labels)) <= {0, 15}
    segmenter.warm_up()
