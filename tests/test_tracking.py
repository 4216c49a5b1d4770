# SPDX-License-Identifier: Apache-2.0
"""Ids of objects over time."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from perception.config import BoxConfig
from perception.errors import MissingDependencyError
from perception.labels import LabelClass, LabelSet
from perception.tracking import ObjectTracker
from perception.types import Detections3D

LABELS = LabelSet("things", (LabelClass(0, "chair", (1, 2, 3)), LabelClass(1, "person", (4, 5, 6), moves=True)))


def boxes(centers, seconds, labels=None):
    centers = np.array(centers, np.float32).reshape(-1, 3)
    count = len(centers)
    return Detections3D(
        centers,
        np.ones((count, 3), np.float32),
        np.zeros(count, np.float32),
        np.full(count, 0.5, np.float32),
        np.zeros(count, np.int32) if labels is None else np.array(labels, np.int32),
        LABELS,
        np.full(count, -1, np.int64),
        round(seconds * 1e9),
    )


@pytest.fixture
def tracker():
    pytest.importorskip("norfair")
    return ObjectTracker(BoxConfig(min_sightings=1))


def ids(tracker, *args):
    return tracker.update(boxes(*args)).ids.tolist()


def test_still_objects_keep_their_ids_in_any_order(tracker):
    assert ids(tracker, [[0, 0, 0], [3, 0, 0]], 0.0) == [1, 2]
    assert ids(tracker, [[3.05, 0, 0], [0, 0.05, 0]], 0.1) == [2, 1]
    assert ids(tracker, [[3, 0, 0]], 0.2) == [2]
    assert ids(tracker, [[9, 0, 0], [0, 0, 0]], 0.3) == [3, 1]


@pytest.mark.parametrize("rate", [3, 5, 10, 30])
def test_walking_person_keeps_its_id_at_any_rate(tracker, rate):
    noise = np.random.default_rng(0).normal(0, 0.03, (10 * rate, 3))
    seen = {ids(tracker, [[1.2 * i / rate, 0, 1] + noise[i]], i / rate, [1])[0] for i in range(5 * rate)}
    assert seen == {1}


def test_two_people_who_pass_each_other_keep_their_ids(tracker):
    times = np.arange(0, 6, 0.1)
    for t in times:
        found = ids(tracker, [[t - 3, 0.2, 1], [3 - t, -0.2, 1]], t, [1, 1])
    assert found == [1, 2]


def test_objects_of_other_classes_are_other_objects(tracker):
    assert ids(tracker, [[0, 0, 0]], 0.0, [0]) == [1]
    assert ids(tracker, [[0, 0, 0]], 0.1, [1]) == [2]


def test_unseen_objects_are_remembered_for_the_given_time(tracker):
    for step in range(20):
        ids(tracker, [[0, 0, 0]], step / 10)
    assert ids(tracker, [[0.02, 0, 0]], 1.9 + 1.8) == [1]
    assert ids(tracker, [[0.02, 0, 0]], 3.7 + 2.5) == [2]


def test_frames_without_objects_pass_the_time_too(tracker):
    ids(tracker, [[0, 0, 0]], 0.0)
    ids(tracker, [[0, 0, 0]], 0.1)
    for step in range(30):
        assert ids(tracker, [], 0.2 + step / 10) == []
    assert ids(tracker, [[0, 0, 0]], 3.2) == [2]


def test_id_comes_with_the_second_sighting_by_default():
    pytest.importorskip("norfair")
    tracker = ObjectTracker()
    assert ids(tracker, [[0, 0, 0]], 0.0) == [-1]
    assert ids(tracker, [[0, 0, 0], [5, 0, 0]], 0.1) == [1, -1]
    assert ids(tracker, [[0, 0, 0], [8, 0, 0]], 0.2) == [1, -1]
    assert ids(tracker, [[0, 0, 0], [5, 0, 0]], 0.3) == [1, 2]


def test_clock_that_jumps_back_begins_anew(tracker):
    assert ids(tracker, [[0, 0, 0], [3, 0, 0]], 10.0) == [1, 2]
    assert ids(tracker, [[3, 0, 0]], 5.0) == [1]


def test_ids_are_not_used_again_and_memory_is_bounded(tracker):
    last = 0
    for step in range(50):
        (number,) = ids(tracker, [[step * 5.0, 0, 0]], step * 3.0)
        assert number > last
        last = number
    assert len(tracker._ids) <= 2
    assert len(tracker._sightings) <= 2


def test_an_hour_between_frames_is_quick(tracker):
    ids(tracker, np.random.default_rng(0).uniform(-50, 50, (100, 3)), 0.0)
    assert ids(tracker, [[0, 0, 0]], 3600.0) == [101]


def test_detections_are_not_changed(tracker):
    given = boxes([[0, 0, 0]], 0.0)
    numbered = tracker.update(given)
    assert given.ids.tolist() == [-1]
    np.testing.assert_array_equal(numbered.centers, given.centers)


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "norfair", None)
    with pytest.raises(MissingDependencyError, match=r"tracking needs norfair: pip install 'perception\[tracking\]'"):
        ObjectTracker()
