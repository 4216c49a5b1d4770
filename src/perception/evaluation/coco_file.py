# SPDX-License-Identifier: Apache-2.0
"""Annotations in MS COCO's format, for scoring and for training."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from perception.errors import InputError
from perception.models.base import require


def open_coco(path: Path, extra: str, max_bytes: int | None = None) -> Any:
    """A pycocotools.coco.COCO of a file.

    Args:
        path: the JSON file.
        extra: of this package that brings pycocotools, for the error where it is missing.
        max_bytes: larger files are refused; None for no bound.

    Raises:
        InputError: the file is absent, damaged, too large, or has no images or no categories.
        MissingDependencyError: no pycocotools.
    """
    library = require("pycocotools.coco", extra, "reading COCO annotations")
    try:
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise InputError(f"{path}: expected at most {max_bytes} bytes")
        # pycocotools prints how long it took.
        with contextlib.redirect_stdout(io.StringIO()):
            coco = library.COCO(str(path))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(f"{path}: expected COCO annotations, cannot be read ({error})") from error
    if not coco.imgs or not coco.cats:
        raise InputError(f"{path}: expected COCO annotations with images and categories, got none")
    return coco
