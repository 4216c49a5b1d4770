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
from perception.models.backends import CPU_ORDER, choose_backend, has_backend
from perception.models.base import check_image, checked_label_image
from perception.models.cards import ModelCard, read_card
from perception.models.decoding import InputSpec, prepare
from perception.models.network import NetworkSegmenter, Run
from perception.models.onnx_runtimes import OnnxNetwork, open_onnx
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
    device, network = _open(path, options)
    spec = _input_spec(network, card, options.input_size, path)
    output = _output_kind(network, card, path)
    kind = LabelNetworkSegmenter if output == "labels" else NetworkSegmenter
    return kind(path, device, label_set, spec, _run(network, output, path))


def _open(path: str, options: ModelOptions) -> tuple[str, OnnxNetwork]:
    """The device, and the network on the wanted backend, or for "auto" on the first that takes the file."""
    if options.backend == "torch":
        raise InputError(f"network {path}: expected backend onnxruntime, openvino or auto, got torch")
    # A GPU is ONNX Runtime's alone, other numbers than float32 OpenVINO's.
    _, device = choose_backend("onnxruntime" if options.backend == "auto" else options.backend, options.device)
    backends = [options.backend]
    if options.backend == "auto":
        fits = ["onnxruntime"] if device != "cpu" else [name for name in CPU_ORDER if name != "torch"]
        fits = [name for name in fits if options.precision == "float32" or name == "openvino"]
        backends = [name for name in fits if has_backend(name)] or fits[-1:]
    for backend in backends[:-1]:
        try:
            return device, open_onnx(path, backend, device, options.num_threads, options.precision)
        except InputError as error:
            _log.warning("%s; trying %s", error, backends[-1])
    return device, open_onnx(path, backends[-1], device, options.num_threads, options.precision)


def _card(path: Path) -> ModelCard | None:
    beside = path.with_suffix(".card.yaml")
    return read_card(beside) if beside.is_file() else None


def _beside(path: Path, labels: str) -> str:
    """A label set file beside the network, else a name or path as it is."""
    return str(path.parent / labels) if labels and (path.parent / labels).is_file() else labels


def _input_spec(network: OnnxNetwork, card: ModelCard | None, size: tuple[int, int] | None, path: str) -> InputSpec:
    """What to feed: from the file's input, the card and the wanted size, which must not contradict each other."""
    shape: tuple[int | None, ...] = network.inputs[0].shape if len(network.inputs) == 1 else ()
    fits = len(shape) == 4 and shape[0] in (1, None) and shape[1] == 3
    if not fits or network.inputs[0].dtype not in ("float32", "uint8"):
        got = ", ".join(f"{item.dtype} {list(item.shape)}" for item in network.inputs)
        raise InputError(f"network {path}: expected one input (1, 3, height, width) of float or uint8, got {got}")
    spec = _normalization(card, network.inputs[0].dtype == "uint8", path)
    if size is not None:
        spec = replace(spec, height=size[0], width=size[1])
    fixed = [length or 0 for length in shape[2:]]
    if not spec.height and all(fixed):
        spec = replace(spec, height=fixed[0], width=fixed[1])
    if any(want != given for want, given in zip((spec.height, spec.width), fixed, strict=True) if given):
        wanted = "x".join(str(length or "any") for length in reversed(fixed))
        raise InputError(f"network {path}: expected input size {wanted}, got {spec.width}x{spec.height}")
    return spec


def _normalization(card: ModelCard | None, raw: bool, path: str) -> InputSpec:
    if card is None and not raw:
        _log.warning("network %s: no model card beside it; input is RGB with ImageNet's mean and deviation", path)
        return InputSpec(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    spec = card.input if card is not None else InputSpec()
    if raw and (spec.mean, spec.std) != (InputSpec.mean, InputSpec.std):
        raise InputError(f"network {path}: expected a model card without mean and std for a uint8 input")
    return spec


def _output_kind(network: OnnxNetwork, card: ModelCard | None, path: str) -> str:
    """logits, probabilities or labels, as the card says or the type of the first output tells."""
    kind = network.outputs[0].dtype
    integers = "int" in kind
    if not integers and kind != "float32":
        raise InputError(f"network {path}: expected a first output of float32 or integers, got {kind}")
    if card is not None and (card.output == "labels") != integers:
        raise InputError(f"network {path}: expected {card.output} as its model card says, got {kind}")
    return "labels" if integers else "logits" if card is None else card.output


def _run(network: OnnxNetwork, output: str, path: str) -> Run:
    raw = network.inputs[0].dtype == "uint8"

    def run(image: NDArray[np.float32]) -> NDArray[Any]:
        value = network(image.astype(np.uint8) if raw else image)
        if output == "labels":
            # (1, h, w) and (1, 1, h, w) are both common.
            return value[(0,) * (value.ndim - 2)] if set(value.shape[:-2]) <= {1} else value
        if value.ndim != 4 or len(value) != 1:
            raise InputError(f"network {path}: expected {output} (1, C, h, w), got {value.shape}")
        logits = value[0].transpose(1, 2, 0)
        # The decoder's softmax gives log-probabilities back as probabilities.
        return np.log(np.maximum(logits, np.finfo(np.float32).tiny)) if output == "probabilities" else logits

    return run
