# SPDX-License-Identifier: Apache-2.0
"""Follows objects in space over time, so that a thing keeps its number from frame to frame (norfair does the work)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.config import BoxConfig
from perception.errors import MissingDependencyError
from perception.types import Detections3D

TICK_NS = 33_000_000
"""norfair counts frames; ours come at any rate up to about this, so it is told of ticks of this length."""
MEASUREMENT_VARIANCE = 0.01
"""Of the center of a box, m²: what is visible of a thing changes with the view."""
VELOCITY_VARIANCE = 0.001
"""Of a new object, (m per tick)²: 1 m/s."""
PROCESS_VARIANCE = 1e-4


class ObjectTracker:
    """Gives boxes the ids of the objects that they show.

    Objects of one class are matched by the distance of the box's center from where a constant velocity would have taken
    the object. Not safe to call from several threads at once.

    Args:
        config: distances and times.

    Raises:
        MissingDependencyError: norfair is not installed.
    """

    def __init__(self, config: BoxConfig | None = None) -> None:
        self.config = config or BoxConfig()
        self._memory = max(1, round(self.config.track_memory * 1e9 / TICK_NS))
        self.reset()

    def reset(self) -> None:
        """Forget all objects and begin with id 1."""
        norfair = _norfair()
        self._tracker = norfair.Tracker(
            "euclidean",
            self.config.track_distance,
            hit_counter_max=self._memory,
            initialization_delay=0,
            filter_factory=norfair.filter.OptimizedKalmanFilterFactory(
                R=MEASUREMENT_VARIANCE,
                Q=PROCESS_VARIANCE,
                pos_variance=MEASUREMENT_VARIANCE,
                vel_variance=VELOCITY_VARIANCE,
            ),
            past_detections_length=0,
        )
        self._stamp_ns: int | None = None
        self._sightings: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._last_id = 0

    def update(self, detections: Detections3D) -> Detections3D:
        """Number the objects of the next frame.

        Args:
            detections: of one moment, in a fixed frame. A stamp before the last one's begins anew.

        Returns:
            The same with ids: 1, 2, …; −1 for objects that were not seen ``config.min_sightings`` times yet.
        """
        if self._stamp_ns is not None and detections.stamp_ns < self._stamp_ns:
            self.reset()
        self._advance(detections.stamp_ns)
        norfair = _norfair()
        centers, labels = detections.centers.astype(np.float64), detections.labels.tolist()
        found = [
            norfair.Detection(centers[index : index + 1], data=index, label=label) for index, label in enumerate(labels)
        ]
        # The period is what a sighting adds to the ticks that an object is remembered: all of them.
        self._tracker.update(found, period=self._memory)
        return replace(detections, ids=self._collect(found))

    def _advance(self, stamp_ns: int) -> None:
        """Let the time since the last frame pass, up to the last tick, which ``update`` makes."""
        elapsed = 0 if self._stamp_ns is None else stamp_ns - self._stamp_ns
        # Ticks beyond the memory change nothing more: everything is forgotten by then.
        for _ in range(min(round(elapsed / TICK_NS), self._memory + 2) - 1):
            self._tracker.update()
        self._stamp_ns = stamp_ns

    def _collect(self, found: list[Any]) -> NDArray[np.int64]:
        """Our ids of the detections that were just handed over."""
        ids = np.full(len(found), -1, np.int64)
        known, sightings = {}, {}
        for item in self._tracker.tracked_objects:
            count = self._sightings.get(item.id, 0)
            # norfair keeps a shallow copy of the last detection: the same points mean that it was matched just now.
            latest = item.last_detection
            if latest.data < len(found) and latest.points is found[latest.data].points:
                count += 1
                if count >= self.config.min_sightings:
                    ids[latest.data] = known[item.id] = self._ids.get(item.id) or self._next_id()
            elif item.id in self._ids:
                known[item.id] = self._ids[item.id]
            sightings[item.id] = count
        self._ids, self._sightings = known, sightings
        return ids

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id


def _norfair() -> Any:
    try:
        import norfair
        import norfair.filter
    except ImportError as error:
        raise MissingDependencyError(f"tracking needs norfair: pip install 'perception[tracking]' ({error})") from error
    return norfair
