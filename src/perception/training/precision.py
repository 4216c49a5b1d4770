# SPDX-License-Identifier: Apache-2.0
"""Mixed precision."""

from __future__ import annotations

from typing import Any

import torch

from perception.errors import InputError


def autocast(precision: str, device: torch.device) -> Any:
    """A context in which a network computes in the configured precision.

    Raises:
        InputError: float16 on a CPU.
    """
    if precision == "float16" and device.type == "cpu":
        raise InputError("precision: expected float32 or bfloat16 on a CPU, got float16")
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "float32")
