# SPDX-License-Identifier: Apache-2.0
"""A user's own ONNX file as a segmenter; nothing it says is taken on trust."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.labels import LabelSet
from perception.models.backends import choose_backend, onnx_session
from perception.models.base import check_image, checked_label_image
from perception.models.cards import ModelCard, read_card
from perception.models.decoding import InputSpec, prepare
from perception.models.network import NetworkSegmenter, Run
from perception.models.options import ModelOptions
from perception.types import LabelImage

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
LABEL_ONLY_CONFIDENCE = 0.9
"""Confidence of every pixel where a network gives labels without probabilities."""
_log = logging.getLogger(__name__)


class LabelNetworkSegmenter:
    """A network whose output is already a label per pixel."""

    def __init__(self, name: str, device: str, label_set: LabelSet, spec: InputSpec, run: Run) -> None:
        self.name = name
        self.device = device
        self.label_set = label_set
        self._spec = spec
        self._run = run

    def __call__(self, rgb: NDArray[np.uint8]) -> LabelImage:
        """Label an (H, W, 3) uint8 RGB image, nearest pixel; raises InputError for a wrong image or output."""
        check_image(rgb)
        size = self._spec.size_for(rgb.shape[0], rgb.shape[1])
        labels = np.asarray(self._run(prepare(rgb, size, self._spec)))
        if labels.ndim != 2 or 0 in labels.shape:
            raise InputError(f"network {self.name}: expected labels (h, w), got {labels.shape}")
        rows, columns = (
            ((np.arange(out) + 0.5) * given / out).astype(np.int64)
            for out, given in zip(rgb.shape[:2], labels.shape, strict=True)
        )
        labels = labels[rows[:, None], columns]
        return checked_label_image(labels, LABEL_ONLY_CONFIDENCE, self.label_set, labels.shape, self.name)

    def warm_up(self) -> None:
        """Run once on a gray 640×480 image."""
        self(np.full((480, 640, 3), 128, np.uint8))


def build_onnx_segmenter(path: str, options: ModelOptions) -> NetworkSegmenter | LabelNetworkSegmenter:
    """A segmenter from an ONNX file with one image input and logits, probabilities or labels as first output.

    A model card beside the file (``name.card.yaml``; see :class:`perception.models.cards.ModelCard`) says how to
    normalize and what comes out. Without one a float input gets RGB with ImageNet's mean and deviation (with a
    warning), an integer output is labels and a float output logits.

    Args:
        path: of the .onnx file.
        options: ``labels`` names the label set unless the card does; channel k is its k-th class by ascending id.

    Raises:
        InputError: the file, its input or its output is not as described, or no label set is given.
    """
    if not Path(path).is_file():
        raise InputError(f"network {path}: expected an ONNX file, found none")
    card = _card(Path(path))
    labels = options.labels or _beside(Path(path), card.labels if card is not None else "")
    if not labels:
        raise InputError(f"network {path}: expected a label set, give 'labels' the name of one or a YAML file")
    label_set = LabelSet.load(labels)
    backend, device = choose_backend("onnx" if options.backend == "auto" else options.backend, options.device)
    if backend != "onnx":
        raise InputError(f"network {path}: expected backend onnx or auto, got {backend}")
    session = onnx_session(path, device, options.num_threads)
    spec = _input_spec(session, card, options.input_size, path)
    output = _output_kind(session, card, path)
    kind = LabelNetworkSegmenter if output == "labels" else NetworkSegmenter
    return kind(path, device, label_set, spec, _run(session, output, path))


def _card(path: Path) -> ModelCard | None:
    beside = path.with_suffix(".card.yaml")
    return read_card(beside) if beside.is_file() else None


def _beside(path: Path, labels: str) -> str:
    """A label set file beside the network, else a name or path as it is."""
    return str(path.parent / labels) if labels and (path.parent / labels).is_file() else labels


def _input_spec(session: Any, card: ModelCard | None, size: tuple[int, int] | None, path: str) -> InputSpec:
    """What to feed: from the file's input, the card and the wanted size, which must not contradict each other."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    # Free dimensions are None or a name.
    fits = len(shape) == 4 and (not isinstance(shape[0], int) or shape[0] == 1) and shape[1] == 3
    if not fits or inputs[0].type not in ("tensor(float)", "tensor(uint8)"):
        got = ", ".join(f"{item.type} {item.shape}" for item in inputs)
        raise InputError(f"network {path}: expected one input (1, 3, height, width) of float or uint8, got {got}")
    spec = _normalization(card, inputs[0].type == "tensor(uint8)", path)
    if size is not None:
        spec = replace(spec, height=size[0], width=size[1])
    fixed = [length if isinstance(length, int) else 0 for length in shape[2:]]
    if not spec.height and all(fixed):
        spec = replace(spec, height=fixed[0], width=fixed[1])
    if any(want != given for want, given in zip((spec.height, spec.width), fixed, strict=True) if given):
        raise InputError(f"network {path}: expected input size {shape[3]}x{shape[2]}, got {spec.width}x{spec.height}")
    return spec


def _normalization(card: ModelCard | None, raw: bool, path: str) -> InputSpec:
    if card is None and not raw:
        _log.warning("network %s: no model card beside it; input is RGB with ImageNet's mean and deviation", path)
        return InputSpec(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    spec = card.input if card is not None else InputSpec()
    if raw and (spec.mean, spec.std) != (InputSpec.mean, InputSpec.std):
        raise InputError(f"network {path}: expected a model card without mean and std for a uint8 input")
    return spec


def _output_kind(session: Any, card: ModelCard | None, path: str) -> str:
    """logits, probabilities or labels, as the card says or the type of the first output tells."""
    output = session.get_outputs()[0]
    integers = "int" in output.type
    if not integers and output.type != "tensor(float)":
        raise InputError(f"network {path}: expected a first output of float or integers, got {output.type}")
    if card is not None and (card.output == "labels") != integers:
        raise InputError(f"network {path}: expected {card.output} as its model card says, got {output.type}")
    return "labels" if integers else "logits" if card is None else card.output


def _run(session: Any, output: str, path: str) -> Run:
    source, dtype = session.get_inputs()[0].name, session.get_inputs()[0].type
    wanted = [session.get_outputs()[0].name]

    def run(image: NDArray[np.float32]) -> NDArray[Any]:
        feed = {source: image.astype(np.uint8) if dtype == "tensor(uint8)" else image}
        try:
            value = session.run(wanted, feed)[0]
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise InputError(f"network {path}: failed on input {image.shape} ({str(error).splitlines()[0]})") from error
        if output == "labels":
            # (1, h, w) and (1, 1, h, w) are both common.
            return value[(0,) * (value.ndim - 2)] if set(value.shape[:-2]) <= {1} else value
        if value.ndim != 4 or len(value) != 1:
            raise InputError(f"network {path}: expected {output} (1, C, h, w), got {value.shape}")
        logits = value[0].transpose(1, 2, 0)
        # The decoder's softmax gives log-probabilities back as probabilities.
        return np.log(np.maximum(logits, np.finfo(np.float32).tiny)) if output == "probabilities" else logits

    return run
