# SPDX-License-Identifier: Apache-2.0
"""The YOLOX-Nano detector: one weights file, PyTorch or ONNX Runtime, boxes at image size."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.labels import LabelSet
from perception.models import yolox_layers
from perception.models.backends import choose_backend, require_backend, torch_run
from perception.models.base import check_image
from perception.models.boxes import letterbox, suppress
from perception.models.cards import shipped_card
from perception.models.detector_base import DetectorOptions, checked_detections
from perception.models.network import Run
from perception.models.onnx_runtimes import open_onnx
from perception.models.weights import check_arrays, find_weights, load_arrays
from perception.types import Detections

Arrays = Mapping[str, NDArray[Any]]
MAX_CANDIDATES = 2000
"""Boxes that compete; a network that finds something in every cell must not cost more time than this."""
MAX_LOG_SIZE = 10.0
"""Larger boxes, in cells, exceed every image; exp of more could overflow."""


class YoloXDetector:
    """Letterbox, run, decode, suppress.

    Args:
        name: for reports.
        device: for reports.
        label_set: class score k is its k-th class by ascending id.
        size: (height, width) of the network's input.
        run: the network; takes (1, 3, height, width) and gives (cells, 1, 5 + classes).
        options: thresholds.
    """

    def __init__(
        self,
        name: str,
        device: str,
        label_set: LabelSet,
        size: tuple[int, int],
        run: Run,
        options: DetectorOptions | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self.label_set = label_set
        self.size = size
        self.options = options or DetectorOptions()
        self._run = run
        self._ids = np.array([label.id for label in label_set.classes], np.int32)
        self._wanted = self.options.wanted(label_set)[self._ids]

    def raw(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's own output for an input (1, 3, height, width): (cells, 5 + classes), checked.

        Raises:
            InputError: another shape, or numbers that are not finite.
        """
        output = np.asarray(self._run(image))
        expected = (len(grid(self.size)[0]), 1, yolox_layers.BOX_CHANNELS + len(self._ids))
        if output.shape != expected:
            raise InputError(
                f"network {self.name}: expected objects {expected} as label set {self.label_set.name!r} has classes, "
                f"got {output.shape}"
            )
        if not np.isfinite(output).all():
            raise InputError(f"network {self.name}: expected finite objects, got NaN or infinity")
        return output[:, 0].astype(np.float32, copy=False)

    def __call__(self, rgb: NDArray[np.uint8]) -> Detections:
        """Find objects in an (H, W, 3) uint8 RGB image.

        Returns:
            Boxes in pixels of the image, surest first.

        Raises:
            InputError: wrong image, or the network gave another shape or numbers that are not finite.
        """
        check_image(rgb)
        image, scale = letterbox(rgb, self.size)
        boxes, scores, index = self._candidates(self.raw(image))
        kept = suppress(boxes, scores, index, self.options.iou_threshold, self.options.max_detections)
        return checked_detections(
            boxes[kept] / np.float32(scale),
            scores[kept],
            self._ids[index[kept]],
            self.label_set,
            (rgb.shape[0], rgb.shape[1]),
            self.name,
            self.options,
        )

    def _candidates(self, raw: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Boxes in pixels of the network's input, scores and indices of the classes, not yet suppressed."""
        box, objectness = raw[:, :4], raw[:, 4]
        # A class score is at most 1, so objectness alone rules out most cells.
        cells = np.flatnonzero(objectness >= self.options.score_threshold)
        classes = np.where(self._wanted, raw[cells, yolox_layers.BOX_CHANNELS :], -1)
        index = classes.argmax(1)
        scores = objectness[cells] * classes[np.arange(len(cells)), index]
        sure = np.flatnonzero(scores >= self.options.score_threshold)
        if len(sure) > MAX_CANDIDATES:
            sure = sure[np.argsort(-scores[sure], kind="stable")[:MAX_CANDIDATES]]
        cells = cells[sure]
        places, strides = grid(self.size)
        centers = (places[cells] + box[cells, :2]) * strides[cells]
        half = np.exp(np.minimum(box[cells, 2:], MAX_LOG_SIZE)) * strides[cells] / 2
        return np.hstack([centers - half, centers + half]), scores[sure], index[sure]

    def warm_up(self) -> None:
        """Run once on a gray 640×480 image."""
        self(np.full((480, 640, 3), 128, np.uint8))


@lru_cache(maxsize=8)
def grid(size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row (cells, 2) and stride (cells, 1) of every cell of an input (height, width), in output order."""
    places, strides = [], []
    for stride in yolox_layers.STRIDES:
        rows, columns = size[0] // stride, size[1] // stride
        places.append(np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2))
        strides.append(np.full((rows * columns, 1), stride))
    return np.concatenate(places).astype(np.float32), np.concatenate(strides).astype(np.float32)


def build_yolox_detector(options: DetectorOptions) -> YoloXDetector:
    """YOLOX-Nano with the shipped weights, or the user's file for the same layers.

    Raises:
        InputError: the weights do not fit the network or the label set.
        MissingDependencyError: the backend is not installed.
    """
    card = shipped_card("yolox_nano").with_input_size(options.input_size)
    assert card.weights is not None
    label_set = LabelSet.load(options.labels or card.labels)
    arrays = load_yolox_arrays(find_weights(card.weights, options.weights, options.download), len(label_set))
    backend, device = choose_backend(options.backend, options.device, options.precision)
    require_backend(backend)
    size = (card.input.height, card.input.width)
    if backend == "torch":
        run = _torch(arrays, len(label_set), device, options)
    else:
        run = _onnx(arrays, len(label_set), size, backend, device, options)
    return YoloXDetector(card.name, device, label_set, size, run, options)


def load_yolox_arrays(path: Path, num_classes: int) -> dict[str, NDArray[Any]]:
    """Tensors of a weights file of this network, checked; raises InputError when they do not fit."""
    arrays = load_arrays(path)
    check_arrays(arrays, yolox_layers.tensor_shapes(num_classes), str(path))
    return arrays


def _torch(arrays: Arrays, num_classes: int, device: str, options: DetectorOptions) -> Run:
    from perception.models.yolox import YoloX

    module = YoloX(num_classes)
    module.load_arrays(arrays)
    return torch_run(module, lambda image: module(image).transpose(1, 2)[..., None], device, options)


def _onnx(
    arrays: Arrays, num_classes: int, size: tuple[int, int], backend: str, device: str, options: DetectorOptions
) -> Run:
    from perception.models.yolox_graph import build_yolox

    model = build_yolox(arrays, num_classes, *size)
    network = open_onnx(model, backend, device, options.num_threads, options.precision)
    return lambda image: network(image)[0][:, None]
