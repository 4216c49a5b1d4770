# SPDX-License-Identifier: Apache-2.0
"""What the ids of incoming labels mean: from a parameter, or from label_info."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from perception.errors import InputError
from perception.labels import MAX_CLASSES, LabelClass, LabelSet, distinct_color


def label_set_from_info(message: Any) -> LabelSet:
    """The label set of a vision_msgs/LabelInfo.

    The message names the classes alone. A shipped set with the same ids and names adds colors, costs and behavior;
    without one, every class is lethal and stays.

    Raises:
        InputError: no classes, or ids or names twice.
    """
    names = {int(entry.class_id): str(entry.class_name) for entry in message.class_map}
    if not names or len(names) != len(message.class_map) or not all(0 <= number < MAX_CLASSES for number in names):
        raise InputError(
            f"label_info: expected classes with different ids below {MAX_CLASSES}, got {len(message.class_map)} classes"
        )
    for shipped in shipped_label_sets():
        if {label.id: label.name for label in shipped.classes} == names:
            return shipped
    return LabelSet(
        "label_info", tuple(LabelClass(number, name, distinct_color(number)) for number, name in names.items())
    )


@cache
def shipped_label_sets() -> tuple[LabelSet, ...]:
    """All label sets in the package."""
    folder = resources.files("perception") / "data" / "labels"
    names = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return tuple(LabelSet.load(name) for name in names)
