# SPDX-License-Identifier: Apache-2.0
"""torchvision's detectors with torchvision's own weights (PyTorch only)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.labels import UNLABELED, LabelSet
from perception.models.backends import choose_backend, torch_device
from perception.models.base import check_image, require
from perception.models.cards import shipped_card
from perception.models.detector_base import DetectorOptions, checked_detections
from perception.models.weights import check_arrays, find_weights, load_arrays
from perception.types import Detections

NAMES = (
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
    "keypointrcnn_resnet50_fpn",
)
FROZEN_BATCH_NORM_EPSILON = {
    "fasterrcnn_mobilenet_v3_large_fpn": 1e-5,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 1e-5,
    "keypointrcnn_resnet50_fpn": 0.0,
}
"""Networks whose backbone was trained with fixed batch norm statistics, and the epsilon that goes with them."""
MASK_THRESHOLD = 0.5


class TorchvisionDetector:
    """Runs a network of torchvision, which resizes, normalizes and suppresses by itself.

    Args:
        name: for reports.
        device: where the module lies.
        label_set: what the labels of the answer mean.
        ids: (classes of the network,) int32 id of each class, −1 for those that the label set lacks.
        module: takes a list of (3, H, W) RGB 0 … 1; gives dictionaries of boxes, labels, scores, masks, keypoints.
        options: thresholds.
    """

    def __init__(
        self, name: str, device: str, label_set: LabelSet, ids: NDArray[np.int32], module: Any, options: DetectorOptions
    ) -> None:
        self.name = name
        self.device = device
        self.label_set = label_set
        self.options = options
        self._ids = ids
        self._module = module

    def __call__(self, rgb: NDArray[np.uint8]) -> Detections:
        """Find objects in an (H, W, 3) uint8 RGB image; raises InputError for a wrong image or a wrong answer."""
        check_image(rgb)
        answer = self._answer(rgb)
        labels = np.asarray(answer["labels"])
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self._ids):
            raise InputError(f"network {self.name}: expected labels 0 to {len(self._ids) - 1}, got others")
        masks, keypoints = answer.get("masks"), answer.get("keypoints")
        if keypoints is not None and len(keypoints):
            # torchvision gives x, y and a visibility that is always 1; the scores are apart and are no probabilities.
            scores = 1 / (1 + np.exp(-np.clip(answer["keypoints_scores"], -50, 50)))
            keypoints = np.concatenate([keypoints[..., :2], scores[..., None]], -1).astype(np.float32)
        return checked_detections(
            answer["boxes"],
            np.clip(answer["scores"], 0, 1),
            self._ids[labels],
            self.label_set,
            (rgb.shape[0], rgb.shape[1]),
            self.name,
            self.options,
            None if masks is None else masks[:, 0],
            keypoints,
        )

    def _answer(self, rgb: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        torch = require("torch", "torch", f"network {self.name}")
        if self.device == "cpu":
            torch.set_flush_denormal(True)
        with torch.inference_mode():
            image = torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).permute(2, 0, 1).float() / 255
            answer = self._module([image])[0]
            if "masks" in answer:
                answer["masks"] = answer["masks"] >= MASK_THRESHOLD
        return {key: value.cpu().numpy() for key, value in answer.items()}

    def warm_up(self) -> None:
        """Run once on a gray 640×480 image."""
        self(np.full((480, 640, 3), 128, np.uint8))


def build_torchvision_detector(architecture: str, options: DetectorOptions) -> TorchvisionDetector:
    """One of torchvision's networks.

    Args:
        architecture: one of ``NAMES``.
        options: the user's. With ``labels``, class k + 1 of the network is the k-th class of that set by ascending id;
            0 is the background.

    Raises:
        InputError: the weights do not fit the network or the label set, or another backend than torch is asked for.
        MissingDependencyError: torch or torchvision is not installed.
        PerceptionError: the weights are found nowhere.
    """
    if options.backend not in ("auto", "torch"):
        raise InputError(f"network {architecture}: expected backend torch or auto, got {options.backend}")
    if options.input_size is not None and architecture.startswith("ssd"):
        raise InputError(f"network {architecture}: its input size is fixed, got {options.input_size}")
    torch = require("torch", "torch", f"network {architecture}")
    require("torchvision", "torch", f"network {architecture}")
    _, device = choose_backend("torch", options.device)
    place = torch_device(device)
    card = shipped_card(architecture)
    assert card.weights is not None
    label_set = LabelSet.load(options.labels or card.labels)
    ids = _own_classes(label_set) if options.labels else _published_classes(architecture, label_set)
    options.wanted(label_set)
    module = create_module(architecture, len(ids))
    path = find_weights(card.weights, options.weights, options.download)
    _load(module, load_arrays(path), str(path))
    _configure(module, options)
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    return TorchvisionDetector(architecture, device, label_set, ids, module.to(place).eval(), options)


def create_module(architecture: str, num_classes: int) -> Any:
    """The network as torchvision builds it for its published weights, with random numbers.

    Args:
        architecture: one of ``NAMES``.
        num_classes: background included.
    """
    detection = require("torchvision.models.detection", "torch", f"network {architecture}")
    module = getattr(detection, architecture)(weights=None, weights_backbone=None, num_classes=num_classes)
    if architecture in FROZEN_BATCH_NORM_EPSILON:
        _freeze_batch_norm(module, FROZEN_BATCH_NORM_EPSILON[architecture])
    return module


def _freeze_batch_norm(module: Any, epsilon: float) -> None:
    torch = require("torch", "torch", "networks of torchvision")
    misc = require("torchvision.ops.misc", "torch", "networks of torchvision")
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(parent, name, misc.FrozenBatchNorm2d(child.num_features, epsilon))


def _load(module: Any, arrays: dict[str, NDArray[Any]], what: str) -> None:
    torch = require("torch", "torch", "networks of torchvision")
    # Counters of training steps: some published files have them, some do not, and nothing depends on them.
    arrays = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    state = {name: value for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    check_arrays(arrays, {name: tuple(value.shape) for name, value in state.items()}, what)
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, strict=False)


def _configure(module: Any, options: DetectorOptions) -> None:
    """Set thresholds and input size; torchvision keeps those of R-CNNs in another place than those of others."""
    place = getattr(module, "roi_heads", module)
    place.score_thresh = options.score_threshold
    place.nms_thresh = options.iou_threshold
    place.detections_per_img = options.max_detections
    if options.input_size is not None:
        module.transform.min_size = (min(options.input_size),)
        module.transform.max_size = max(options.input_size)


def _own_classes(label_set: LabelSet) -> NDArray[np.int32]:
    return np.array([UNLABELED, *(label.id for label in label_set.classes)], np.int32)


def _published_classes(architecture: str, label_set: LabelSet) -> NDArray[np.int32]:
    """The label set's id of each class of the published network, by name."""
    models = require("torchvision.models", "torch", f"network {architecture}")
    categories = models.get_model_weights(architecture).DEFAULT.meta["categories"]
    ids = {label.name: label.id for label in label_set.classes}
    return np.array([ids.get(name, UNLABELED) for name in categories], np.int32)


TORCHVISION_DETECTORS = {name: partial(build_torchvision_detector, name) for name in NAMES}
