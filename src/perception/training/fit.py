# SPDX-License-Identifier: Apache-2.0
"""Training from a configuration to weights on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perception.errors import InputError, PerceptionError
from perception.models.backends import choose_backend, torch_device
from perception.training.augmentation import Augmentation
from perception.training.batches import Batch, Mixture, TrainingSamples, load_batches
from perception.training.checkpoint import FILE, load_checkpoint, save_checkpoint
from perception.training.config import TrainingConfig
from perception.training.datasets import open_data
from perception.training.evaluation import evaluate_all
from perception.training.networks import network_card
from perception.training.output import Output
from perception.training.processes import Processes, join_processes, leave_processes
from perception.training.progress import StepResult
from perception.training.run import NotFiniteError, TrainingRun
from perception.training.stopping import StopRequest

CALIBRATION_BATCHES = 8
STATISTICS_BATCHES = 32
Report = Callable[[int, int, dict[str, Any]], None]
"""Called after each step with steps done, all steps, and figures to show."""


def fit(
    config: TrainingConfig, output: str | Path, resume: bool = False, report: Report | None = None
) -> dict[str, Any]:
    """Train; under torchrun together with the other processes, each with its part of every batch.

    Args:
        config: what, on which data, how.
        output: folder for checkpoints, weights and figures; shared by all processes.
        resume: go on from the folder's checkpoint.
        report: told about every step.

    Returns:
        What ``result.json`` holds: scores, losses and seconds of every epoch, the best score.

    Raises:
        InputError: data, weights, checkpoint or configuration do not fit.
        PerceptionError: the loss became NaN, or the disk is full; the last checkpoint is whole.
    """
    processes, device = join_processes(choose_backend("torch", config.device)[1])
    try:
        return Fit(config, Path(output), torch_device(device), processes, resume).run(report)
    finally:
        leave_processes()


class Fit:
    """A run on its data, with what it leaves in a folder.

    Args:
        config: what, on which data, how.
        output: folder.
        device: where the network is.
        processes: that share every batch.
        resume: go on from the folder's checkpoint.
    """

    def __init__(
        self, config: TrainingConfig, output: Path, device: torch.device, processes: Processes, resume: bool
    ) -> None:
        if not resume and (output / FILE).exists():
            raise InputError(f"{output}: expected a folder without a checkpoint, or --resume")
        self.config = config
        self.device = device
        self.processes = processes
        if device.type == "cpu":
            # Denormal numbers make some networks several times slower.
            torch.set_flush_denormal(True)
        if config.threads:
            torch.set_num_threads(config.threads)
        _, label_set = network_card(config.network)
        self.train_data = [open_data(entry, label_set) for entry in config.train if entry.weight > 0]
        self.validation_data = [open_data(entry, label_set) for entry in config.validation]
        self._check_names()
        self.steps_per_epoch = config.steps or math.ceil(max(map(len, self.train_data)) / config.batch_size)
        self.state = TrainingRun(config, device, self.steps_per_epoch, processes, self._calibration(resume))
        if resume:
            self.state.restore(load_checkpoint(output))
        self._saved_at = time.monotonic()
        self.output = Output(output, config, self.state.progress.step) if processes.is_first else None

    def _check_names(self) -> None:
        names = [data.name for data in self.validation_data]
        if len(set(names)) != len(names):
            raise InputError(f"validation: expected data sets of different names, got {names}")

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def run(self, report: Report | None = None) -> dict[str, Any]:
        """All epochs that are left; returns the result.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; the step was finished and saved.
        """
        progress = self.state.progress
        batches = self._batches(range(progress.step, self.total_steps))
        try:
            with StopRequest() as stop:
                while progress.step < self.total_steps and not self._has_waited_long_enough():
                    result = self._next_step(batches)
                    if report and self.processes.is_first:
                        report(progress.step, self.total_steps, self._shown(result))
                    if progress.step % self.steps_per_epoch == 0:
                        self._end_epoch(progress.step // self.steps_per_epoch - 1)
                    elif stop.asked or self._is_time_to_save():
                        self.save()
                    if stop.asked:
                        raise KeyboardInterrupt
        finally:
            if self.output:
                self.output.close()
        return self._finish()

    def _is_time_to_save(self) -> bool:
        minutes = self.config.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self._saved_at > 60 * minutes

    def _next_step(self, batches: Iterator[Batch]) -> StepResult:
        begin = time.perf_counter()
        batch = next(batches).to(self.device)
        data_seconds = time.perf_counter() - begin
        progress = self.state.progress
        epoch = progress.step // self.steps_per_epoch
        # Dropout depends on the step alone, so that a resumed run draws the same.
        torch.manual_seed(self.config.seed * 1_000_003 + progress.step * 1009 + self.processes.rank)
        try:
            result = self.state.step(batch)
        except NotFiniteError as error:
            raise PerceptionError(f"{error}; {self._what_is_kept()}") from error
        self.state.update_average(epoch)
        progress.count(result, data_seconds, len(batch.images) * self.processes.count)
        return result

    def _what_is_kept(self) -> str:
        path = self.output.folder / FILE if self.output else None
        return f"the last good state is in {path}" if path and path.exists() else "no checkpoint was written yet"

    def _batches(self, steps: range) -> Iterator[Batch]:
        config, batch = self.config, self.config.batch_size
        sizes, weights = [len(data) for data in self.train_data], [data.config.weight for data in self.train_data]
        mixture = Mixture(sizes, weights, self.steps_per_epoch * batch, config.seed)
        samples = TrainingSamples(self.train_data, mixture, Augmentation(config.augmentation), config.seed)
        numbers = [self.processes.part(range(i * batch, (i + 1) * batch)) for i in steps]
        return load_batches(samples, numbers, config.workers, pin_memory=self.device.type == "cuda")

    def _images(self, steps: range) -> Iterator[Tensor]:
        return (batch.to(self.device).images for batch in self._batches(steps))

    def _calibration(self, resume: bool) -> Iterator[Tensor]:
        """First images for inserted batch norm; a checkpoint has its statistics already."""
        needed = self.config.network.batch_norm == "insert" and not resume
        return self._images(range(min(CALIBRATION_BATCHES, self.total_steps))) if needed else iter(())

    def _shown(self, result: StepResult) -> dict[str, Any]:
        return {"loss": result.loss, "rate": self._rate(), "images_per_s": self.state.progress.speed, **result.terms}

    def _rate(self) -> float:
        return max(float(rate) for rate in self.state.schedule.get_last_lr())

    def _end_epoch(self, epoch: int) -> None:
        progress, config = self.state.progress, self.config
        entry = progress.close_epoch(epoch, self._rate())
        if self.validation_data and (progress.step == self.total_steps or (epoch + 1) % config.validate_every == 0):
            begin = time.perf_counter()
            self._renew_statistics(epoch)
            found = evaluate_all(self.state.result, self.validation_data, config, self.device, self.processes)
            entry["validation"] = found
            entry["seconds"]["validation"] = time.perf_counter() - begin
            if progress.judge(entry) and self.output:
                self.output.write_best(self.state.result)
        entry["seconds"]["total"] = sum(entry["seconds"].values())
        left = config.epochs - epoch - 1
        entry["remaining_s"] = left * sum(past["seconds"]["total"] for past in progress.history) / len(progress.history)
        if self.output:
            self.output.log(progress.step, entry)
        self.save()

    def _renew_statistics(self, epoch: int) -> None:
        """Batch norm of averaged weights needs statistics of its own (Izmailov et al., 2018, section 3.2)."""
        average = self.state.average
        normalizes = any(isinstance(child, nn.modules.batchnorm._BatchNorm) for child in self.state.network.modules())
        if self.config.average.name == "swa" and average is not None and normalizes:
            first = epoch * self.steps_per_epoch
            steps = range(first, first + min(STATISTICS_BATCHES, self.steps_per_epoch))
            torch.optim.swa_utils.update_bn(self._images(steps), average)

    def _has_waited_long_enough(self) -> bool:
        return 0 < self.config.patience <= self.state.progress.waiting

    def save(self) -> None:
        """Write a checkpoint and the figures so far."""
        self._saved_at = time.monotonic()
        if self.output:
            save_checkpoint(self.output.folder, self.state.checkpoint(), self.state.progress.step)
            self.output.write_result(self.state.progress)

    def _finish(self) -> dict[str, Any]:
        if self.output:
            return self.output.finish(self.state.result, self.state.progress)
        return self.state.progress.result(self.config)
