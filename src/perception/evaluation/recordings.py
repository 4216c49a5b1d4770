# SPDX-License-Identifier: Apache-2.0
"""Which recordings a path means: itself, or those in a folder of them."""

from __future__ import annotations

from pathlib import Path

from perception.errors import InputError
from perception.sources import BAG_SUFFIXES, is_bag
from perception.sources.bag_files import unrelated_bags
from perception.sources.description import FILE_NAME
from perception.sources.layouts import recognize


def find_recordings(path: str | Path, described: bool = False) -> list[Path]:
    """The recording at a path, or, of a folder that is none, those directly in it by name.

    Args:
        path: bag, folder of frames, or folder of such.
        described: how a folder holds frames is given, so that it is one whatever it looks like.

    Returns:
        at least one path; the path itself where nothing is found, so that opening it says what is wrong.
    """
    path = Path(path)
    if described or not path.is_dir():
        return [path]
    if not unrelated_bags(path) and is_recording(path):
        return [path]
    inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    return [entry for entry in inside if is_recording(entry)] or [path]


def is_recording(path: Path) -> bool:
    """Whether a path looks like a bag or a folder of frames; nothing in it is read."""
    if not path.is_dir():
        return path.is_file() and path.suffix in BAG_SUFFIXES
    if is_bag(path) or (path / FILE_NAME).is_file():
        return True
    try:
        recognize(path)
    except InputError:
        return False
    return True
