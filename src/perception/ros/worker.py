# SPDX-License-Identifier: Apache-2.0
"""The thread that does a node's heavy work, so that its executor stays free for messages and transforms."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread, current_thread
from time import monotonic
from typing import Any

from perception.errors import InputError, TransformError

Task = Callable[[], None]
MAX_PENDING = 16
"""Frames that may wait for transforms at the same time."""


class FrameWorker:
    """Takes the newest frame whose transforms are known; the one it is at, it finishes.

    Frames wait here for their transforms, each for its own time, so transforms that are always late delay frames but
    lose none. There is no polling: the thread sleeps until a frame, a transform, a task or a deadline comes.

    Args:
        resolve: gives what a frame needs, its transforms; raises TransformError as long as it has to wait. Must be
            quick.
        process: does the work with a frame and what it needs; may raise InputError.
        dropped: called with a reason (see ``statistics.REASONS``) and a message for each frame given up.
        timeout_s: how long a frame may wait; may be changed.
        is_ending: whether the program ends, so that what fails now is no news.
    """

    def __init__(
        self,
        resolve: Callable[[Any], Any],
        process: Callable[[Any, Any], None],
        dropped: Callable[[str, str], None],
        timeout_s: float = 0.0,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self.timeout_s = timeout_s
        self._resolve, self._process, self._dropped = resolve, process, dropped
        self._is_ending = is_ending
        self._pending: deque[tuple[float, Any]] = deque()
        self._tasks: deque[Task] = deque()
        self._condition = Condition()
        self._running = True
        self._thread = Thread(target=self._run, name="frame worker", daemon=True)
        self._thread.start()

    def submit(self, frame: Any) -> None:
        """Hand over a frame; never blocks for long."""
        with self._condition:
            if len(self._pending) == MAX_PENDING:
                self._pending.popleft()
                self._dropped("superseded", "")
            self._pending.append((monotonic() + self.timeout_s, frame))
            self._condition.notify()

    def post(self, task: Task) -> None:
        """Let the thread do something before its next frame."""
        with self._condition:
            if task not in self._tasks:
                self._tasks.append(task)
                self._condition.notify()

    def wake(self) -> None:
        """Say that transforms have changed."""
        with self._condition:
            if self._pending:
                self._condition.notify()

    def clear(self) -> int:
        """Forget waiting frames; returns how many there were."""
        with self._condition:
            count = len(self._pending)
            self._pending.clear()
            return count

    def stop(self, timeout_s: float = 1.0) -> bool:
        """End the thread after the frame it is at; False when that takes longer than the timeout."""
        with self._condition:
            self._running = False
            self._pending.clear()
            self._tasks.clear()
            self._condition.notify()
        if self._thread is not current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                while (job := self._next()) is None and self._running:
                    self._condition.wait(self._time_left())
                if job is None or not self._running:
                    return
            self._do(job)

    def _next(self) -> Task | None:
        if self._tasks:
            return self._tasks.popleft()
        now, waiting = monotonic(), deque()
        while self._pending:
            deadline, frame = self._pending.pop()
            try:
                needs = self._resolve(frame)
            except TransformError as error:
                if error.reason == "extrapolation_past" or now >= deadline:
                    self._dropped(error.reason, str(error))
                else:
                    waiting.appendleft((deadline, frame))
                continue
            for _ in range(len(self._pending)):
                self._dropped("superseded", "")
            self._pending = waiting
            return lambda: self._process(frame, needs)
        self._pending = waiting
        return None

    def _time_left(self) -> float | None:
        return max(self._pending[0][0] - monotonic(), 0.001) if self._pending else None

    def _do(self, job: Task) -> None:
        try:
            job()
        except InputError as error:
            self._dropped(getattr(error, "reason", "invalid"), str(error))
        except Exception as error:
            if self._is_ending():
                return
            # One bad frame must not end the node; the traceback makes the bug findable.
            logging.getLogger(__name__).exception("error in the frame worker")
            self._dropped("internal", f"{type(error).__name__}: {error}")
