# SPDX-License-Identifier: Apache-2.0
"""Poses of the camera of a bag: from /tf, from odometry, or from a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from perception.errors import InputError, TransformError
from perception.geometry import Transform
from perception.sources.bag_messages import odometry_from, transform_from, transforms_from
from perception.sources.bag_reader import BagReader, Raw
from perception.sources.bag_topics import ODOMETRY, TF, listing
from perception.sources.base import SourceOptions
from perception.sources.trajectory import read_extrinsics, read_tum
from perception.tf_buffer import DEFAULT_CACHE_NS, TransformBuffer, TransformLoopError

ROOT_SEARCH_NS = 3_000_000_000
"""The transforms of this much of the recording show which frame is the root of the tree."""
CLOCK_RESET_NS = 1_000_000_000
"""Stamps that go back by more than this mean a new clock (a simulation that began again), less is disorder."""
LATE_ROOT_NS = 60_000_000_000
"""Where these show a root that need not stand still, so much more is searched for what it stands on."""
WORLD_FRAME = re.compile(r"(?:^|[/_])(?:map|odom|earth|world)(?:[/_]|$)")
"""In names of frames that stand still: those of REP 105, and the usual name of the root in simulations."""

Report = Callable[[str, object], None]


class BagPoses:
    """Where the camera was.

    Args:
        reader: the bag; its static transforms are all read now.
        options: ``fixed_frame``, ``poses``, ``odometry``, ``extrinsics``, ``pose_gap_s`` and ``lookahead_s`` are used.
        camera_frame: frame of the color images.
        start_ns: log time from which images are used.

    Attributes:
        topics: topics whose messages :meth:`take` wants.
        fixed_frame: frame of the poses; empty when a file gives them.
        lead_ns: how long before the first image these messages are needed.

    Raises:
        InputError: the bag says nothing about poses, or which frame is fixed is not clear.
    """

    def __init__(self, reader: BagReader, options: SourceOptions, camera_frame: str, start_ns: int) -> None:
        self._reader = reader
        self._trajectory = read_tum(Path(options.poses), options.pose_gap_s) if options.poses else None
        self._extrinsics = read_extrinsics(Path(options.extrinsics)) if options.extrinsics else []
        self._cache_ns = DEFAULT_CACHE_NS + round(options.lookahead_s * 1e9)
        self.lead_ns = DEFAULT_CACHE_NS
        tf = [topic.name for topic in reader.topics.values() if topic.type == TF]
        self._static_topics = [name for name in tf if name.endswith("tf_static")]
        self._odometry = options.odometry
        self._check_odometry(options)
        # Odometry stands in place of the transform that the robot publishes from it.
        self._replaced = {child for _, child, _ in self._extrinsics} | self._odometry_child()
        self.topics = {name for name in tf if name not in self._static_topics} | (
            {self._odometry} if self._odometry else set()
        )
        if not (self.topics or self._static_topics or self._extrinsics or self._trajectory):
            raise InputError(
                "the bag has no transforms (/tf) to know poses from; give --poses FILE or --odometry /topic; it has "
                + listing(reader)
            )
        self._buffer = TransformBuffer(self._cache_ns)
        self._last_ns: dict[str, int] = {}
        self._newest_ns = 0
        self.fixed_frame = "" if self._trajectory else options.fixed_frame or self._find_root(camera_frame, start_ns)

    def restart(self) -> None:
        """Begin again with the static transforms only."""
        self._buffer = TransformBuffer(self._cache_ns)
        self._last_ns.clear()
        self._newest_ns = 0
        for topic, _, raw in self._reader.messages(self._static_topics):
            self._insert(topic, raw, static=True, report=_ignore)
        for parent, child, transform in self._extrinsics:
            self._buffer.insert(parent, child, 0, transform, static=True)

    def clock_reset(self, stamp_ns: int) -> None:
        """The clock of the images began anew: forget moving transforms that are not of the new time yet."""
        if self._newest_ns > stamp_ns + CLOCK_RESET_NS:
            self._forget()

    def take(self, topic: str, raw: Raw, report: Report) -> None:
        """Take up a message of one of :attr:`topics`; what is wrong with it is reported, never raised."""
        if topic == self._odometry:
            try:
                parent, child, stamp, transform = odometry_from(self._reader.decode(topic, raw))
                self._add(parent, child, stamp, transform, False)
            except InputError as error:
                report("bad_transform", _about(topic, error))
            return
        self._insert(topic, raw, static=False, report=report)

    def camera_pose(self, frame: str, stamp_ns: int) -> Transform:
        """``map_T_camera`` at a stamp.

        Raises:
            TransformError: not known at that time.
            InputError: the pose of a file is not a rigid transform.
        """
        if self._trajectory is not None:
            return self._trajectory.at(stamp_ns)
        return self._lookup(self.fixed_frame, frame, stamp_ns, ", the camera's path with --poses FILE")

    def between(self, target: str, source: str, stamp_ns: int) -> Transform:
        """``target_T_source`` at a stamp; TransformError where it is not known."""
        return self._lookup(target, source, stamp_ns)

    def _lookup(self, target: str, source: str, stamp_ns: int, other_way: str = "") -> Transform:
        """As the buffer's, with the options that answer a missing link."""
        try:
            return self._buffer.lookup(target, source, stamp_ns)
        except TransformError as error:
            if error.reason != "no_tf":
                raise
            why = "" if self._static_topics else "the bag has no /tf_static; "
            way = f"a link that does not move can be given with --extrinsics FILE{other_way}"
            if other_way and target not in self._buffer.frames():
                way = f"another frame can be chosen with --fixed-frame, {way}"
            raise TransformError(f"{error}; {why}{way}", error.reason) from error

    def _insert(self, topic: str, raw: Raw, static: bool, report: Report) -> None:
        try:
            entries = list(transforms_from(self._reader.decode(topic, raw)))
        except InputError as error:
            report("bad_transform", _about(topic, error))
            return
        for parent, child, stamp, transform in entries:
            if child in self._replaced:
                continue
            try:
                self._add(parent, child, stamp, transform_from(transform), static)
            except TransformLoopError as error:
                report("tf_loop", f"{topic}: {error}")
            except InputError as error:
                report("bad_transform", f"{topic}: {error}")

    def _add(self, parent: str, child: str, stamp: int, transform: Transform, static: bool) -> None:
        if not static:
            if stamp < self._last_ns.get(child, stamp) - CLOCK_RESET_NS:
                self._forget()
            self._last_ns[child] = stamp
            self._newest_ns = max(self._newest_ns, stamp)
        self._buffer.insert(parent, child, stamp, transform, static)

    def _forget(self) -> None:
        self._buffer.clear()
        self._last_ns.clear()
        self._newest_ns = 0

    def _check_odometry(self, options: SourceOptions) -> None:
        if not options.odometry:
            return
        topic = self._reader.topics.get(options.odometry)
        if topic is None or topic.type != ODOMETRY:
            found = [t.name for t in self._reader.topics.values() if t.type == ODOMETRY]
            raise InputError(f"--odometry {options.odometry}: expected one of {found or 'none in this bag'}")

    def _odometry_child(self) -> set[str]:
        if not self._odometry:
            return set()
        parent, child, _, _ = odometry_from(self._reader.first_message(self._odometry))
        if not parent or not child:
            raise InputError(f"{self._odometry}: expected names of both frames, got {parent!r} and {child!r}")
        return {child}

    def _find_root(self, camera_frame: str, start_ns: int) -> str:
        """The frame without a parent above the camera, from the transforms at the beginning."""
        self.restart()
        begin = start_ns - self.lead_ns
        for topic, _, raw in self._reader.messages(self.topics, begin, start_ns + ROOT_SEARCH_NS):
            self.take(topic, raw, _ignore)
        frames = self._buffer.frames()
        if camera_frame in frames:
            root = self._buffer.root_of(camera_frame)
            others = [other for other in self._roots() if other != root]
            moves = not self._buffer.is_fixed(camera_frame) and not any(_stands_still(other) for other in others)
            late = "" if _stands_still(root) else self._late_root(camera_frame, start_ns)
            if late or _stands_still(root) or moves:
                return late or root
            # A robot or a mount whose own pose is not known would seem to stand.
            raise InputError(self._where_the_root_is(root, others))
        roots = self._roots()
        if len(roots) == 1:
            return roots[0]
        raise InputError(
            f"the camera's frame {camera_frame!r} is in none of the transforms and they have "
            f"{len(roots)} roots: {roots}; choose with --fixed-frame, and connect it with --extrinsics"
        )

    def _roots(self) -> list[str]:
        return sorted({self._buffer.root_of(frame) for frame in self._buffer.frames()})

    def _late_root(self, camera_frame: str, start_ns: int) -> str:
        """A root that stands still and appears later; empty where none does.

        Odometry may begin after the camera: until then a robot looks like the root.
        """
        after = start_ns + ROOT_SEARCH_NS
        if self.topics:
            for topic, _, raw in self._reader.messages(self.topics, after, after + LATE_ROOT_NS):
                self.take(topic, raw, _ignore)
                root = self._buffer.root_of(camera_frame)
                if _stands_still(root):
                    return root
        return ""

    def _where_the_root_is(self, root: str, others: list[str]) -> str:
        if not self.topics:
            return (
                f"the bag says where the camera is on {root!r} (/tf_static), but not where that is (/tf); give --poses "
                f"FILE, --odometry /topic or, for a camera that stood still, --fixed-frame {root}; the bag has "
                + listing(self._reader)
            )
        gap = f": no transform connects it to {' or '.join(map(repr, others[:5]))}" if others else ""
        return (
            f"the bag says where the camera is on {root!r}, but not where that is{gap}; give a link that does not move "
            f"with --extrinsics FILE, the camera's path with --poses FILE or, where {root} itself stood still, "
            f"--fixed-frame {root}"
        )


def _stands_still(frame: str) -> bool:
    return WORLD_FRAME.search(frame) is not None


def _about(topic: str, error: InputError) -> str:
    """The error with the topic in front, which those of decoding have already."""
    return str(error) if str(error).startswith(f"{topic}: ") else f"{topic}: {error}"


def _ignore(reason: str, detail: object) -> None:
    """Trouble of a first look is reported when the bag is read."""
