# SPDX-License-Identifier: Apache-2.0
"""What the pipeline asks of a network, and the checks that every network's input and output pass."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from perception.config import DetectionConfig, SegmentationConfig
from perception.errors import InputError, MissingDependencyError
from perception.labels import LabelSet
from perception.types import Detections, LabelImage

MAX_CONFIDENCE = float(np.nextafter(np.float32(1), np.float32(0)))
MIN_CONFIDENCE = float(np.finfo(np.float32).tiny)


@runtime_checkable
class Segmenter(Protocol):
    """Gives every pixel a class.

    Attributes:
        name: registry name or specification, for reports.
        device: where it runs, "cpu" or "cuda:0", say.
        label_set: what the labels mean.
    """

    name: str
    device: str
    label_set: LabelSet

    def __call__(self, rgb: NDArray[np.uint8]) -> LabelImage:
        """Label an image.

        Args:
            rgb: (H, W, 3) uint8, RGB.

        Returns:
            Labels and confidence of the same height and width.

        Raises:
            InputError: the image, or what the network made of it, is not as described.
        """
        ...

    def warm_up(self) -> None:
        """Run once on a blank image, so that the first real one is not slower than the others."""
        ...


@runtime_checkable
class Detector(Protocol):
    """Finds objects in an image; the attributes and methods are those of :class:`Segmenter`."""

    name: str
    device: str
    label_set: LabelSet

    def __call__(self, rgb: NDArray[np.uint8]) -> Detections:
        """Find objects in an (H, W, 3) uint8 RGB image; raises InputError as :class:`Segmenter` does."""
        ...

    def warm_up(self) -> None:
        """Run once on a blank image."""
        ...


def label_together(segmenter: Segmenter, images: Sequence[NDArray[np.uint8]]) -> list[LabelImage]:
    """Label (H, W, 3) uint8 RGB images by the segmenter's ``predict_batch``, else one by one; errors as its call's."""
    batch = getattr(segmenter, "predict_batch", None)
    return [segmenter(rgb) for rgb in images] if batch is None else batch(images)


def chosen_input_size(config: SegmentationConfig | DetectionConfig) -> tuple[int, int] | None:
    """(height, width) that a configuration asks for; None for the network's own.

    Raises:
        InputError: only one of input_width and input_height is given.
    """
    if (config.input_height == 0) != (config.input_width == 0):
        raise InputError(
            "input_width and input_height: expected both or neither, "
            f"got {config.input_width} and {config.input_height}"
        )
    return (config.input_height, config.input_width) if config.input_height else None


def check_image(rgb: NDArray[Any]) -> None:
    """Raise InputError unless the image is (H, W, 3) uint8 with at least one pixel."""
    shape, dtype = getattr(rgb, "shape", None), getattr(rgb, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise InputError(f"image: expected (H, W, 3) uint8 RGB, got {shape} {dtype}")


def checked_label_image(
    labels: NDArray[Any], confidence: NDArray[Any] | float, label_set: LabelSet, size: tuple[int, int], name: str
) -> LabelImage:
    """What a network says, as a LabelImage, if it may be believed.

    Args:
        labels: (H, W) integer ids of the label set, −1 where there is none.
        confidence: (H, W) probabilities in 0 … 1, or one for all pixels; 0 and 1 become the nearest float32 inside.
        label_set: what the ids mean.
        size: (height, width) of the image.
        name: of the network, for the message.

    Raises:
        InputError: wrong shape or type, unknown ids, or confidence that is not a probability.
    """
    labels, confidence = np.asarray(labels), np.asarray(confidence)
    if labels.shape != size or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"network {name}: expected labels {size} of integers, got {labels.shape} {labels.dtype}")
    if confidence.shape not in ((), size) or not np.issubdtype(confidence.dtype, np.floating):
        raise InputError(
            f"network {name}: expected confidence {size} float32, got {confidence.shape} {confidence.dtype}"
        )
    if not (confidence.min() >= 0 and confidence.max() <= 1):
        raise InputError(f"network {name}: expected confidence from 0 to 1, got NaN or numbers outside")
    label_set.check_ids(labels, f"network {name}")
    inside = np.clip(confidence, MIN_CONFIDENCE, MAX_CONFIDENCE).astype(np.float32)
    return LabelImage(labels, np.array(np.broadcast_to(inside, size)), label_set)


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional library.

    Raises:
        MissingDependencyError: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs {module}: pip install 'perception[{extra}]' ({error})"
        ) from error
