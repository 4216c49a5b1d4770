# SPDX-License-Identifier: Apache-2.0
"""The objects that are truly in the images of a recording: from COCO annotations, images of instance ids, or a bag."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.evaluation.class_mapping import ClassMapping
from perception.evaluation.coco_file import open_coco
from perception.evaluation.detection import TrueObjects
from perception.image_codec import MAX_PIXELS
from perception.labels import LabelClass, LabelSet, distinct_color
from perception.sources.recorded_objects import read_objects

NO_INSTANCE = 65535
INSTANCE_NAMES = "instances.json"
LEAST_PIXELS = 64
"""Objects of which fewer pixels are seen need not be found."""
MAX_FILE_BYTES = 1 << 30

ReadObjects = Callable[[Path], TrueObjects | None]
"""The true objects of a color image's file; None where nobody knows them."""
ObjectsAt = Callable[[int], TrueObjects | None]
"""The true objects of the image of a stamp, nanoseconds; None where nobody knows them."""


def object_reader(
    folder: Path, annotations: Path | None, label_set: LabelSet, class_map: Path | None
) -> tuple[ReadObjects, ClassMapping]:
    """How to read the true objects of a folder's images, and how their classes match the detector's.

    Args:
        folder: of the images.
        annotations: COCO's instances (JSON), matched by the names of color files; None reads ``*.instance.png`` beside
            the color images and ``instances.json``.
        label_set: the detector's.
        class_map: mapping file, see :meth:`ClassMapping.build`; None matches by name.

    Raises:
        InputError: no such files, or they are damaged.
    """
    if annotations is not None:
        return _coco_reader(annotations, label_set, class_map)
    return _instance_reader(folder, label_set, class_map)


def bag_object_reader(
    path: Path, topic: str, label_set: LabelSet, class_map: Path | None, tolerance_s: float = 0.0
) -> tuple[ObjectsAt, ClassMapping]:
    """How to find the true objects of a bag's images, and how their classes match the detector's.

    Args:
        path: the bag.
        topic: of vision_msgs/Detection2DArray; empty takes the one that ends in ``ground_truth/detections``.
        label_set: the detector's; its names are the ``class_id`` of the objects.
        class_map: mapping file, see :meth:`ClassMapping.build`; None matches by name.
        tolerance_s: largest difference between the stamps of an image and of its objects.

    Raises:
        InputError: no such topic, or a message of it is damaged.
    """
    recorded = read_objects(path, topic)
    kinds = sorted({name for objects in recorded.values() for name in objects.names})
    if not kinds:
        raise InputError(f"true objects of {path.name}: expected at least one, got none in {len(recorded)} images")
    mapping = ClassMapping.build(_named(kinds, "objects of the bag"), label_set, class_map)
    stamps = np.array(sorted(recorded), np.int64)

    def read(stamp_ns: int) -> TrueObjects | None:
        nearest = int(stamps[np.abs(stamps - stamp_ns).argmin()])
        if abs(nearest - stamp_ns) > tolerance_s * 1e9:
            return None
        objects = recorded[nearest]
        labels = mapping.true_ids(np.array([kinds.index(name) for name in objects.names], np.int64))
        return TrueObjects(objects.boxes[labels >= 0], labels[labels >= 0])

    return read, mapping


def _instance_reader(folder: Path, label_set: LabelSet, class_map: Path | None) -> tuple[ReadObjects, ClassMapping]:
    try:
        entries = json.loads((folder / INSTANCE_NAMES).read_text(encoding="utf-8"))
        names = [str(entry["class"]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / INSTANCE_NAMES}: expected a list of instances with 'class' ({error})") from error
    kinds = sorted(set(names))
    mapping = ClassMapping.build(_named(kinds, "instances"), label_set, class_map)
    classes = np.array([kinds.index(name) for name in names], np.int64)

    def read(color: Path) -> TrueObjects | None:
        path = color.with_name(f"{color.name.split('.')[0]}.instance.png")
        return _from_instances(_read_ids(path), mapping.true_ids(classes)) if path.is_file() else None

    return read, mapping


def _from_instances(ids: NDArray[np.uint16], labels: NDArray[np.int32]) -> TrueObjects:
    """Objects of an image of instance ids; what is no object for the detector is left out."""
    found, counts = np.unique(ids[ids != NO_INSTANCE], return_counts=True)
    if len(found) and found[-1] >= len(labels):
        raise InputError(f"instance image: expected ids below {len(labels)}, got {found[-1]}")
    wanted = labels[found] >= 0
    found, counts = found[wanted], counts[wanted]
    masks = ids[None] == found[:, None, None]
    return TrueObjects(boxes_of(masks), labels[found], masks, counts < LEAST_PIXELS)


def boxes_of(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(N, 4) float32 boxes around (N, H, W) masks, from the left edge of their first pixel to the right of the last."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def _coco_reader(path: Path, label_set: LabelSet, class_map: Path | None) -> tuple[ReadObjects, ClassMapping]:
    coco = open_coco(path, "evaluation", MAX_FILE_BYTES)
    kinds = {int(number): str(entry["name"]) for number, entry in coco.cats.items()}
    truth_set = LabelSet("annotations", tuple(LabelClass(i, name, distinct_color(i)) for i, name in kinds.items()))
    mapping = ClassMapping.build(truth_set, label_set, class_map)
    by_name = {Path(str(image.get("file_name", ""))).name: number for number, image in coco.imgs.items()}

    def read(color: Path) -> TrueObjects | None:
        number = by_name.get(color.name)
        return None if number is None else _from_coco(coco, number, mapping)

    return read, mapping


def _from_coco(coco: Any, number: int, mapping: ClassMapping) -> TrueObjects:
    image = coco.imgs[number]
    if not 0 < int(image.get("height", 0)) * int(image.get("width", 0)) <= MAX_PIXELS:
        raise InputError(f"COCO image {number}: expected its width and height")
    entries = coco.imgToAnns[number]
    labels = mapping.true_ids(np.array([int(entry["category_id"]) for entry in entries], np.int64))
    chosen = np.flatnonzero(labels >= 0)
    try:
        boxes = np.array([entries[i]["bbox"] for i in chosen], np.float32).reshape(-1, 4)
        drawn = all(entries[i].get("segmentation") for i in chosen)
        masks = np.array([coco.annToMask(entries[i]) for i in chosen], np.bool_) if drawn and len(chosen) else None
    except Exception as error:  # pycocotools' compiled part has no errors of its own
        raise InputError(f"COCO image {number}: an object cannot be read ({error})") from error
    boxes[:, 2:] += boxes[:, :2]
    crowd = np.array([bool(entries[i].get("iscrowd")) for i in chosen], np.bool_)
    return TrueObjects(boxes, labels[chosen], masks, crowd)


def _named(names: list[str], what: str) -> LabelSet:
    return LabelSet(what, tuple(LabelClass(i, name, distinct_color(i)) for i, name in enumerate(names)))


def _read_ids(path: Path) -> NDArray[np.uint16]:
    import cv2

    content = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except cv2.error:
        image = None
    if image is None or image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: expected an image of 8 or 16 bit instance ids")
    return image.astype(np.uint16)
