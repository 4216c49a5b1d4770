# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from perception.errors import PerceptionError


def atomic_write(path: str | Path, chunks: Iterable[bytes], mode: int | None = None) -> None:
    """Write a file so that its name always stands for a whole one, the old or the new.

    The bytes go to a temporary file in the same folder, to the disk, and then take the name. A symbolic link is
    followed. A failure removes the temporary file.

    Args:
        path: the file.
        chunks: what it holds.
        mode: its permissions whatever the process's umask; None gives those of any new file.

    Raises:
        PerceptionError: the file cannot be written; an old one is as it was.
    """
    target = Path(os.path.realpath(path))
    # File systems count bytes, and some refuse half a character.
    short = os.fsencode(target.name)[:200].decode(errors="ignore")
    temporary = target.with_name(f".{short}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            if mode is not None:
                os.chmod(temporary, mode)
            _write_through(file, chunks)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise PerceptionError(f"cannot save {path}: {error.strerror or error}; what was there is unchanged") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _write_through(file: BinaryIO, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        file.write(chunk)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
