# SPDX-License-Identifier: Apache-2.0
"""What a training run can be told; the names are those of the YAML file. Unknown keys are errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perception.config import Checked, from_dict, param, read_settings, section
from perception.errors import InputError

KINDS = ("frames", "masks", "images", "voc", "coco")
TRANSFERS = ("all", "last", "head")


@dataclass(frozen=True)
class DataConfig(Checked):
    """One data set of a mixture."""

    kind: str = param("frames", "What lies in the folder", choices=KINDS)
    path: str = param("", "Folder, or a pattern such as rooms/house-*")
    name: str = param("", "For reports; empty takes the path's last part")
    weight: float = param(1.0, "Share of this data set in every batch, relative to the others", 0.0)
    supervised: float = param(1.0, "Factor of the losses against its masks", 0.0)
    distillation: float = param(1.0, "Factor of the loss against the teacher", 0.0)
    files: str = param("", "Pattern of the images below the folder; empty takes the kind's own")
    masks: str = param("", "masks: folder of the masks, named as the images, if it is another one")
    annotations: str = param("", "coco: JSON file of the annotations, relative to the folder")
    images: str = param("", "coco: folder of the images, relative to the folder")
    split: str = param("train", "voc: name of the list in ImageSets/Segmentation")
    labels: str = param("", "Label set of the masks: a shipped one or a YAML file; empty takes the data set's own")
    label_map: str = param("", "YAML file that maps classes of the masks to classes of the network; empty: by name")
    unlabeled: Sequence[int] = field(default=(255,), metadata={"description": "Values of masks that mean no label"})
    limit: int = param(0, "Use at most this many images, evenly spread; 0 for all", 0)


@dataclass(frozen=True)
class NetworkConfig(Checked):
    """What is trained, and from where."""

    name: str = param("deeplabv3plus_mobilenetv2", "Registry name of a network that can be trained")
    weights: str = param("", "Weights file to start from; empty takes the network's own; none for random numbers")
    labels: str = param("", "Label set of the result; empty takes the network's own")
    transfer: str = param(
        "all", "all parameters; the last layers; or a new head on a frozen backbone", choices=TRANSFERS
    )
    rates: Mapping[str, float] = field(
        default_factory=dict,
        metadata={"description": "Factor of the learning rate by prefix of the parameters' names; 0 freezes"},
    )
    batch_norm: str = param(
        "keep",
        "keep the network's layers; frozen: with their statistics; insert: put new ones behind convolutions",
        choices=("keep", "frozen", "insert"),
    )


@dataclass(frozen=True)
class DistillationConfig(Checked):
    """Keep what a teacher knows: Kullback-Leibler divergence from its answer to the network's."""

    weight: float = param(0.0, "Factor of this loss; 0 for no teacher", 0.0)
    network: str = param("", "Registry name of the teacher; empty takes the network itself")
    weights: str = param("", "Weights file of the teacher; empty takes the weights from which training starts")
    temperature: float = param(2.0, "Logits are divided by it", 0.01, 100.0)
    min_confidence: float = param(0.0, "Only where the teacher's largest probability reaches this", 0.0, 1.0)
    where: str = param(
        "all",
        "all pixels; unlabeled: those without a label; agreeing: those, and where the teacher's class is the label",
        choices=("all", "unlabeled", "agreeing"),
    )


@dataclass(frozen=True)
class LossConfig(Checked):
    """A weighted sum of losses."""

    cross_entropy: float = param(1.0, "Factor of the cross entropy", 0.0)
    focal: float = param(0.0, "Factor of the focal loss", 0.0)
    focal_gamma: float = param(2.0, "Exponent of the focal loss", 0.0, 10.0)
    dice: float = param(0.0, "Factor of the Dice loss", 0.0)
    label_smoothing: float = param(0.0, "Of the cross entropy", 0.0, 0.999)
    class_weights: Mapping[str, float] = field(
        default_factory=dict, metadata={"description": "Weight by class name in cross entropy and focal loss, else 1"}
    )
    resolution: str = param(
        "logits",
        "Where pixels are compared: at the network's coarse logits or at the image's pixels",
        choices=("logits", "image"),
    )
    l2_sp: float = param(0.0, "Pull towards the starting weights: gradient is this times the difference", 0.0)
    distillation: DistillationConfig = section(DistillationConfig)


@dataclass(frozen=True)
class OptimizerConfig(Checked):
    """How the gradient becomes a step."""

    name: str = param("adamw", "Algorithm", choices=("sgd", "momentum", "adagrad", "adam", "adamw"))
    rate: float = param(3e-4, "Learning rate", 0.0)
    weight_decay: float = param(1e-4, "Of weights; biases and batch norm do not decay", 0.0)
    momentum: float = param(0.9, "Of momentum", 0.0, 0.9999)
    nesterov: bool = param(False, "Nesterov's momentum")
    clip_norm: float = param(0.0, "Longer gradients are shortened to this; 0 for off", 0.0)


@dataclass(frozen=True)
class ScheduleConfig(Checked):
    """How the learning rate changes."""

    name: str = param("poly", "Curve", choices=("constant", "poly", "cosine", "step", "one_cycle"))
    power: float = param(0.9, "Of poly", 0.0, 10.0)
    final: float = param(0.0, "cosine: rate at the end, as a share of the highest", 0.0, 1.0)
    step_epochs: int = param(10, "step: epochs between two steps", 1)
    gamma: float = param(0.1, "step: factor at each", 0.0, 1.0)
    warmup_steps: int = param(0, "Steps in which the rate rises from nearly 0; not with one_cycle", 0)


@dataclass(frozen=True)
class AverageConfig(Checked):
    """Average of the weights over the steps; it is what is evaluated and kept."""

    name: str = param("none", "Kind", choices=("none", "ema", "swa"))
    decay: float = param(0.999, "ema: share of the old average", 0.0, 0.999999)
    start_epoch: int = param(0, "swa: first epoch that is averaged", 0)
    every_steps: int = param(1, "Steps between two updates of the average", 1)


@dataclass(frozen=True)
class AugmentationConfig(Checked):
    """What happens to an image before the network sees it."""

    height: int = param(320, "Of training images, pixels", 16, 8192)
    width: int = param(320, "Of training images, pixels", 16, 8192)
    transforms: Sequence[Any] = field(
        default=(),
        metadata={"description": "albumentations' transforms in order, {Name: {argument: value}}; empty: resize"},
    )


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """A training run."""

    network: NetworkConfig = section(NetworkConfig)
    train: Sequence[Any] = field(default=(), metadata={"description": "Data sets to learn from"})
    validation: Sequence[Any] = field(default=(), metadata={"description": "Data sets to evaluate on"})
    augmentation: AugmentationConfig = section(AugmentationConfig)
    loss: LossConfig = section(LossConfig)
    optimizer: OptimizerConfig = section(OptimizerConfig)
    schedule: ScheduleConfig = section(ScheduleConfig)
    average: AverageConfig = section(AverageConfig)
    seed: int = param(0, "Of everything random", 0)
    epochs: int = param(10, "How many", 1)
    steps: int = param(0, "Steps per epoch; 0: as many as show every image of the largest data set once", 0)
    batch_size: int = param(8, "Images in a batch, over all processes", 1)
    validation_batch_size: int = param(4, "Images at once in evaluation", 1)
    validation_height: int = param(512, "Size of images in evaluation, pixels", 16, 8192)
    validation_width: int = param(512, "Size of images in evaluation, pixels", 16, 8192)
    validate_every: int = param(1, "Epochs between two evaluations", 1)
    patience: int = param(0, "Stop after so many evaluations without a better score; 0 for never", 0)
    checkpoint_minutes: float = param(10.0, "Time between two checkpoints within an epoch; 0: only at its end", 0.0)
    device: str = param("auto", "auto, cpu, cuda or cuda:N")
    precision: str = param(
        "float32", "Of the network's inner numbers; float16 on a GPU only", choices=("float32", "bfloat16", "float16")
    )
    threads: int = param(0, "CPU threads of the network; 0 leaves it to PyTorch", 0, 256)
    tensorboard: bool = param(True, "Write TensorBoard files")
    export: str = param(
        "float16", "Numbers of 1×1 convolutions in the model that is written at the end", choices=("float16", "float32")
    )
    workers: int = param(1, "Processes that read and augment images; 0: in this process", 0, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train", "validation"):
            entries = [
                entry if isinstance(entry, DataConfig) else from_dict(DataConfig, entry, f"{name}[{index}]")
                for index, entry in enumerate(getattr(self, name))
            ]
            object.__setattr__(self, name, tuple(entries))
        if not self.train:
            raise InputError("train: expected at least one data set, got none")
        if not any(entry.weight > 0 for entry in self.train):
            raise InputError("train: expected a data set with a weight above 0, got none")


def load_training_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a YAML file and lay ``group.name=value`` strings over it.

    Raises:
        InputError: unreadable file, unknown key, wrong value.
    """
    return from_dict(TrainingConfig, read_settings(path, overrides))
