# SPDX-License-Identifier: Apache-2.0
"""The result of a training run as a model folder, which ``--model`` and the registry take like a name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from perception.atomic_file import atomic_write
from perception.models.deeplab import DeepLabV3Plus
from perception.models.importer import rounded
from perception.models.model_folder import CARD_FILE, LABELS_FILE, WEIGHTS_FILE
from perception.models.weights import save_arrays
from perception.training.networks import TrainableNetwork


def write_model(
    folder: Path,
    network: TrainableNetwork,
    arrays: Mapping[str, NDArray[Any]],
    dtype: str = "float16",
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write weights, label set and model card.

    Args:
        folder: is made.
        network: what was trained.
        arrays: its tensors, as :meth:`TrainableNetwork.arrays` gives them.
        dtype: "float16" rounds DeepLab's 1×1 convolutions, nearly all of its numbers; other networks stay in float32.
        about: facts for people.

    Returns:
        path of the card.

    Raises:
        PerceptionError: a file cannot be written.
    """
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    rounds = dtype == "float16" and isinstance(network.module, DeepLabV3Plus)
    save_arrays(folder / WEIGHTS_FILE, rounded(plain) if rounds else plain)
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    spec = network.card.input
    size = {"height": spec.height, "width": spec.width} if spec.height else {"short_side": spec.short_side}
    card = {
        "name": folder.resolve().name,
        "labels": LABELS_FILE,
        "input": {**size, "mean": list(spec.mean), "std": list(spec.std), "multiple_of": spec.multiple_of},
        "output": "logits",
        "weights": {"file": WEIGHTS_FILE, "sha256": digest},
        "license": network.card.license,
        "about": {"network": network.name, **(about or {})},
    }
    atomic_write(folder / LABELS_FILE, [_yaml(network.label_set.to_dict())])
    atomic_write(folder / CARD_FILE, [_yaml(card)])
    return folder / CARD_FILE


def _yaml(data: Any) -> bytes:
    text = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    return text.encode()
