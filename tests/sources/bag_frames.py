# SPDX-License-Identifier: Apache-2.0
"""Small frames and bags for the tests of bags."""

from __future__ import annotations

import numpy as np

from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelClass, LabelSet
from perception.types import Frame, LabelImage

CAMERA = PinholeCamera(16, 12, 10.0, 11.0, 7.5, 5.5)
LABELS = LabelSet("two", (LabelClass(0, "floor", (9, 9, 9)), LabelClass(3, "chair", (9, 9, 200))))
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def pose(x: float) -> Transform:
    """Optical frame at (x, 1, 2), looking along x of the map."""
    return Transform(np.array([[0, 0, 1, x], [-1, 0, 0, 1], [0, -1, 0, 2], [0, 0, 0, 1.0]]))


def frame(index: int, rate: float = 10.0, labels: bool = False, **changes) -> Frame:
    """Frame ``index`` at START + index / rate; color red is 10 + index, depth 1 + index / 100 m."""
    values = {
        "stamp_ns": START + round(index * SECOND / rate),
        "color": np.full((12, 16, 3), (10 + index % 200, 100, 200), np.uint8),
        "depth": np.full((12, 16), 1 + index / 100, np.float32),
        "camera": CAMERA,
        "map_T_camera": pose(index / 10),
        "frame_id": "camera_color_optical_frame",
        **changes,
    }
    if labels:
        ids = np.full((12, 16), 3, np.int32)
        ids[:3], ids[3:5] = 0, -1
        values["labels"] = LabelImage.certain(ids, LABELS)
    return Frame(**values)


def frames(count: int, **options) -> list[Frame]:
    return [frame(i, **options) for i in range(count)]
