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
"""Frames of one source that may wait for transforms at the same time."""


class FrameWorker:
    """Takes the newest frame whose transforms are known; the one it is at, it finishes.

    Frames wait here for their transforms, each for its own time, so transforms that are always late delay frames but
    lose none. There is no polling: the thread sleeps until a frame, a transform, a task or a deadline comes.

    Frames with an attribute ``source`` supersede those of the same source only; sources take turns. Where ``together``
    is set, the newest frames of all sources that are ready are taken at once: it is given all of them with what they
    need, then each is processed.

    Args:
        resolve: gives what a frame needs, its transforms; raises TransformError as long as it has to wait. Must be
            quick.
        process: does the work with a frame and what it needs; may raise InputError.
        dropped: called with a reason (see ``statistics.REASONS``), a message and the source of each frame given up.
        timeout_s: how long a frame may wait; may be changed.
        is_ending: whether the program ends, so that what fails now is no news.
    """

    def __init__(
        self,
        resolve: Callable[[Any], Any],
        process: Callable[[Any, Any], None],
        dropped: Callable[[str, str, str], None],
        timeout_s: float = 0.0,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self.timeout_s = timeout_s
        self._resolve, self._process, self._dropped = resolve, process, dropped
        self._is_ending = is_ending
        self.together: Callable[[list[tuple[Any, Any]]], None] | None = None
        self._pending: deque[tuple[float, Any]] = deque()
        self._taken: deque[tuple[Any, Any]] = deque()
        self._seen_together = False
        self._turns: dict[str, int] = {}
        self._tasks: deque[Task] = deque()
        self._condition = Condition()
        self._running = True
        self._began: float | None = None
        self._thread = Thread(target=self._run, name="frame worker", daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """How long the thread has been at its present job, seconds; 0 while it waits."""
        began = self._began
        return 0.0 if began is None else monotonic() - began

    def submit(self, frame: Any) -> None:
        """Hand over a frame; never blocks for long."""
        with self._condition:
            source = source_of(frame)
            mine = [item for item in self._pending if source_of(item[1]) == source]
            if len(mine) == MAX_PENDING:
                self._pending.remove(mine[0])
                self._dropped("superseded", "", source)
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
        """Forget waiting frames because time went back; returns how many there were."""
        with self._condition:
            forgotten = [frame for _, frame in self._pending] + [frame for frame, _ in self._taken]
            self._pending.clear()
            self._taken.clear()
        for frame in forgotten:
            self._dropped("clock_jump", "", source_of(frame))
        return len(forgotten)

    def stop(self, timeout_s: float = 1.0) -> bool:
        """End the thread after the frame it is at; False when that takes longer than the timeout."""
        with self._condition:
            self._running = False
            self._pending.clear()
            self._taken.clear()
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
            self._began = monotonic()
            self._run_job(*job)
            self._began = None

    def _next(self) -> tuple[Task, str] | None:
        if self._tasks:
            return self._tasks.popleft(), ""
        if not self._taken and not self._take():
            return None
        together = self.together
        if together is not None and len(self._taken) > 1 and not self._seen_together:
            self._seen_together, frames = True, list(self._taken)
            return lambda: together(frames), ""
        frame, needs = self._taken.popleft()
        return lambda: self._process(frame, needs), source_of(frame)

    def _take(self) -> bool:
        """Move the next frame, or all that may be seen together, out of the waiting ones; False where none is ready."""
        ready = self._newest_ready()
        # The source that has waited longest for its turn is first.
        sources = sorted(ready, key=lambda name: self._turns.get(name, 0))[: None if self.together else 1]
        for source in sources:
            self._turns[source] = max(self._turns.values(), default=0) + 1
            item, needs = ready[source]
            self._pending = deque(other for other in self._pending if other is not item)
            self._taken.append((item[1], needs))
        self._seen_together = False
        return bool(sources)

    def _newest_ready(self) -> dict[str, tuple[tuple[float, Any], Any]]:
        """For each source its newest frame whose needs are known; drops older ones and those that waited too long."""
        now, kept = monotonic(), deque()
        ready: dict[str, tuple[tuple[float, Any], Any]] = {}
        while self._pending:
            item = deadline, frame = self._pending.pop()
            source = source_of(frame)
            if source in ready:
                self._dropped("superseded", "", source)
                continue
            try:
                ready[source] = item, self._resolve(frame)
            except TransformError as error:
                if error.reason == "extrapolation_past" or now >= deadline:
                    self._dropped(error.reason, str(error), source)
                    continue
            except Exception as error:
                # One bad frame must not end the thread.
                self._report_bug(error, source)
                continue
            kept.appendleft(item)
        self._pending = kept
        return ready

    def _time_left(self) -> float | None:
        return max(self._pending[0][0] - monotonic(), 0.001) if self._pending else None

    def _run_job(self, job: Task, source: str) -> None:
        try:
            job()
        except InputError as error:
            if self._running:
                self._dropped(getattr(error, "reason", "invalid"), str(error), source)
        except Exception as error:
            # What a frame needs may be gone already when the node stopped meanwhile.
            if not self._running or self._is_ending():
                return
            self._report_bug(error, source)

    def _report_bug(self, error: Exception, source: str) -> None:
        """One bad frame must not end the node; the traceback makes the bug findable."""
        logging.getLogger(__name__).error("error in the frame worker", exc_info=error)
        self._dropped("internal", f"{type(error).__name__}: {error}", source)


def source_of(frame: Any) -> str:
    """Name of the camera or topic that a frame comes from; empty where there is only one."""
    return getattr(frame, "source", "")
