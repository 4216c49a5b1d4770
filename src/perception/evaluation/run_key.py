# SPDX-License-Identifier: Apache-2.0
"""What tells one run from another: a hash of configuration, source and version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perception import __version__

SAMPLED_BYTES = 1 << 16


def fingerprint(path: str | Path) -> str:
    """Hash of a recording: names and sizes of its files, and the first and last 64 KiB of each.

    Copies elsewhere have the same one; times of files do not count.
    """
    path = Path(path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path) if path.is_dir() else file.name}\0{size}\0".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(SAMPLED_BYTES))
            if size > SAMPLED_BYTES:
                opened.seek(max(size - SAMPLED_BYTES, SAMPLED_BYTES))
                digest.update(opened.read(SAMPLED_BYTES))
    return digest.hexdigest()


def run_key(source: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Hash of everything that a run's outcome depends on.

    Args:
        source: :func:`fingerprint` of the recording.
        config: parameters of the pipeline, plain values.
        options: how the recording is read and scored, plain values.

    Of a value that is the path of a file, what is in the file counts, too.
    """
    text = json.dumps([__version__, source, _with_files(config), _with_files(options)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _with_files(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _with_files(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_files(item) for item in value]
    if isinstance(value, str | Path) and value and Path(value).is_file():
        return [str(value), fingerprint(value)]
    return value
