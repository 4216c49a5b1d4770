# SPDX-License-Identifier: Apache-2.0
"""Which class a model is of, by patterns of its name, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from perception.errors import InputError
from perception.labels import UNLABELED, LabelSet
from perception.yaml_text import load_yaml

_KEYS = {"label_set", "prefix", "classes", "absent"}


@dataclass(frozen=True)
class ClassMap:
    """Classes of models by name.

    Attributes:
        label_set: what the labels mean.
        patterns: (pattern with * and ?, class id), of which the first that fits counts.
        prefix: taken off names first.
        absent: patterns of models that may be missing.
        default: id of what fits no pattern.
    """

    label_set: LabelSet
    patterns: tuple[tuple[str, int], ...] = ()
    prefix: str = ""
    absent: tuple[str, ...] = ()
    default: int = UNLABELED

    def label_of(self, name: str) -> int:
        """Class id of a model."""
        name = name.removeprefix(self.prefix)
        return next((label for pattern, label in self.patterns if fnmatchcase(name, pattern)), self.default)

    def may_be_absent(self, name: str) -> bool:
        """Whether a model is known not to come with the scene."""
        return any(fnmatchcase(name.removeprefix(self.prefix), pattern) for pattern in self.absent)

    @classmethod
    def load(cls, name_or_path: str | Path) -> ClassMap:
        """A class map that ships with the package, by name, or a YAML file, by path.

        Raises:
            InputError: no such name or file, an unknown key or class.
        """
        shipped = resources.files("perception") / "data" / "scenes" / f"{name_or_path}.yaml"
        path = Path(name_or_path)
        try:
            if shipped.is_file():
                return cls.from_dict(load_yaml(shipped.read_text(encoding="utf-8")), str(name_or_path))
            return cls.from_dict(load_yaml(path.read_text(encoding="utf-8")), str(path))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"class map {name_or_path}: cannot be read ({str(error).splitlines()[0]})") from error

    @classmethod
    def from_dict(cls, data: Any, source: str = "class map") -> ClassMap:
        """Build from ``{label_set, prefix, classes: [{label, models: [pattern, …]}, …], absent: [pattern, …]}``."""
        if not isinstance(data, Mapping) or not isinstance(data.get("classes"), list):
            raise InputError(f"{source}: expected a mapping with a list 'classes', got {type(data).__name__}")
        if set(data) - _KEYS:
            raise InputError(f"{source}: unknown keys {sorted(set(data) - _KEYS)}; expected some of {sorted(_KEYS)}")
        label_set = LabelSet.load(data.get("label_set", "ade20k32"))
        patterns = []
        for entry in data["classes"]:
            if not isinstance(entry, Mapping) or set(entry) != {"label", "models"}:
                raise InputError(f"{source}: expected classes with 'label' and 'models', got {entry!r}")
            label = label_set[str(entry["label"])].id
            patterns += [(str(pattern), label) for pattern in entry["models"]]
        names = {label.name for label in label_set.classes}
        default = label_set["other"].id if "other" in names else UNLABELED
        absent = tuple(str(pattern) for pattern in data.get("absent", ()))
        return cls(label_set, tuple(patterns), str(data.get("prefix", "")), absent, default)
