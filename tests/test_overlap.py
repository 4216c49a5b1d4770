# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np

from perception.config import PerceptionConfig
from perception.errors import InputError
from perception.labels import LabelClass, LabelSet
from perception.overlap import process_overlapped
from perception.pipeline import PerceptionPipeline
from perception.simulation.boxes import synthetic_room_frames
from perception.types import LabelImage


def frames(count):
    return list(synthetic_room_frames(count, 80, 60))


def test_map_is_the_same_as_one_by_one_and_results_come_in_order():
    given = frames(8)
    label_set = given[0].labels.label_set
    one = PerceptionPipeline(PerceptionConfig(), None, label_set)
    for frame in given:
        one.process(frame)
    other = PerceptionPipeline(PerceptionConfig(), None, label_set)
    results = list(process_overlapped(other, given))
    assert [frame.stamp_ns for frame, _ in results] == [frame.stamp_ns for frame in given]
    assert all(result.frame.stamp_ns == frame.stamp_ns for frame, result in results)
    assert other.tree.octomap_data(False, label_set) == one.tree.octomap_data(False, label_set)
    assert np.array_equal(other.costmap().data, one.costmap().data)


def test_frame_that_is_refused_costs_only_itself():
    given = frames(5)
    foreign = LabelSet("foreign", (LabelClass(200, "alien", (1, 2, 3)),))
    bad = LabelImage.certain(np.full((60, 80), 200, np.int32), foreign)
    given[2] = replace(given[2], labels=bad)
    pipeline = PerceptionPipeline(PerceptionConfig(), None, given[0].labels.label_set)
    outcomes = [outcome for _, outcome in process_overlapped(pipeline, given)]
    assert [isinstance(outcome, InputError) for outcome in outcomes] == [False, False, True, False, False]


def test_only_a_few_frames_are_read_ahead():
    read = []

    def source():
        for frame in frames(10):
            read.append(frame.stamp_ns)
            yield frame

    pipeline = PerceptionPipeline(PerceptionConfig(), None, None)
    results = process_overlapped(pipeline, source(), ahead=2)
    next(results)
    assert len(read) == 3
    results.close()
