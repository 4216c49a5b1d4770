# SPDX-License-Identifier: Apache-2.0
"""Bring the messages of one image together as they stream by, holding only a few seconds of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perception.sources.association import associate


@dataclass(slots=True)
class Bundle:
    """A color image and what belongs to it.

    Attributes:
        stamp_ns: of the color image.
        log_ns: when the color image was recorded.
        color: its message.
        depth: message of the depth image, or None where none is near enough.
        labels: message of the label image of exactly the same stamp, or None.
    """

    stamp_ns: int
    log_ns: int
    color: Any
    depth: Any = None
    labels: Any = None


@dataclass
class Synchronizer:
    """Pairs color and depth images by stamp, one to one, the closest first.

    A color image is decided once newer images of both kinds have come, or ``lookahead_ns`` of recording after it.

    Attributes:
        tolerance_ns: largest difference between the stamps of a pair.
        lookahead_ns: how long, in the recording's time, an image is kept waiting.
        with_labels: whether label images come too.
    """

    tolerance_ns: int
    lookahead_ns: int
    with_labels: bool = False
    _color: deque[Bundle] = field(default_factory=deque)
    _depth: deque[tuple[int, Any]] = field(default_factory=deque)
    _labels: deque[tuple[int, Any]] = field(default_factory=deque)
    _last: dict[str, int] = field(default_factory=dict)

    def last_ns(self, kind: str) -> int | None:
        """Stamp of the newest image of a kind: "color", "depth" or "labels"."""
        return self._last.get(kind)

    def add(self, kind: str, stamp_ns: int, log_ns: int, message: Any) -> bool:
        """Take up an image; False when its stamp is not newer than the last one of its kind."""
        last = self._last.get(kind)
        if last is not None and stamp_ns <= last:
            return False
        self._last[kind] = stamp_ns
        if kind == "color":
            self._color.append(Bundle(stamp_ns, log_ns, message))
        else:
            (self._depth if kind == "depth" else self._labels).append((stamp_ns, message))
        return True

    def take(self, log_ns: int | None) -> list[Bundle]:
        """Color images that are decided at this time of the recording (None: at its end), oldest first."""
        ready = []
        while self._color and (log_ns is None or self._is_decided(self._color[0], log_ns)):
            ready.append(self._decide())
        if not self._color and "depth" in self._last:
            # A color image may still be on its way, but not for longer than images are kept waiting.
            newest = self._last["depth"]
            self._forget(max(min(self._last.get("color", 0), newest), newest - self.lookahead_ns))
        return ready

    def clear(self) -> int:
        """Forget everything (a clock that went back); returns how many color images were waiting."""
        count = len(self._color)
        for queue in (self._color, self._depth, self._labels):
            queue.clear()
        self._last.clear()
        return count

    def _is_decided(self, first: Bundle, log_ns: int) -> bool:
        if log_ns - first.log_ns > self.lookahead_ns:
            return True
        # A later color image may be nearer to the same depth image, and a later depth image to this one.
        newer = first.stamp_ns + self.tolerance_ns
        return (
            self._last["color"] > first.stamp_ns
            and self._last.get("depth", 0) > newer
            and not (self.with_labels and self._last.get("labels", 0) < first.stamp_ns)
        )

    def _decide(self) -> Bundle:
        partner = self._partner()
        bundle = self._color.popleft()
        if partner is not None:
            bundle.depth = self._depth[partner][1]
            del self._depth[partner]
        bundle.labels = next((message for stamp, message in self._labels if stamp == bundle.stamp_ns), None)
        self._forget(bundle.stamp_ns)
        return bundle

    def _partner(self) -> int | None:
        """Which depth image belongs to the oldest color image."""
        stamp_ns = self._color[0].stamp_ns
        for index, (depth_ns, _) in enumerate(self._depth):
            # Stamps of a kind differ: no other color image can be as near.
            if depth_ns == stamp_ns:
                return index
            if depth_ns > stamp_ns:
                break
        color_ns = np.array([bundle.stamp_ns for bundle in self._color], np.int64)
        all_depth_ns = np.array([stamp for stamp, _ in self._depth], np.int64)
        return dict(associate(color_ns, all_depth_ns, self.tolerance_ns)).get(0)

    def _forget(self, stamp_ns: int) -> None:
        """Drop what is too old to belong to any color image after this stamp."""
        while self._depth and self._depth[0][0] < stamp_ns - self.tolerance_ns:
            self._depth.popleft()
        while self._labels and self._labels[0][0] < stamp_ns:
            self._labels.popleft()
