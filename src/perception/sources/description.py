# SPDX-License-Identifier: Apache-2.0
"""What a folder of images cannot say of itself: coding of depth and labels, intrinsics, frame rate; read from YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from perception.config import from_dict
from perception.errors import InputError
from perception.geometry import PinholeCamera
from perception.labels import UNLABELED, LabelSet
from perception.yaml_text import load_yaml

LAYOUTS = ("7scenes", "tum", "redwood", "slambook")
FILE_NAME = "dataset.yaml"
"""A description of this name in the folder itself is found without being named."""


@dataclass(frozen=True)
class DepthCoding:
    """How 16-bit files hold depth.

    Attributes:
        scale: stored units per meter; 1000 is millimeters.
        bit_rotation: the stored word is turned right by this many bits before it is scaled (3 in the Princeton /
            Amazon challenge format).
        invalid: stored values that mean no measurement.
    """

    scale: float = 1000.0
    bit_rotation: int = 0
    invalid: Sequence[int] = (0, 65535)

    def __post_init__(self) -> None:
        if isinstance(self.scale, bool) or not isinstance(self.scale, (int, float)) or not 0 < self.scale < np.inf:
            raise InputError(f"depth.scale: expected stored units per meter, more than 0, got {self.scale!r}")
        if not isinstance(self.bit_rotation, int) or not 0 <= self.bit_rotation < 16:
            raise InputError(f"depth.bit_rotation: expected 0 to 15, got {self.bit_rotation!r}")
        if not _are_ints(self.invalid, 65535):
            raise InputError(f"depth.invalid: expected a list of values 0 to 65535, got {self.invalid!r}")

    def decode(self, stored: NDArray[np.uint16]) -> NDArray[np.float32]:
        """(H, W) float32 meters; 0 where 0 is stored and invalid, NaN at the other invalid values."""
        # A table of all words: one look-up per pixel instead of shifts, a division and comparisons.
        words = np.arange(65536, dtype=np.uint16)
        if self.bit_rotation:
            words = (words >> self.bit_rotation) | (words << (16 - self.bit_rotation))
        meters = (words / float(self.scale)).astype(np.float32)
        for value in self.invalid:
            meters[value] = 0.0 if value == 0 else np.nan
        return meters[stored]


@dataclass(frozen=True)
class LabelCoding:
    """How label files hold classes.

    Attributes:
        files: the part of the file name before ``.png``: ``segm`` in ``frame-000000.segm.png``.
        label_set: name of a shipped set, a YAML file, or ``{name, classes}`` itself.
        values: stored value to id of the label set; values that are not listed are ids themselves.
        unlabeled: stored values that mean no label.
    """

    files: str = "segm"
    label_set: Any = None
    values: Mapping[int, int] = field(default_factory=dict)
    unlabeled: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping) or not (
            _are_ints(list(self.values), 65535) and _are_ints(list(self.values.values()), 65534)
        ):
            raise InputError(f"labels.values: expected a mapping of stored values to ids, got {self.values!r}")
        if not _are_ints(self.unlabeled, 65535):
            raise InputError(f"labels.unlabeled: expected a list of values 0 to 65535, got {self.unlabeled!r}")

    def decode(self, stored: NDArray[Any]) -> NDArray[np.int32]:
        """(H, W) int32 ids, −1 where unlabeled."""
        table = np.arange(65536, dtype=np.int32)
        for value, label in self.values.items():
            table[value] = label
        for value in self.unlabeled:
            table[value] = UNLABELED
        return table[stored]


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera; width and height of 0 take the size of the first image.

    ``distortion_model`` and ``distortion`` are as in sensor_msgs/CameraInfo.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int = 0
    height: int = 0
    distortion_model: str = "none"
    distortion: Sequence[float] = ()

    def camera(self, width: int, height: int) -> PinholeCamera:
        """The camera, its size as described or else as given here; InputError where the numbers are no camera."""
        try:
            camera = PinholeCamera(
                int(self.width) or width,
                int(self.height) or height,
                float(self.fx),
                float(self.fy),
                float(self.cx),
                float(self.cy),
                str(self.distortion_model),
                tuple(float(value) for value in self.distortion),
            )
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(f"intrinsics: expected numbers ({error})") from error
        if not (0 < camera.cx < camera.width and 0 < camera.cy < camera.height):
            raise InputError(
                f"intrinsics: the principal point ({camera.cx:g}, {camera.cy:g}) lies outside of the "
                f"{camera.width}x{camera.height} image; they belong to another image size"
            )
        return camera


@dataclass(frozen=True)
class Description:
    """What is known of a folder of images beside its files.

    Attributes:
        layout: one of :data:`LAYOUTS`; empty recognizes it from the files.
        depth: coding of depth; None where nobody said, and millimeters are tried.
        intrinsics: of the color camera; None reads the folder's own file.
        depth_intrinsics: of the depth camera where depth is not registered to color, with ``camera_T_depth``.
        camera_T_depth: 4×4 numbers, pose of the depth camera in the color camera's frame.
        labels: coding of the true labels.
        frame_rate: images per second, for folders without stamps.
    """

    layout: str = ""
    depth: DepthCoding | None = None
    intrinsics: Intrinsics | None = None
    depth_intrinsics: Intrinsics | None = None
    camera_T_depth: Any = None
    labels: LabelCoding | None = None
    frame_rate: float = 30.0

    def __post_init__(self) -> None:
        if self.layout and self.layout not in LAYOUTS:
            raise InputError(f"layout: expected one of {list(LAYOUTS)}, got {self.layout!r}")
        rate = self.frame_rate
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1e6:
            raise InputError(f"frame_rate: expected images per second, got {rate!r}")
        if (self.depth_intrinsics is None) != (self.camera_T_depth is None):
            raise InputError("depth_intrinsics and camera_T_depth belong together, got only one of them")


def shipped_descriptions() -> list[str]:
    """Names of the descriptions that ship with the package."""
    folder = resources.files("perception") / "data" / "sources"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_description(name_or_path: str | Path) -> Description:
    """A description that ships with the package, by name, or a YAML file, by path.

    Raises:
        InputError: no such name or file, an unknown key, a wrong value.
    """
    folder = resources.files("perception") / "data" / "sources"
    shipped = folder / f"{name_or_path}.yaml"
    if shipped.is_file():
        return _parse(shipped.read_text(encoding="utf-8"), str(name_or_path), None)
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        names = shipped_descriptions()
        raise InputError(f"source config {str(name_or_path)!r}: expected one of {names} or a path to a .yaml file")
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path), path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"source config {path}: cannot be read ({error})") from error


def load_label_set(coding: LabelCoding, folder: Path | None) -> LabelSet:
    """The label set of a coding; a relative file is looked for beside the description."""
    given = coding.label_set
    if isinstance(given, Mapping):
        return LabelSet.from_dict(dict(given), "labels.label_set")
    if not isinstance(given, str) or not given:
        raise InputError(f"labels.label_set: expected a name, a file or {{name, classes}}, got {given!r}")
    beside = folder / given if folder is not None else None
    return LabelSet.load(beside if beside is not None and beside.is_file() else given)


def _parse(text: str, source: str, folder: Path | None) -> Description:
    try:
        data = load_yaml(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"source config {source}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(data, Mapping):
        raise InputError(f"source config {source}: expected a mapping, got {type(data).__name__}")
    sections = {
        "depth": DepthCoding,
        "intrinsics": Intrinsics,
        "depth_intrinsics": Intrinsics,
        "labels": LabelCoding,
    }
    values = dict(data)
    try:
        for name, cls in sections.items():
            if values.get(name) is not None:
                values[name] = from_dict(cls, values[name], name)
        description = from_dict(Description, values)
        if description.labels is not None:
            label_set = load_label_set(description.labels, folder)
            coding = LabelCoding(**{**vars(description.labels), "label_set": label_set})
            description = Description(**{**vars(description), "labels": coding})
    except (InputError, TypeError) as error:
        raise InputError(f"source config {source}: {error}") from error
    return description


def _are_ints(values: Any, highest: int) -> bool:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        return False
    return all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest for value in values)
