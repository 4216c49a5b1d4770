# SPDX-License-Identifier: Apache-2.0
"""Brings the classes of a recording's truth and those of a map together, by name or as a file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from perception.errors import InputError
from perception.labels import UNLABELED, LabelSet
from perception.yaml_text import load_yaml

KEYS = ("truth", "predicted", "ignore")


@dataclass(frozen=True)
class ClassMapping:
    """How labels are compared: both sides are translated into classes of the map.

    Attributes:
        label_set: classes of the map, in which everything is scored.
        truth: (classes of the truth + 1,) int32 class of the map by true class, −1: not counted; the last is for
            unlabeled.
        predicted: (num_classes + 1,) int32 class as which a class of the map is scored; the last is for unlabeled.
        pairs: name of each true class and of its class of the map, None where it has none.
        unmapped_truth: true classes that nothing in the map stands for; their pixels are not counted.
        unmapped_predicted: classes of the map that no true class stands for; predicting them is always wrong.
    """

    label_set: LabelSet
    truth: NDArray[np.int32]
    predicted: NDArray[np.int32]
    pairs: dict[str, str | None]
    unmapped_truth: list[str]
    unmapped_predicted: list[str]

    @classmethod
    def build(cls, truth_set: LabelSet, label_set: LabelSet, path: str | Path | None = None) -> ClassMapping:
        """Match classes of the same name, after what a file says.

        The file has ``truth`` (true class: class of the map), ``predicted`` (class of the map: the one as which it is
        scored, such as armchair: chair) and ``ignore`` (a list of true classes that are not counted).

        Raises:
            InputError: unreadable file, an unknown key, or a class that its label set lacks.
        """
        data = _read(Path(path)) if path is not None else {}
        where = f"class mapping {path}"
        given, merged, ignored = data.get("truth") or {}, data.get("predicted") or {}, set(data.get("ignore") or [])
        _check_names(where, "the truth", truth_set, [*given, *ignored])
        _check_names(where, "the map", label_set, [*given.values(), *merged, *merged.values()])
        known = {label.name: label.id for label in label_set.classes}
        predicted = np.arange(label_set.num_classes + 1, dtype=np.int32)
        predicted[-1] = UNLABELED
        for name, scored in merged.items():
            predicted[known[name]] = known[scored]
        truth = np.full(truth_set.num_classes + 1, UNLABELED, np.int32)
        pairs: dict[str, str | None] = {}
        for label in truth_set.classes:
            name = given.get(label.name, label.name)
            counted = name in known and label.name not in ignored
            truth[label.id] = predicted[known[name]] if counted else UNLABELED
            pairs[label.name] = label_set.name_of(int(truth[label.id])) if counted else None
        scored_ids = {int(i) for i in truth if i >= 0}
        return cls(
            label_set,
            truth,
            predicted,
            pairs,
            sorted(name for name, target in pairs.items() if target is None and name not in ignored),
            sorted(label.name for label in label_set.classes if int(predicted[label.id]) not in scored_ids),
        )

    def true_ids(self, labels: NDArray[np.integer]) -> NDArray[np.int32]:
        """Classes of the map for true labels of any shape; −1 where they are not counted."""
        return _look_up(self.truth, labels)

    def scored_ids(self, labels: NDArray[np.integer]) -> NDArray[np.int32]:
        """The classes as which labels of the map are scored; −1 where there is none."""
        return _look_up(self.predicted, labels)


def mapping_notes(truth: Mapping[str, Any]) -> list[str]:
    """Sentences about classes without a counterpart.

    Args:
        truth: what ``summary.json`` says under ``truth``.
    """
    lines = []
    missing, shares = truth.get("unmapped_truth") or [], truth.get("unmapped_shares") or {}
    if shares:
        seen = sorted(shares.items(), key=lambda item: -item[1])
        listed = ", ".join(f"{name} {share:.1%}" for name, share in seen)
        lines.append(
            f"not counted, {sum(shares.values()):.1%} of the true pixels, whose classes the map lacks: {listed}"
        )
    elif missing:
        lines.append(f"true classes that the map lacks: {', '.join(missing)}")
    if truth.get("unmapped_network"):
        names = ", ".join(truth["unmapped_network"])
        lines.append(f"classes of the map that the truth lacks, wrong wherever they are said: {names}")
    return lines


def _look_up(table: NDArray[np.int32], labels: NDArray[np.integer]) -> NDArray[np.int32]:
    inside = (labels >= 0) & (labels < len(table) - 1)
    return table[np.where(inside, labels, len(table) - 1)]


def _read(path: Path) -> dict[str, Any]:
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"class mapping {path}: cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(data, dict) or set(data) - set(KEYS):
        got = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise InputError(f"class mapping {path}: expected some of {list(KEYS)}, got {got}")
    for key in KEYS:
        kind = list if key == "ignore" else dict
        if not isinstance(data.get(key) or kind(), kind):
            raise InputError(f"class mapping {path}: expected {key} to be a {kind.__name__}, got {data[key]!r}")
    names = lambda value: {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else value  # noqa: E731
    return {key: names(value) for key, value in data.items()}


def _check_names(where: str, what: str, label_set: LabelSet, names: list[Any]) -> None:
    unknown = sorted({str(name) for name in names} - {label.name for label in label_set.classes})
    if unknown:
        raise InputError(f"{where}: label set {label_set.name!r} of {what} has no classes {unknown}")
