# SPDX-License-Identifier: Apache-2.0
"""Rooms to train on, and configurations that train on them within seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from perception.config import from_dict, merge
from perception.training.config import TrainingConfig

sys.path.insert(0, str(Path(__file__).parent))
from training_rooms import write_room


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight recorded frames."""
    folder = tmp_path_factory.mktemp("rooms")
    for number in range(8):
        write_room(folder / f"frame-{number:06d}", number)
    return folder


@pytest.fixture
def make_config(rooms: Path) -> Any:
    """A function that gives a configuration with changes laid over the smallest useful one."""

    def make(**changes: Any) -> TrainingConfig:
        base = {
            "train": [{"kind": "frames", "path": str(rooms)}],
            "validation": [{"kind": "frames", "path": str(rooms), "limit": 4}],
            "augmentation": {"height": 32, "width": 48},
            "optimizer": {"rate": 0.001},
            "epochs": 2,
            "steps": 2,
            "batch_size": 4,
            "validation_height": 48,
            "validation_width": 64,
            "workers": 0,
            "threads": 1,
            "tensorboard": False,
            "device": "cpu",
        }
        return from_dict(TrainingConfig, merge(base, changes))

    return make
