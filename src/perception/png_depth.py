# SPDX-License-Identifier: Apache-2.0
"""Depth images out of PNG files, in less than half the time of a decoder for all kinds of them.

Source: ISO/IEC 15948 (PNG).
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from perception.image_headers import PNG_SIGNATURE
from perception.inflate import InflateError, crc32, decompressobj

_CHUNK = struct.Struct(">I4s")
_HEADER = struct.Struct(">IIBBBBB")
_GRAY_16 = (16, 0, 0, 0, 0)
"""Bits, color type, compression, filter method and interlacing of a depth image."""
_FIRST_CHUNK = len(PNG_SIGNATURE)
_MAX_RATIO = 1032
"""Deflate makes at most this many bytes of one: 258 of two bits."""


def decode_plain_depth(data: memoryview) -> NDArray[np.uint16] | None:
    """Decode a PNG file of one 16-bit channel, not interlaced, that holds nothing but pixels.

    Args:
        data: a PNG file; what follows its end is ignored.

    Returns:
        (H, W) uint16; None where the file is any other, or damaged: a general decoder tells what is wrong with it.
    """
    start = _FIRST_CHUNK + _CHUNK.size
    if len(data) < start + _HEADER.size or data[:start] != PNG_SIGNATURE + _CHUNK.pack(_HEADER.size, b"IHDR"):
        return None
    width, height, *layout = _HEADER.unpack_from(data, start)
    # A size that the file cannot hold, or none, is not tried.
    possible = width * height > 0 and height * (1 + 2 * width) <= _MAX_RATIO * len(data)
    chunks = _pixel_data(data) if possible and tuple(layout) == _GRAY_16 else None
    if chunks is None:
        return None
    rows = _inflate(chunks, height, 1 + 2 * width)
    if rows is None:
        return None
    from perception.image_kernels import unfilter_16

    image = np.empty((height + 1, width), np.uint16)
    image[0] = 0
    return image[1:] if unfilter_16(rows, image) else None


def _pixel_data(data: memoryview) -> bytes | None:
    """The compressed pixels; None where there are other chunks, or a checksum does not fit."""
    position, found = _FIRST_CHUNK, []
    while position + 12 <= len(data):
        size, kind = _CHUNK.unpack_from(data, position)
        body, end = position + 8, position + 8 + size
        if end + 4 > len(data) or crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return None
        if kind == b"IEND":
            return b"".join(found[1:])
        if kind != (b"IDAT" if found else b"IHDR"):
            return None
        found.append(data[body:end])
        position = end + 4
    return None


def _inflate(data: bytes, height: int, row_bytes: int) -> NDArray[np.uint8] | None:
    """(H, bytes of a row) of exactly this size, or None; never decompresses to more."""
    try:
        inflater = decompressobj()
        rows = inflater.decompress(data, row_bytes * height)
        # The checksum behind the last row may still have to be read.
        more = b"" if inflater.eof else inflater.decompress(inflater.unconsumed_tail, 1)
    except InflateError:
        return None
    if more or not inflater.eof or len(rows) != row_bytes * height:
        return None
    return np.frombuffer(rows, np.uint8).reshape(height, row_bytes)
