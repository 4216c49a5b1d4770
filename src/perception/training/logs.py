# SPDX-License-Identifier: Apache-2.0
"""Learning curves: a picture, and TensorBoard's files."""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perception.atomic_file import atomic_write

_log = logging.getLogger(__name__)


class TensorBoardLog:
    """Numbers over steps for TensorBoard; does nothing, and says so once, where TensorBoard is not installed.

    Args:
        folder: of its files; None for no log.
        step: where the run goes on; later entries of an interrupted run are dropped.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer: Any = None
        if folder is None:
            return
        if importlib.util.find_spec("tensorboard") is None:
            _log.warning("no TensorBoard files: tensorboard is not installed (pip install 'perception[training]')")
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step or None)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Note numbers at a step."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def epoch_scalars(entry: dict[str, Any]) -> dict[str, float]:
    """The numbers of a history entry under TensorBoard's names."""
    values = {"epoch/loss": entry["loss"], "epoch/images_per_s": entry["images_per_s"]}
    values |= {f"seconds/{name}": value for name, value in entry["seconds"].items()}
    for name, score in entry.get("validation", {}).items():
        values[f"mean_iou/{name}"] = score["mean_iou"]
        values[f"accuracy/{name}"] = score["accuracy"]
        values |= {f"iou_{name}/{label}": value for label, value in score["iou"].items()}
    return values


def write_learning_curve(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Draw losses and scores over epochs into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    losses.plot(epochs, [entry["loss"] for entry in history], color="black", marker=".", label="sum")
    for name in history[-1]["losses"] if history else ():
        losses.plot(epochs, [entry["losses"].get(name, float("nan")) for entry in history], marker=".", label=name)
    losses.set(xlabel="epoch", ylabel="loss", title="training")
    losses.legend()
    for name in {name: None for entry in history for name in entry.get("validation", {})}:
        seen = [entry for entry in history if name in entry.get("validation", {})]
        values = [entry["validation"][name]["mean_iou"] for entry in seen]
        scores.plot([entry["epoch"] for entry in seen], values, marker=".", label=name)
    scores.set(xlabel="epoch", ylabel="mean IoU", title="validation", ylim=(0, 1))
    if scores.lines:
        scores.legend()
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100)
    atomic_write(path, [data.getvalue()])
