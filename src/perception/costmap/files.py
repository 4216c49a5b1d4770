# SPDX-License-Identifier: Apache-2.0
"""Costmaps as files that Nav2's map_server loads: an image and a YAML file beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from perception.atomic_file import atomic_write
from perception.costmap.grid import MAX_CELLS
from perception.errors import InputError, PerceptionError
from perception.types import CostGrid
from perception.yaml_text import load_yaml

MODES = ("raw", "scale", "trinary")
RAW_UNKNOWN_PIXEL = 255
# What map_saver writes in mode trinary.
TRINARY_FREE, TRINARY_OCCUPIED, TRINARY_UNKNOWN = 254, 0, 205
MAX_FILE_BYTES = 1 << 28
FILE_MODE = 0o644
"""A map_server may run as someone else than who saves the files."""


def write_costmap(path_stem: str | Path, grid: CostGrid, mode: str = "raw") -> Path:
    """Save a grid so that Nav2's map_server loads it; both files are replaced whole or not at all.

    Args:
        path_stem: path without suffix; ``.yaml`` and ``.pgm`` or ``.png`` are added.
        grid: raw costs.
        mode: "raw" (PGM: 0–100 as they are, 255 unknown: exact), "scale" (PNG: white free to black lethal,
            transparent unknown: exact too, and looks like a map) or "trinary" (PGM: free up to 25, occupied from 65,
            unknown between and where unknown, as map_saver).

    Returns:
        path of the YAML file.

    Raises:
        InputError: an unknown mode, or values outside −1–100.
        PerceptionError: the files cannot be written.
    """
    if mode not in MODES:
        raise InputError(f"costmap mode: expected one of {list(MODES)}, got {mode!r}")
    if grid.data.size == 0:
        raise InputError("costmap: expected at least one cell, got none")
    if grid.data.min() < -1 or grid.data.max() > 100:
        raise InputError(f"costmap: expected values -1 to 100, got {grid.data.min()} to {grid.data.max()}")
    stem = Path(path_stem)
    image_path = stem.with_name(stem.name + (".png" if mode == "scale" else ".pgm"))
    yaml_path = stem.with_name(stem.name + ".yaml")
    # The shade of 205 is 0.1961: with the common free_thresh of 0.25 unknown cells would be read as free.
    free, occupied = (0.0, 1.0) if mode == "scale" else (0.196, 0.65)
    info = {
        "image": image_path.name,
        "mode": mode,
        "resolution": float(grid.resolution),
        "origin": [float(grid.origin[0]), float(grid.origin[1]), 0.0],
        "negate": 0,
        "occupied_thresh": occupied,
        "free_thresh": free,
    }
    # The first row of an image is the highest y.
    pixels = np.ascontiguousarray(_to_pixels(grid.data, mode)[::-1])
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PerceptionError(f"cannot save {yaml_path}: {error.strerror}") from error
    atomic_write(image_path, [_encode(pixels, image_path.suffix)], FILE_MODE)
    atomic_write(yaml_path, [yaml.safe_dump(info, sort_keys=False, default_flow_style=None).encode()], FILE_MODE)
    return yaml_path


def read_costmap(path: str | Path) -> CostGrid:
    """Load a map_server file the way Nav2 does.

    Args:
        path: the YAML file.

    Raises:
        InputError: a file is missing, unreadable or too large, or a field is missing or wrong.
    """
    path = Path(path)
    info = _read_info(path)
    pixels = _read_image(path.parent / info["image"])
    data = _from_pixels(pixels, info)[::-1]
    origin = info["origin"]
    return CostGrid(np.ascontiguousarray(data), info["resolution"], (origin[0], origin[1]))


def _to_pixels(data: NDArray[np.int8], mode: str) -> NDArray[np.uint8]:
    if mode == "raw":
        return np.where(data < 0, RAW_UNKNOWN_PIXEL, data).astype(np.uint8)
    if mode == "scale":
        shade = np.rint((100 - np.maximum(data, 0).astype(np.int64)) * 2.55).astype(np.uint8)
        alpha = np.where(data < 0, 0, 255).astype(np.uint8)
        shade = np.where(data < 0, 127, shade).astype(np.uint8)
        return np.dstack([shade, shade, shade, alpha])
    result = np.full(data.shape, TRINARY_UNKNOWN, np.uint8)
    result[(data >= 0) & (data <= 25)] = TRINARY_FREE
    result[data >= 65] = TRINARY_OCCUPIED
    return result


def _from_pixels(pixels: NDArray[np.uint8], info: dict[str, Any]) -> NDArray[np.int8]:
    """Nav2's rules: colors are averaged; raw takes values up to 100, scale interpolates between the thresholds."""
    colors = pixels[..., :3].astype(np.float64) if pixels.ndim == 3 else pixels[..., None].astype(np.float64)
    has_alpha = pixels.ndim == 3 and pixels.shape[2] == 4
    if info["mode"] == "raw":
        value = np.rint(colors.mean(-1))
        return np.where(value <= 100, value, -1).astype(np.int8)
    if info["mode"] == "trinary" and has_alpha:
        colors = pixels.astype(np.float64)
    shade = colors.mean(-1) / 255.0
    occupied = shade if info["negate"] else 1.0 - shade
    low, high = info["free_thresh"], info["occupied_thresh"]
    if info["mode"] == "trinary":
        return np.select([occupied > high, occupied < low], [100, 0], -1).astype(np.int8)
    graded = np.rint((occupied - low) / (high - low) * 100.0)
    graded = np.select([occupied > high, occupied < low], [100, 0], graded)
    return np.where(has_alpha and pixels[..., -1] != 255, -1, graded).astype(np.int8)


def _read_info(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > 1 << 20:
            raise InputError(f"costmap {path}: expected a YAML file below 1 MB")
        info = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"costmap {path}: cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(info, dict):
        raise InputError(f"costmap {path}: expected a mapping, got {type(info).__name__}")
    try:
        result = {
            "image": str(info["image"]),
            "mode": str(info.get("mode", "trinary")),
            "resolution": float(info["resolution"]),
            "origin": [float(value) for value in info["origin"]],
            "negate": bool(int(info["negate"])),
            "occupied_thresh": float(info["occupied_thresh"]),
            "free_thresh": float(info["free_thresh"]),
        }
    except KeyError as error:
        raise InputError(f"costmap {path}: expected a field {error.args[0]!r}, got {sorted(map(str, info))}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"costmap {path}: a field has a wrong value ({error})") from error
    _check_info(path, result)
    return result


def _check_info(path: Path, info: dict[str, Any]) -> None:
    if info["mode"] not in MODES:
        raise InputError(f"costmap {path}: expected mode {', '.join(MODES)}, got {info['mode']!r}")
    if len(info["origin"]) != 3 or not all(math.isfinite(value) for value in info["origin"]):
        raise InputError(f"costmap {path}: expected a finite origin [x, y, yaw], got {info['origin']}")
    if info["origin"][2] != 0:
        raise InputError(f"costmap {path}: expected yaw 0, got {info['origin'][2]}; a turned grid is not supported")
    if not (math.isfinite(info["resolution"]) and info["resolution"] > 0):
        raise InputError(f"costmap {path}: expected a positive resolution, got {info['resolution']}")
    if not 0 <= info["free_thresh"] < info["occupied_thresh"] <= 1:
        raise InputError(
            f"costmap {path}: expected 0 <= free_thresh < occupied_thresh <= 1, "
            f"got {info['free_thresh']} and {info['occupied_thresh']}"
        )


def _read_image(path: Path) -> NDArray[np.uint8]:
    import cv2

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"costmap image {path}: expected at most {MAX_FILE_BYTES} bytes")
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"costmap image {path}: cannot be read ({error})") from error
    try:
        pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype != np.uint8 or pixels.shape[0] * pixels.shape[1] > MAX_CELLS:
        raise InputError(f"costmap image {path}: expected an 8-bit PGM or PNG image of at most {MAX_CELLS} pixels")
    return np.asarray(pixels, np.uint8)


def _encode(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    import cv2

    done, content = cv2.imencode(suffix, pixels)
    if not done:
        raise InputError(f"costmap image: cannot be encoded as {suffix}")
    return content.tobytes()
