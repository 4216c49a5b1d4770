# SPDX-License-Identifier: Apache-2.0
"""Scores of found objects against the truth: COCO's average precision and recall, Pascal VOC's mean average precision.

COCO's numbers are those of pycocotools: AP is the mean over IoU thresholds 0.50 to 0.95 in steps of 0.05 and over
classes, with 101 recall levels and at most 100 objects per image; small is below 32² pixels, large above 96² (Lin et
al., Microsoft COCO, 2014, and https://cocodataset.org/#detection-eval). VOC's is the area under the whole
precision-recall curve at IoU 0.5, as from 2010 on (Everingham et al., The Pascal Visual Object Classes Challenge: A
Retrospective, 2015, section 2); boxes are continuous, where its own tool counts whole pixels.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError, MissingDependencyError
from perception.labels import LabelSet
from perception.types import Detections

COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
VOC_IOU = 0.5


@dataclass(frozen=True, slots=True)
class TrueObjects:
    """The objects that are in one image, N of them.

    Attributes:
        boxes: (N, 4) float32, pixels: left, top, right, bottom.
        labels: (N,) integer ids of the detector's label set.
        masks: (N, H, W) bool, or None.
        ignored: (N,) bool: crowds and difficult ones, which need not be found and may be; None: none of them.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.integer]
    masks: NDArray[np.bool_] | None = None
    ignored: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.boxes.shape != (count, 4):
            raise InputError(f"true objects: expected boxes ({count}, 4), got {self.boxes.shape}")
        if self.masks is not None and (self.masks.ndim != 3 or len(self.masks) != count):
            raise InputError(f"true objects: expected masks ({count}, H, W), got {self.masks.shape}")
        if self.ignored is not None and self.ignored.shape != (count,):
            raise InputError(f"true objects: expected ignored ({count},), got {self.ignored.shape}")


class DetectionScores:
    """Collects objects of images and scores them together.

    Args:
        label_set: classes of the detector, in which both sides are given.
        classes: ids that are scored; None: every class that occurs in the truth.
    """

    def __init__(self, label_set: LabelSet, classes: list[int] | None = None) -> None:
        self._label_set, self._classes = label_set, classes
        self._images: list[dict[str, Any]] = []
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._masks, self._found_masks = False, False

    @property
    def images(self) -> int:
        """How many images were added."""
        return len(self._images)

    def add(self, truth: TrueObjects, found: Detections) -> None:
        """Add an image: what is in it and what was found."""
        image = len(self._images) + 1
        masks = truth.masks if truth.masks is not None else found.masks
        height, width = masks.shape[1:] if masks is not None else (0, 0)
        self._images.append({"id": image, "height": height, "width": width})
        ignored = truth.ignored if truth.ignored is not None else np.zeros(len(truth.labels), np.bool_)
        for i in range(len(truth.labels)):
            entry = _entry(image, truth.labels[i], truth.boxes[i], None if truth.masks is None else truth.masks[i])
            entry |= {"id": len(self._truth) + 1, "iscrowd": int(ignored[i])}
            self._truth.append(entry)
        for i in range(len(found)):
            entry = _entry(image, found.labels[i], found.boxes[i], None if found.masks is None else found.masks[i])
            self._found.append(entry | {"score": float(found.scores[i])})
        self._masks |= truth.masks is not None
        self._found_masks |= found.masks is not None

    def summary(self) -> dict[str, Any] | None:
        """``coco`` of boxes, ``masks`` (the same of masks; None where one side has none) and ``voc``.

        None without truth. A number that does not apply (no small object, say) is None.

        Raises:
            MissingDependencyError: pycocotools is not installed.
        """
        ids = self._classes if self._classes is not None else sorted({entry["category_id"] for entry in self._truth})
        if not self._truth or not ids:
            return None
        voc = {i: average_precision(*self._matches(i)) for i in ids}
        known = [value for value in voc.values() if value is not None]
        return {
            "images": len(self._images),
            "objects": sum(entry["category_id"] in ids for entry in self._truth),
            "coco": self._coco("bbox", ids),
            "masks": self._coco("segm", ids) if self._masks and self._found_masks else None,
            "voc": {
                "mAP50": float(np.mean(known)) if known else None,
                "classes": [{"name": self._label_set.name_of(i), "ap": value} for i, value in voc.items()],
            },
        }

    def _coco(self, kind: str, ids: list[int]) -> dict[str, float | None]:
        coco_type, evaluator_type = _pycocotools()
        coco = coco_type()
        coco.dataset = {
            "info": {},
            "images": self._images,
            "annotations": [dict(entry) for entry in self._truth],
            "categories": [{"id": i, "name": self._label_set.name_of(i)} for i in ids],
        }
        # pycocotools tells its progress on the standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
            if not self._found:
                return dict.fromkeys(COCO_NAMES, 0.0)
            found = coco.loadRes([_result(entry, kind) for entry in self._found])
            evaluator = evaluator_type(coco, found, kind)
            evaluator.params.catIds = ids
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        return {name: _known(value) for name, value in zip(COCO_NAMES, evaluator.stats, strict=True)}

    def _matches(self, label: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
        """Scores of a class's objects, which of them are right, and how many there are to find."""
        truth: dict[int, list[dict[str, Any]]] = {}
        for entry in self._truth:
            if entry["category_id"] == label:
                truth.setdefault(entry["image_id"], []).append(entry)
        found = sorted((e for e in self._found if e["category_id"] == label), key=lambda e: -e["score"])
        scores, right, taken = [], [], set()
        for entry in found:
            there = truth.get(entry["image_id"], [])
            overlaps = [box_iou(entry["bbox"], other["bbox"]) for other in there]
            best = int(np.argmax(overlaps)) if overlaps else -1
            hit = best >= 0 and overlaps[best] >= VOC_IOU
            if hit and there[best]["iscrowd"]:
                continue
            scores.append(entry["score"])
            right.append(hit and there[best]["id"] not in taken)
            if hit:
                taken.add(there[best]["id"])
        count = sum(not entry["iscrowd"] for entries in truth.values() for entry in entries)
        return np.array(scores, np.float64), np.array(right, np.bool_), count


def average_precision(scores: NDArray[np.floating], right: NDArray[np.bool_], count: int) -> float | None:
    """Area under the precision-recall curve, each precision raised to the highest at that recall or beyond.

    Args:
        scores: (N,) of the found objects.
        right: (N,) which of them are.
        count: objects to find; None is returned when there are none.
    """
    if count == 0:
        return None
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    recall = hits / count
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def box_iou(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes given as left, top, width, height."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def _entry(image: int, label: Any, box: NDArray[Any], mask: NDArray[np.bool_] | None) -> dict[str, Any]:
    left, top, right, bottom = (float(value) for value in box)
    entry: dict[str, Any] = {"image_id": image, "category_id": int(label)}
    entry["bbox"] = [left, top, right - left, bottom - top]
    entry["area"] = (right - left) * (bottom - top)
    if mask is not None:
        entry["segmentation"], entry["area"] = _encode(mask), float(mask.sum())
    return entry


def _result(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    shape = "bbox" if kind == "bbox" else "segmentation"
    return {name: entry[name] for name in ("image_id", "category_id", "score", shape) if name in entry}


def _encode(mask: NDArray[np.bool_]) -> Any:
    import importlib

    _pycocotools()
    return importlib.import_module("pycocotools.mask").encode(np.asfortranarray(mask.astype(np.uint8)))


def _pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingDependencyError(
            f"scores of detections need pycocotools: pip install 'perception[evaluation]' ({error})"
        ) from error
    return COCO, COCOeval


def _known(value: Any) -> float | None:
    """Pycocotools says −1 where a number does not apply."""
    return float(value) if value >= 0 else None
