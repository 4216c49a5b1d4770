# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: every tensor in a .safetensors file, every number in a JSON file that names it. Nothing is pickled."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perception.atomic_file import atomic_write
from perception.errors import InputError, PerceptionError

FILE = "checkpoint.json"
VERSION = 1
MAX_JSON_BYTES = 64 << 20


@dataclass
class Checkpoint:
    """A run's state between two steps.

    Attributes:
        tensors: by name.
        numbers: JSON values.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, step: int) -> Path:
    """Write a checkpoint and delete the one before; until the last moment the old one stays valid.

    Returns:
        path of the JSON file.

    Raises:
        PerceptionError: the disk is full or not writable; the old checkpoint is as it was.
    """
    from safetensors.torch import save

    name = f"checkpoint-{step:08d}.safetensors"
    tensors = {key: value.detach().cpu().contiguous() for key, value in checkpoint.tensors.items()}
    text = json.dumps({"version": VERSION, "tensors": name, **checkpoint.numbers}, indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PerceptionError(f"{folder}: cannot be made ({error.strerror})") from error
    atomic_write(folder / name, [save(tensors)])
    # The JSON file is the switch: it names whole tensors, the old or the new.
    atomic_write(folder / FILE, [text.encode()])
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != name:
            with contextlib.suppress(OSError):
                old.unlink()
    return folder / FILE


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        InputError: there is none, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / FILE
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"checkpoint {path}: expected at most {MAX_JSON_BYTES} bytes")
        numbers = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"checkpoint {path}: cannot be read ({error})") from error
    if not isinstance(numbers, dict) or numbers.pop("version", None) != VERSION:
        raise InputError(f"checkpoint {path}: expected version {VERSION} of this format")
    name = str(numbers.pop("tensors", ""))
    if Path(name).name != name:
        raise InputError(f"checkpoint {path}: expected tensors in a file beside it, got {name!r}")
    try:
        return Checkpoint(load_file(folder / name), numbers)
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"checkpoint {folder / name}: cannot be read ({error})") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer, ``optimizer.<parameter>.<name>`` each."""
    tensors = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    return tensors


def optimizer_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The settings of an optimizer's groups, without parameters, for JSON."""
    groups = optimizer.state_dict()["param_groups"]
    return [{key: value for key, value in group.items() if key != "params"} for group in groups]


def load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, groups: list[dict[str, Any]]) -> None:
    """Put a saved state into an optimizer of the same parameters.

    Raises:
        InputError: it belongs to other parameters.
    """
    own = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in checkpoint.tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    if len(own) != len(groups) or any(index >= len(parameters) for index in state):
        raise InputError("checkpoint: its optimizer has other groups of parameters than this configuration")
    for index, values in state.items():
        for key, value in values.items():
            if value.ndim and value.shape != parameters[index].shape:
                shape = tuple(parameters[index].shape)
                raise InputError(f"checkpoint: optimizer {key}: expected shape {shape}, got {tuple(value.shape)}")
            if value.ndim:
                # Fused optimizers walk through memory: the order there must be the parameter's (channels last, say).
                values[key] = torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)
    merged = [{**saved, "params": mine["params"]} for saved, mine in zip(groups, own, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": merged})


def load_module(module: torch.nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put tensors ``<prefix><name>`` into a module.

    Raises:
        InputError: they are those of another network.
    """
    found = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    expected = module.state_dict()
    wrong = sorted(found.keys() ^ expected.keys())
    wrong += [name for name in found.keys() & expected.keys() if found[name].shape != expected[name].shape]
    if wrong:
        raise InputError(f"checkpoint: its tensors belong to another network (see {wrong[:3]})")
    module.load_state_dict(found)
