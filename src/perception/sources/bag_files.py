# SPDX-License-Identifier: Apache-2.0
"""Which storage files in a folder are one bag."""

from __future__ import annotations

import re
from pathlib import Path

STORAGE_SUFFIXES = (".mcap", ".db3")


def unrelated_bags(folder: Path) -> list[Path]:
    """Storage files that lie in a folder without being parts of one bag: no metadata.yaml, and other names.

    Parts are named as ``ros2 bag record`` splits them, NAME_0, NAME_1 and so on, none left out; other numbers may be
    years or takes. Empty for parts of one bag, and for a file on its own.
    """
    if (folder / "metadata.yaml").is_file():
        return []
    files = sorted(path for path in folder.iterdir() if path.suffix in STORAGE_SUFFIXES)
    if len(files) < 2:
        return []
    found = [re.fullmatch(r"(.*)_(0|[1-9][0-9]{0,8})", path.stem) for path in files]
    parts = sorted((match[1], int(match[2])) for match in found if match)
    return [] if parts == [(parts[0][0] if parts else "", number) for number in range(len(files))] else files
