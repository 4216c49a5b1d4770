# SPDX-License-Identifier: Apache-2.0
"""Translates a network's classes into the classes of the map, and drops labels that are too unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from perception.errors import InputError
from perception.labels import UNLABELED, LabelSet
from perception.models.base import Segmenter, label_together
from perception.types import LabelImage
from perception.yaml_text import load_yaml


@dataclass(frozen=True)
class LabelMap:
    """A translation between two label sets.

    Attributes:
        target: the classes of the map.
        table: (num_classes of the network + 1,) int32 id in the target by id of the network, −1 for no label; the last
            entry is for unlabeled pixels.
    """

    target: LabelSet
    table: NDArray[np.int32]

    @classmethod
    def load(cls, path: str | Path, source: LabelSet) -> LabelMap:
        """Read a mapping file.

        The file has ``labels`` (name or path of the map's label set; paths are relative to the file), ``classes``
        (network class: map class), and where not all network classes are named there, ``ignore`` (a list of network
        classes that give no label) and ``default`` (the map class of all others; null for no label).

        Raises:
            InputError: unreadable file, unknown key or class, or network classes that are mapped to nothing.
        """
        path = Path(path)
        try:
            data = load_yaml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"label map {path}: cannot be read ({str(error).splitlines()[0]})") from error
        _check_keys(data, path)
        labels = str(data["labels"])
        beside = path.parent / labels
        target = LabelSet.load(beside if beside.is_file() else labels)
        return cls.from_dict(data, source, target, f"label map {path}")

    @classmethod
    def from_dict(cls, data: dict[str, Any], source: LabelSet, target: LabelSet, where: str = "label map") -> LabelMap:
        """Build from ``classes``, ``ignore`` and ``default`` as in a mapping file; errors as :meth:`load`."""
        classes, ignored = dict(data.get("classes") or {}), list(data.get("ignore") or [])
        unknown = sorted(str(name) for name in {*classes, *ignored} - {label.name for label in source.classes})
        if unknown:
            raise InputError(f"{where}: the network's label set {source.name!r} has no classes {unknown}")
        unmapped = [label.name for label in source.classes if label.name not in classes and label.name not in ignored]
        if unmapped and "default" not in data:
            raise InputError(
                f"{where}: classes of the network without a class of the map: {unmapped}; map them, list them under "
                "'ignore' or give a 'default'"
            )
        table = np.full(source.num_classes + 1, UNLABELED, np.int32)
        for label in source.classes:
            name = None if label.name in ignored else classes.get(label.name, data.get("default"))
            table[label.id] = UNLABELED if name is None else target[str(name)].id
        return cls(target, table)

    def apply(self, image: LabelImage) -> LabelImage:
        """The same pixels with the classes of the map."""
        return LabelImage(self.table[image.labels], image.confidence, self.target)


def _check_keys(data: Any, path: Path) -> None:
    known = {"labels", "classes", "ignore", "default"}
    if not isinstance(data, dict) or "labels" not in data or set(data) - known:
        got = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise InputError(f"label map {path}: expected 'labels' and some of {sorted(known)}, got {got}")
    if not isinstance(data.get("classes") or {}, dict) or not isinstance(data.get("ignore") or [], list):
        raise InputError(f"label map {path}: expected a mapping 'classes' and a list 'ignore'")


class MappedSegmenter:
    """A segmenter whose labels are translated and whose unsure labels are dropped.

    Args:
        segmenter: gives the labels.
        label_map: translation; None keeps the network's classes.
        min_confidence: less probable labels become −1.
    """

    def __init__(self, segmenter: Segmenter, label_map: LabelMap | None, min_confidence: float = 0.0) -> None:
        self.name = segmenter.name
        self.device = segmenter.device
        self.label_set = segmenter.label_set if label_map is None else label_map.target
        self._segmenter = segmenter
        self._label_map = label_map
        self._min_confidence = min_confidence

    def __call__(self, rgb: NDArray[np.uint8]) -> LabelImage:
        """Label an (H, W, 3) uint8 RGB image; errors as the segmenter's."""
        return self._mapped(self._segmenter(rgb))

    def predict_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[LabelImage]:
        """Label several images, at once where the segmenter can."""
        return [self._mapped(image) for image in label_together(self._segmenter, images)]

    def _mapped(self, image: LabelImage) -> LabelImage:
        if self._label_map is not None:
            image = self._label_map.apply(image)
        unsure = image.confidence < self._min_confidence
        if not unsure.any():
            return image
        return LabelImage(np.where(unsure, UNLABELED, image.labels), image.confidence, image.label_set)

    def warm_up(self) -> None:
        """Run the segmenter once."""
        self._segmenter.warm_up()
