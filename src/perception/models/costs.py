# SPDX-License-Identifier: Apache-2.0
"""Counts what a PyTorch network computes and moves (imports torch)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from perception.models.benchmark import Costs


class _Traffic(TorchDispatchMode):
    """Adds up the tensors that go into and come out of every operation, and remembers the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_moved = 0
        self.parameters: dict[int, torch.nn.Parameter] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        self.parameters.update({id(value): value for value in given if isinstance(value, torch.nn.Parameter)})
        made = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
        # Reshapes and slices move nothing: what they give lies in the memory of what they take.
        if not getattr(func, "is_view", False):
            self.bytes_moved += sum(value.numel() * value.element_size() for value in (*given, *made))
        return result


def count_costs(run: Callable[[], Any]) -> Costs | None:
    """Count one run of a network.

    Args:
        run: calls it on one image, on this thread.

    Returns:
        Costs; None when no PyTorch operation ran.
    """
    flops, traffic = FlopCounterMode(display=False), _Traffic()
    with flops, traffic:
        run()
    if not traffic.bytes_moved:
        return None
    parameters = sum(value.numel() for value in traffic.parameters.values())
    return Costs(parameters, int(flops.get_total_flops()), traffic.bytes_moved)
