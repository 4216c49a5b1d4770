# SPDX-License-Identifier: Apache-2.0
"""What a node counts: frames, drops by reason, rates and latency. Thread-safe, without ROS."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from math import inf
from threading import Lock
from time import monotonic

import numpy as np

WINDOW_S = 5.0
"""Rates and recent drops are of this long."""
LATENCY_SAMPLES = 512

HARMLESS = frozenset({"superseded", "budget", "standing_still"})
"""Drops that are no fault: a newer frame took the place of one that had not been started, or it was not wanted."""
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
    "clock_jump": "the clock or the stamps went back while it waited",
    "encoding": "the encoding is not known",
    "malformed": "the message contradicts itself",
    "wrong_size": "the size is not that of camera_info",
    "wrong_frame": "depth and image have different frames, yet depth_registered is true",
    "not_registered": "depth has another calibration than image, yet depth_registered is true",
    "stale": "the frame waited longer than budget.max_age",
    "budget": "budget.max_rate or budget.max_load leaves no time for it",
    "standing_still": "the sensor has not moved since the last frame (budget.still_distance)",
    "map_jump": "the localization jumped, and map_jump.policy is pause",
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
        silent_s: seconds without a message, by topic that should bring some; counted from the subscription at first.
        names: full names of these topics.
        mismatched: what a publisher offers less than is asked for, by topic.
        faults: lasting troubles by name, as told with :meth:`Statistics.fault`.
        sources: where there are several cameras or topics: what became of the frames of each since the start,
            "processed" or a reason, with their numbers.
    """

    received: dict[str, int]
    rates: dict[str, float]
    processed: int
    processed_rate: float
    drops: dict[str, int]
    recent_drops: dict[str, int]
    details: dict[str, str]
    latency_ms: tuple[float, float] | None
    silent_s: dict[str, float]
    names: dict[str, str]
    mismatched: dict[str, str]
    faults: dict[str, str]
    sources: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass
class Statistics:
    """Counters of a node; any thread may add."""

    _received: Counter[str] = field(default_factory=Counter)
    _drops: Counter[str] = field(default_factory=Counter)
    _details: dict[str, str] = field(default_factory=dict)
    _events: deque[tuple[float, str, str]] = field(default_factory=deque)
    _latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCY_SAMPLES))
    _processed: int = 0
    _last_input: dict[str, float] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _once: set[str] = field(default_factory=set)
    _mismatched: dict[str, str] = field(default_factory=dict)
    _faults: dict[str, tuple[str, float]] = field(default_factory=dict)
    _sources: dict[str, Counter[str]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def expect(self, topic: str, name: str = "", once: bool = False) -> None:
        """From now on messages should come, or with ``once`` a single one; ``name`` is the topic's full name."""
        with self._lock:
            self._names[topic], self._last_input[topic] = name or topic, monotonic()
            if once:
                self._once.add(topic)

    def expect_nothing(self) -> None:
        """No messages should come any more."""
        with self._lock:
            self._names.clear()
            self._once.clear()
            self._last_input.clear()
            self._mismatched.clear()

    def mismatch(self, topic: str, text: str) -> None:
        """A publisher of a topic cannot serve the subscription."""
        with self._lock:
            self._mismatched[topic] = text

    def fault(self, name: str, text: str = "", shown_s: float = inf) -> None:
        """Something is wrong, for so many seconds or until told otherwise: with an empty text."""
        with self._lock:
            self._faults.pop(name, None)
            if text:
                self._faults[name] = text, monotonic() + shown_s

    def received(self, topic: str) -> None:
        """A message came."""
        with self._lock:
            self._received[topic] += 1
            if topic in self._once:
                self._last_input.pop(topic, None)
            elif topic in self._last_input:
                self._last_input[topic] = monotonic()
            self._event("received", topic)

    def dropped(self, reason: str, detail: str = "", source: str = "") -> None:
        """A frame was given up, for one of ``REASONS``; ``source`` is the camera or topic where there are several."""
        with self._lock:
            self._drops[reason] += 1
            if detail:
                self._details[reason] = f"{source}: {detail}" if source else detail
            if source:
                self._sources.setdefault(source, Counter())[reason] += 1
            self._event("dropped", reason)

    def processed(self, latency_ns: int, source: str = "") -> None:
        """A frame is done, this long after its stamp."""
        with self._lock:
            self._processed += 1
            if source:
                self._sources.setdefault(source, Counter())["processed"] += 1
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
                silent_s={topic: monotonic() - last for topic, last in self._last_input.items()},
                names=dict(self._names),
                mismatched=dict(self._mismatched),
                faults={name: text for name, (text, until) in self._faults.items() if monotonic() < until},
                sources={name: dict(counts) for name, counts in self._sources.items()},
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
