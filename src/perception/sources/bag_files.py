# SPDX-License-Identifier: Apache-2.0
"""Which storage files in a folder are one bag."""

from __future__ import annotations

import re
from pathlib import Path

STORAGE_SUFFIXES = (".mcap", ".db3")


def unrelated_bags(folder: Path) -> list[Path]:
    """Storage files that lie in a folder without being parts of one bag: no metadata.yaml, and other names.

    Parts are named as ``ros2 bag record`` splits them, NAME_0, NAME_1 and so on. Empty for parts of one bag.
    """
    if (folder / "metadata.yaml").is_file():
        return []
    files = sorted(path for path in folder.iterdir() if path.suffix in STORAGE_SUFFIXES)
    return files if len({re.sub(r"_\d+$", "", path.stem) for path in files}) > 1 else []
