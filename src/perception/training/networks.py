# SPDX-License-Identifier: Apache-2.0
"""Networks that can be trained, and which of their parameters learn at which rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from perception.errors import InputError
from perception.labels import LabelSet
from perception.models.base import require
from perception.models.cards import ModelCard, shipped_card
from perception.models.deeplab import DeepLabV3Plus, upsample
from perception.models.weights import check_arrays, find_weights, load_arrays
from perception.training.batch_norm import folded_state, insert_batch_norm
from perception.training.config import NetworkConfig


@dataclass(frozen=True)
class Family:
    """How a network is built, and what its layers are called.

    Attributes:
        build: module with so many classes.
        head: prefixes of the parameters behind the backbone.
        classifier: prefixes of the layers that have one output per class.
        legacy_grid: logits lie on TensorFlow 1's grid (pixel 0 on pixel 0), else on the usual one (centers on centers).
    """

    build: Callable[[int], nn.Module]
    head: tuple[str, ...]
    classifier: tuple[str, ...]
    legacy_grid: bool = False


def _torchvision(name: str) -> Callable[[int], nn.Module]:
    def build(classes: int) -> nn.Module:
        segmentation = require("torchvision.models.segmentation", "torch", f"network {name}")
        return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=classes)

    return build


_DEEPLAB = Family(DeepLabV3Plus, ("pyramid", "decoder", "classifier"), ("classifier",), legacy_grid=True)
FAMILIES = {
    "default": _DEEPLAB,
    "deeplabv3plus_mobilenetv2_rooms": _DEEPLAB,
    "deeplabv3plus_mobilenetv2": _DEEPLAB,
    "lraspp_mobilenet_v3_large": Family(
        _torchvision("lraspp_mobilenet_v3_large"),
        ("classifier",),
        ("classifier.low_classifier", "classifier.high_classifier"),
    ),
    "deeplabv3_mobilenet_v3_large": Family(
        _torchvision("deeplabv3_mobilenet_v3_large"), ("classifier",), ("classifier.4",)
    ),
}
"""Registry name → how to train it."""


class TrainableNetwork(nn.Module):
    """A segmentation network from bytes to coarse logits.

    Args:
        name: key of ``FAMILIES``.
        module: its layers.
        card: its input.
        label_set: its classes; channel k is the k-th by ascending id.
    """

    def __init__(self, name: str, module: nn.Module, card: ModelCard, label_set: LabelSet) -> None:
        super().__init__()
        self.name = name
        self.card = card
        self.label_set = label_set
        self.family = FAMILIES[name]
        self.module = module
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (card.input.mean, card.input.std))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB to logits (N, C, h, w) at the network's own resolution."""
        normalized = (images.float() - self.mean) / self.std
        if isinstance(self.module, DeepLabV3Plus):
            return self.module.coarse_logits(normalized)
        features = self.module.get_submodule("backbone")(normalized)
        return self.module.get_submodule("classifier")(features if "low" in features else features["out"])

    def upsampled(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Coarse logits at (height, width) of the image, bilinear on the network's grid."""
        if self.family.legacy_grid:
            return upsample(logits, size[0] // logits.shape[-2])
        return functional.interpolate(logits, size, mode="bilinear", align_corners=False)

    def labels_at_logits(self, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, H, W) labels of the pixels on which (or nearest to which) the coarse logits lie: (N, h, w)."""
        rows, columns = (
            torch.arange(out, device=labels.device) * full // out
            if self.family.legacy_grid
            else ((torch.arange(out, device=labels.device) + 0.5) * full / out).long()
            for out, full in zip(size, labels.shape[-2:], strict=True)
        )
        return labels[:, rows[:, None], columns[None, :]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Tensors by name, as a weights file has them; inserted batch norm is folded into the convolutions."""
        return {name: value.detach().cpu().numpy() for name, value in folded_state(self.module).items()}


def network_card(config: NetworkConfig) -> tuple[ModelCard, LabelSet]:
    """Model card of a network, and the classes that it is to have.

    Raises:
        InputError: a network that cannot be trained here, or an unknown label set.
    """
    if config.name not in FAMILIES:
        raise InputError(f"network.name: expected one of {sorted(FAMILIES)}, got {config.name!r}")
    card = shipped_card("deeplabv3plus_mobilenetv2_rooms" if config.name == "default" else config.name)
    return card, LabelSet.load(config.labels or card.labels)


def open_network(config: NetworkConfig) -> TrainableNetwork:
    """Build a network with the weights from which training starts.

    Raises:
        InputError: a network that cannot be trained here, or weights of another one.
        PerceptionError: weights are found nowhere.
    """
    card, label_set = network_card(config)
    family = FAMILIES[config.name]
    module = family.build(len(label_set))
    network = TrainableNetwork(config.name, module, card, label_set)
    if config.weights != "none":
        assert card.weights is not None
        arrays = load_arrays(find_weights(card.weights, config.weights))
        load_start(network, arrays, new_head=config.transfer == "head", what=config.weights or card.weights.file)
    if config.batch_norm == "insert":
        if family is not _DEEPLAB:
            raise InputError(f"network.batch_norm: insert is for networks without batch norm, {config.name} has it")
        # The pooled branch has one pixel per image; the classifier's outputs are compared with each other.
        insert_batch_norm(module, without=("pyramid.pool", "classifier"))
    return network


def load_start(network: TrainableNetwork, arrays: Mapping[str, NDArray[Any]], new_head: bool, what: str) -> None:
    """Put start weights into a network.

    Args:
        network: changed.
        arrays: tensors of a weights file.
        new_head: the head keeps its random numbers, and the file's head may have other classes.
        what: the file, for the message.

    Raises:
        InputError: tensors of another network.
    """
    state = network.module.state_dict()
    prefixes = network.family.head if new_head else ()
    chosen = {name: array for name, array in arrays.items() if not _under(name, prefixes)}
    shapes = {name: tuple(value.shape) for name, value in state.items() if not _under(name, prefixes)}
    check_arrays(chosen, shapes, what)
    loaded = {name: torch.from_numpy(np.array(array)) for name, array in chosen.items()}
    network.module.load_state_dict({**state, **loaded})


def parameter_groups(network: TrainableNetwork, config: NetworkConfig, weight_decay: float) -> list[dict[str, Any]]:
    """Freeze what does not learn, and sort the rest into groups of one rate and one decay for an optimizer.

    Returns:
        Groups with "params", "rate_factor", "weight_decay" and "names".

    Raises:
        InputError: a prefix in ``rates`` that fits nothing, or nothing left to learn.
    """
    names = [name for name, _ in network.module.named_parameters()]
    unknown = sorted(prefix for prefix in config.rates if not any(_under(name, (prefix,)) for name in names))
    if unknown:
        parts = sorted({name.split(".")[0] for name in names})
        raise InputError(f"network.rates: no parameters begin with {unknown}; the network has {parts}")
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in network.module.named_parameters():
        factor = _rate_factor(name, network.family, config)
        parameter.requires_grad_(factor > 0)
        if factor <= 0:
            continue
        decay = weight_decay if parameter.ndim > 1 else 0.0
        empty = {"params": [], "names": [], "rate_factor": factor, "weight_decay": decay}
        group = groups.setdefault((factor, decay), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise InputError("network: expected parameters that learn, all are frozen")
    return list(groups.values())


def _rate_factor(name: str, family: Family, config: NetworkConfig) -> float:
    learns = {"all": True, "last": _under(name, family.classifier), "head": _under(name, family.head)}
    fitting = [prefix for prefix in config.rates if _under(name, (prefix,))]
    if fitting:
        return float(config.rates[max(fitting, key=len)])
    return 1.0 if learns[config.transfer] else 0.0


def _under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def set_training(network: TrainableNetwork, config: NetworkConfig) -> None:
    """Switch to training; batch norm whose statistics are frozen, or whose layer does not learn, stays as it is."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            learns = any(parameter.requires_grad for parameter in module.parameters())
            if config.batch_norm == "frozen" or not learns:
                module.eval()
