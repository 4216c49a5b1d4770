# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import InputError
from perception.labels import LabelClass, LabelSet, distinct_color

ROOM = LabelSet(
    "room",
    (
        LabelClass(0, "floor", (10, 20, 30), cost=0),
        LabelClass(2, "rug", (40, 50, 60), cost=10),
        LabelClass(5, "person", (70, 80, 90), moves=True, decay_s=2.0),
    ),
)


def test_tables_have_a_row_for_every_id_and_gaps_are_lethal_and_gray():
    assert ROOM.num_classes == 6
    assert ROOM.costs.tolist() == [0, 254, 10, 254, 254, 254]
    assert ROOM.moves.tolist() == [False] * 5 + [True]
    assert ROOM.decay_s.tolist() == [np.inf] * 5 + [2.0]
    assert ROOM.colors[2].tolist() == [40, 50, 60]
    assert ROOM.colors[3].tolist() == [128, 128, 128]


def test_unlabeled_and_unknown_ids_are_black():
    colors = ROOM.colorize(np.array([[0, -1], [99, 5]]))
    assert colors.tolist() == [[[10, 20, 30], [0, 0, 0]], [[0, 0, 0], [70, 80, 90]]]


def test_unknown_label_id_is_refused_by_name_of_the_set():
    ROOM.check_ids(np.array([0, 2, 5, -1]))
    for wrong in (1, 6, -2):
        with pytest.raises(InputError, match=rf"'room'.*got \[{wrong}\]"):
            ROOM.check_ids(np.array([0, wrong]))


def test_white_is_refused_because_octomap_reads_it_as_no_color():
    with pytest.raises(InputError, match="255, 255, 255"):
        LabelClass(0, "snow", (255, 255, 255))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"id": 65535, "name": "x", "color": (0, 0, 0)}, "65534"),
        ({"id": 0, "name": "x", "color": (0, 0, 256)}, "256"),
        ({"id": 0, "name": "x", "color": (0, 0, 0), "cost": 255}, "255"),
        ({"id": 0, "name": "x", "color": (0, 0, 0), "decay_s": 0.0}, "positive"),
    ],
)
def test_class_out_of_bounds_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        LabelClass(**values)


def test_repeated_ids_and_names_are_refused():
    with pytest.raises(InputError, match=r"id used twice: \[1\]"):
        LabelSet("x", (LabelClass(1, "a", (0, 0, 0)), LabelClass(1, "b", (0, 0, 0))))
    with pytest.raises(InputError, match="name used twice"):
        LabelSet("x", (LabelClass(1, "a", (0, 0, 0)), LabelClass(2, "a", (0, 0, 0))))


def test_costs_change_by_name_and_an_unknown_name_is_an_error():
    assert ROOM.with_costs({"rug": 200}).costs[2] == 200
    assert ROOM.costs[2] == 10
    with pytest.raises(InputError, match=r"no class 'carpet'.*rug"):
        ROOM.with_costs({"carpet": 3})


def test_dict_round_trip_keeps_everything():
    assert LabelSet.from_dict(ROOM.to_dict()) == ROOM


@pytest.mark.parametrize(
    "data",
    [None, [], {"classes": 3}, {"classes": [{"id": 1}]}, {"classes": [{"id": 1, "name": "a", "colour": [0, 0, 0]}]},
     {"classes": [{"id": "one", "name": "a"}]}, {"classes": []}, {"classes": [{"id": float("inf"), "name": "a"}]},
     {"classes": [{"id": 1, "name": "a", "color": "red"}]},
     {"classes": [{"id": 1, "name": "a", "color": [0, 0, "x"]}]}],
)  # fmt: skip
def test_malformed_label_files_are_refused(data):
    with pytest.raises(InputError, match="file"):
        LabelSet.from_dict(data, "file")


@pytest.mark.parametrize("name", ["ade20k32"])
def test_shipped_label_set_loads(name):
    label_set = LabelSet.load(name)
    assert len({label.color for label in label_set.classes}) == len(label_set)
    assert label_set["floor"].cost == 0
    assert label_set["person"].moves


def test_unknown_label_set_names_the_shipped_ones():
    with pytest.raises(InputError, match="ade20k32"):
        LabelSet.load("ade")


@given(st.integers(0, 65534))
def test_distinct_color_is_a_color_and_never_white(index):
    color = distinct_color(index)
    assert all(0 <= channel <= 255 for channel in color)
    assert color != (255, 255, 255)
