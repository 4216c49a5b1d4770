# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk, whole or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from perception.errors import InputError, PerceptionError
from perception.training import checkpoint as storage
from perception.training.checkpoint import FILE, Checkpoint, load_checkpoint, save_checkpoint


def example(value: float = 1.0) -> Checkpoint:
    return Checkpoint({"network.weight": torch.full((2, 3), value), "step": torch.tensor(7.0)}, {"rate": 0.1 + 0.2})


def test_tensors_and_numbers_come_back_exactly_and_the_old_file_goes(tmp_path: Path):
    save_checkpoint(tmp_path, example(1.0), 1)
    save_checkpoint(tmp_path, example(1 / 3), 2)
    loaded = load_checkpoint(tmp_path)
    assert torch.equal(loaded.tensors["network.weight"], torch.full((2, 3), 1 / 3))
    assert loaded.tensors["step"].shape == ()
    assert loaded.numbers == {"rate": 0.1 + 0.2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-00000002.safetensors", FILE]


@pytest.mark.parametrize("fails_at", ["checkpoint-00000002.safetensors", FILE])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str):
    from perception import atomic_file

    save_checkpoint(tmp_path, example(1.0), 1)
    real = atomic_file._write_through

    def full(file, chunks):
        if fails_at in str(file.name):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, chunks)

    monkeypatch.setattr(atomic_file, "_write_through", full)
    with pytest.raises(PerceptionError, match="No space left on device; what was there is unchanged"):
        save_checkpoint(tmp_path, example(2.0), 2)
    assert torch.equal(load_checkpoint(tmp_path).tensors["network.weight"], torch.ones(2, 3))
    assert not list(tmp_path.glob(".*"))


def test_damaged_and_hostile_checkpoints_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(tmp_path)
    path = save_checkpoint(tmp_path, example(), 1)
    good = json.loads(path.read_text())
    for change, message in (
        ({"version": 9}, "expected version 1"),
        ({"tensors": "../other.safetensors"}, "expected tensors in a file beside it"),
        ({"tensors": "gone.safetensors"}, "cannot be read"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=message):
            load_checkpoint(tmp_path)
    path.write_text(json.dumps(good))
    tensors = tmp_path / good["tensors"]
    tensors.write_bytes(tensors.read_bytes()[:-8])
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adagrad, torch.optim.AdamW])
def test_an_optimizer_goes_on_as_if_nothing_had_happened(kind):
    def make():
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return module, kind(module.parameters(), lr=0.1, **options)

    def step(module, optimizer):
        optimizer.zero_grad()
        module(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    module, optimizer = make()
    step(module, optimizer)
    saved = Checkpoint({**module.state_dict(), **storage.optimizer_tensors(optimizer)})
    saved = Checkpoint({name: value.clone() for name, value in saved.tensors.items()})
    groups = json.loads(json.dumps(storage.optimizer_groups(optimizer)))
    step(module, optimizer)
    other, fresh = make()
    other.load_state_dict({name: saved.tensors[name] for name in ("weight", "bias")})
    storage.load_optimizer(fresh, saved, groups)
    step(other, fresh)
    assert torch.equal(other.weight, module.weight) and torch.equal(other.bias, module.bias)


def test_states_of_other_parameters_are_refused():
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    groups = storage.optimizer_groups(optimizer)
    with pytest.raises(InputError, match="other groups of parameters"):
        storage.load_optimizer(optimizer, Checkpoint({"optimizer.9.exp_avg": torch.zeros(2, 3)}), groups)
    with pytest.raises(InputError, match=r"expected shape \(2, 3\), got \(5,\)"):
        storage.load_optimizer(optimizer, Checkpoint({"optimizer.0.exp_avg": torch.zeros(5)}), groups)
    with pytest.raises(InputError, match="belong to another network"):
        storage.load_module(module, {"network.weight": torch.zeros(2, 3)}, "network.")
