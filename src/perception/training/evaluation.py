# SPDX-License-Identifier: Apache-2.0
"""Scores of a network under training on validation data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from perception.evaluation.segmentation import ConfusionMatrix
from perception.training.augmentation import Augmentation
from perception.training.batches import OrderedSamples, load_batches
from perception.training.config import AugmentationConfig, TrainingConfig
from perception.training.datasets import IGNORED, SegmentationData
from perception.training.networks import TrainableNetwork
from perception.training.precision import autocast
from perception.training.processes import Processes


def evaluate(
    network: TrainableNetwork,
    data: SegmentationData,
    config: TrainingConfig,
    device: torch.device,
    processes: Processes | None = None,
) -> ConfusionMatrix:
    """Compare a network's labels with the masks of a data set.

    Images and masks are resized to the configured size; the network is left in evaluation mode.

    Args:
        network: on the device.
        data: with masks.
        config: size, batch size, workers, precision.
        device: where the network is.
        processes: that share the work; all get the same answer.

    Raises:
        InputError: an image or a mask is damaged.
    """
    size = AugmentationConfig(height=config.validation_height, width=config.validation_width)
    samples = OrderedSamples(data, Augmentation(size))
    batch = config.validation_batch_size
    numbers = [list(range(start, min(start + batch, len(data)))) for start in range(0, len(data), batch)]
    confusion = ConfusionMatrix(len(network.label_set))
    processes = processes or Processes()
    network.eval()
    with torch.inference_mode():
        for images in load_batches(samples, numbers[processes.rank :: processes.count], config.workers):
            images = images.to(device)
            with autocast(config.precision, device):
                logits = network(images.images)
            logits = network.upsampled(logits.float(), (config.validation_height, config.validation_width))
            truth = images.labels.cpu().numpy().astype(np.int32)
            confusion.add(np.where(truth == IGNORED, -1, truth), logits.argmax(1).cpu().numpy())
    confusion.counts = processes.sum(torch.from_numpy(confusion.counts).to(device)).cpu().numpy()
    return confusion


def scores(confusion: ConfusionMatrix, network: TrainableNetwork) -> dict[str, Any]:
    """Mean IoU, accuracy, and IoU of each class that occurs, as numbers for JSON."""
    iou, present = confusion.iou(), confusion.counts.sum(1) > 0
    classes = network.label_set.classes
    return {
        "mean_iou": confusion.mean_iou(),
        "accuracy": confusion.accuracy(),
        "iou": {classes[i].name: round(float(iou[i]), 4) for i in range(len(classes)) if present[i]},
    }


def evaluate_all(
    network: TrainableNetwork,
    data: Sequence[SegmentationData],
    config: TrainingConfig,
    device: torch.device,
    processes: Processes | None = None,
) -> dict[str, Any]:
    """Scores by the name of each data set."""
    return {part.name: scores(evaluate(network, part, config, device, processes), network) for part in data}
