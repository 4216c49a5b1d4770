# SPDX-License-Identifier: Apache-2.0
"""A recording through the pipeline with stages overlapped: while the map takes in a frame, the next are prepared."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from perception.errors import InputError
from perception.pipeline import FrameResult, PerceptionPipeline, SeenFrame
from perception.types import Frame

COSTMAP_PERIOD_S = 1.0
"""Recorded time from one projection to the next: as often as the nodes publish the costmap unless told otherwise."""
AHEAD = 3
"""Frames under way at a time: one is seen, one is mapped, one waits."""


def process_overlapped(
    pipeline: PerceptionPipeline, frames: Iterable[Frame], ahead: int = AHEAD
) -> Iterator[tuple[Frame, FrameResult | InputError]]:
    """Process frames in their order, two at a time; the map is the same as one by one.

    Frames are read in the caller's thread, looked at and brought down to voxels in a second one, and taken into the map
    in a third. The costmap is projected once a second of the recording; ``pipeline.costmap()`` brings it up to date.

    Args:
        pipeline: takes the frames in; nobody else may use it meanwhile.
        frames: of a recording.
        ahead: how many frames may be under way: what bounds the memory.

    Yields:
        Each frame, and what came of it: an InputError for one that the pipeline refused.
    """
    mapper = _Mapper(pipeline)
    with ThreadPoolExecutor(1, "see") as looking, ThreadPoolExecutor(1, "map") as mapping:
        pending: deque[tuple[Frame, Future[FrameResult]]] = deque()
        for frame in frames:
            seen = looking.submit(pipeline.see_ahead, frame)
            pending.append((frame, mapping.submit(mapper.take_in, seen)))
            if len(pending) > ahead:
                yield _outcome(*pending.popleft())
        while pending:
            yield _outcome(*pending.popleft())


class _Mapper:
    """Takes frames into the map, and from time to time into the costmap."""

    def __init__(self, pipeline: PerceptionPipeline) -> None:
        self._pipeline = pipeline
        self._projected_ns: int | None = None

    def take_in(self, seen: Future[SeenFrame]) -> FrameResult:
        frame = seen.result()
        stamp_ns = frame.frame.stamp_ns
        due = self._projected_ns is None or abs(stamp_ns - self._projected_ns) >= COSTMAP_PERIOD_S * 1e9
        if due:
            self._projected_ns = stamp_ns
        return self._pipeline.take_in(frame, with_costmap=due)


def _outcome(frame: Frame, future: Future[FrameResult]) -> tuple[Frame, FrameResult | InputError]:
    try:
        return frame, future.result()
    except InputError as error:
        return frame, error
