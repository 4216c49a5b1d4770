# SPDX-License-Identifier: Apache-2.0
"""zlib, from isal where that is installed: the same results in half the time, and checksums in a tenth of it."""

from __future__ import annotations

from typing import Any

try:
    from isal import isal_zlib as _zlib
except ImportError:
    import zlib as _zlib

crc32, decompressobj = _zlib.crc32, _zlib.decompressobj
# The package's own description takes this class for one of its objects.
_error: Any = _zlib.error
InflateError: type[Exception] = _error
