# SPDX-License-Identifier: Apache-2.0
"""A training run's state, one step of it, and its way to and from a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from perception.errors import InputError, PerceptionError
from perception.training import checkpoint as storage
from perception.training.batch_norm import calibrate
from perception.training.batches import Batch
from perception.training.checkpoint import Checkpoint
from perception.training.config import NetworkConfig, TrainingConfig
from perception.training.depthwise import QuickDepthwise
from perception.training.losses import Loss, Targets, add_anchor_gradient
from perception.training.networks import TrainableNetwork, open_network, parameter_groups, set_training
from perception.training.optimization import make_average, make_optimizer, make_schedule
from perception.training.precision import autocast
from perception.training.processes import Processes
from perception.training.progress import Progress, StepResult


class NotFiniteError(PerceptionError):
    """The loss or its gradient became NaN or infinite."""


class TrainingRun:
    """Network, teacher, optimizer, schedule and average.

    Args:
        config: of the run.
        device: where it computes.
        steps_per_epoch: settled from the data.
        processes: that share every batch.
        calibration: images (N, 3, H, W) uint8 that give inserted batch norm its first statistics.
    """

    def __init__(
        self,
        config: TrainingConfig,
        device: torch.device,
        steps_per_epoch: int,
        processes: Processes | None = None,
        calibration: Iterable[Tensor] = (),
    ) -> None:
        torch.manual_seed(config.seed)
        self.processes = processes or Processes()
        self.config = config
        self.device = device
        self.steps_per_epoch = steps_per_epoch
        self.progress = Progress()
        self.network = open_network(config.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        calibrate(self.network, (images.to(device) for images in calibration))
        self.teacher = _open_teacher(config, self.network, device)
        groups = parameter_groups(self.network, config.network, config.optimizer.weight_decay)
        self.optimizer = make_optimizer(groups, config.optimizer)
        self.schedule = make_schedule(self.optimizer, config.schedule, config.epochs * steps_per_epoch, steps_per_epoch)
        self.average = make_average(self.network, config.average)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self.loss = Loss(config.loss, self.network.label_set, self.processes.share)
        self.trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        # Wrapping gives all processes the parameters of the first.
        self.forward = self.processes.wrapped(self.network, device)
        self._anchor = [p.detach().clone() for p in self.trained] if config.loss.l2_sp else []

    @property
    def result(self) -> TrainableNetwork:
        """The network that is evaluated and kept: the average as soon as it holds something."""
        return self._averaged(self.average) if self.average is not None and self.average.n_averaged else self.network

    @staticmethod
    def _averaged(average: AveragedModel) -> TrainableNetwork:
        assert isinstance(average.module, TrainableNetwork)
        return average.module

    def step(self, batch: Batch) -> StepResult:
        """Learn from a batch on the device.

        Raises:
            NotFiniteError: the loss or its gradient is NaN or infinite; this step changed no weights.
        """
        begin = time.perf_counter()
        set_training(self.network, self.config.network)
        with autocast(self.config.precision, self.device), QuickDepthwise():
            logits = self.forward(batch.images)
        terms = self._loss_terms(logits.float(), batch)
        if not terms:
            raise InputError("loss: expected at least one term with a factor above 0, got none")
        each = torch.stack(list(terms.values()))
        values = dict(zip(terms, self.processes.mean(each).tolist(), strict=True))
        if not all(map(math.isfinite, values.values())):
            raise NotFiniteError(f"the loss is not finite in step {self.progress.step + 1} ({_shown(values)})")
        middle = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(each.sum()).backward()
        self._wait()
        after = time.perf_counter()
        self._update()
        self._wait()
        end = time.perf_counter()
        self.progress.step += 1
        return StepResult(values, {"forward": middle - begin, "backward": after - middle, "step": end - after})

    def _loss_terms(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        size = (logits.shape[-2], logits.shape[-1])
        teacher = None
        if self.teacher is not None:
            with torch.no_grad(), autocast(self.config.precision, self.device):
                teacher = self.teacher(batch.images).float()
        if self.config.loss.resolution == "image":
            full = (batch.images.shape[-2], batch.images.shape[-1])
            logits = self.network.upsampled(logits, full)
            teacher = None if teacher is None or self.teacher is None else self.teacher.upsampled(teacher, full)
            labels = batch.labels
        else:
            labels = self.network.labels_at_logits(batch.labels, size)
            if teacher is not None and teacher.shape[-2:] != size:
                teacher = torch.nn.functional.interpolate(teacher, size, mode="bilinear", align_corners=False)
        return self.loss(logits, Targets(labels, batch.supervised, teacher, batch.distillation))

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        if self._anchor:
            add_anchor_gradient(self.trained, self._anchor, self.config.loss.l2_sp)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.config.optimizer.clip_norm or math.inf)
        # With float16 the scaler leaves such a step out, and tries a smaller scale.
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            raise NotFiniteError(f"the gradient is not finite in step {self.progress.step + 1}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()

    def update_average(self, epoch: int) -> None:
        """Let the average take in the weights after a step of an epoch."""
        config = self.config.average
        if self.average is None or self.progress.step % config.every_steps:
            return
        if config.name == "ema" or epoch >= config.start_epoch:
            self.average.update_parameters(self.network)

    def _wait(self) -> None:
        # Times of parts mean nothing on a GPU unless it has finished them.
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def checkpoint(self) -> Checkpoint:
        """All of the state that a later process needs to go on as if nothing had happened."""
        tensors = {f"network.{name}": value for name, value in self.network.module.state_dict().items()}
        tensors |= storage.optimizer_tensors(self.optimizer)
        if self.average is not None:
            tensors |= {
                f"average.{name}": value for name, value in self._averaged(self.average).module.state_dict().items()
            }
            tensors["averaged"] = self.average.n_averaged
        if self._anchor:
            tensors |= {f"anchor.{index}": value for index, value in enumerate(self._anchor)}
        numbers = {
            **self._identity(),
            "optimizer_groups": storage.optimizer_groups(self.optimizer),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": vars(self.progress),
        }
        return Checkpoint(tensors, numbers)

    def _identity(self) -> dict[str, Any]:
        """What must be the same when a run goes on."""
        return {
            "network": self.network.name,
            "classes": [label.name for label in self.network.label_set.classes],
            "optimizer": self.config.optimizer.name,
            "average": self.config.average.name,
            "schedule_name": self.config.schedule.name,
            "epochs": self.config.epochs,
            "steps_per_epoch": self.steps_per_epoch,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: it belongs to another network or configuration.
        """
        numbers, tensors = checkpoint.numbers, checkpoint.tensors
        for name, value in self._identity().items():
            if numbers.get(name) != value:
                raise InputError(f"checkpoint: expected {name} {value!r}, got {numbers.get(name)!r}")
        storage.load_module(self.network.module, tensors, "network.")
        if self.average is not None:
            storage.load_module(self._averaged(self.average).module, tensors, "average.")
            self.average.n_averaged.copy_(tensors["averaged"])
        storage.load_optimizer(self.optimizer, checkpoint, numbers["optimizer_groups"])
        self._anchor = [tensors[f"anchor.{index}"].to(self.device) for index in range(len(self._anchor))]
        self.schedule.load_state_dict(numbers["schedule"])
        self.scaler.load_state_dict(numbers["scaler"])
        self.progress = Progress(**numbers["progress"])


def _open_teacher(config: TrainingConfig, network: TrainableNetwork, device: torch.device) -> TrainableNetwork | None:
    """The teacher, which never learns.

    Raises:
        InputError: its classes are not those of the network, or it would be random.
    """
    asked = config.loss.distillation
    if not asked.weight:
        return None
    random = config.network.weights == "none" or config.network.transfer == "head"
    if random and not asked.weights and not asked.network:
        raise InputError(
            "distillation: the network starts from random numbers and cannot teach itself; give distillation.weights "
            "or distillation.network"
        )
    name = asked.network or config.network.name
    weights = asked.weights or (config.network.weights if not asked.network else "")
    teacher = open_network(NetworkConfig(name=name, weights=weights, labels=config.network.labels))
    own, others = ([label.name for label in item.label_set.classes] for item in (network, teacher))
    if own != others:
        raise InputError(f"distillation: expected a teacher with the classes {own[:6]} …, got {others[:6]} …")
    teacher.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return teacher.requires_grad_(False)


def _shown(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
