# SPDX-License-Identifier: Apache-2.0
"""xz files from anywhere: unpacked in sequence, with the memory of the decompressor bounded."""

from __future__ import annotations

import lzma
from typing import IO

MAGIC = b"\xfd7zXZ"
MAX_MEMORY = 256 << 20
"""Four times what ``xz -9`` asks for; a file may ask for 4 GB, and a few bytes do."""
_INPUT = 1 << 16


class XzReader:
    """The content of an xz file, of one stream or several.

    Args:
        file: the file, at its beginning.
        max_memory: bytes that the decompressor may take.
    """

    def __init__(self, file: IO[bytes], max_memory: int = MAX_MEMORY) -> None:
        self._file, self._max_memory = file, max_memory
        self._stream: lzma.LZMADecompressor | None = None

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end.

        Raises:
            lzma.LZMAError: it is damaged, or takes more memory than allowed.
            EOFError: it ends within a stream.
        """
        while True:
            packed = b""
            if self._stream is None or self._stream.eof:
                packed = self._next_stream(b"" if self._stream is None else self._stream.unused_data)
                if not packed:
                    return b""
                self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=self._max_memory)
            elif self._stream.needs_input:
                packed = self._file.read(_INPUT)
                if not packed:
                    raise EOFError("it ends within a compressed stream")
            data = self._unpack(self._stream, packed, size)
            if data:
                return data

    def _next_stream(self, left: bytes) -> bytes:
        """Where the next stream begins, behind zeros that may pad the one before; nothing at the end of the file."""
        while not (left := left.lstrip(b"\0")):
            left = self._file.read(_INPUT)
            if not left:
                break
        return left

    def _unpack(self, stream: lzma.LZMADecompressor, packed: bytes, size: int) -> bytes:
        try:
            return stream.decompress(packed, size)
        except lzma.LZMAError as error:
            if "Memory usage limit" not in str(error):
                raise
            raise lzma.LZMAError(
                f"it takes more than {self._max_memory >> 20} MB of memory; pack it with a smaller dictionary, as xz -9"
            ) from error
