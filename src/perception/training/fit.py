# SPDX-License-Identifier: Apache-2.0
"""Training from a configuration to weights on disk."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from perception.config import to_dict
from perception.errors import InputError, PerceptionError
from perception.mapping.octomap_io import atomic_write
from perception.models.backends import choose_backend, torch_device
from perception.models.weights import save_arrays
from perception.training.augmentation import Augmentation
from perception.training.batches import Batch, Mixture, TrainingSamples, load_batches
from perception.training.checkpoint import FILE, load_checkpoint, save_checkpoint
from perception.training.config import TrainingConfig
from perception.training.datasets import open_data
from perception.training.evaluation import evaluate_all
from perception.training.networks import open_network
from perception.training.run import StepResult, TrainingRun

Report = Callable[[int, int, dict[str, Any]], None]
"""Called after each step with steps done, all steps, and figures to show."""
_log = logging.getLogger(__name__)


def fit(
    config: TrainingConfig, output: str | Path, resume: bool = False, report: Report | None = None
) -> dict[str, Any]:
    """Train.

    Args:
        config: what, on which data, how.
        output: folder for checkpoints, weights and figures.
        resume: go on from the folder's checkpoint.
        report: told about every step.

    Returns:
        What ``result.json`` holds: score, time and losses of every epoch, the best score.

    Raises:
        InputError: data, weights, checkpoint or configuration do not fit.
        PerceptionError: the loss became NaN, or the disk is full; the last checkpoint is whole.
    """
    return Fit(config, Path(output), resume).run(report)


class Fit:
    """A run on its data, with what it leaves in a folder."""

    def __init__(self, config: TrainingConfig, output: Path, resume: bool) -> None:
        self.config = config
        self.output = output
        if not resume and (output / FILE).exists():
            raise InputError(f"{output}: expected a folder without a checkpoint, or --resume")
        device = choose_backend("torch", config.device)[1]
        self.device = torch_device(device)
        if self.device.type == "cpu":
            # Denormal numbers make some networks several times slower.
            torch.set_flush_denormal(True)
        if config.threads:
            torch.set_num_threads(config.threads)
        label_set = open_network(config.network).label_set
        self.train_data = [open_data(entry, label_set) for entry in config.train if entry.weight > 0]
        self.validation_data = [open_data(entry, label_set) for entry in config.validation]
        self.steps_per_epoch = config.steps or math.ceil(max(map(len, self.train_data)) / config.batch_size)
        self.run_state = TrainingRun(config, self.device, self.steps_per_epoch)
        if resume:
            self.run_state.restore(load_checkpoint(output))
        atomic_write_yaml(output, config)

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def run(self, report: Report | None) -> dict[str, Any]:
        """All epochs that are left; returns the result."""
        run, progress = self.run_state, self.run_state.progress
        batches = self._batches(progress.step)
        saved = time.monotonic()
        while progress.step < self.total_steps and not self._is_waiting_too_long():
            begin = time.perf_counter()
            batch = next(batches).to(self.device)
            data_seconds = time.perf_counter() - begin
            epoch = progress.step // self.steps_per_epoch
            torch.manual_seed(hash((self.config.seed, progress.step)))
            result = self._step(batch)
            run.update_average(epoch)
            self._count(result, data_seconds, len(batch.images))
            if report:
                report(progress.step, self.total_steps, self._shown(result))
            if progress.step % self.steps_per_epoch == 0:
                self._end_epoch(epoch)
                saved = time.monotonic()
            elif self.config.checkpoint_minutes and time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
        return self._finish()

    def _batches(self, step: int) -> Iterator[Batch]:
        config = self.config
        batch = config.batch_size
        sizes, weights = [len(data) for data in self.train_data], [data.config.weight for data in self.train_data]
        mixture = Mixture(sizes, weights, self.steps_per_epoch * batch, config.seed)
        samples = TrainingSamples(self.train_data, mixture, Augmentation(config.augmentation), config.seed)
        numbers = [range(i * batch, (i + 1) * batch) for i in range(step, self.total_steps)]
        return load_batches(samples, numbers, config.workers, pin_memory=self.device.type == "cuda")

    def _step(self, batch: Batch) -> StepResult:
        try:
            return self.run_state.step(batch)
        except InputError:
            raise
        except PerceptionError as error:
            kept = self.output / FILE
            where = f"the last good state is {kept}" if kept.exists() else "no checkpoint was written yet"
            raise PerceptionError(f"{error}; {where}") from error

    def _count(self, result: StepResult, data_seconds: float, images: int) -> None:
        sums = self.run_state.progress.sums
        parts = {f"time.{name}": value for name, value in {"data": data_seconds, **result.seconds}.items()}
        for name, value in {"steps": 1, "images": images, **result.terms, **parts}.items():
            sums[name] = sums.get(name, 0.0) + value

    def _shown(self, result: StepResult) -> dict[str, Any]:
        sums = self.run_state.progress.sums
        busy = sum(value for name, value in sums.items() if name.startswith("time."))
        rate = self.run_state.schedule.get_last_lr()[0]
        return {"loss": result.loss, "rate": rate, "images_per_s": sums["images"] / max(busy, 1e-9), **result.terms}

    def _end_epoch(self, epoch: int) -> None:
        progress, config = self.run_state.progress, self.config
        sums, steps = progress.sums, progress.sums.pop("steps")
        images = sums.pop("images")
        seconds = {name.removeprefix("time."): value for name, value in sums.items() if name.startswith("time.")}
        losses = {name: value / steps for name, value in sums.items() if not name.startswith("time.")}
        entry: dict[str, Any] = {
            "epoch": epoch,
            "rate": self.run_state.schedule.get_last_lr()[0],
            "loss": sum(losses.values()),
            "losses": losses,
            "images_per_s": images / max(sum(seconds.values()), 1e-9),
        }
        last = progress.step == self.total_steps
        if self.validation_data and (last or (epoch + 1) % config.validate_every == 0):
            begin = time.perf_counter()
            entry["validation"] = evaluate_all(self.run_state.result, self.validation_data, config, self.device)
            seconds["validation"] = time.perf_counter() - begin
            self._judge(entry)
        entry["seconds"] = {**seconds, "total": sum(seconds.values())}
        progress.history.append(entry)
        progress.sums = {}
        self.save()

    def _judge(self, entry: dict[str, Any]) -> None:
        progress = self.run_state.progress
        values = [score["mean_iou"] for score in entry["validation"].values()]
        entry["score"] = sum(values) / len(values)
        if progress.best is None or entry["score"] > progress.best:
            progress.best, progress.best_epoch, progress.waiting = entry["score"], entry["epoch"], 0
            save_arrays(self.output / "best.safetensors", self.run_state.result.arrays())
        else:
            progress.waiting += 1

    def _is_waiting_too_long(self) -> bool:
        return 0 < self.config.patience <= self.run_state.progress.waiting

    def save(self) -> None:
        """Write a checkpoint and the figures so far."""
        save_checkpoint(self.output, self.run_state.checkpoint(), self.run_state.progress.step)
        self._write_result()

    def _result(self) -> dict[str, Any]:
        progress = self.run_state.progress
        return {
            "network": self.config.network.name,
            "steps": progress.step,
            "best_score": progress.best,
            "best_epoch": progress.best_epoch,
            "epochs": progress.history,
        }

    def _write_result(self) -> None:
        atomic_write(self.output / "result.json", [json.dumps(self._result(), indent=1).encode()])

    def _finish(self) -> dict[str, Any]:
        save_arrays(self.output / "last.safetensors", self.run_state.result.arrays())
        self._write_result()
        return self._result()


def atomic_write_yaml(output: Path, config: TrainingConfig) -> None:
    """Write the configuration of a run into its folder, which is made."""
    plain = to_dict(config)
    for name in ("train", "validation"):
        plain[name] = [_plain(to_dict(entry)) for entry in plain[name]]
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PerceptionError(f"{output}: cannot be made ({error.strerror})") from error
    atomic_write(output / "config.yaml", [yaml.safe_dump(_plain(plain), sort_keys=False).encode()])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
