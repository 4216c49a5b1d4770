# SPDX-License-Identifier: Apache-2.0
"""Objects in images that a bag holds as vision_msgs/Detection2DArray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.sources.bag_messages import stamp_of
from perception.sources.bag_reader import BagReader

DETECTIONS = "vision_msgs/msg/Detection2DArray"
TRUTH_NAME = "ground_truth/detections"
"""A topic of this name holds true objects without being named; other detections may be a network's."""
MAX_OBJECTS = 10_000_000


@dataclass(frozen=True, slots=True)
class RecordedObjects:
    """The objects of one image.

    Attributes:
        boxes: (N, 4) float32, pixels: left, top, right, bottom.
        names: (N,) of their classes.
    """

    boxes: NDArray[np.float32]
    names: tuple[str, ...]


def read_objects(path: Path, topic: str = "") -> Mapping[int, RecordedObjects]:
    """The objects of each image of a bag, by the stamp of the image in nanoseconds.

    Args:
        path: the bag.
        topic: where they are; empty takes the only topic that ends in ``ground_truth/detections``.

    Raises:
        InputError: no such topic, it is of another type, or a message is damaged.
    """
    reader = BagReader(path)
    try:
        topic = topic or _only_truth(reader)
        known = reader.topics.get(topic)
        if known is None or known.type != DETECTIONS:
            found = "no such topic" if known is None else known.type
            raise InputError(f"true objects {topic}: expected a topic of type {DETECTIONS}, got {found}")
        objects: dict[int, RecordedObjects] = {}
        total = 0
        for _, _, raw in reader.messages([topic]):
            message = reader.decode(topic, raw)
            objects[stamp_of(message.header)] = one = _objects(message, topic)
            total += len(one.names)
            if total > MAX_OBJECTS:
                raise InputError(f"true objects {topic}: expected at most {MAX_OBJECTS}")
        return objects
    finally:
        reader.close()


def _only_truth(reader: BagReader) -> str:
    found = [name for name, topic in reader.topics.items() if name.endswith(TRUTH_NAME) and topic.type == DETECTIONS]
    if len(found) != 1:
        raise InputError(
            f"expected true objects in one topic …/{TRUTH_NAME} ({DETECTIONS}), found {', '.join(found) or 'none'}; "
            "choose with --objects /topic"
        )
    return found[0]


def _objects(message: Any, topic: str) -> RecordedObjects:
    boxes, names = [], []
    for detection in message.detections:
        if not detection.results:
            raise InputError(f"true objects {topic}: expected a class of every object, got one without")
        best = max(detection.results, key=lambda result: result.hypothesis.score)
        names.append(str(best.hypothesis.class_id))
        boxes.append(_upright(detection.bbox))
    array = np.array(boxes, np.float32).reshape(-1, 4)
    if not np.isfinite(array).all():
        raise InputError(f"true objects {topic}: expected finite boxes with sizes from 0, got others")
    return RecordedObjects(array, tuple(names))


def _upright(box: Any) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the upright rectangle around a turned one; NaN of what is no box."""
    turn, across, down = float(box.center.theta), float(box.size_x), float(box.size_y)
    if not all(map(math.isfinite, (turn, across, down))) or min(across, down) < 0:
        return math.nan, math.nan, math.nan, math.nan
    width = abs(across * math.cos(turn)) + abs(down * math.sin(turn))
    height = abs(across * math.sin(turn)) + abs(down * math.cos(turn))
    x, y = float(box.center.position.x), float(box.center.position.y)
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
