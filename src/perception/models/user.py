# SPDX-License-Identifier: Apache-2.0
"""A user's own network, named as ``package.module:function``."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError, PerceptionError
from perception.labels import LabelSet
from perception.models.backends import choose_backend
from perception.models.base import check_image, checked_label_image
from perception.models.options import ModelOptions
from perception.types import LabelImage


class UserNetwork(ABC):
    """A user's callable, called as a network.

    Args:
        name: its specification.
        device: that it was asked to run on.
        predict: takes (H, W, 3) uint8 RGB; gives what the subclass says.
        label_set: what its labels mean.
    """

    def __init__(self, name: str, device: str, predict: Callable[[Any], Any], label_set: LabelSet) -> None:
        self.name = name
        self.device = device
        self.label_set = label_set
        self._predict = predict

    @abstractmethod
    def __call__(self, rgb: NDArray[np.uint8]) -> Any:
        """Run it on an (H, W, 3) uint8 RGB image and check what it gives."""

    def warm_up(self) -> None:
        """Its own ``warm_up`` if it has one, else one run on a gray 640×480 image."""
        own = getattr(self._predict, "warm_up", None)
        if own is not None:
            own()
        else:
            self(np.full((480, 640, 3), 128, np.uint8))


class UserSegmenter(UserNetwork):
    """Checks what goes into and comes out of a user's callable; it gives a LabelImage or (labels, confidence)."""

    def __call__(self, rgb: NDArray[np.uint8]) -> LabelImage:
        """Label an (H, W, 3) uint8 RGB image; raises InputError for a wrong image or a wrong answer."""
        check_image(rgb)
        answer = self._predict(rgb)
        if isinstance(answer, LabelImage):
            if answer.label_set != self.label_set:
                raise InputError(
                    f"network {self.name}: expected labels of set {self.label_set.name!r}, "
                    f"got a LabelImage of another set, {answer.label_set.name!r}"
                )
            labels, confidence = answer.labels, answer.confidence
        elif isinstance(answer, tuple) and len(answer) == 2:
            labels, confidence = answer
        else:
            raise InputError(
                f"network {self.name}: expected a LabelImage or a pair (labels, confidence), "
                f"got {type(answer).__name__}"
            )
        return checked_label_image(labels, confidence, self.label_set, (rgb.shape[0], rgb.shape[1]), self.name)


def build_user_segmenter(spec: str, options: ModelOptions) -> UserSegmenter:
    """Import a function and let it build the network.

    The function is called with the keyword argument ``device`` ("cpu", "cuda" …) and returns something that takes an
    (H, W, 3) uint8 RGB image and gives a LabelImage or a pair (labels, confidence). Its ``label_set`` attribute says
    what the labels mean, unless ``options.labels`` does.

    Raises:
        InputError: no such function, it fails, or what it returns cannot be called or has no label set.
    """
    device, predict, label_set = load_user_network(spec, options)
    return UserSegmenter(spec, device, predict, label_set)


def load_user_network(spec: str, options: ModelOptions) -> tuple[str, Callable[[Any], Any], LabelSet]:
    """Call a user's function; returns the device that it was given, what it made, and what its labels mean.

    Raises:
        InputError: as :func:`build_user_segmenter` says.
    """
    module_name, _, function_name = spec.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"network {spec}: expected package.module:function, cannot import it ({error})") from error
    device = choose_device(options.device)
    try:
        predict = function(device=device)
    except PerceptionError:
        raise
    except Exception as error:
        raise InputError(f"network {spec}: {function_name}(device={device!r}) failed ({error})") from error
    label_set = LabelSet.load(options.labels) if options.labels else getattr(predict, "label_set", None)
    if not callable(predict) or not isinstance(label_set, LabelSet):
        raise InputError(
            f"network {spec}: expected a callable with a LabelSet as its attribute 'label_set', or the option "
            f"'labels', got {type(predict).__name__}"
        )
    return device, predict, label_set


def choose_device(device: str) -> str:
    """Settle "auto" without asking for an installed backend, which a user's network may not need."""
    return choose_backend("torch", device)[1]
