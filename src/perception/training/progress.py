# SPDX-License-Identifier: Apache-2.0
"""Where a run stands, and the times and losses of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perception.training.config import TrainingConfig

PARTS = ("data", "forward", "backward", "step")


@dataclass
class StepResult:
    """What one step did.

    Attributes:
        terms: the losses, already weighted, by name.
        seconds: of forward (teacher included), backward and step.
    """

    terms: Mapping[str, float]
    seconds: Mapping[str, float]

    @property
    def loss(self) -> float:
        """Sum of the terms."""
        return sum(self.terms.values())


@dataclass
class Progress:
    """Where a run stands; all of it goes into checkpoints.

    Attributes:
        step: steps done.
        best: highest score so far, None before the first evaluation.
        best_epoch: its epoch.
        waiting: evaluations since then.
        history: one entry per epoch.
        steps: of the epoch that is under way.
        images: of the epoch that is under way.
        losses: sums of the terms over these steps.
        seconds: of the parts over these steps.
    """

    step: int = 0
    best: float | None = None
    best_epoch: int = -1
    waiting: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    images: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def count(self, result: StepResult, data_seconds: float, images: int) -> None:
        """Add a step to the epoch's sums."""
        self.steps += 1
        self.images += images
        for name, value in result.terms.items():
            self.losses[name] = self.losses.get(name, 0.0) + value
        for name, value in {"data": data_seconds, **result.seconds}.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    @property
    def speed(self) -> float:
        """Images per second in this epoch."""
        return self.images / max(sum(self.seconds.values()), 1e-9)

    def close_epoch(self, epoch: int, rate: float) -> dict[str, Any]:
        """Turn the sums into a history entry, which is returned, and begin new ones."""
        losses = {name: value / self.steps for name, value in self.losses.items()}
        entry: dict[str, Any] = {
            "epoch": epoch,
            "rate": rate,
            "loss": sum(losses.values()),
            "losses": losses,
            "images_per_s": self.speed,
            "seconds": {name: self.seconds.get(name, 0.0) for name in PARTS},
        }
        self.history.append(entry)
        self.steps, self.images, self.losses, self.seconds = 0, 0, {}, {}
        return entry

    def judge(self, entry: dict[str, Any]) -> bool:
        """Score an entry by the mean of its data sets' mean IoU; returns whether it is the best so far."""
        values = [score["mean_iou"] for score in entry["validation"].values()]
        entry["score"] = sum(values) / len(values)
        if self.best is None or entry["score"] > self.best:
            self.best, self.best_epoch, self.waiting = entry["score"], entry["epoch"], 0
            return True
        self.waiting += 1
        return False

    def result(self, config: TrainingConfig) -> dict[str, Any]:
        """What ``result.json`` holds."""
        return {
            "network": config.network.name,
            "seed": config.seed,
            "steps": self.step,
            "seconds": sum(entry["seconds"].get("total", 0.0) for entry in self.history),
            "best_score": self.best,
            "best_epoch": self.best_epoch,
            "epochs": self.history,
        }
