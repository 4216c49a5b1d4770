# SPDX-License-Identifier: Apache-2.0
"""Data sets of images and class masks on disk: recorded frames, mask folders, Pascal VOC, MS COCO, bare photographs."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.image_codec import decode_compressed
from perception.labels import LabelSet
from perception.models.label_map import LabelMap
from perception.sources.image_files import read_color
from perception.training.config import DataConfig

IGNORED = 255
"""Class of pixels without a label, in masks that are ready for training."""
COCO_CROWD = 65535
"""Value of crowds in the masks that COCO's annotations are painted into."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
DEFAULT_FILES = {"frames": "frame-*.color.*", "images": "**/*", "masks": "*"}
LABEL_NAMES = ("segm", "mask")
_NOT_PHOTOGRAPHS = re.compile(r"\.(depth|segm|instance|mask)\.[a-z]+$")

MaskReader = Callable[[], NDArray[np.integer]]


@dataclass(frozen=True)
class Item:
    """An image file, and its mask: a file, or a COCO image's number."""

    image: Path
    mask: Path | int | None = None


class SegmentationData:
    """Images with masks in the network's classes.

    Args:
        name: for reports.
        config: weight and loss factors.
        items: files.
        table: (65536,) uint8: the network's class by the mask's value, 255 for no label.
        unknown: (65536,) bool: values that mean nothing here.
        read_mask: (H, W) integers by an item's mask.
    """

    def __init__(
        self,
        name: str,
        config: DataConfig,
        items: Sequence[Item],
        table: NDArray[np.uint8],
        unknown: NDArray[np.bool_],
        read_mask: Callable[[Any], NDArray[np.integer]],
    ) -> None:
        if not items:
            raise InputError(f"data set {name}: expected images in {config.path}, found none")
        if config.limit and config.limit < len(items):
            items = [items[i] for i in np.linspace(0, len(items) - 1, config.limit).round().astype(int)]
        self.name = name
        self.config = config
        self.items = list(items)
        self._table = table
        self._unknown = unknown
        self._read_mask = read_mask

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """An image (H, W, 3) uint8 RGB and its mask (H, W) uint8, 255 where there is no label.

        Raises:
            InputError: a file is damaged, sizes differ, or the mask has ids that the label set does not know.
        """
        item = self.items[index]
        image = read_color(item.image)
        if item.mask is None:
            return image, np.full(image.shape[:2], IGNORED, np.uint8)
        stored = self._read_mask(item.mask)
        if stored.shape != image.shape[:2]:
            raise InputError(f"mask of {item.image}: expected {image.shape[:2]} as the image, got {stored.shape}")
        if self._unknown[stored].any():
            values = np.unique(stored[self._unknown[stored]])[:8].tolist()
            raise InputError(
                f"mask of {item.image}: has ids {values} that the label set of {self.name} does not know; "
                "correct 'labels' or list them under 'unlabeled'"
            )
        return image, self._table[stored]


def open_data(config: DataConfig, target: LabelSet) -> SegmentationData:
    """Find the files of a data set and settle how its masks become classes of the network.

    Args:
        config: what and where.
        target: classes of the network; class ``k`` of the masks that leave here is its k-th by ascending id.

    Raises:
        InputError: no such folder, no images, or label sets that do not fit.
        MissingDependencyError: COCO without pycocotools.
    """
    folders = _folders(config.path)
    name = config.name or Path(config.path.rstrip("/")).name
    if config.kind == "coco":
        from perception.training.coco import coco_items

        items, labels, read_mask = coco_items(config, folders, name)
    else:
        items = [item for folder in folders for item in FINDERS[config.kind](folder, config)]
        labels, read_mask = _label_set(config, folders[0], target), read_mask_file
    if config.kind == "images":
        return SegmentationData(name, config, items, *identity_table(0), read_mask)
    if config.kind == "coco":
        config = replace(config, unlabeled=(*config.unlabeled, COCO_CROWD))
    table, unknown = mask_table(labels, target, config, name)
    return SegmentationData(name, config, items, table, unknown, read_mask)


def _folders(pattern: str) -> list[Path]:
    if not pattern:
        raise InputError("data set: expected a path, got none")
    folders = [Path(path) for path in sorted(glob.glob(pattern)) if Path(path).is_dir()]
    if not folders:
        raise InputError(f"data set {pattern}: expected a folder, found none")
    return folders


def _images(folder: Path, pattern: str) -> list[Path]:
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in IMAGE_SUFFIXES and not _NOT_PHOTOGRAPHS.search(path.name)
    )


def _find_frames(folder: Path, config: DataConfig) -> list[Item]:
    """Frames of a recording: ``frame-N.color.png`` with ``frame-N.segm.png`` beside it."""
    items = []
    for image in _images(folder, config.files or DEFAULT_FILES["frames"]):
        stem = image.name.split(".")[0]
        masks = [image.with_name(f"{stem}.{kind}.png") for kind in LABEL_NAMES]
        mask = next((path for path in masks if path.is_file()), None)
        if mask is None:
            raise InputError(f"{image}: expected its mask {masks[0].name} beside it; for photographs take kind: images")
        items.append(Item(image, mask))
    return items


def _find_masks(folder: Path, config: DataConfig) -> list[Item]:
    """Images and masks of the same name, in two folders or side by side (``x.jpg``, ``x.png`` or ``x_mask.png``)."""
    masks = Path(config.masks) if config.masks else folder
    if not masks.is_dir():
        raise InputError(f"data set {folder}: expected a folder of masks at {masks}, found none")
    items = []
    for image in _images(folder, config.files or DEFAULT_FILES["masks"]):
        beside = masks == image.parent
        if beside and (image.stem.endswith("_mask") or (image.suffix == ".png" and _is_mask_of_a_photograph(image))):
            continue
        names = [f"{image.stem}_mask.png"] + ([] if beside and image.suffix == ".png" else [f"{image.stem}.png"])
        mask = next((masks / name for name in names if (masks / name).is_file()), None)
        if mask is None:
            raise InputError(f"{image}: expected its mask {' or '.join(names)} in {masks}, found none")
        items.append(Item(image, mask))
    return items


def _is_mask_of_a_photograph(path: Path) -> bool:
    return any(path.with_suffix(suffix).is_file() for suffix in IMAGE_SUFFIXES if suffix != ".png")


def _find_voc(folder: Path, config: DataConfig) -> list[Item]:
    """Pascal VOC: JPEGImages, SegmentationClass and ImageSets/Segmentation/<split>.txt."""
    listing = folder / "ImageSets" / "Segmentation" / f"{config.split}.txt"
    try:
        names = listing.read_text(encoding="utf-8").split()
    except OSError as error:
        raise InputError(f"{listing}: cannot be read ({error.strerror}); expected a Pascal VOC folder") from error
    if any(Path(name).name != name for name in names):
        raise InputError(f"{listing}: expected names of images, got a path")
    return [Item(folder / "JPEGImages" / f"{name}.jpg", folder / "SegmentationClass" / f"{name}.png") for name in names]


def _find_images(folder: Path, config: DataConfig) -> list[Item]:
    return [Item(path) for path in _images(folder, config.files or DEFAULT_FILES["images"])]


FINDERS: dict[str, Callable[[Path, DataConfig], list[Item]]] = {
    "frames": _find_frames,
    "masks": _find_masks,
    "voc": _find_voc,
    "images": _find_images,
}


def read_mask_file(path: Path) -> NDArray[np.integer]:
    """A mask of one channel, or of a palette (then its indices), as (H, W) integers.

    Raises:
        InputError: missing, damaged, or with colors in place of class ids.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        image = palette_indices(data) if _has_palette(data) else decode_compressed(path.suffix, data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: expected a mask of one channel of class ids, got {image.shape} {image.dtype}")
    return image


def _has_palette(data: bytes) -> bool:
    # PNG's IHDR: color type 3. OpenCV would give the palette's colors.
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[25:26] == b"\x03"


def palette_indices(data: bytes) -> NDArray[np.uint8]:
    """Indices (H, W) of a PNG with a palette, as Pascal VOC's masks are; raises InputError when damaged."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.array(image, np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"the image cannot be decoded ({error})") from error


def _label_set(config: DataConfig, folder: Path, target: LabelSet) -> LabelSet:
    if config.labels:
        return LabelSet.load(config.labels)
    if config.kind == "voc":
        return LabelSet.load("voc21")
    own = folder / "labels.yaml"
    return LabelSet.from_yaml(own) if own.is_file() else target


def identity_table(count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A table that knows ids 0 … count − 1 as they are, and what it does not know."""
    table = np.full(65536, IGNORED, np.uint8)
    table[:count] = np.arange(count)
    return table, np.arange(65536) >= count


def mask_table(
    labels: LabelSet, target: LabelSet, config: DataConfig, name: str
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Look-up tables from a mask's values: the network's class (255 for none), and whether the value is unknown.

    Classes that both sets have by name are taken over; the others need a label map, or their ids stand under
    ``unlabeled``.

    Raises:
        InputError: a class of the data set has no counterpart.
    """
    if len(target) > IGNORED:
        raise InputError(f"label set {target.name!r}: expected at most {IGNORED} classes, got {len(target)}")
    table, unknown = identity_table(0)
    position = {label.name: index for index, label in enumerate(target.classes)}
    for stored, goal in _goals(labels, target, config, name).items():
        unknown[stored] = False
        table[stored] = position[goal] if goal else IGNORED
    for value in config.unlabeled:
        if not 0 <= value < 65536:
            raise InputError(f"data set {name}: expected unlabeled values 0 to 65535, got {value}")
        unknown[value], table[value] = False, IGNORED
    return table, unknown


def _goals(labels: LabelSet, target: LabelSet, config: DataConfig, name: str) -> dict[int, str]:
    """Name of the network's class by id of the mask; empty for no label."""
    known = {label.name for label in target.classes}
    labeled = [label for label in labels.classes if label.id not in config.unlabeled]
    if not config.label_map:
        missing = [label.name for label in labeled if label.name not in known]
        if missing:
            raise InputError(
                f"data set {name}: the network (label set {target.name!r}) has no classes {missing[:8]}; give a "
                "'label_map', or list their ids under 'unlabeled'"
            )
        return {label.id: label.name for label in labeled}
    mapping = LabelMap.load(config.label_map, labels)
    goals = {}
    for label in labeled:
        goal = int(mapping.table[label.id])
        goals[label.id] = mapping.target.name_of(goal) if goal >= 0 else ""
    missing = sorted(set(goals.values()) - known - {""})
    if missing:
        raise InputError(
            f"label map {config.label_map}: the network (label set {target.name!r}) has no classes {missing}"
        )
    return goals
