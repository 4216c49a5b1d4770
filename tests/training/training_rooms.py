# SPDX-License-Identifier: Apache-2.0
"""Small rooms: images whose colors tell the class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

COLORS = {1: (200, 190, 170), 4: (120, 80, 40), 8: (40, 60, 160)}
"""RGB of wall, floor and bed (ids of ade20k32)."""


def write_room(stem: Path, seed: int, height: int = 48, width: int = 64) -> None:
    """``<stem>.color.png`` and ``<stem>.segm.png``: wall above, floor below, a bed, one unlabeled corner."""
    rng = np.random.default_rng(seed)
    labels = np.full((height, width), 1, np.uint8)
    labels[rng.integers(height // 3, height // 2) :] = 4
    left = int(rng.integers(4, width // 2))
    labels[height // 2 : -6, left : left + 16] = 8
    image = np.zeros((height, width, 3), np.int16)
    for label, color in COLORS.items():
        image[labels == label] = color
    image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    labels[:4, :4] = 255
    cv2.imwrite(f"{stem}.color.png", image[..., ::-1])
    cv2.imwrite(f"{stem}.segm.png", labels)


def write_yaml(path: Path, data: Any) -> Path:
    """Write YAML; returns its path."""
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path
