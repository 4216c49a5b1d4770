# SPDX-License-Identifier: Apache-2.0
"""What a node counts: frames, drops by reason, rates and latency. Thread-safe, without ROS."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic

import numpy as np

WINDOW_S = 5.0
"""Rates and recent drops are of this long."""
LATENCY_SAMPLES = 512

HARMLESS = frozenset({"superseded"})
"""Drops that are no fault: a newer frame took the place of one that had not been started."""
REASONS = {
    "superseded": "a newer frame was there first",
    "no_tf": "no transform connects the frames",
    "extrapolation_future": "the transform at the stamp did not come in time",
    "extrapolation_past": "the stamp is older than all transforms kept",
    "sync": "no message of the other topics within sync_tolerance",
    "no_camera_info": "no camera_info came",
    "camera_info": "camera_info makes no sense",
    "no_label_info": "labels came, but not what they mean (label_info)",
    "too_old": "the stamp is not newer than the last one",
    "encoding": "the encoding is not known",
    "malformed": "the message contradicts itself",
    "wrong_size": "the size is not that of camera_info",
    "wrong_frame": "depth and image have different frames, yet depth_registered is true",
    "invalid": "the content is not usable",
    "internal": "an error in this program, see the log",
}
"""What the reasons of drops mean."""


@dataclass(frozen=True)
class Snapshot:
    """Counts at one moment.

    Attributes:
        received: messages by topic since the start.
        rates: messages per second by topic, lately.
        processed: frames done since the start.
        processed_rate: frames done per second, lately.
        drops: drops by reason since the start.
        recent_drops: drops by reason, lately.
        details: the last message of each reason.
        latency_ms: (p50, p95) from stamp to publication, None before the first frame.
        idle_s: seconds since the last message, None before the first.
    """

    received: dict[str, int]
    rates: dict[str, float]
    processed: int
    processed_rate: float
    drops: dict[str, int]
    recent_drops: dict[str, int]
    details: dict[str, str]
    latency_ms: tuple[float, float] | None
    idle_s: float | None


@dataclass
class Statistics:
    """Counters of a node; any thread may add."""

    _received: Counter[str] = field(default_factory=Counter)
    _drops: Counter[str] = field(default_factory=Counter)
    _details: dict[str, str] = field(default_factory=dict)
    _events: deque[tuple[float, str, str]] = field(default_factory=deque)
    _latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCY_SAMPLES))
    _processed: int = 0
    _last_input: float | None = None
    _lock: Lock = field(default_factory=Lock)

    def received(self, topic: str) -> None:
        """A message came."""
        with self._lock:
            self._received[topic] += 1
            self._last_input = monotonic()
            self._event("received", topic)

    def dropped(self, reason: str, detail: str = "", count: int = 1) -> None:
        """Frames were given up, for one of ``REASONS``."""
        with self._lock:
            self._drops[reason] += count
            if detail:
                self._details[reason] = detail
            for _ in range(count):
                self._event("dropped", reason)

    def processed(self, latency_ns: int) -> None:
        """A frame is done, this long after its stamp."""
        with self._lock:
            self._processed += 1
            self._latency_ms.append(latency_ns / 1e6)
            self._event("processed", "")

    def snapshot(self) -> Snapshot:
        """All counts now."""
        with self._lock:
            self._expire()
            kinds = Counter((kind, name) for _, kind, name in self._events)
            latencies = np.array(self._latency_ms)
            return Snapshot(
                received=dict(self._received),
                rates={topic: kinds["received", topic] / WINDOW_S for topic in self._received},
                processed=self._processed,
                processed_rate=kinds["processed", ""] / WINDOW_S,
                drops=dict(self._drops),
                recent_drops={name: count for (kind, name), count in kinds.items() if kind == "dropped"},
                details=dict(self._details),
                latency_ms=_percentiles(latencies) if latencies.size else None,
                idle_s=None if self._last_input is None else monotonic() - self._last_input,
            )

    def _event(self, kind: str, name: str) -> None:
        self._events.append((monotonic(), kind, name))
        self._expire()

    def _expire(self) -> None:
        oldest = monotonic() - WINDOW_S
        while self._events and self._events[0][0] < oldest:
            self._events.popleft()


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    p50, p95 = np.percentile(values, (50, 95))
    return float(p50), float(p95)
