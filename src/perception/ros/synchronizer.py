# SPDX-License-Identifier: Apache-2.0
"""Joins messages of several topics by stamp. Without ROS: message_filters is not on PyPI, and newest must win."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import Any

Match = dict[str, Any]


class Synchronizer:
    """Waits until every stream has a message of about the same time; not thread-safe.

    A set is complete when every stream has the leader's very stamp, or has gone past it, so that the nearest message
    is known. Older messages of the leader never find partners any more and count as dropped.

    Args:
        streams: names; the first leads: the others' stamps are compared with its stamp.
        tolerance_ns: largest difference to the leader's stamp, nanoseconds.
        queue_size: messages kept per stream.
        dropped: called with the reason for each leader that is given up: "sync" when it found no partners, "too_old"
            when it came after a newer one was given out, "clock_jump" when it was forgotten.
    """

    def __init__(
        self, streams: Sequence[str], tolerance_ns: int, queue_size: int, dropped: Callable[[str], None]
    ) -> None:
        self.tolerance_ns = tolerance_ns
        self._leader = streams[0]
        self._queue_size = queue_size
        self._dropped = dropped
        self._stamps: dict[str, list[int]] = {stream: [] for stream in streams}
        self._messages: dict[str, dict[int, Any]] = {stream: {} for stream in streams}
        self._last = -1

    def add(self, stream: str, stamp_ns: int, message: Any) -> Match | None:
        """Take a message; returns the set that it completes, the newest one, or None."""
        if stream == self._leader and stamp_ns <= self._last:
            self._dropped("too_old")
            return None
        if stamp_ns not in self._messages[stream]:
            insort(self._stamps[stream], stamp_ns)
        elif stream == self._leader:
            # The later one of two messages of one stamp takes the place of the first.
            self._dropped("too_old")
        self._messages[stream][stamp_ns] = message
        match = self._newest_match()
        if match is None:
            self._shorten(stream)
            return None
        messages = {name: self._messages[name][stamp] for name, stamp in match.items()}
        self._forget_up_to(match)
        return messages

    def clear(self) -> None:
        """Forget all messages and stamps (the clock jumped back)."""
        for _ in self._stamps[self._leader]:
            self._dropped("clock_jump")
        for stream in self._stamps:
            self._stamps[stream].clear()
            self._messages[stream].clear()
        self._last = -1

    def _newest_match(self) -> dict[str, int] | None:
        for leader in reversed(self._stamps[self._leader]):
            match = {stream: self._nearest(stream, leader) for stream in self._stamps}
            stamps = {stream: stamp for stream, stamp in match.items() if stamp is not None}
            if len(stamps) == len(match):
                return stamps
        return None

    def _nearest(self, stream: str, leader: int) -> int | None:
        """The stamp nearest to the leader's, once no nearer one can come."""
        stamps = self._stamps[stream]
        if not stamps or stamps[-1] < leader:
            return None
        index = bisect_left(stamps, leader)
        nearest = min(stamps[max(index - 1, 0) : index + 1], key=lambda stamp: abs(stamp - leader))
        return nearest if abs(nearest - leader) <= self.tolerance_ns else None

    def _forget_up_to(self, match: dict[str, int]) -> None:
        for stream, stamp_ns in match.items():
            stamps = self._stamps[stream]
            end = bisect_left(stamps, stamp_ns)
            if stream == self._leader:
                for _ in stamps[:end]:
                    self._dropped("sync")
            self._remove(stream, end + 1)
        self._last = match[self._leader]

    def _shorten(self, stream: str) -> None:
        excess = len(self._stamps[stream]) - self._queue_size
        if excess <= 0:
            return
        if stream == self._leader:
            for _ in range(excess):
                self._dropped("sync")
        self._remove(stream, excess)

    def _remove(self, stream: str, count: int) -> None:
        for stamp in self._stamps[stream][:count]:
            del self._messages[stream][stamp]
        del self._stamps[stream][:count]
