# SPDX-License-Identifier: Apache-2.0
"""Folders of images with poses: 7-Scenes, TUM RGB-D, Redwood and slambook layouts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import InputError, TransformError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelClass, LabelSet
from perception.sources.base import Source, SourceOptions
from perception.sources.description import (
    FILE_NAME,
    DepthCoding,
    Description,
    Intrinsics,
    LabelCoding,
    load_description,
    shipped_descriptions,
)
from perception.sources.image_files import read_color, read_depth, read_labels
from perception.sources.layouts import FrameFiles, index_folder, recognize
from perception.sources.trajectory import read_matrix, read_tum, rows_of
from perception.types import Frame, LabelImage

INTRINSICS_FILES = ("camera-intrinsics.txt", "camera-intrinsics.color.txt")
KNOWN_LAYOUTS = ("redwood", "slambook")
"""Layouts of one data set each: what they cannot say of themselves ships with the package under their name."""
IMPLAUSIBLE_DEPTH_M = 20.0
"""Indoor depth cameras see less far than this: a larger median means another coding of depth."""

log = logging.getLogger(__name__)


class FolderSource(Source):
    """Frames of a folder of images.

    Args:
        folder: the data set.
        options: ``config`` names its description; ``poses``, ``start_s``, ``duration_s``, ``every``, ``tolerance_s``
            and ``pose_gap_s`` are used, the others are for bags.

    Raises:
        InputError: no known layout, no intrinsics, an implausible coding of depth, no readable first image.
    """

    def __init__(self, folder: Path, options: SourceOptions) -> None:
        super().__init__(folder.name)
        self._description, self.layout = _describe(folder, options)
        index = index_folder(folder, self.layout, self._description, options)
        self._trajectory = read_tum(Path(options.poses), options.pose_gap_s) if options.poses else index.trajectory
        start, end = options.window_ns(index.frames[0].stamp_ns)
        chosen = [f for f in index.frames if f.stamp_ns >= start and (end is None or f.stamp_ns < end)]
        self._files = chosen[:: options.every]
        self._depth_coding = self._description.depth or DepthCoding()
        if self._description.depth is None:
            _check_plausible(folder, index.frames)
        self._camera, self._depth_camera, self._camera_T_depth = _cameras(folder, self._description, index.frames)
        self._labels, self.label_set = _label_coding(self._description.labels, index.label_files)

    @property
    def frame_count(self) -> int:
        """Number of color images chosen."""
        return len(self._files)

    def color_file(self, stamp_ns: int) -> Path | None:
        """The color image of a stamp; None where there is none."""
        return next((files.color for files in self._files if files.stamp_ns == stamp_ns), None)

    def describe(self) -> dict[str, Any]:
        """What the folder holds, as plain values."""
        camera = self._camera
        duration = (self._files[-1].stamp_ns - self._files[0].stamp_ns) / 1e9 if self._files else 0.0
        return {
            "kind": "folder",
            "layout": self.layout,
            "frames": len(self._files),
            "duration_s": duration,
            "width": camera.width,
            "height": camera.height,
            "intrinsics": {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy},
            "labels": None if self.label_set is None else [label.name for label in self.label_set.classes],
        }

    def _frames(self) -> Iterator[Frame]:
        for files in self._files:
            frame = self._frame(files)
            if frame is not None:
                yield frame

    def _frame(self, files: FrameFiles) -> Frame | None:
        """One frame, or None when it was dropped."""
        if files.depth is None:
            return self._drop("no_depth", f"no depth image belongs to {files.color.name}")
        reason = "no_pose"
        try:
            pose = self._pose(files)
            reason = "bad_image"
            color, depth = read_color(files.color), read_depth(files.depth, self._depth_coding)
            reason = "bad_labels"
            labels = self._label_image(files)
            reason = "wrong_size"
            frame = Frame(
                files.stamp_ns,
                color,
                depth,
                self._camera,
                pose,
                self._depth_camera,
                self._camera_T_depth,
                labels,
            )
        except TransformError as error:
            return self._drop(error.reason, error)
        except InputError as error:
            stem = files.color.name.split(".")[0]
            return self._drop(reason, error if stem in str(error) else f"{stem}: {error}")
        if not (depth > 0).any():
            self._warn("empty_depth", f"{files.depth.name}: not one valid depth")
        return frame

    def _pose(self, files: FrameFiles) -> Transform:
        if self._trajectory is not None:
            return self._trajectory.at(files.stamp_ns)
        if isinstance(files.pose, Path):
            return read_matrix(files.pose)
        if files.pose is None:
            raise InputError(f"no pose for {files.color.name}")
        if files.pose.shape == (7,):
            return Transform.from_translation_quaternion(files.pose[:3], files.pose[3:])
        return Transform(files.pose)

    def _label_image(self, files: FrameFiles) -> LabelImage | None:
        if self._labels is None or self.label_set is None:
            return None
        if files.labels is None:
            raise InputError(f"no labels for {files.color.name}")
        return LabelImage.certain(read_labels(files.labels, self._labels), self.label_set)


def _describe(folder: Path, options: SourceOptions) -> tuple[Description, str]:
    """The description of a folder and its layout: the one asked for, the one beside it, or what the layout implies."""
    if options.config is not None:
        description = load_description(options.config)
    elif (folder / FILE_NAME).is_file():
        description = load_description(folder / FILE_NAME)
    else:
        layout = recognize(folder)
        if layout in KNOWN_LAYOUTS:
            log.info("%s: read as %s, as its files look", folder, layout)
            return load_description(layout), layout
        # The format fixes 5000 units per meter; everything else it leaves to the sequence.
        return Description(layout=layout, depth=DepthCoding(5000.0, invalid=(0,)) if layout == "tum" else None), layout
    return description, description.layout or recognize(folder)


def _check_plausible(folder: Path, frames: list[FrameFiles]) -> None:
    """Refuse a folder whose depth makes no sense in millimeters, judged by its first readable image."""
    for files in frames:
        if files.depth is None:
            continue
        try:
            depth = read_depth(files.depth, DepthCoding())
        except InputError:
            continue
        valid = depth[depth > 0]
        if len(valid) == 0:
            continue
        median = float(np.median(valid))
        if median > IMPLAUSIBLE_DEPTH_M:
            raise InputError(
                f"{folder}: depth read as millimeters has a median of {median:.1f} m, so it is coded in another way; "
                f"say how in {FILE_NAME} beside it or with --source-config, a file or one of {shipped_descriptions()}"
            )
        return


def _cameras(
    folder: Path, description: Description, frames: list[FrameFiles]
) -> tuple[PinholeCamera, PinholeCamera | None, Transform | None]:
    """Color camera, depth camera and its pose in the color camera's frame."""
    intrinsics = description.intrinsics or _intrinsics_file(folder)
    height, width = _first_size(frames)
    camera = intrinsics.camera(width, height)
    if description.depth_intrinsics is None:
        return camera, None, None
    try:
        matrix = np.asarray(description.camera_T_depth, np.float64).reshape(4, 4)
    except (TypeError, ValueError) as error:
        raise InputError(f"camera_T_depth: expected 4x4 numbers, got {description.camera_T_depth!r}") from error
    return camera, description.depth_intrinsics.camera(width, height), Transform(matrix)


def _first_size(frames: list[FrameFiles]) -> tuple[int, int]:
    """(height, width) of the first color image that can be read."""
    trouble = ""
    for files in frames:
        try:
            return read_color(files.color).shape[:2]
        except InputError as error:
            trouble = trouble or str(error)
    raise InputError(f"no color image can be read: {trouble}")


def _intrinsics_file(folder: Path) -> Intrinsics:
    """Intrinsics from a file of 3×3 (or 4×4, of which the upper left part counts) numbers."""
    path = next((folder / name for name in INTRINSICS_FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(
            f"{folder}: expected {INTRINSICS_FILES[0]}, or intrinsics in {FILE_NAME} or by --source-config; found none"
        )
    try:
        rows = np.array(rows_of(path), np.float64)
    except ValueError as error:
        raise InputError(f"{path}: expected 3x3 numbers ({error})") from error
    if rows.shape not in ((3, 3), (4, 4)):
        raise InputError(f"{path}: expected 3x3 numbers, got {rows.shape}")
    camera = PinholeCamera.from_matrix(rows[:3, :3], 1, 1)
    return Intrinsics(camera.fx, camera.fy, camera.cx, camera.cy)


def _label_coding(described: LabelCoding | None, files: str) -> tuple[LabelCoding | None, LabelSet | None]:
    """How to read the labels; without a description ids are bare numbers, and a mask is object or not."""
    if described is not None:
        return described, described.label_set
    if not files:
        return None, None
    if files == "mask":
        classes = LabelClass(0, "other", (128, 128, 128)), LabelClass(1, "object", (230, 60, 60))
        return LabelCoding(files, values={255: 1}), LabelSet("mask", classes)
    return LabelCoding(files, unlabeled=(255,)), LabelSet.anonymous(range(255), files)
