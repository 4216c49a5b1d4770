# SPDX-License-Identifier: Apache-2.0
"""Scenes that come packed: a tar archive is unpacked once, into the user's cache, with its content held to bounds."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from perception.errors import InputError

ARCHIVE_SUFFIXES = (".tar", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2")
MAX_MEMBERS = 20_000
MAX_BYTES = 2 << 30
"""Of all files of a scene together, unpacked."""


def is_archive(path: Path) -> bool:
    """Whether a path is a file that is named like a tar archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def unpacked(path: Path, cache: Path | None = None, max_bytes: int = MAX_BYTES) -> Path:
    """The folder with an archive's files; unpacked the first time, found by the hash of the archive from then on.

    Args:
        path: a tar archive, packed with xz, gzip, bzip2 or not at all.
        cache: where to unpack; None: ``$XDG_CACHE_HOME/perception/scenes``, by default under ``~/.cache``.
        max_bytes: of all its files together.

    Raises:
        InputError: not an archive, damaged, too large, or something in it is neither a plain file nor a folder or
            would lie elsewhere. Nothing stays of what was unpacked until then.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    folder = (cache or _cache()) / digest.hexdigest()[:16]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        _unpack(path, fresh, max_bytes)
        # Another process may have been faster.
        if not folder.is_dir():
            fresh.rename(folder)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise InputError(f"{path}: cannot be unpacked ({error})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "perception" / "scenes"


def _unpack(path: Path, folder: Path, max_bytes: int) -> None:
    total = 0
    # As a stream: what is refused is not even decompressed.
    with tarfile.open(path, "r|*") as archive:
        for number, member in enumerate(archive):
            parts = PurePosixPath(member.name).parts
            if not (member.isreg() or member.isdir()):
                raise InputError(f"{path}: expected plain files and folders, got {member.name!r} of another kind")
            if PurePosixPath(member.name).is_absolute() or ".." in parts:
                raise InputError(f"{path}: expected names below its folder, got {member.name!r}")
            total += member.size
            if total > max_bytes or number >= MAX_MEMBERS:
                raise InputError(f"{path}: expected at most {max_bytes} bytes in {MAX_MEMBERS} files, got more")
            target = folder.joinpath(*parts)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None
            with target.open("xb") as file:
                shutil.copyfileobj(content, file)
