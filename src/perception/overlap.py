# SPDX-License-Identifier: Apache-2.0
"""A recording through the pipeline with stages overlapped: while the map takes in a frame, the next are prepared."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from perception.errors import InputError
from perception.pipeline import FrameResult, PerceptionPipeline, SeenFrame
from perception.types import Frame

AHEAD = 3
"""Frames under way at a time: one is seen, one is mapped, one waits."""


def process_overlapped(
    pipeline: PerceptionPipeline, frames: Iterable[Frame], ahead: int = AHEAD
) -> Iterator[tuple[Frame, FrameResult | InputError]]:
    """Process frames in their order, two at a time; the map is the same as one by one.

    Frames are read in the caller's thread, looked at in a second one and mapped in a third.

    Args:
        pipeline: takes the frames in; nobody else may use it meanwhile.
        frames: of a recording.
        ahead: how many frames may be under way: what bounds the memory.

    Yields:
        Each frame, and what came of it: an InputError for one that the pipeline refused.
    """
    with ThreadPoolExecutor(1, "see") as looking, ThreadPoolExecutor(1, "map") as mapping:
        pending: deque[tuple[Frame, Future[FrameResult]]] = deque()
        for frame in frames:
            seen = looking.submit(pipeline.see, frame)
            pending.append((frame, mapping.submit(_take_in, pipeline, seen)))
            if len(pending) > ahead:
                yield _outcome(*pending.popleft())
        while pending:
            yield _outcome(*pending.popleft())


def _take_in(pipeline: PerceptionPipeline, seen: Future[SeenFrame]) -> FrameResult:
    return pipeline.take_in(seen.result())


def _outcome(frame: Frame, future: Future[FrameResult]) -> tuple[Frame, FrameResult | InputError]:
    try:
        return frame, future.result()
    except InputError as error:
        return frame, error
