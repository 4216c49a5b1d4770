# SPDX-License-Identifier: Apache-2.0
"""Class masks from MS COCO's instances (JSON) through pycocotools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.evaluation.coco_file import open_coco
from perception.image_codec import MAX_PIXELS
from perception.labels import LabelClass, LabelSet, distinct_color
from perception.training.config import DataConfig
from perception.training.datasets import COCO_CROWD, Item

CocoData = tuple[list[Item], LabelSet, Callable[[Any], NDArray[np.integer]]]


def coco_items(config: DataConfig, folders: Sequence[Path], name: str) -> CocoData:
    """Images with objects, the label set of the categories, and what paints an image's mask.

    A mask's values are the categories' ids. Pixels of no object are 0, which the label set calls "background"; list 0
    under ``unlabeled`` to leave them out. Crowds have no label. Where objects overlap, the smaller one is in front.

    Raises:
        InputError: no annotations, or they are damaged.
        MissingDependencyError: pycocotools is not installed.
    """
    if not config.annotations:
        raise InputError(f"data set {name}: expected 'annotations', the JSON file of a COCO data set, got none")
    folder = folders[0]
    coco = open_coco(folder / config.annotations, "training")
    labels = LabelSet.load(config.labels) if config.labels else _label_set(coco, name)
    items = []
    for number in sorted(coco.imgs):
        file = str(coco.imgs[number].get("file_name", ""))
        if not file or Path(file).is_absolute() or ".." in Path(file).parts:
            raise InputError(f"{config.annotations}: expected names of files below {folder}, got {file!r}")
        if coco.imgToAnns[number]:
            items.append(Item(folder / config.images / file, int(number)))
    return items, labels, partial(paint, coco)


def _label_set(coco: Any, name: str) -> LabelSet:
    classes = [LabelClass(0, "background", distinct_color(0))] if 0 not in coco.cats else []
    classes += [LabelClass(int(i), str(cat["name"]), distinct_color(int(i))) for i, cat in sorted(coco.cats.items())]
    return LabelSet(name, tuple(classes))


def paint(coco: Any, number: int) -> NDArray[np.uint16]:
    """The mask (H, W) of an image by its number.

    Raises:
        InputError: a polygon or a run-length code that cannot be drawn.
    """
    image = coco.imgs[number]
    height, width = int(image.get("height", 0)), int(image.get("width", 0))
    if not 0 < height * width <= MAX_PIXELS:
        raise InputError(f"COCO image {number}: expected 1 to {MAX_PIXELS} pixels, got {width}x{height}")
    mask = np.zeros((height, width), np.uint16)
    for annotation in sorted(coco.imgToAnns[number], key=lambda entry: -float(entry.get("area", 0))):
        try:
            inside = coco.annToMask(annotation).astype(bool)
            mask[inside] = COCO_CROWD if annotation.get("iscrowd") else int(annotation["category_id"])
        except Exception as error:  # pycocotools' compiled part has no errors of its own
            raise InputError(f"COCO image {number}: an object cannot be drawn ({error})") from error
    return mask
