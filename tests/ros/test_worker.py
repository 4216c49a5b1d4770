# SPDX-License-Identifier: Apache-2.0
"""The worker takes the newest frame whose transforms are known, and says what became of the others."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import pytest

from perception.errors import InputError, TransformError
from perception.ros.worker import MAX_PENDING, FrameWorker


class Desk:
    """A worker whose frames are numbers, with transforms known up to ``known``."""

    def __init__(self, timeout_s=5.0):
        self.known = -1
        self.oldest = 0
        self.done: list[int] = []
        self.drops: list[str] = []
        self.changed = threading.Condition()
        self.gate = threading.Event()
        self.gate.set()
        self.worker = FrameWorker(self.resolve, self.process, self.drop, timeout_s)

    def resolve(self, frame):
        if frame < self.oldest:
            raise TransformError("too old", "extrapolation_past")
        if frame > self.known:
            raise TransformError(f"nothing for {frame}", "extrapolation_future")
        return -frame

    def process(self, frame, needs):
        assert needs == -frame
        self.gate.wait(10)
        if frame == 13:
            raise InputError("unlucky")
        if frame == 99:
            raise ZeroDivisionError("a bug")
        with self.changed:
            self.done.append(frame)
            self.changed.notify_all()

    def drop(self, reason, detail, source):
        with self.changed:
            self.drops.append(reason)
            self.changed.notify_all()

    def wait(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, 10)


@pytest.fixture
def desk():
    desk = Desk()
    yield desk
    desk.gate.set()
    assert desk.worker.stop(5.0)


def test_newest_frame_wins_while_one_is_being_done(desk):
    desk.known = 100
    desk.gate.clear()
    desk.worker.submit(0)
    for frame in (1, 2, 3):
        desk.worker.submit(frame)
    desk.gate.set()
    desk.wait(lambda: 3 in desk.done)
    assert desk.done in ([3], [0, 3])
    assert set(desk.drops) == {"superseded"}
    assert len(desk.drops) + len(desk.done) == 4


def test_frame_waits_for_its_transform_and_is_done_when_it_comes(desk):
    desk.worker.submit(5)
    desk.worker.submit(6)
    desk.known = 5
    desk.worker.wake()
    desk.wait(lambda: desk.done == [5])
    desk.known = 6
    desk.worker.wake()
    desk.wait(lambda: desk.done == [5, 6])
    assert desk.drops == []


def test_transforms_that_are_always_late_lose_no_frame(desk):
    # 20 Hz frames, transforms two frames behind: the case in which a single slot would lose every other frame.
    for frame in range(10):
        desk.worker.submit(frame)
        desk.known = frame - 2
        desk.worker.wake()
        desk.wait(lambda frame=frame: len(desk.done) >= frame - 1)
    assert desk.done == list(range(8))
    assert desk.drops == []


def test_frame_without_transform_is_dropped_with_its_reason_after_the_timeout():
    desk = Desk(timeout_s=0.05)
    desk.worker.submit(5)
    desk.wait(lambda: desk.drops == ["extrapolation_future"])
    desk.worker.stop(5.0)


def test_frame_older_than_all_transforms_is_dropped_at_once(desk):
    desk.oldest = 10
    desk.worker.submit(5)
    desk.wait(lambda: desk.drops == ["extrapolation_past"])


def test_frames_that_wait_are_bounded(desk):
    for frame in range(MAX_PENDING + 3):
        desk.worker.submit(frame)
    desk.wait(lambda: len(desk.drops) == 3)
    assert desk.worker.clear() == MAX_PENDING


def test_bad_frame_and_bug_are_counted_and_the_next_frame_is_done(desk):
    desk.known = 1000
    desk.worker.submit(13)
    desk.wait(lambda: desk.drops == ["invalid"])
    desk.worker.submit(99)
    desk.wait(lambda: desk.drops == ["invalid", "internal"])
    desk.worker.submit(100)
    desk.wait(lambda: desk.done == [100])


def test_posted_task_runs_once_however_often_it_is_posted(desk):
    desk.known = 100
    desk.gate.clear()
    desk.worker.submit(1)
    ran = []

    def task():
        ran.append(1)

    for _ in range(5):
        desk.worker.post(task)
    desk.gate.set()
    desk.wait(lambda: desk.done == [1])
    desk.worker.submit(2)
    desk.wait(lambda: desk.done == [1, 2])
    assert 1 <= len(ran) <= 2


def test_stop_ends_at_once_while_frames_wait(desk):
    desk.worker.submit(5)
    began = time.monotonic()
    assert desk.worker.stop(5.0)
    assert time.monotonic() - began < 1.0
    assert desk.done == []


def test_sources_take_turns_and_supersede_only_their_own_frames():
    class Frame:
        def __init__(self, source, number):
            self.source, self.number = source, number

    done, drops, changed, gate = [], [], threading.Condition(), threading.Event()

    def process(frame, needs):
        gate.wait(10)
        with changed:
            done.append((frame.source, frame.number))
            changed.notify_all()

    worker = FrameWorker(lambda frame: None, process, lambda *drop: drops.append(drop))
    worker.submit(Frame("front", 0))
    time.sleep(0.05)
    for number in (1, 2, 3):
        worker.submit(Frame("front", number))
    worker.submit(Frame("rear", 0))
    gate.set()
    with changed:
        assert changed.wait_for(lambda: len(done) == 3, 10)
    assert worker.stop(5.0)
    assert done == [("front", 0), ("rear", 0), ("front", 3)]
    assert drops == [("superseded", "", "front")] * 2


class Shot(NamedTuple):
    """A frame of one of several cameras."""

    source: str
    number: int


def test_newest_frames_of_all_sources_are_seen_together_before_each_is_processed():
    log, drops, gate = [], [], threading.Event()
    worker = FrameWorker(lambda frame: frame.number, lambda frame, needs: log.append(frame), lambda *d: drops.append(d))
    worker.together = log.append
    worker.post(lambda: gate.wait(10))
    for shot in (Shot("front", 1), Shot("rear", 2), Shot("front", 3)):
        worker.submit(shot)
    gate.set()
    wait_until(lambda: len(log) == 3)
    worker.submit(Shot("rear", 4))
    wait_until(lambda: len(log) == 4)
    worker.stop()
    both = [(Shot("front", 3), 3), (Shot("rear", 2), 2)]
    assert sorted(log[0]) == both
    assert sorted(log[1:3]) == [shot for shot, _ in both]
    assert log[3] == Shot("rear", 4), "alone, so there is nothing to see together"
    assert drops == [("superseded", "", "front")]


def test_what_fails_together_is_processed_one_by_one_and_a_clock_jump_forgets_what_was_taken():
    done, drops, gate, inside = [], [], threading.Event(), threading.Event()

    def process(frame, needs):
        inside.set()
        gate.wait(10)
        done.append(frame.source)

    def together(frames):
        raise ZeroDivisionError("a bug")

    worker = FrameWorker(lambda frame: None, process, lambda *drop: drops.append(drop))
    worker.together = together
    hold = threading.Event()
    worker.post(lambda: hold.wait(10))
    for source in ("front", "rear"):
        worker.submit(Shot(source, 0))
    hold.set()
    assert inside.wait(10)
    assert worker.clear() == 1
    gate.set()
    wait_until(lambda: done)
    worker.stop()
    assert len(done) == 1
    assert [drop[0] for drop in drops] == ["internal", "clock_jump"]


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
