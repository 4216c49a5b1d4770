# SPDX-License-Identifier: Apache-2.0
"""Label sets: the ids, names, colors, navigation costs and behavior of the classes of a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from perception.errors import InputError
from perception.yaml_text import load_yaml

UNLABELED = -1
"""Label of a pixel, point or voxel without a class, in arrays."""
UNLABELED_16 = 65535
"""The same in 16-bit messages (vision_msgs/VisionClass UNLABELED)."""
UNLABELED_8 = 255
"""The same in 8-bit images."""
MAX_CLASSES = 65535
LETHAL_COST = 254
"""Nav2's LETHAL_OBSTACLE; class costs are 0 (free) to this."""


@dataclass(frozen=True, slots=True)
class LabelClass:
    """One class of a label set.

    Attributes:
        id: 0 to 65534.
        name: as shown to users and sent in vision_msgs.
        color: (red, green, blue), 0–255; white is refused because OctoMap reads it as "no color".
        cost: Nav2 navigation cost of ground of this class, 0 (free) to 254 (lethal).
        traversable: an occupied voxel of this class above the ground is no obstacle (tall grass, curtain).
        moves: people, cars: never fused into the map, always an obstacle of the current frame.
        decay_s: time constant, seconds, by which unseen evidence fades; None keeps it.
    """

    id: int
    name: str
    color: tuple[int, int, int]
    cost: int = LETHAL_COST
    traversable: bool = False
    moves: bool = False
    decay_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.id < MAX_CLASSES:
            raise InputError(f"label id of {self.name!r}: expected 0 to {MAX_CLASSES - 1}, got {self.id}")
        if len(self.color) != 3 or not all(0 <= channel <= 255 for channel in self.color):
            raise InputError(f"color of {self.name!r}: expected three values 0 to 255, got {self.color}")
        if tuple(self.color) == (255, 255, 255):
            raise InputError(f"color of {self.name!r}: (255, 255, 255) means 'not colored' to OctoMap, choose another")
        if not 0 <= self.cost <= LETHAL_COST:
            raise InputError(f"cost of {self.name!r}: expected 0 to {LETHAL_COST}, got {self.cost}")
        if self.decay_s is not None and not self.decay_s > 0:
            raise InputError(f"decay_s of {self.name!r}: expected a positive time in seconds, got {self.decay_s}")


@dataclass(frozen=True)
class LabelSet:
    """The classes that a network or a map knows.

    Attributes:
        name: short name of the set.
        classes: in ascending order of id; ids may have gaps.
    """

    name: str
    classes: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        if not self.classes:
            raise InputError(f"label set {self.name!r}: expected at least one class, got none")
        for what in ("id", "name"):
            counts = Counter(getattr(label, what) for label in self.classes)
            twice = sorted(value for value, count in counts.items() if count > 1)
            if twice:
                raise InputError(f"label set {self.name!r}: {what} used twice: {twice}")
        object.__setattr__(self, "classes", tuple(sorted(self.classes, key=lambda label: label.id)))

    @property
    def num_classes(self) -> int:
        """Highest id + 1: the length of every table below."""
        return self.classes[-1].id + 1

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def _by_name(self) -> dict[str, LabelClass]:
        return {label.name: label for label in self.classes}

    def __getitem__(self, name: str) -> LabelClass:
        """The class called ``name``; raises InputError that lists the known names."""
        try:
            return self._by_name[name]
        except KeyError:
            raise InputError(f"label set {self.name!r} has no class {name!r}; it has {sorted(self._by_name)}") from None

    def name_of(self, label: int) -> str:
        """Name of an id; ids outside of the set are shown as numbers."""
        for known in self.classes:
            if known.id == label:
                return known.name
        return "unlabeled" if label < 0 else f"class {label}"

    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """(num_classes, 3) uint8 RGB; gray for ids in gaps."""
        table = np.full((self.num_classes, 3), 128, np.uint8)
        for label in self.classes:
            table[label.id] = label.color
        return table

    @cached_property
    def costs(self) -> NDArray[np.uint8]:
        """(num_classes,) uint8 Nav2 costs 0–254; lethal for ids in gaps."""
        return self._table("cost", LETHAL_COST, np.uint8)

    @cached_property
    def traversable(self) -> NDArray[np.bool_]:
        """(num_classes,) bool."""
        return self._table("traversable", False, np.bool_)

    @cached_property
    def moves(self) -> NDArray[np.bool_]:
        """(num_classes,) bool."""
        return self._table("moves", False, np.bool_)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """(num_classes,) bool, False for ids in gaps."""
        table = np.zeros(self.num_classes, np.bool_)
        table[[label.id for label in self.classes]] = True
        return table

    @cached_property
    def decay_s(self) -> NDArray[np.float32]:
        """(num_classes,) float32 seconds, +inf for classes that stay."""
        table = np.full(self.num_classes, np.inf, np.float32)
        for label in self.classes:
            if label.decay_s is not None:
                table[label.id] = label.decay_s
        return table

    def _table(self, field: str, default: Any, dtype: Any) -> NDArray[Any]:
        table = np.full(self.num_classes, default, dtype)
        for label in self.classes:
            table[label.id] = getattr(label, field)
        return table

    def colorize(self, labels: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Colors of labels of any shape: (..., 3) uint8 RGB; black where unlabeled or not in the set."""
        table = np.vstack([np.zeros((1, 3), np.uint8), self.colors])
        index = np.where((labels >= 0) & (labels < self.num_classes), labels, UNLABELED)
        return table[index.astype(np.int64) + 1]

    def check_ids(self, labels: NDArray[np.integer], what: str = "labels") -> None:
        """Raise InputError naming ids that are neither −1 nor in this set."""
        if labels.size == 0 or (labels.min() >= UNLABELED and labels.max() < self.num_classes and self.known.all()):
            return
        unknown = [
            int(i) for i in np.unique(labels) if i != UNLABELED and not (0 <= i < self.num_classes and self.known[i])
        ]
        if unknown:
            known = [label.id for label in self.classes]
            shown = known if len(known) <= 12 else f"{known[0]} … {known[-1]} ({len(known)} ids)"
            raise InputError(f"{what}: expected ids of label set {self.name!r}, {shown} or -1, got {unknown[:8]}")

    def with_costs(self, costs: Mapping[str, int]) -> LabelSet:
        """A copy with other navigation costs by class name."""
        for name in costs:
            self[name]
        return self._replace({name: {"cost": int(cost)} for name, cost in costs.items()})

    def _replace(self, changes: Mapping[str, Mapping[str, Any]]) -> LabelSet:
        def changed(label: LabelClass) -> LabelClass:
            values = {field: getattr(label, field) for field in LabelClass.__slots__}
            return LabelClass(**{**values, **changes.get(label.name, {})})

        return LabelSet(self.name, tuple(changed(label) for label in self.classes))

    @classmethod
    def from_dict(cls, data: Any, source: str = "label set") -> LabelSet:
        """Build from ``{name: …, classes: [{id, name, color, cost, traversable, moves, decay_s}, …]}``.

        Raises:
            InputError: a key is missing or unknown, or a value is out of range.
        """
        if not isinstance(data, dict) or not isinstance(data.get("classes"), list):
            raise InputError(
                f"{source}: expected a mapping with 'name' and a list 'classes', got {type(data).__name__}"
            )
        return cls(str(data.get("name", source)), tuple(_class_from(entry, source) for entry in data["classes"]))

    @classmethod
    def from_yaml(cls, path: str | Path) -> LabelSet:
        """Read a label set file; raises InputError when it is missing or wrong."""
        path = Path(path)
        try:
            data = load_yaml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"label set {path}: cannot be read ({str(error).splitlines()[0]})") from error
        return cls.from_dict(data, str(path))

    @classmethod
    def load(cls, name_or_path: str | Path) -> LabelSet:
        """A label set that ships with the package, by name, or a YAML file, by path."""
        folder = resources.files("perception") / "data" / "labels"
        shipped = folder / f"{name_or_path}.yaml"
        if shipped.is_file():
            return cls.from_dict(load_yaml(shipped.read_text(encoding="utf-8")), str(name_or_path))
        if Path(name_or_path).suffix in {".yaml", ".yml"}:
            return cls.from_yaml(name_or_path)
        names = sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))
        raise InputError(f"label set {str(name_or_path)!r}: expected one of {names} or a path to a .yaml file")

    @classmethod
    def anonymous(cls, ids: Iterable[int], name: str = "ids") -> LabelSet:
        """A set for bare ids: names are the numbers, colors are distinct, everything is lethal."""
        ordered = sorted(set(ids))
        return cls(name, tuple(LabelClass(i, f"class {i}", distinct_color(i)) for i in ordered))

    def to_dict(self) -> dict[str, Any]:
        """The inverse of :meth:`from_dict`."""
        classes = [{field: getattr(label, field) for field in LabelClass.__slots__} for label in self.classes]
        for entry in classes:
            entry["color"] = list(entry["color"])
        return {"name": self.name, "classes": classes}


def _class_from(entry: Any, source: str) -> LabelClass:
    if not isinstance(entry, dict) or not {"id", "name"} <= entry.keys():
        raise InputError(f"{source}: expected classes with at least 'id' and 'name', got {entry!r}")
    unknown = set(entry) - set(LabelClass.__slots__)
    if unknown:
        raise InputError(f"{source}: class {entry['name']!r} has unknown keys {sorted(unknown)}")
    values = dict(entry)
    try:
        values["id"], values["name"] = int(values["id"]), str(values["name"])
        values["color"] = tuple(int(channel) for channel in values.get("color") or distinct_color(values["id"]))
        return LabelClass(**values)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{source}: class {entry['name']!r}: {error}") from error


def distinct_color(index: int) -> tuple[int, int, int]:
    """A color for a number, far from those of its neighbors: hues by the golden ratio, three levels of lightness."""
    hue = (index * 0.618033988749895) % 1.0
    value, saturation = ((0.95, 0.65), (0.75, 0.85), (0.6, 0.5))[index % 3]
    sector, rest = divmod(hue * 6.0, 1.0)
    low, falling, rising = 1 - saturation, 1 - saturation * rest, 1 - saturation * (1 - rest)
    channels = (
        (1, rising, low),
        (falling, 1, low),
        (low, 1, rising),
        (low, falling, 1),
        (rising, low, 1),
        (1, low, falling),
    )
    red, green, blue = channels[int(sector) % 6]
    return round(255 * value * red), round(255 * value * green), round(255 * value * blue)
