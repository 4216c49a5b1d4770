# SPDX-License-Identifier: Apache-2.0
"""Everything that yields frames: folders of images and rosbags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perception.errors import InputError
from perception.sources.base import TOPIC_ROLES, Source, SourceOptions

__all__ = ["TOPIC_ROLES", "Source", "SourceOptions", "describe", "is_bag", "open_source"]

BAG_SUFFIXES = (".mcap", ".db3", ".bag")


def is_bag(path: str | Path) -> bool:
    """Whether a path looks like a rosbag: a storage file, or a folder that holds one."""
    path = Path(path)
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or any(next(path.glob(f"*{end}"), None) for end in BAG_SUFFIXES[:2])
    return path.suffix in BAG_SUFFIXES


def open_source(path: str | Path, options: SourceOptions | None = None) -> Source:
    """Open a recording: a rosbag (folder or file) or a folder of images.

    Raises:
        InputError: nothing there, not a recording, or one that lacks what frames need.
    """
    options = options or SourceOptions()
    source = _open(Path(path), options)
    source.up = options.up
    return source


def _open(path: Path, options: SourceOptions) -> Source:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if is_bag(path):
        from perception.sources.bags import BagSource

        return BagSource(path, options)
    if path.is_dir():
        from perception.sources.datasets import FolderSource

        return FolderSource(path, options)
    raise InputError(f"{path}: expected a folder of images or a bag ({', '.join(BAG_SUFFIXES)})")


def describe(path: str | Path, options: SourceOptions | None = None) -> dict[str, Any]:
    """What a recording holds, as plain values.

    Returns:
        For a bag: kind "bag", storage, duration_s, messages, topics (name, type, count each), complete, note. For a
        folder: kind "folder", layout, frames, duration_s, width, height, intrinsics, labels.

    Raises:
        InputError: as :func:`open_source`, except that a bag needs no particular topics.
    """
    path = Path(path)
    if path.exists() and is_bag(path):
        from perception.sources.bag_reader import describe_bag

        return describe_bag(path)
    source = open_source(path, options)
    from perception.sources.datasets import FolderSource

    if not isinstance(source, FolderSource):
        raise InputError(f"{path}: expected a folder of images")
    return source.describe()
