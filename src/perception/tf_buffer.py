# SPDX-License-Identifier: Apache-2.0
"""A tree of timed transforms, as tf2 keeps it: the one place where poses are looked up, live and offline."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from functools import reduce
from threading import Condition
from time import monotonic

from perception.errors import InputError, TransformError
from perception.geometry import Transform


class TransformLoopError(InputError):
    """A transform would make a frame its own ancestor."""


DEFAULT_CACHE_NS = 10_000_000_000
"""How long transforms are kept, as tf2."""


@dataclass
class _Edge:
    """All known transforms of one child to its parent, sorted by stamp."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    transforms: dict[int, Transform] = field(default_factory=dict)

    def add(self, stamp_ns: int, transform: Transform, cache_ns: int | None) -> None:
        if self.static:
            self.stamps, self.transforms = [stamp_ns], {stamp_ns: transform}
            return
        if stamp_ns not in self.transforms:
            insort(self.stamps, stamp_ns)
        self.transforms[stamp_ns] = transform
        if cache_ns is not None:
            oldest = self.stamps[-1] - cache_ns
            expired = bisect_left(self.stamps, oldest)
            for stamp in self.stamps[:expired]:
                del self.transforms[stamp]
            del self.stamps[:expired]

    def at(self, stamp_ns: int, child: str) -> Transform:
        if self.static:
            return self.transforms[self.stamps[0]]
        index = bisect_left(self.stamps, stamp_ns)
        if index < len(self.stamps) and self.stamps[index] == stamp_ns:
            return self.transforms[stamp_ns]
        if index == len(self.stamps):
            late = (stamp_ns - self.stamps[-1]) / 1e6
            raise TransformError(
                f"transform {child} to {self.parent}: asked {late:.1f} ms after the newest one", "extrapolation_future"
            )
        if index == 0:
            early = (self.stamps[0] - stamp_ns) / 1e6
            raise TransformError(
                f"transform {child} to {self.parent}: asked {early:.1f} ms before the oldest one", "extrapolation_past"
            )
        before, after = self.stamps[index - 1], self.stamps[index]
        ratio = (stamp_ns - before) / (after - before)
        return self.transforms[before].interpolate(self.transforms[after], ratio)


class TransformBuffer:
    """Transforms between named frames over time; thread-safe.

    Args:
        cache_ns: how long transforms are kept, nanoseconds; None keeps all (a recording read offline).
    """

    def __init__(self, cache_ns: int | None = DEFAULT_CACHE_NS) -> None:
        self._cache_ns = cache_ns
        self._edges: dict[str, _Edge] = {}
        self._changed = Condition()

    def insert(self, parent: str, child: str, stamp_ns: int, parent_T_child: Transform, static: bool = False) -> None:
        """Add one transform.

        Raises:
            InputError: empty or equal frame names.
            TransformLoopError: the frames would form a loop; what is known stays.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if not parent or not child or parent == child:
            raise InputError(f"transform: expected two different frame names, got {child!r} to {parent!r}")
        with self._changed:
            if child in self._ancestors(parent):
                raise TransformLoopError(f"transform {child} to {parent} refused: it would close a loop")
            edge = self._edges.get(child)
            if edge is None or edge.parent != parent or edge.static != static:
                edge = self._edges[child] = _Edge(parent, static)
            edge.add(stamp_ns, parent_T_child, self._cache_ns)
            self._changed.notify_all()

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """``target_T_source`` at a stamp, interpolated between the two nearest transforms of each link.

        Raises:
            TransformError: not connected, or outside of the known time; never extrapolates.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        with self._changed:
            up_source, up_target = self._ancestors(source), self._ancestors(target)
            common = next((frame for frame in up_source if frame in up_target), None)
            if common is None:
                known = ", ".join(sorted(self.frames())) or "none"
                raise TransformError(f"no transform connects {source!r} to {target!r}; known frames: {known}", "no_tf")
            common_T_source = self._climb(up_source[: up_source.index(common)], stamp_ns)
            if common == target:
                return common_T_source
            common_T_target = self._climb(up_target[: up_target.index(common)], stamp_ns)
        return common_T_target.inverse() @ common_T_source

    def wait(self, target: str, source: str, stamp_ns: int, timeout_s: float) -> Transform:
        """:meth:`lookup` that waits up to ``timeout_s`` seconds for transforms that are still on their way.

        Raises:
            TransformError: as lookup, after the timeout (at once where waiting cannot help).
        """
        deadline = monotonic() + timeout_s
        with self._changed:
            while True:
                try:
                    return self.lookup(target, source, stamp_ns)
                except TransformError as error:
                    left = deadline - monotonic()
                    if error.reason == "extrapolation_past" or left <= 0:
                        raise
                    self._changed.wait(left)

    def frames(self) -> set[str]:
        """Names of all known frames."""
        with self._changed:
            return set(self._edges) | {edge.parent for edge in self._edges.values()}

    def root_of(self, frame: str) -> str:
        """The ancestor of a frame that has no parent; the frame itself when it has none."""
        with self._changed:
            return self._ancestors(frame.lstrip("/"))[-1]

    def is_fixed(self, frame: str) -> bool:
        """Whether static transforms alone lead from a frame to its root."""
        with self._changed:
            chain = self._ancestors(frame.lstrip("/"))
            return all(self._edges[child].static for child in chain[:-1])

    def clear(self) -> None:
        """Forget moving transforms, keep static ones (a clock that jumped back)."""
        with self._changed:
            self._edges = {child: edge for child, edge in self._edges.items() if edge.static}

    def _ancestors(self, frame: str) -> list[str]:
        chain = [frame]
        while chain[-1] in self._edges:
            chain.append(self._edges[chain[-1]].parent)
        return chain

    def _climb(self, frames: list[str], stamp_ns: int) -> Transform:
        links = [self._edges[frame].at(stamp_ns, frame) for frame in frames]
        return reduce(lambda result, link: link @ result, links) if links else Transform.identity()
