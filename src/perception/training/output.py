# SPDX-License-Identifier: Apache-2.0
"""The folder of a training run: configuration, weights, figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from perception.atomic_file import atomic_write
from perception.config import to_dict
from perception.errors import PerceptionError
from perception.models.weights import load_arrays, save_arrays
from perception.training.config import TrainingConfig
from perception.training.export import write_model
from perception.training.logs import TensorBoardLog, epoch_scalars, write_learning_curve
from perception.training.networks import TrainableNetwork
from perception.training.progress import Progress

BEST_FILE = "best.safetensors"


class Output:
    """What one process writes.

    Args:
        folder: is made.
        config: goes into it.
        step: where the run goes on.

    Raises:
        PerceptionError: the folder cannot be written.
    """

    def __init__(self, folder: Path, config: TrainingConfig, step: int) -> None:
        self.folder = folder
        self._config = config
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PerceptionError(f"{folder}: cannot be made ({error.strerror})") from error
        atomic_write(folder / "config.yaml", [yaml.safe_dump(plain(config), sort_keys=False).encode()])
        self._log = TensorBoardLog(folder / "tensorboard" if config.tensorboard else None, step)

    def log(self, step: int, entry: dict[str, Any]) -> None:
        """Note an epoch in TensorBoard's files."""
        self._log.add(step, epoch_scalars(entry))

    def write_best(self, network: TrainableNetwork) -> None:
        """Keep the weights of the best epoch."""
        save_arrays(self.folder / BEST_FILE, network.arrays())

    def write_result(self, progress: Progress) -> dict[str, Any]:
        """Write ``result.json`` and the learning curve; returns the result."""
        result = progress.result(self._config)
        atomic_write(self.folder / "result.json", [json.dumps(result, indent=1).encode()])
        if progress.history:
            write_learning_curve(self.folder / "learning_curve.png", progress.history)
        return result

    def finish(self, network: TrainableNetwork, progress: Progress) -> dict[str, Any]:
        """Write the last weights, and the model folder with the best ones (the last where nothing was scored)."""
        result = self.write_result(progress)
        last = network.arrays()
        save_arrays(self.folder / "last.safetensors", last)
        best = self.folder / BEST_FILE
        scored = progress.best is not None and best.is_file()
        about: dict[str, Any] = {
            "trained_on": [data.name or data.path for data in self._config.train],
            "seed": self._config.seed,
            "steps": progress.step,
            "hours": round(result["seconds"] / 3600, 2),
        }
        if scored:
            about["validation_mean_iou"] = round(float(progress.best or 0.0), 4)
            about["epoch"] = progress.best_epoch
        arrays = load_arrays(best) if scored else last
        write_model(self.folder / "model", network, arrays, self._config.export, about)
        return result

    def close(self) -> None:
        """Write what is left."""
        self._log.close()


def plain(config: Any) -> Any:
    """A configuration as what YAML can hold."""
    if hasattr(config, "__dataclass_fields__"):
        config = to_dict(config)
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, Sequence) and not isinstance(config, str):
        return [plain(value) for value in config]
    return config
