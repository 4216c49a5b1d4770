# SPDX-License-Identifier: Apache-2.0
"""Runs a detector over the frames of a recording and scores it where the true objects are known."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception.config import CloudConfig, DetectionConfig
from perception.errors import InputError
from perception.evaluation.class_mapping import ClassMapping
from perception.evaluation.detection import DetectionScores, TrueObjects
from perception.evaluation.true_objects import bag_object_reader, object_reader
from perception.sources import Source, is_bag
from perception.types import Frame

MIN_SCORE = 0.001
"""Average precision wants unsure objects, too; they end the curve."""


@dataclass(frozen=True)
class DetectionOptions:
    """Which detector is scored, and against what.

    Attributes:
        model: name of the detector, as ``detection.model``.
        annotations: COCO's instances (JSON), matched by names of files; of a bag a topic of
            vision_msgs/Detection2DArray. None takes the folder's instance images, or ``…/ground_truth/detections``.
        class_map: file that says which true class is which of the detector's; None matches by name.
    """

    model: str = "default"
    annotations: Path | None = None
    class_map: Path | None = None


class DetectionRun:
    """Scores a detector frame by frame.

    Args:
        source: the recording.
        path: its folder or file.
        options: which detector, and against what.

    Raises:
        InputError: the detector is unknown, or the true objects are given but cannot be read.
    """

    def __init__(self, source: Source, path: Path, options: DetectionOptions) -> None:
        from perception.models.detectors import detector_from_config

        self._source = source
        self._detector = detector_from_config(DetectionConfig(model=options.model, score_threshold=MIN_SCORE))
        self._detector.warm_up()
        self._scores = DetectionScores(self._detector.label_set)
        self._read: Callable[[Frame], TrueObjects | None] | None = None
        self._reason, self._pairs, self._unmapped, self._unread = "", {}, [], 0
        try:
            self._read, mapping = self._reader(path, options)
            self._pairs, self._unmapped = mapping.pairs, mapping.unmapped_truth
        except InputError as error:
            if options.annotations is not None or options.class_map is not None:
                raise
            self._reason = str(error)

    def _reader(
        self, path: Path, options: DetectionOptions
    ) -> tuple[Callable[[Frame], TrueObjects | None], ClassMapping]:
        """How to find the true objects of a frame."""
        label_set = self._detector.label_set
        if is_bag(path):
            topic = str(options.annotations or "")
            at_stamp, mapping = bag_object_reader(path, topic, label_set, options.class_map, CloudConfig.sync_tolerance)
            return lambda frame: at_stamp(frame.stamp_ns), mapping
        of_file, mapping = object_reader(path, options.annotations, label_set, options.class_map)

        def of_frame(frame: Frame) -> TrueObjects | None:
            color = self._source.color_file(frame.stamp_ns)  # pyright: ignore[reportAttributeAccessIssue]
            return None if color is None else of_file(color)

        return of_frame, mapping

    def add(self, frame: Frame) -> float:
        """Find the objects of a frame and note them; returns how long the detector took, milliseconds."""
        start = time.perf_counter()
        found = self._detector(frame.color)
        took = 1e3 * (time.perf_counter() - start)
        if self._read is None:
            return took
        try:
            truth = self._read(frame)
        except InputError as error:
            self._reason, truth = str(error), None
        if truth is None:
            self._unread += 1
        else:
            self._scores.add(truth, found)
        return took

    def summary(self, not_scored: list[str]) -> dict[str, Any] | None:
        """The scores with the detector's name and how classes were matched; what is missing goes to ``not_scored``."""
        scores = self._scores.summary()
        if scores is None:
            lacking = (
                f" (true: {', '.join(self._unmapped)}; say which is which with --object-map)" if self._unmapped else ""
            )
            reason = self._reason or f"no object of a class that the detector knows{lacking}"
            not_scored.append(f"detection: {reason}")
            return None
        if self._unread:
            not_scored.append(f"detection: {self._unread} frames without true objects {self._reason}".rstrip())
        return {
            "detector": self._detector.name,
            **scores,
            "class_map": self._pairs,
            "unmapped_truth": self._unmapped,
        }
