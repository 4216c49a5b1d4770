# SPDX-License-Identifier: Apache-2.0
"""Pictures as they stand in a page: small, and with the colors of the legend."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.costmap.files import read_costmap
from perception.errors import InputError
from perception.evaluation.colors import cost_table
from perception.image_codec import decode_compressed_color
from perception.labels import LabelSet
from perception.types import CostGrid

MAX_FILE_BYTES = 1 << 25
MAX_CELLS = 900
"""Columns or rows of a costmap in a page; larger ones are drawn with larger cells."""
PHOTO_WIDTH, LABEL_WIDTH = 480, 480


def read_picture(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a PNG or JPEG file.

    Raises:
        InputError: missing, too large, or not such a file.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: expected a picture of at most {MAX_FILE_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    return decode_compressed_color(path.suffix.lstrip(".").lower(), content)


def photo_uri(image: NDArray[np.uint8], width: int = PHOTO_WIDTH) -> str:
    """A photograph as a data URI: JPEG, at most so wide."""
    import cv2

    if image.shape[1] > width:
        size = width, max(1, round(image.shape[0] * width / image.shape[1]))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return _uri(image, "jpg", [cv2.IMWRITE_JPEG_QUALITY, 82])


def label_uri(image: NDArray[np.uint8], width: int = LABEL_WIDTH) -> str:
    """A picture of few colors as a data URI: PNG, at most so wide, colors kept as they are."""
    import cv2

    if image.shape[1] > width:
        size = width, max(1, round(image.shape[0] * width / image.shape[1]))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    return _uri(image, "png", [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _uri(image: NDArray[np.uint8], kind: str, options: list[int]) -> str:
    import cv2

    done, content = cv2.imencode(f".{kind}", np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise InputError(f"picture: cannot be encoded as {kind}")
    mime = {"jpg": "jpeg"}.get(kind, kind)
    return f"data:image/{mime};base64,{base64.b64encode(content.tobytes()).decode('ascii')}"


def classes_in(images: Sequence[NDArray[np.uint8]], label_set: LabelSet) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colors of the classes whose colors occur in pictures of labels, the most frequent first."""
    pixels = np.concatenate([image.reshape(-1, 3).astype(np.int64) for image in images])
    codes, counts = np.unique(pixels @ np.array([65536, 256, 1]), return_counts=True)
    shares = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    found = []
    for label in label_set.classes:
        red, green, blue = label.color
        count = shares.get((red << 16) | (green << 8) | blue, 0)
        if count:
            found.append((count, label.name, label.color))
    return [(name, color) for _, name, color in sorted(found, key=lambda one: -one[0])]


@dataclass(frozen=True, slots=True)
class CostmapPicture:
    """A costmap to show.

    Attributes:
        uri: the picture, one pixel per cell, y up.
        width: cells.
        height: cells.
        cell: edge of a shown cell, meters.
        origin: lower left corner, meters.
        factor: how many of the map's own cells are one shown cell, along an edge.
    """

    uri: str
    width: int
    height: int
    cell: float
    origin: tuple[float, float]
    factor: int


def costmap_window(grid: CostGrid, path: NDArray[Any]) -> tuple[float, float, float, float]:
    """Lowest x and y and highest x and y, meters, of what is known of a costmap or was visited, with a margin."""
    rows, columns = np.nonzero(grid.data >= 0)
    points = np.stack([columns, rows], axis=1) * grid.resolution + np.asarray(grid.origin)
    points = np.vstack([points, points + grid.resolution, np.asarray(path, np.float64).reshape(-1, 3)[:, :2]])
    if not len(points):
        return (0.0, 0.0, 1.0, 1.0)
    margin = 4 * grid.resolution
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def costmap_picture(path: Path, window: tuple[float, float, float, float]) -> CostmapPicture:
    """A costmap file cut to a window of the map.

    Args:
        path: its YAML file.
        window: lowest x and y, highest x and y, meters; several costmaps shown in one window can be compared.
    """
    grid = read_costmap(path)
    edge = grid.resolution
    low = np.floor((np.array(window[:2]) - grid.origin) / edge + 1e-6).astype(np.int64)
    high = np.ceil((np.array(window[2:]) - grid.origin) / edge - 1e-6).astype(np.int64)
    factor = max(1, -(-int((high - low).max()) // MAX_CELLS))
    high = low + -(-(high - low) // factor) * factor
    if ((high - low) > 40 * MAX_CELLS).any():
        raise InputError(f"costmap {path}: expected at most {40 * MAX_CELLS} cells a side, got {(high - low).tolist()}")
    columns, rows = (int(value) for value in high - low)
    cut = np.full((rows, columns), -1, np.int8)
    begin, end = np.maximum(low, 0), np.minimum(high, grid.data.shape[::-1])
    if (begin < end).all():
        inside = grid.data[begin[1] : end[1], begin[0] : end[0]]
        cut[begin[1] - low[1] : end[1] - low[1], begin[0] - low[0] : end[0] - low[0]] = inside
    # The worst cell stands for the cells that it takes the place of; unknown ones are below all.
    height, width = cut.shape[0] // factor, cut.shape[1] // factor
    cut = cut.reshape(height, factor, width, factor).max(axis=(1, 3))
    colors = cost_table()[np.where(cut < 0, 101, cut)]
    origin = grid.origin[0] + low[0] * edge, grid.origin[1] + low[1] * edge
    return CostmapPicture(_uri(colors[::-1], "png", []), width, height, edge * factor, origin, factor)
