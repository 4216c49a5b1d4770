# SPDX-License-Identifier: Apache-2.0
"""On how many pixels of photographs two networks say the same: a check that needs no truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.models.base import Segmenter
from perception.sources.image_files import read_color
from perception.types import LabelImage

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
OTHERS = (".depth", ".segm", ".mask", ".instance", "_mask")
"""Ends of names, and the folder depth, that are no photographs but belong to some."""
CONFIDENT = 0.8
"""A reference is sure of labels above this."""


@dataclass(frozen=True)
class Agreement:
    """Pixels on which a network agrees with a reference.

    Attributes:
        pixels: that were compared.
        same: of those, with the reference's label.
        confident: on which the reference is confident.
        confident_same: of those, with its label.
    """

    pixels: int = 0
    same: int = 0
    confident: int = 0
    confident_same: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.pixels + other.pixels,
            self.same + other.same,
            self.confident + other.confident,
            self.confident_same + other.confident_same,
        )

    @property
    def share(self) -> float:
        """Share of all pixels with the same label; NaN where there are none."""
        return self.same / self.pixels if self.pixels else float("nan")

    @property
    def confident_share(self) -> float:
        """Share of the pixels with the same label among those on which the reference is confident."""
        return self.confident_same / self.confident if self.confident else float("nan")


def photographs(folder: Path) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """Images below a folder in order of their names, as (H, W, 3) uint8 RGB; depth and mask images are left out.

    Raises:
        InputError: no image there, or a damaged one.
    """
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.stem.endswith(OTHERS) and path.parent.name != "depth"
    )
    if not paths:
        raise InputError(f"{folder}: expected photographs ({', '.join(SUFFIXES)}) below it, found none")
    for path in paths:
        yield path, read_color(path)


def agreement(reference: LabelImage, labels: LabelImage, confident: float = CONFIDENT) -> Agreement:
    """Compare two answers for one image.

    Args:
        reference: what counts as right.
        labels: the other answer.
        confident: the reference is so from this confidence on.

    Raises:
        InputError: images of different sizes, or different label sets.
    """
    if reference.labels.shape != labels.labels.shape:
        raise InputError(f"labels to compare: expected {reference.labels.shape}, got {labels.labels.shape}")
    if reference.label_set.name != labels.label_set.name:
        raise InputError(
            f"labels to compare: expected label set {reference.label_set.name!r}, got {labels.label_set.name!r}"
        )
    same = reference.labels == labels.labels
    sure = reference.confidence > confident
    return Agreement(same.size, int(same.sum()), int(sure.sum()), int((same & sure).sum()))


def compare_on_photographs(
    reference: Segmenter, others: Iterable[Segmenter], folder: Path, confident: float = CONFIDENT
) -> Iterator[tuple[Path, list[Agreement]]]:
    """Every photograph of a folder with the agreement of each network with the reference.

    Raises:
        InputError: as :func:`photographs` and :func:`agreement`.
    """
    networks = list(others)
    for path, image in photographs(folder):
        expected = reference(image)
        yield path, [agreement(expected, network(image), confident) for network in networks]
