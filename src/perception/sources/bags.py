# SPDX-License-Identifier: Apache-2.0
"""Frames from rosbags: color and depth brought together by stamp, poses from the transforms recorded with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from perception.errors import InputError, TransformError
from perception.geometry import PinholeCamera, Transform
from perception.sources.bag_messages import (
    camera_from,
    color_from,
    color_when_asked,
    depth_from,
    frame_id_of,
    label_set_from,
    labels_from,
    stamp_of,
)
from perception.sources.bag_poses import CLOCK_RESET_NS, BagPoses
from perception.sources.bag_reader import BagReader, Raw
from perception.sources.bag_sync import Bundle, Synchronizer
from perception.sources.bag_topics import choose_topics, is_rectified
from perception.sources.base import Source, SourceOptions
from perception.types import Frame, LabelImage

MAX_CAMERA_CHANGES = 100


@dataclass(frozen=True, slots=True)
class _Camera:
    """Intrinsics, since when they hold, and the message without its stamp."""

    stamp_ns: int
    raw: bytes
    camera: PinholeCamera


class BagSource(Source):
    """Frames of a rosbag, streamed: a few seconds of it are in memory, however long it is.

    Color stamps that go back by up to a second, or repeat, are dropped ("stamp_backwards"). A larger step back is a
    clock that began anew: transforms and waiting images are forgotten and reading goes on ("clock_reset").

    Args:
        path: folder or file of the bag.
        options: all but ``config`` are used.

    Raises:
        InputError: not a bag, needed topics are missing or ambiguous, no way to know poses.
    """

    def __init__(self, path: Path, options: SourceOptions) -> None:
        super().__init__(path.stem if path.is_file() else path.name)
        self._options = options
        self._reader = BagReader(path)
        try:
            self.topics = choose_topics(self._reader, options.topics)
            start, stop = options.window_ns(self._reader.start_ns)
            if start > self._reader.end_ns:
                seconds = (self._reader.end_ns - self._reader.start_ns) / 1e9
                raise InputError(f"start: expected at most the {seconds:.1f} s of the bag, got {options.start_s}")
            self._start_ns, self._stop_ns = start, stop
            infos = (self.topics.camera_info, self.topics.depth_camera_info)
            self._first_cameras = self._reader.first([topic for topic in infos if topic])
            if self.topics.labels:
                info = self._reader.first_message(self.topics.label_info)
                self.label_set = label_set_from(info, self.topics.labels)
            self._poses = BagPoses(self._reader, options, self._camera_frame(), start)
        except BaseException:
            self._reader.close()
            raise
        self._cameras: dict[str, deque[_Camera]] = {}
        self._waiting: deque[Bundle] = deque()
        self._synchronizer = self._new_synchronizer()

    @property
    def fixed_frame(self) -> str:
        """The frame in which poses are given; empty when a file gives them."""
        return self._poses.fixed_frame

    @property
    def note(self) -> str:
        """What is broken in the bag; empty when nothing is."""
        return self._reader.note

    @property
    def frame_count(self) -> int | None:
        """Color images of the whole bag; None for a part of it."""
        if self._options.start_s or self._options.duration_s is not None:
            return None
        count = self._reader.topics[self.topics.color].count
        return -(-count // self._options.every)

    def close(self) -> None:
        """Close the bag's files."""
        self._reader.close()

    def _new_synchronizer(self) -> Synchronizer:
        options = self._options
        tolerance_ns, lookahead_ns = round(options.tolerance_s * 1e9), round(options.lookahead_s * 1e9)
        return Synchronizer(tolerance_ns, lookahead_ns, self._labels_topic != "")

    @property
    def _labels_topic(self) -> str:
        return self.topics.labels if self.with_labels else ""

    def _camera_frame(self) -> str:
        """Frame of the first color image, "" when it cannot be read."""
        try:
            return frame_id_of(self._reader.first_message(self.topics.color).header)
        except InputError:
            return ""

    def _frames(self) -> Iterator[Frame]:
        self._waiting.clear()
        self._cameras.clear()
        self._synchronizer = self._new_synchronizer()
        self._poses.restart()
        for topic, raw in self._first_cameras.items():
            self._take_camera(topic, raw)
        lookahead = self._synchronizer.lookahead_ns
        stop = None if self._stop_ns is None else self._stop_ns + lookahead
        count = 0
        for topic, log_ns, raw in self._reader.messages(self._wanted(), self._start_ns - self._poses.lead_ns, stop):
            self._take(topic, log_ns, raw)
            count = yield from self._ready(log_ns, count)
        yield from self._ready(None, count)
        if self.note:
            self._warn("bag_broken", self.note)
        if self._reader.disorder:
            self._warn("out_of_order", self._reader.disorder)

    def _wanted(self) -> list[str]:
        topics = self.topics
        names = [topics.color, topics.depth, self._labels_topic, topics.camera_info, topics.depth_camera_info]
        return [name for name in dict.fromkeys([*names, *self._poses.topics]) if name]

    def _take(self, topic: str, log_ns: int, raw: Raw) -> None:
        """Sort one message in where it belongs."""
        if topic in self._poses.topics:
            self._poses.take(topic, raw, self._warn)
        elif topic in (self.topics.camera_info, self.topics.depth_camera_info):
            self._take_camera(topic, raw)
        elif log_ns >= self._start_ns:
            kind = {self.topics.color: "color", self.topics.depth: "depth"}.get(topic, "labels")
            if kind != "color" or self._stop_ns is None or log_ns < self._stop_ns:
                self._take_image(kind, topic, log_ns, raw)

    def _take_image(self, kind: str, topic: str, log_ns: int, raw: Raw) -> None:
        report = self._drop if kind == "color" else self._warn
        try:
            message = self._reader.decode(topic, raw)
            stamp = stamp_of(message.header)
        except InputError as error:
            report(f"bad_{kind}", error)
            return
        last = self._synchronizer.last_ns(kind)
        if last is not None and last - stamp > CLOCK_RESET_NS:
            self._reset_clock(last, stamp)
        if not self._synchronizer.add(kind, stamp, log_ns, message):
            reason = "stamp_backwards" if kind == "color" else f"{kind}_stamp_backwards"
            report(reason, f"{topic}: {stamp} ns came after {last} ns")

    def _reset_clock(self, last: int, stamp: int) -> None:
        detail = f"stamps went back by {(last - stamp) / 1e9:.1f} s"
        waiting = self._synchronizer.clear() + len(self._waiting)
        self._waiting.clear()
        if waiting:
            self._drop("clock_reset", detail, waiting)
        self._warn("clock_reset", detail)
        self._poses.clock_reset(stamp)
        for history in self._cameras.values():
            # The newest intrinsics hold from the beginning of the new time.
            newest = replace(history[-1], stamp_ns=0) if history else None
            history.clear()
            history.extend([newest] if newest else [])

    def _take_camera(self, topic: str, raw: Raw) -> None:
        """Note intrinsics and since when they hold; they are decoded again only when they change."""
        # The first 12 bytes are the encapsulation and the stamp, which changes with every message.
        history = self._cameras.setdefault(topic, deque(maxlen=MAX_CAMERA_CHANGES))
        if history and history[-1].raw == raw[12:]:
            return
        rectified = is_rectified(self.topics.color if topic == self.topics.camera_info else self.topics.depth)
        try:
            info = self._reader.decode(topic, raw)
            history.append(_Camera(stamp_of(info.header), bytes(raw[12:]), camera_from(info, rectified)))
        except InputError as error:
            self._warn("bad_camera_info", error)

    def _ready(self, log_ns: int | None, count: int) -> Iterator[Frame]:
        """Yield the frames that are complete at this time of the recording; returns the count of color images."""
        for bundle in self._synchronizer.take(log_ns):
            if count % self._options.every == 0:
                self._waiting.append(bundle)
            count += 1
        while self._waiting:
            bundle = self._waiting[0]
            expired = log_ns is None or log_ns - bundle.log_ns > self._synchronizer.lookahead_ns
            try:
                frame = self._frame(bundle)
            except TransformError as error:
                if not expired and error.reason in ("extrapolation_future", "no_tf"):
                    break
                self._drop(error.reason, error)
                frame = None
            self._waiting.popleft()
            if frame is not None:
                yield frame
        return count

    def _frame(self, bundle: Bundle) -> Frame | None:
        """The frame of a bundle, None when it was dropped; a TransformError where a transform is missing (yet)."""
        if bundle.depth is None:
            return self._drop(
                "no_depth", f"no depth image within {self._options.tolerance_s} s of {bundle.stamp_ns} ns"
            )
        reason = "bad_header"
        try:
            frame_id, depth_frame = frame_id_of(bundle.color.header), frame_id_of(bundle.depth.header)
            reason = "no_pose"
            pose = self._poses.camera_pose(frame_id, bundle.stamp_ns)
            reason = "no_camera_info"
            camera = self._camera(self.topics.camera_info, bundle.stamp_ns)
            depth_camera, camera_T_depth = self._depth_camera(camera, frame_id, depth_frame, bundle)
            reason = "bad_color"
            color = (color_when_asked if self.color_when_asked else color_from)(bundle.color)
            reason = "bad_depth"
            depth = depth_from(bundle.depth)
            reason = "bad_labels"
            labels = self._labels(bundle)
            reason = "wrong_size"
            frame = Frame(
                bundle.stamp_ns, cast(Any, color), depth, camera, pose, depth_camera, camera_T_depth, labels, frame_id
            )
        except InputError as error:
            return self._drop(reason, error)
        # Row by row: as a rule the first one has some.
        if not any((row > 0).any() for row in depth):
            self._warn("empty_depth", f"not one valid depth at {bundle.stamp_ns} ns")
        return frame

    def _camera(self, topic: str, stamp_ns: int) -> PinholeCamera:
        """The intrinsics that held at a stamp; the earliest ones for images before them."""
        history = self._cameras.get(topic)
        if not history:
            why = self.details.get("bad_camera_info")
            raise InputError(f"{topic}: no intrinsics that can be used{f' ({why})' if why else ''}")
        known = [entry for entry in history if entry.stamp_ns <= stamp_ns]
        return (known[-1] if known else history[0]).camera

    def _depth_camera(
        self, camera: PinholeCamera, frame_id: str, depth_frame: str, bundle: Bundle
    ) -> tuple[PinholeCamera | None, Transform | None]:
        """Depth camera and its pose in the color camera's frame; None and None where depth is registered to color."""
        topic = self.topics.depth_camera_info
        if not topic:
            if frame_id != depth_frame:
                raise InputError(
                    f"depth is in frame {depth_frame!r}, not in {frame_id!r}, and has no camera_info; "
                    "choose with --topic depth_camera_info=/topic"
                )
            return None, None
        depth_camera = self._camera(topic, stamp_of(bundle.depth.header))
        if frame_id == depth_frame:
            return (None, None) if depth_camera == camera else (depth_camera, Transform.identity())
        return depth_camera, self._poses.between(frame_id, depth_frame, bundle.stamp_ns)

    def _labels(self, bundle: Bundle) -> LabelImage | None:
        if self.label_set is None or not self.with_labels:
            return None
        if bundle.labels is None:
            self._warn("no_labels", f"no label image at {bundle.stamp_ns} ns")
            return None
        return LabelImage.certain(labels_from(bundle.labels), self.label_set)
