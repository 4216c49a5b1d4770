# SPDX-License-Identifier: Apache-2.0
"""Optimizers, learning rates over time and averages of the weights, by PyTorch's own classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn, optim
from torch.optim import lr_scheduler, swa_utils

from perception.errors import InputError
from perception.training.config import AverageConfig, OptimizerConfig, ScheduleConfig


def make_optimizer(groups: list[dict[str, Any]], config: OptimizerConfig) -> optim.Optimizer:
    """An optimizer for the groups of :func:`perception.training.networks.parameter_groups`."""
    entries = [
        {"params": group["params"], "weight_decay": group["weight_decay"], "lr": config.rate * group["rate_factor"]}
        for group in groups
    ]
    # Fused: one pass over each tensor instead of one per operation.
    if config.name in ("sgd", "momentum"):
        momentum = config.momentum if config.name == "momentum" else 0.0
        return optim.SGD(entries, config.rate, momentum=momentum, nesterov=config.nesterov and momentum > 0, fused=True)
    kinds = {"adagrad": optim.Adagrad, "adam": optim.Adam, "adamw": optim.AdamW}
    # Adagrad's fused form exists for the CPU only.
    fused = config.name != "adagrad" or entries[0]["params"][0].device.type == "cpu"
    return kinds[config.name](entries, config.rate, fused=fused or None)


def make_schedule(
    optimizer: optim.Optimizer, config: ScheduleConfig, steps: int, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    """What sets the learning rate before each of ``steps`` steps.

    Raises:
        InputError: a warm-up that is longer than the run, or with one_cycle, which has its own.
    """
    warmup = config.warmup_steps
    if config.name == "one_cycle":
        if warmup:
            raise InputError("schedule.warmup_steps: expected 0 with one_cycle, which begins with a rise of its own")
        # Its momentum would need one of SGD's or Adam's; the rate alone cycles here.
        peaks = [group["lr"] for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, cycle_momentum=False)
    if warmup >= steps:
        raise InputError(f"schedule.warmup_steps: expected less than the run's {steps} steps, got {warmup}")
    main = _main_schedule(optimizer, config, steps - warmup, steps_per_epoch)
    if not warmup:
        return main
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1.0 / (warmup + 1), total_iters=warmup)
    return lr_scheduler.SequentialLR(optimizer, [rise, main], milestones=[warmup])


def _main_schedule(
    optimizer: optim.Optimizer, config: ScheduleConfig, steps: int, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    if config.name == "poly":
        return lr_scheduler.PolynomialLR(optimizer, steps, config.power)
    if config.name == "cosine":
        # CosineAnnealingLR has one lowest rate for all groups; here groups keep their ratio.
        def factor(step: int) -> float:
            return config.final + (1.0 - config.final) * (1.0 + math.cos(math.pi * step / steps)) / 2.0

        return lr_scheduler.LambdaLR(optimizer, factor)
    if config.name == "step":
        return lr_scheduler.StepLR(optimizer, config.step_epochs * steps_per_epoch, config.gamma)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=1)


def make_average(module: nn.Module, config: AverageConfig) -> swa_utils.AveragedModel | None:
    """The running average of a module's weights, or None."""
    if config.name == "none":
        return None
    mean = swa_utils.get_ema_multi_avg_fn(config.decay) if config.name == "ema" else swa_utils.get_swa_multi_avg_fn()

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        # Batch norm's counters are no numbers to average, and PyTorch fails on them.
        if averaged[0].is_floating_point():
            mean(list(averaged), list(current), count)
        else:
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)

    return swa_utils.AveragedModel(module, multi_avg_fn=average, use_buffers=True)
