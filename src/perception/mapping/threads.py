# SPDX-License-Identifier: Apache-2.0
"""Two threads for compiled functions that release the GIL."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_entry_points: dict[Any, Callable[..., Any]] = {}


class _Task:
    """A call that either of two threads makes, whoever comes first."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._call = function, arguments
        self._claim = threading.Lock()
        self._done = threading.Lock()
        self._done.acquire()
        self._helping = False
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call unless the other thread has begun."""
        if not self._claim.acquire(blocking=False):
            return
        function, arguments = self._call
        try:
            self._result = function(*arguments)
        except BaseException as error:
            self._error = error
        self._done.release()

    def wait(self) -> None:
        """Until the call is over; once."""
        self._done.acquire()

    def help(self) -> None:
        """As run, in the thread that helps."""
        self._helping = True
        self.run()
        self._helping = False

    def abandon(self) -> None:
        """See that nobody makes the call any more: wait for its end where it has begun."""
        self._claim.acquire(blocking=False)
        while self._helping:
            # A second Ctrl-C must not leave the other thread writing either.
            with contextlib.suppress(BaseException):
                time.sleep(0.001)

    def result(self) -> Any:
        """What came of the call that is over."""
        if self._error is not None:
            raise self._error
        return self._result


class _Helper:
    """A thread that makes calls. A future of the standard library costs several times as much as this."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[_Task] = SimpleQueue()
        threading.Thread(target=self._work, name="perception-map", daemon=True).start()

    def submit(self, task: _Task) -> None:
        self._tasks.put(task)

    def _work(self) -> None:
        while True:
            self._tasks.get().help()


_helper: _Helper | None = None
_making = threading.Lock()


def _forget_helper() -> None:
    # A forked child has no helper thread, whatever the object says.
    global _helper, _making
    _helper, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helper)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The machine code of a kernel that was called before, else the kernel.

    The kernel would find out the type of every argument first, in Python for named tuples: half a millisecond a scan,
    while no other thread can run. Only for kernels that are always called with the same types.
    """
    overloads = getattr(function, "overloads", ())
    if len(overloads) != 1:
        return function
    if function not in _entry_points:
        # Reading the overloads hashes all their argument types: a tenth of a millisecond.
        _entry_points[function] = next(iter(overloads.values())).entry_point
    return _entry_points[function]


def run_one_by_one(function: Callable[..., Any], first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, Any]:
    """Call a function with two sets of arguments in this thread."""
    return function(*first), function(*second)


def run_both(function: Callable[..., Any], first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, Any]:
    """Call a function with two sets of arguments, at the same time where there are two cores."""
    global _helper
    if available_cores() < 2:
        return run_one_by_one(function, first, second)
    with _making:
        if _helper is None:
            _helper = _Helper()
    task = _Task(function, second)
    try:
        _helper.submit(task)
        mine = function(*first)
        # On a busy machine the helper may not have begun yet: then this thread is faster.
        task.run()
        task.wait()
    except BaseException:
        task.abandon()
        raise
    return mine, task.result()
