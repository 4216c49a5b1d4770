# SPDX-License-Identifier: Apache-2.0
"""How large the image in a PNG or JPEG file is, and whether the file has an end, without decoding it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8"
_MAX_JPEG_SEGMENTS = 1000
_NO_SEGMENTS = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})
"""JPEG markers without a length behind them. None belongs before the pixels, and a decoder reads on right behind it."""
_PNG_FIRST_CHUNK = b"\0\0\0\rIHDR"


def starts_with(buffer: NDArray[np.uint8], signature: bytes) -> bool:
    """Whether these are a file's first bytes."""
    return buffer[: len(signature)].tobytes() == signature


def claimed_size(buffer: NDArray[np.uint8], format: str) -> tuple[int, int]:
    """(width, height) that a PNG or JPEG file claims, which nobody has accepted yet.

    Raises:
        InputError: neither PNG nor JPEG, damaged, or cut short; ``format`` is what the sender calls it.
    """
    if starts_with(buffer, PNG_SIGNATURE):
        return _png_size(buffer)
    if starts_with(buffer, _JPEG_SIGNATURE):
        return _jpeg_size(buffer.tobytes())
    raise InputError(f"compressed image: expected a JPEG or PNG file, got other data (format {format[:60]!r})")


def _png_size(buffer: NDArray[np.uint8]) -> tuple[int, int]:
    """(width, height) of a PNG file. Source: ISO/IEC 15948, 11.2.2."""
    # Trailing bytes after the end chunk are legal, so it is searched for and not expected at the very end.
    if len(buffer) < 33 or b"IEND" not in buffer[-1024:].tobytes():
        raise InputError(f"compressed image: expected a whole PNG file, got {len(buffer)} bytes without its end")
    if buffer[8:16].tobytes() != _PNG_FIRST_CHUNK:
        raise InputError("compressed image: expected a PNG file that begins with its header, got another chunk")
    width, height = np.frombuffer(buffer, ">u4", 2, offset=16)
    return int(width), int(height)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a JPEG file. Source: ITU-T T.81, annex B."""
    position, size = 2, None
    for _ in range(_MAX_JPEG_SEGMENTS):
        if position + 4 > len(data) or data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:  # A fill byte.
            position += 1
            continue
        if marker in _NO_SEGMENTS:
            break
        if marker == 0xDA:  # From here compressed data, in which only the end of the image reads ff d9.
            if size is None or data.rfind(b"\xff\xd9", position) < 0:
                break
            return size
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and position + 9 <= len(data):
            size = (
                int.from_bytes(data[position + 7 : position + 9], "big"),
                int.from_bytes(data[position + 5 : position + 7], "big"),
            )
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise InputError(
        f"compressed image: expected a whole JPEG file, got {len(data)} bytes that are damaged or cut short"
    )
