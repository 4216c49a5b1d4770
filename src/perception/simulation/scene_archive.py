# SPDX-License-Identifier: Apache-2.0
"""Scenes that come packed: a tar archive is unpacked once, into the user's cache, with its content held to bounds."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from perception.errors import InputError
from perception.simulation import xz_reader
from perception.simulation.xz_reader import XzReader

ARCHIVE_SUFFIXES = (".tar", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2")
MAX_MEMBERS = 20_000
MAX_BYTES = 2 << 30
"""Of all files of a scene together, unpacked."""
MAX_DEPTH = 64
"""Folders within each other."""
MAX_HEADER_BYTES = 1 << 20
"""Of what describes a member: its name, its attributes, its holes."""
_USUAL_HEADER_BYTES = 4096
"""With which every member adds to what headers may take of an archive in all."""
MAX_PADDING = 4 << 20
"""Of zeros behind the last file: an archive is filled up to whole records, by default of 10 kB."""
_READS_AT_END = 8
"""Which find nothing more: of a whole archive there are one or two."""
_SHOWN = 100
"""Characters of a name from an archive in a message."""
_READERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    xz_reader.MAGIC: XzReader,
}
# What the readers of archives raise on damaged ones, found out by trying.
_DAMAGE = (
    *(tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError),
    *(ValueError, LookupError, OverflowError, RecursionError),
)


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
            would lie elsewhere; or the cache cannot be written. Nothing stays of what was unpacked until then.
    """
    try:
        folder = (cache or _cache()) / _digest(path)[:16]
        if not folder.is_dir():
            _unpack_to(folder, path, max_bytes)
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{path}: cannot be unpacked ({str(error)[: 2 * _SHOWN]})") from error
    return folder


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "perception" / "scenes"


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _unpack_to(folder: Path, path: Path, max_bytes: int) -> None:
    """Make the folder at once with all its files, or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        _unpack(path, fresh, max_bytes)
        try:
            fresh.rename(folder)
        except OSError:
            # Another process may have been faster.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


class _Budget:
    """A file of which only so much is read: a tar file's names and attributes are read whole before they are shown."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path, self._left, self._read_at_end = file, path, MAX_HEADER_BYTES, 0
        self._position = self._content_end = 0

    def add(self, count: int) -> None:
        """Allow a member's data, and the header of the next."""
        self._left = min(self._left, MAX_HEADER_BYTES) + count + _USUAL_HEADER_BYTES

    def check_end(self, offset: int) -> None:
        """Raise ReadError unless zeros follow there, as behind the last file of every whole archive.

        A tar file's reader takes whatever is no header for the end.
        """
        while self._position <= offset + MAX_PADDING and self._read(1 << 16):
            pass
        if self._content_end > offset:
            raise tarfile.ReadError(f"damaged at byte {offset}: neither a file nor the end of the archive is there")
        if self._position < offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"it ends at byte {self._position}, without the mark of an archive's end")
        if self._position > offset + MAX_PADDING:
            raise tarfile.ReadError(f"expected at most {MAX_PADDING} bytes of padding, got more")

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        content = len(data.rstrip(b"\0"))
        if content:
            self._content_end = self._position + content
        self._position += len(data)
        return data

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self._left -= len(data)
        self._read_at_end += not data
        # A tar file's reader would go on for as long as a member claims to be.
        if self._read_at_end > _READS_AT_END:
            raise EOFError("it ends within a file")
        if self._left < 0:
            raise InputError(
                f"{self._path}: expected names and attributes of at most {MAX_HEADER_BYTES} bytes, got more"
            )
        return data


def _unpack(path: Path, folder: Path, max_bytes: int) -> None:
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        packed = next((reader(file) for magic, reader in _READERS.items() if start.startswith(magic)), file)
        budget: Any = _Budget(packed, path)
        # As a stream: what is refused is not even decompressed.
        with tarfile.open(fileobj=budget, mode="r|") as archive:
            _unpack_members(archive, budget, path, folder, max_bytes)
            budget.check_end(archive.offset)


def _unpack_members(archive: Any, budget: _Budget, path: Path, folder: Path, max_bytes: int) -> None:
    total = 0
    for number, member in enumerate(archive):
        target = folder.joinpath(*_checked_parts(member, path))
        total += member.size if member.isreg() else 0
        if total > max_bytes or number >= MAX_MEMBERS:
            raise InputError(f"{path}: expected at most {max_bytes} bytes in {MAX_MEMBERS} files, got more")
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            budget.add(0)
        else:
            budget.add(member.size)
            target.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            with target.open("xb") as file:
                shutil.copyfileobj(content, file)
        # Else all that was read of any header would stay, and be copied to every member that follows.
        archive.members.clear()
        archive.pax_headers.clear()


def _checked_parts(member: tarfile.TarInfo, path: Path) -> tuple[str, ...]:
    """The parts of a member's name, if it is accepted."""
    name = repr(member.name[:_SHOWN])
    if not (member.isreg() or member.isdir()):
        raise InputError(f"{path}: expected plain files and folders, got {name} of another kind")
    if member.size < 0:
        raise InputError(f"{path}: expected files of zero bytes or more, got {name} of {member.size}")
    if member.name.count("/") > MAX_DEPTH:
        raise InputError(f"{path}: expected at most {MAX_DEPTH} folders within each other, got {name}")
    name_path = PurePosixPath(member.name)
    if name_path.is_absolute() or ".." in name_path.parts:
        raise InputError(f"{path}: expected names below its folder, got {name}")
    return name_path.parts
