# SPDX-License-Identifier: Apache-2.0
"""Two calls at the same time."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

from perception.mapping import threads
from perception.mapping.keys import brick_voxel
from perception.mapping.threads import compiled, run_both
from perception.numba_cache import kernel


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request, monkeypatch):
    monkeypatch.setattr(threads, "available_cores", lambda: request.param)
    return request.param


def test_both_calls_are_made_and_their_results_come_in_order(cores):
    assert [run_both(divmod, (7, 2), (9, 4)) for _ in range(100)] == [((3, 1), (2, 1))] * 100


def test_calls_go_on_at_the_same_time_where_there_are_two_cores(monkeypatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    meeting = threading.Barrier(2, timeout=20)
    assert sorted(run_both(lambda _: meeting.wait(), (0,), (1,))) == [0, 1]


@pytest.mark.parametrize("broken", [0, 1])
def test_an_error_of_either_call_is_raised_and_the_next_calls_go_on(cores, broken):
    def call(number):
        if number == broken:
            raise ValueError(f"call {number}")

    with pytest.raises(ValueError, match=f"call {broken}"):
        run_both(call, (0,), (1,))
    assert run_both(int, ("1",), ("2",)) == (1, 2)


def test_a_call_that_has_begun_is_over_before_the_error_of_the_other_is_raised(monkeypatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    begun, over = threading.Event(), []

    def call(number):
        if number == 0:
            begun.wait(20)
            raise KeyboardInterrupt
        begun.set()
        time.sleep(0.2)
        over.append(number)

    with pytest.raises(KeyboardInterrupt):
        run_both(call, (0,), (1,))
    assert over == [1]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_ctrl_c_while_waiting_for_the_other_call_does_not_leave_it_running(monkeypatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    begun, over = threading.Event(), []

    def call(number):
        if number == 0:
            begun.wait(20)
        else:
            begun.set()
            time.sleep(0.6)
            over.append(number)

    def interrupt(*_):
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_both(call, (0,), (1,))
        assert over == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def test_the_caller_makes_both_calls_while_the_helper_is_busy(monkeypatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    begun, go_on = threading.Event(), threading.Event()

    def wait(first):
        if first:
            begun.wait(20)
        else:
            begun.set()
            go_on.wait(20)

    other = threading.Thread(target=run_both, args=(wait, (True,), (False,)))
    other.start()
    assert begun.wait(20)
    names = run_both(lambda _: threading.current_thread().name, (0,), (1,))
    go_on.set()
    other.join(20)
    assert names == (threading.current_thread().name,) * 2


def test_a_kernel_with_one_kind_of_arguments_is_called_without_a_look_at_them():
    @kernel
    def last(numbers):
        return numbers[len(numbers) - 1]

    assert compiled(last) is last
    assert last(np.arange(3)) == 2
    assert compiled(last) is compiled(last) is not last
    assert compiled(last)(np.arange(5)) == 4
    assert last(np.arange(3.0)) == 2.0
    assert compiled(last) is last


def test_a_kernel_for_kernels_alone_says_so_to_python():
    with pytest.raises(TypeError, match="brick_voxel: expected a call from a kernel, got one from Python"):
        brick_voxel(0, 0, 0)
