# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from perception.evaluation.frame_pairs import common_values, series_by_frame
from perception.evaluation.run_folder import Run
from perception.evaluation.scalars import BY_NAME

ACCURACY = BY_NAME["segmentation.pixel_accuracy"]


def rows(*values, column="a", first=0):
    return [{"stamp_ns": first + place, column: value} for place, value in enumerate(values)]


def scored(frames, value=0.5):
    return Run(Path("run"), {"scalars": {ACCURACY.name: {"value": value}}}, frames)


def test_frames_are_paired_by_stamp_where_both_have_a_value():
    first = [{"stamp_ns": 1, "a": 0.5}, {"stamp_ns": 2, "a": None}, {"stamp_ns": 3, "a": 0.25}, {"stamp_ns": 4, "a": 1}]
    second = [{"stamp_ns": 4, "a": 2.0}, {"stamp_ns": 3, "a": 0.75}, {"stamp_ns": 2, "a": 0.1}]
    assert common_values(first, second, "a").tolist() == [[0.25, 0.75], [1.0, 2.0]]


def test_a_run_is_equal_to_itself_also_where_stamps_come_again():
    frames = [{"stamp_ns": stamp, "a": value} for stamp, value in ((5, 0.1), (5, 0.9), (7, 0.3), (5, 0.4))]
    assert common_values(frames, frames, "a").tolist() == [[value, value] for value in (0.1, 0.9, 0.3, 0.4)]
    # The second of the stamp has no value in the other run: the third stays the third.
    other = [*frames[:1], {"stamp_ns": 5, "a": None}, *frames[2:]]
    assert common_values(frames, other, "a").tolist() == [[0.1, 0.1], [0.3, 0.3], [0.4, 0.4]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high", 10**400])
def test_frames_without_a_stamp_or_a_number_have_no_partner(value):
    assert common_values([{"a": 1.0}, *rows(0.5, value)], [{"a": 2.0}, *rows(0.5, 0.5)], "a").tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(("first", "common"), [(0, 6), (3, 3), (4, 0), (9, 0)])
def test_less_than_half_of_the_frames_does_not_stand_for_all(first, common):
    assert len(common_values(rows(*[0.5] * 40)[:6], rows(*[0.5] * 6, first=first), "a")) == common


def test_one_recording_without_common_frames_has_all_compared_by_recording():
    frames = rows(0.5, 0.6, column="pixel_accuracy")
    with_frames, without = (scored(frames), scored(frames)), (scored(frames), scored([], 0.1))
    assert [len(values) for values in series_by_frame(ACCURACY, [with_frames])] == [2]
    assert series_by_frame(ACCURACY, [with_frames, without]) == []
    unscored = Run(Path("run"), {"scalars": {}}, [])
    assert [len(values) for values in series_by_frame(ACCURACY, [with_frames, (unscored, unscored)])] == [2, 0]


def test_a_column_without_a_name_belongs_to_no_number():
    run = Run(Path("run"), {"scalars": {}}, rows(0.5, column=""))
    assert series_by_frame(BY_NAME["map.occupancy.f1"], [(run, run)]) == []
