# SPDX-License-Identifier: Apache-2.0
"""Image files of a folder: color, depth and labels, checked before they are decoded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.image_codec import MAX_PIXELS, decode_compressed, to_rgb
from perception.sources.description import DepthCoding, LabelCoding

_PGM_HEADER = re.compile(rb"P5(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,5})\s")


def read_color(path: Path) -> NDArray[np.uint8]:
    """A color image as (H, W, 3) uint8 RGB; gray ones are repeated, transparency is dropped.

    Raises:
        InputError: missing, cut off, damaged, or not a picture.
    """
    try:
        return to_rgb(_read(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_depth(path: Path, coding: DepthCoding) -> NDArray[np.float32]:
    """A 16-bit depth image as (H, W) float32 meters; 0 where the file has 0, NaN where it has another invalid value.

    Raises:
        InputError: missing, cut off, damaged, or not one channel of 16 bits.
    """
    try:
        image = _read(path)
        if image.ndim != 2 or image.dtype != np.uint16:
            raise InputError(f"expected depth of one 16-bit channel, got {image.shape} {image.dtype}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return coding.decode(image)


def read_labels(path: Path, coding: LabelCoding) -> NDArray[np.int32]:
    """A label image as (H, W) int32 ids, −1 where there is no label.

    Raises:
        InputError: missing, cut off, damaged, or not one channel.
    """
    try:
        image = _read(path)
        if image.ndim != 2:
            raise InputError(f"expected labels of one channel, got {image.shape} {image.dtype}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return coding.decode(image)


def _read(path: Path) -> NDArray[Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    if data.startswith(b"P5"):
        return _decode_pgm(data)
    return decode_compressed(path.suffix, data)


def _decode_pgm(data: bytes) -> NDArray[Any]:
    """A binary portable gray map. Source: Netpbm, pgm(5); channels of two bytes have the higher one first."""
    header = _PGM_HEADER.match(data[:4096])
    if header is None:
        raise InputError("expected the header of a binary PGM image, got other data")
    width, height, highest = (int(number) for number in header.groups())
    if not 0 < width * height <= MAX_PIXELS or not 0 < highest < 65536:
        raise InputError(f"expected a PGM of 1 to {MAX_PIXELS} pixels, got {width}x{height} up to {highest}")
    dtype = np.dtype("u1" if highest < 256 else ">u2")
    if len(data) - header.end() < width * height * dtype.itemsize:
        raise InputError(f"the {width}x{height} PGM is cut off after {len(data)} bytes")
    image = np.frombuffer(data, dtype, width * height, header.end()).reshape(height, width)
    return image.astype(dtype.newbyteorder("="))
