# SPDX-License-Identifier: Apache-2.0
"""A picture that says which color is which class, for an Image display beside the map. Without ROS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.labels import LabelSet

ROWS = 16
ROW_HEIGHT, COLUMN_WIDTH, SWATCH, MARGIN = 24, 190, 14, 6
BACKGROUND, TEXT = 250, (30, 30, 30)
MAX_CLASSES = 256
"""More than these nobody reads; the rest is left out."""


def legend_picture(label_set: LabelSet) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: a swatch, the id and the name of each class, in columns of 16."""
    import cv2

    classes = label_set.classes[:MAX_CLASSES]
    columns = -(-len(classes) // ROWS)
    height = min(len(classes), ROWS) * ROW_HEIGHT + MARGIN
    picture = np.full((height, columns * COLUMN_WIDTH, 3), BACKGROUND, np.uint8)
    for number, label in enumerate(classes):
        column, row = divmod(number, ROWS)
        x, y = column * COLUMN_WIDTH + MARGIN, row * ROW_HEIGHT + MARGIN
        picture[y : y + SWATCH, x : x + SWATCH] = label.color
        place = (x + SWATCH + MARGIN, y + SWATCH - 2)
        text = f"{label.id} {label.name}"[:22]
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, TEXT, 1, cv2.LINE_AA)
    return picture
