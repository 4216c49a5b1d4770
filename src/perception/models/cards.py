# SPDX-License-Identifier: Apache-2.0
"""Model cards: one YAML file per network with its input, label set, weights, origin and license."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from perception.errors import InputError
from perception.models.decoding import InputSpec
from perception.models.weights import WeightsSource
from perception.yaml_text import load_yaml

OUTPUTS = ("logits", "probabilities", "labels", "detections")


@dataclass(frozen=True)
class ModelCard:
    """What is known about a network besides its layers.

    Attributes:
        name: of the card.
        labels: name or path of the label set of its classes.
        input: what it wants to see.
        output: "logits", "probabilities", "labels" or "detections".
        weights: where its tensors come from; None where the network file holds them.
        license: SPDX identifier of the weights.
        about: free facts for people: source, training data, accuracy, changes made.
    """

    name: str
    labels: str = ""
    input: InputSpec = field(default_factory=InputSpec)
    output: str = "logits"
    weights: WeightsSource | None = None
    license: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise InputError(f"model card {self.name}: expected output to be one of {OUTPUTS}, got {self.output!r}")

    def with_input_size(self, size: tuple[int, int] | None) -> ModelCard:
        """A copy for another input (height, width); None keeps the card's own."""
        return self if size is None else replace(self, input=replace(self.input, height=size[0], width=size[1]))


def read_card(path: Path) -> ModelCard:
    """Read a model card.

    Raises:
        InputError: unreadable file, unknown key or wrong value.
    """
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"model card {path}: cannot be read ({str(error).splitlines()[0]})") from error
    values = _checked(ModelCard, data, f"model card {path}")
    values.setdefault("name", path.stem)
    if "input" in values:
        spec = _checked(InputSpec, values["input"], f"model card {path}: input")
        spec.update({key: tuple(spec[key]) for key in ("mean", "std") if isinstance(spec.get(key), list)})
        values["input"] = _made(InputSpec, spec, f"model card {path}: input")
    if values.get("weights") is not None:
        source = _checked(WeightsSource, values["weights"], f"model card {path}: weights")
        values["weights"] = _made(WeightsSource, source, f"model card {path}: weights")
    return _made(ModelCard, values, f"model card {path}")


def shipped_card(name: str) -> ModelCard:
    """The card of a network that the package knows."""
    return read_card(Path(str(resources.files("perception") / "data" / "models" / f"{name}.yaml")))


def _checked(cls: type, data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a mapping, got {type(data).__name__}")
    known = [item.name for item in fields(cls)]
    unknown = sorted(str(key) for key in data if key not in known)
    if unknown:
        raise InputError(f"{where}: unknown keys {unknown}; expected some of {known}")
    return dict(data)


def _made(cls: type, values: dict[str, Any], where: str) -> Any:
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error
