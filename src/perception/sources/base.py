# SPDX-License-Identifier: Apache-2.0
"""What every source of frames offers, and the options that choose among what a recording holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from perception.config import CloudConfig
from perception.errors import InputError
from perception.geometry import Transform
from perception.labels import LabelSet
from perception.types import Frame

TOPIC_ROLES = ("color", "depth", "camera_info", "depth_camera_info", "labels", "label_info")
"""The names that ``--topic NAME=/topic`` accepts."""
NOT_MAPPED = "not_mapped"
"""Reason of frames that the pipeline itself refused."""
UP_ROTATIONS: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "+x": ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    "-x": ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
    "+y": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "-y": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "+z": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-z": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
}
"""Rotation that turns each axis into z."""


@dataclass(frozen=True)
class SourceOptions:
    """How a recording is read; every default leaves the choice to what the recording says.

    Attributes:
        config: description of a folder: name of a shipped one or a YAML file; None looks for ``dataset.yaml`` in it.
        topics: topics of a bag by role (:data:`TOPIC_ROLES`), where its types leave a choice.
        fixed_frame: frame of the map; empty takes the root of the camera's transform tree.
        poses: file of camera poses, ``stamp tx ty tz qx qy qz qw`` per line, in place of those recorded.
        odometry: topic of nav_msgs/Odometry that gives ``fixed_frame`` to robot in place of /tf.
        extrinsics: YAML file of fixed transforms, for bags recorded without /tf_static.
        start_s: skip this much, seconds from the beginning of the recording.
        duration_s: stop after this much, seconds; None reads to the end.
        every: use every n-th color image.
        tolerance_s: largest difference between the stamps of color and depth, seconds.
        pose_gap_s: poses of a file farther apart than this are not interpolated, seconds.
        lookahead_s: how far ahead in a bag depth and transforms of an image are looked for, seconds.
        up: axis of the recording's map frame that points up ("+x" … "-z"), for maps without REP 103's z up; the map is
            turned so that it is z.
    """

    config: str | Path | None = None
    topics: Mapping[str, str] = field(default_factory=dict)
    fixed_frame: str = ""
    poses: str | Path | None = None
    odometry: str = ""
    extrinsics: str | Path | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    every: int = 1
    tolerance_s: float = CloudConfig.sync_tolerance
    pose_gap_s: float = 1.0
    lookahead_s: float = 2.0
    up: str = "+z"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.topics) - set(TOPIC_ROLES))
        if unknown:
            raise InputError(f"topic: expected one of {list(TOPIC_ROLES)}, got {unknown}")
        if self.every < 1:
            raise InputError(f"every: expected at least 1, got {self.every}")
        for name in ("start_s", "duration_s", "tolerance_s", "pose_gap_s", "lookahead_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"{name}: expected seconds, 0 or more, got {value}")
        if self.up not in UP_ROTATIONS:
            raise InputError(f"up: expected one of {list(UP_ROTATIONS)}, got {self.up!r}")
        if self.poses and self.odometry:
            raise InputError("poses and odometry both give the camera's path; expected only one of them")

    def window_ns(self, first_ns: int) -> tuple[int, int | None]:
        """First and end stamp that ``start_s`` and ``duration_s`` select in a recording that begins at ``first_ns``."""
        start = first_ns + round(self.start_s * 1e9)
        return start, None if self.duration_s is None else start + round(self.duration_s * 1e9)


class Source(ABC):
    """Frames of one recording, one at a time, in the order of their stamps; a context manager.

    Iterating again reads again from the beginning and counts anew.

    Attributes:
        name: short name of the recording.
        label_set: what the labels of the frames mean; None where frames carry none.
        drops: color images that gave no frame, counted by reason.
        warnings: other trouble that cost no frame, counted by reason.
        details: the first explanation of each reason in ``drops`` and ``warnings``, one sentence; whoever takes in the
            frames may add reasons of its own.
        up: axis of the recorded poses that becomes the map's z, see :class:`SourceOptions`.
        color_when_asked: a bag's color image is decoded when a frame's ``color`` is looked at. Its size and its end are
            still checked before the frame is made; other damage raises an InputError there and then, in place of a
            drop "bad_color". For runs that take in depth alone.
        with_labels: frames bring the recording's labels; False leaves a bag's label images unread.
    """

    def __init__(self, name: str, label_set: LabelSet | None = None) -> None:
        self.name = name
        self.label_set = label_set
        self.drops: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.details: dict[str, str] = {}
        self.up = "+z"
        self.color_when_asked = False
        self.with_labels = True

    @property
    @abstractmethod
    def frame_count(self) -> int | None:
        """How many frames there are at most (some may be dropped); None when not known before reading."""

    @abstractmethod
    def _frames(self) -> Iterator[Frame]:
        """The frames; calls :meth:`_drop` for each color image that gives none."""

    def close(self) -> None:
        """Release files; the source cannot be read afterwards."""
        return None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            InputError: not a single frame could be made; the message says why.
        """
        self.drops.clear()
        self.warnings.clear()
        self.details.clear()
        turn = None
        if self.up != "+z":
            matrix = np.eye(4)
            matrix[:3, :3] = UP_ROTATIONS[self.up]
            turn = Transform(matrix)
        count = 0
        for frame in self._frames():
            count += 1
            yield frame if turn is None else frame.changed(map_T_camera=turn @ frame.map_T_camera)
        if count == 0:
            raise InputError(f"{self.name}: no frame could be used ({self.summary() or 'nothing in the chosen time'})")

    def __len__(self) -> int:
        """:attr:`frame_count`; a TypeError when it is not known, as of an iterator."""
        if self.frame_count is None:
            raise TypeError(f"the number of frames of {self.name} is not known before it is read")
        return self.frame_count

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def summary(self) -> str:
        """One line of what was dropped and why; empty when nothing was."""
        return "; ".join(f"{reason}: {count} ({self.details[reason]})" for reason, count in self.drops.most_common())

    def _drop(self, reason: str, detail: object, count: int = 1) -> None:
        self.drops[reason] += count
        self.details.setdefault(reason, str(detail))

    def _warn(self, reason: str, detail: object) -> None:
        self.warnings[reason] += 1
        self.details.setdefault(reason, str(detail))
