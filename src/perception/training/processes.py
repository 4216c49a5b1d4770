# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one network together, as torchrun starts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from perception.errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process among those that share every batch.

    Attributes:
        rank: 0 … count − 1; only 0 writes files.
        count: how many.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def share(self, denominator: Tensor) -> Tensor:
        """The mean of a denominator over the processes.

        Gradients are averaged over the processes: a local sum divided by this mean gives the global mean.
        """
        return self.mean(denominator)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes, without a gradient."""
        return self.sum(values) / self.count

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the processes, without a gradient."""
        total = values.detach().clone()
        if self.count > 1:
            distributed.all_reduce(total)
        return total

    def part(self, items: Any) -> Any:
        """This process's part of a batch.

        Raises:
            InputError: the batch cannot be shared evenly.
        """
        if len(items) % self.count:
            raise InputError(f"batch_size: expected a multiple of {self.count} processes, got {len(items)}")
        each = len(items) // self.count
        return items[self.rank * each : (self.rank + 1) * each]

    def wrapped(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module, with gradients averaged over the processes."""
        if self.count == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)


def join_processes(device: str) -> tuple[Processes, str]:
    """Meet the other processes if torchrun started this one.

    Args:
        device: "cpu" or "cuda"; each process of a machine takes a GPU of its own.

    Returns:
        The processes, and the device of this one.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(), device
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Processes(distributed.get_rank(), count), device


def leave_processes() -> None:
    """Take leave of the other processes."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
