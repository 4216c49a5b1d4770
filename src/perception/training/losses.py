# SPDX-License-Identifier: Apache-2.0
"""Losses on logits. Means run over the pixels of the batches of all processes together.

Sources: Lin et al., Focal Loss for Dense Object Detection, 2017 (focal); Milletari et al., V-Net, 2016 (Dice); Hinton
et al., Distilling the Knowledge in a Neural Network, 2015 (distillation); Li et al., Explicit Inductive Bias for
Transfer Learning with Convolutional Networks, 2018 (L2-SP).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from perception.labels import LabelSet
from perception.training.config import DistillationConfig, LossConfig
from perception.training.datasets import IGNORED

Share = Callable[[Tensor], Tensor]
"""Turns a process's denominator into the mean over all processes (:meth:`Processes.share`)."""


def alone(denominator: Tensor) -> Tensor:
    """The denominator of the only process."""
    return denominator


@dataclass(frozen=True)
class Targets:
    """What logits are compared with.

    Attributes:
        labels: (N, h, w) integer, 255 where there is none.
        supervised: (N,) factor of each image.
        teacher: (N, C, h, w) logits, or None.
        distillation: (N,) factor of each image.
    """

    labels: Tensor
    supervised: Tensor
    teacher: Tensor | None
    distillation: Tensor


class Loss:
    """The configured sum.

    Args:
        config: factors.
        label_set: of the network.
        share: see :data:`Share`.
    """

    def __init__(self, config: LossConfig, label_set: LabelSet, share: Share = alone) -> None:
        self._config = config
        self._share = share
        self._class_weights = class_weights(config.class_weights, label_set)

    def __call__(self, logits: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Each term times its factor, by name; their sum is what is to become small.

        Args:
            logits: (N, C, h, w) float32.
            targets: at the same resolution.
        """
        config, terms = self._config, {}
        supervised = (targets.labels, targets.supervised, self._share)
        weights = None if self._class_weights is None else self._class_weights.to(logits.device)
        if config.cross_entropy:
            value = cross_entropy(logits, *supervised, weights, config.label_smoothing)
            terms["cross_entropy"] = config.cross_entropy * value
        if config.focal:
            terms["focal"] = config.focal * focal(logits, *supervised, weights, config.focal_gamma)
        if config.dice:
            terms["dice"] = config.dice * dice(logits, *supervised)
        if targets.teacher is not None and config.distillation.weight:
            value = distillation(logits, targets, config.distillation, self._share)
            terms["distillation"] = config.distillation.weight * value
        return terms


def class_weights(weights: Mapping[str, float], label_set: LabelSet) -> Tensor | None:
    """(C,) float32 weights by class name, 1 where none is given; None where none is given at all."""
    if not weights:
        return None
    for name in weights:
        label_set[name]
    return torch.tensor([float(weights.get(label.name, 1.0)) for label in label_set.classes])


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    factors: Tensor,
    share: Share = alone,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Mean cross entropy of the labeled pixels, weighted by class and image.

    Args:
        logits: (N, C, h, w).
        labels: (N, h, w), 255 where there is none.
        factors: (N,) of each image.
        share: see :data:`Share`.
        weights: (C,) of each class.
        smoothing: share of the truth that is spread over all classes.
    """
    labels = labels.long()
    each = functional.cross_entropy(
        logits, labels, weights, reduction="none", ignore_index=IGNORED, label_smoothing=smoothing
    )
    return _mean(each, _pixel_weights(labels, factors, weights), factors, share)


def focal(
    logits: Tensor,
    labels: Tensor,
    factors: Tensor,
    share: Share = alone,
    weights: Tensor | None = None,
    gamma: float = 2.0,
) -> Tensor:
    """Mean of (1 − p)^gamma times the cross entropy, p the probability of the true class; arguments as above."""
    labels = labels.long()
    plain = functional.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
    each = (1.0 - torch.exp(-plain)).clamp(min=0.0) ** gamma * plain
    if weights is not None:
        each = each * weights[labels.clamp(max=len(weights) - 1)]
    return _mean(each, _pixel_weights(labels, factors, weights), factors, share)


def _pixel_weights(labels: Tensor, factors: Tensor, weights: Tensor | None) -> Tensor:
    """(N, h, w): 0 where nothing counts (no label, image without factor), else the class's weight."""
    counted = (labels != IGNORED) & (factors > 0).view(-1, 1, 1)
    return counted.float() if weights is None else counted * weights[labels.clamp(max=len(weights) - 1)]


def _mean(each: Tensor, pixels: Tensor, factors: Tensor, share: Share) -> Tensor:
    # Pixels without a label add nothing, whatever the loss says there.
    total = (torch.where(pixels > 0, each, 0.0) * factors.view(-1, 1, 1)).sum()
    return total / share(pixels.sum()).clamp(min=1e-6)


def dice(logits: Tensor, labels: Tensor, factors: Tensor, share: Share = alone) -> Tensor:
    """1 − Dice coefficient, mean over the classes that an image shows, then over the images.

    Per image, so that a batch shared by several processes has the same loss.
    """
    labels = labels.long()
    counted = (labels != IGNORED).unsqueeze(1)
    probabilities = torch.softmax(logits, 1) * counted
    truth = functional.one_hot(labels.clamp(max=logits.shape[1] - 1), logits.shape[1]).permute(0, 3, 1, 2) * counted
    overlap = (probabilities * truth).sum((2, 3))
    size = probabilities.sum((2, 3)) + truth.sum((2, 3))
    shown = truth.sum((2, 3)) > 0
    each = torch.where(shown, 1.0 - 2.0 * overlap / size.clamp(min=1e-6), 0.0).sum(1) / shown.sum(1).clamp(min=1)
    images = shown.any(1) & (factors > 0)
    return (each * factors * images).sum() / share(images.float().sum()).clamp(min=1e-6)


def distillation(logits: Tensor, targets: Targets, config: DistillationConfig, share: Share = alone) -> Tensor:
    """Mean Kullback-Leibler divergence of the pixels from the teacher to the logits, both softened, times T².

    With T² gradients keep their size when the temperature changes (Hinton et al., section 2.1).
    """
    assert targets.teacher is not None
    pixels = (targets.distillation > 0).view(-1, 1, 1).expand_as(targets.labels)
    pixels = pixels & taught(targets.teacher, targets.labels, config)
    temperature = config.temperature
    teacher = functional.log_softmax(targets.teacher / temperature, 1)
    student = functional.log_softmax(logits / temperature, 1)
    each = (teacher.exp() * (teacher - student)).sum(1) * temperature**2
    return _mean(each, pixels.float(), targets.distillation, share)


def taught(teacher: Tensor, labels: Tensor, config: DistillationConfig) -> Tensor:
    """(N, h, w) bool: where the teacher is sure enough, and allowed to speak."""
    allowed = torch.ones_like(labels, dtype=torch.bool)
    if config.min_confidence:
        allowed &= torch.softmax(teacher, 1).amax(1) >= config.min_confidence
    if config.where != "all":
        free = labels == IGNORED
        allowed &= (free | (teacher.argmax(1) == labels)) if config.where == "agreeing" else free
    return allowed


def add_anchor_gradient(parameters: Sequence[Tensor], start: Sequence[Tensor], factor: float) -> None:
    """L2-SP: add ``factor`` · (parameter − start) to the gradients, the gradient of factor / 2 · |difference|²."""
    with torch.no_grad():
        for parameter, first in zip(parameters, start, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - first, alpha=factor)
