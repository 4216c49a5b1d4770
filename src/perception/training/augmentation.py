# SPDX-License-Identifier: Apache-2.0
"""Random changes of images and masks by albumentations, the same for the same number."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.models.base import require
from perception.training.config import AugmentationConfig
from perception.training.datasets import IGNORED


class Augmentation:
    """Turns an image and a mask of any size into ones of a fixed size.

    Args:
        config: size and transforms.

    Raises:
        InputError: an unknown transform, or arguments that it does not take.
        MissingDependencyError: albumentations is not installed.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self._size = (config.height, config.width)
        self._compose = compose(config.transforms) if config.transforms else None

    def __call__(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Change (H, W, 3) and (H, W) uint8; equal seeds give equal results.

        Raises:
            InputError: the transforms do not end in the configured size.
        """
        if self._compose is None:
            return resize(image, mask, self._size)
        self._compose.set_random_seed(seed % 2**32)
        result = self._compose(image=image, mask=mask)
        image, mask = result["image"], result["mask"]
        if image.shape != (*self._size, 3) or image.dtype != np.uint8:
            raise InputError(
                f"augmentation.transforms: expected images of {(*self._size, 3)} uint8 at the end, "
                f"got {image.shape} {image.dtype}"
            )
        return image, mask


def compose(transforms: Sequence[Any]) -> Any:
    """Albumentations' Compose of ``{Name: {argument: value}}`` entries."""
    # albumentations asks a server for news when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    library = require("albumentations", "training", "augmentation")
    return library.Compose([_transform(library, entry) for entry in transforms])


def _transform(library: Any, entry: Any) -> Any:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise InputError(f"augmentation.transforms: expected entries {{Name: {{argument: value}}}}, got {entry!r}")
    (name, arguments), *_ = entry.items()
    kind = getattr(library, str(name), None)
    kinds = (library.BasicTransform, library.BaseCompose)
    if not (inspect.isclass(kind) and issubclass(kind, kinds)):
        raise InputError(f"augmentation.transforms: albumentations has no transform {name!r}")
    values = dict(arguments or {})
    if "transforms" in values:
        values["transforms"] = [_transform(library, inner) for inner in values["transforms"]]
    known = inspect.signature(kind.__init__).parameters
    unknown = sorted(set(values) - set(known))
    if unknown:
        expected = sorted(set(known) - {"self"})
        raise InputError(f"augmentation.transforms: {name} has no arguments {unknown}; expected some of {expected}")
    if "fill_mask" in known:
        # What a transform invents has no class.
        values.setdefault("fill_mask", IGNORED)
    try:
        return kind(**{key: tuple(value) if _is_numbers(value) else value for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise InputError(f"augmentation.transforms: {name}: {' '.join(str(error).split())}") from error


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)


def resize(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and mask at (height, width): area or bilinear for the image, nearest for the mask."""
    import cv2

    if image.shape[:2] == size:
        return image, mask
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, size[::-1], interpolation=how)
    # INTER_NEAREST takes the upper left of each cell; the exact one takes the middle.
    return np.asarray(resized, np.uint8), np.asarray(
        cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8
    )
