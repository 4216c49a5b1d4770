# SPDX-License-Identifier: Apache-2.0
import math
import sys
from pathlib import Path

import pytest

from perception.errors import InputError
from perception.sources.bag_writer import BagWriter
from perception.sources.recorded_objects import read_objects

sys.path.insert(0, str(Path(__file__).parent))
from detections import write_objects

CHAIR = {"chair": 1.0}


def bag_of(folder, *images, topic="/camera/ground_truth/detections"):
    with BagWriter(folder) as bag:
        for number, objects in enumerate(images):
            write_objects(bag, topic, 1000 + number, objects)
    return folder


def test_boxes_and_classes_are_read_by_stamp(tmp_path):
    two = [((20.0, 30.0, 10.0, 40.0, 0.0), CHAIR), ((5.5, 5.5, 1.0, 1.0, 0.0), {"cup": 0.2, "bottle": 0.8})]
    found = read_objects(bag_of(tmp_path / "bag", two, []))
    assert list(found) == [1000, 1001]
    assert found[1000].boxes.tolist() == [[15, 10, 25, 50], [5, 5, 6, 6]]
    assert found[1000].names == ("chair", "bottle")
    assert found[1001].boxes.shape == (0, 4)


def test_a_turned_box_becomes_the_upright_one_around_it(tmp_path):
    quarter, eighth = [(50.0, 50.0, 20.0, 10.0, math.pi / 2)], [(50.0, 50.0, 10.0, 10.0, math.pi / 4)]
    found = read_objects(bag_of(tmp_path / "bag", [(quarter[0], CHAIR)], [(eighth[0], CHAIR)]))
    assert found[1000].boxes[0].tolist() == pytest.approx([45, 40, 55, 60])
    half = 10 * math.sqrt(2) / 2
    assert found[1001].boxes[0].tolist() == pytest.approx([50 - half, 50 - half, 50 + half, 50 + half])


@pytest.mark.parametrize(
    ("box", "classes", "message"),
    [
        ((5.0, 5.0, float("nan"), 1.0, 0.0), CHAIR, "finite boxes"),
        ((5.0, 5.0, 2.0, float("inf"), 0.0), CHAIR, "finite boxes"),
        ((5.0, 5.0, 2.0, 2.0, 0.0), {}, "a class of every object"),
    ],
)
def test_objects_that_are_none_are_refused(tmp_path, box, classes, message):
    with pytest.raises(InputError, match=message):
        read_objects(bag_of(tmp_path / "bag", [(box, classes)]))


def test_a_topic_of_another_name_must_be_chosen(tmp_path):
    bag = bag_of(tmp_path / "bag", [((5.0, 5.0, 2.0, 2.0, 0.0), CHAIR)], topic="/detections")
    with pytest.raises(InputError, match=r"found none; choose with --objects /topic"):
        read_objects(bag)
    assert read_objects(bag, "/detections")[1000].names == ("chair",)
    with pytest.raises(InputError, match="no such topic"):
        read_objects(bag, "/other")
