# SPDX-License-Identifier: Apache-2.0
"""Model folders: a card, a label set and weights of one of the networks known by name, as training writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from perception.errors import InputError
from perception.models.base import Segmenter
from perception.models.cards import read_card
from perception.models.options import ModelOptions
from perception.models.weights import check_sha256

CARD_FILE = "model.yaml"
LABELS_FILE = "labels.yaml"
WEIGHTS_FILE = "model.safetensors"
Builder = Callable[[ModelOptions], Segmenter]


def is_model_folder(name: str) -> bool:
    """Whether a name is the path of a model folder."""
    return (Path(name) / CARD_FILE).is_file()


def build_model_folder(name: str, options: ModelOptions, builders: Mapping[str, Builder]) -> Segmenter:
    """The segmenter of a model folder; what the options leave open comes from its card.

    Args:
        name: path of the folder.
        options: the user's.
        builders: networks by name.

    Raises:
        InputError: the card names no known network, or a file is missing, changed or does not fit.
    """
    folder = Path(name)
    card = read_card(folder / CARD_FILE)
    network = str(card.about.get("network", ""))
    if network not in builders:
        raise InputError(f"model {folder}: expected about.network to be one of {sorted(builders)}, got {network!r}")
    if card.weights is None or any(Path(file).name != file for file in (card.weights.file, card.labels)):
        raise InputError(f"model {folder}: expected weights and labels in files beside {CARD_FILE}")
    weights = folder / card.weights.file
    if not weights.is_file():
        raise InputError(f"model {folder}: expected a file {weights.name}, found none")
    check_sha256(weights, card.weights.sha256)
    size = (card.input.height, card.input.width) if card.input.height else None
    own = replace(
        options,
        weights=options.weights or str(weights),
        labels=options.labels or str(folder / card.labels),
        input_size=options.input_size or size,
    )
    segmenter = builders[network](own)
    segmenter.name = str(folder)
    return segmenter
