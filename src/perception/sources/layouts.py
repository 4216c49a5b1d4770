# SPDX-License-Identifier: Apache-2.0
"""The ways in which folders hold frames: for each, a function that lists the files and poses of every frame."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.sources.association import associate
from perception.sources.base import SourceOptions
from perception.sources.description import Description
from perception.sources.trajectory import (
    Trajectory,
    read_pose_rows,
    read_redwood_log,
    read_tum,
    rows_of,
    stamp_from_text,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".pgm", ".ppm")
LABEL_FILES = ("segm", "label", "mask")
"""Where no description names the label files, these are looked for, in this order."""
COLOR_NAME = re.compile(r"frame-(\d{1,12})\.color\.(png|jpg|jpeg)$")


@dataclass(frozen=True, slots=True)
class FrameFiles:
    """Where the parts of one frame are.

    Attributes:
        stamp_ns: time of the color image.
        color: image file.
        depth: image file; None where none belongs to this color image.
        pose: a file of 4×4 numbers, (4, 4) numbers, (7,) numbers tx ty tz qx qy qz qw, or None where a trajectory
            gives it.
        labels: image file or None.
    """

    stamp_ns: int
    color: Path
    depth: Path | None
    pose: Path | NDArray[np.float64] | None = None
    labels: Path | None = None


@dataclass(frozen=True, slots=True)
class FolderIndex:
    """Frames in order of their stamps, the trajectory where poses have stamps of their own, the kind of label files."""

    frames: list[FrameFiles]
    trajectory: Trajectory | None = None
    label_files: str = ""


def recognize(folder: Path) -> str:
    """Name of the layout of a folder.

    Raises:
        InputError: none of the known layouts; the message says what each looks like.
    """
    has_images = (folder / "color").is_dir() and (folder / "depth").is_dir()
    if next(folder.glob("frame-*.color.*"), None) is not None:
        return "7scenes"
    if (folder / "rgb").is_dir() and (folder / "depth").is_dir():
        return "tum"
    if has_images and (folder / "trajectory.log").is_file():
        return "redwood"
    if has_images and (folder / "pose.txt").is_file():
        return "slambook"
    raise InputError(
        f"{folder}: expected a bag (metadata.yaml, *.mcap, *.db3), frame-*.color.png (7-Scenes), rgb/ and depth/ "
        "(TUM), color/, depth/ and trajectory.log (Redwood), or color/, depth/ and pose.txt (slambook); found none of "
        "these"
    )


def index_folder(folder: Path, layout: str, description: Description, options: SourceOptions) -> FolderIndex:
    """List the frames of a folder.

    Raises:
        InputError: the files do not fit the layout, or there is no frame.
    """
    index = INDEXERS[layout](folder, description, options)
    if not index.frames:
        raise InputError(f"{folder}: expected frames in the {layout} layout, found none")
    return index


def _index_7scenes(folder: Path, description: Description, options: SourceOptions) -> FolderIndex:
    del options
    names = {path.name: path for path in folder.iterdir() if path.name.startswith("frame-")}
    colors = sorted((int(match[1]), name) for name in names if (match := COLOR_NAME.match(name)))
    if len({number for number, _ in colors}) != len(colors):
        raise InputError(f"{folder}: expected one color image per frame number, got several")
    kind = description.labels.files if description.labels else _label_files(names)
    frames = []
    for number, name in colors:
        stem = name.split(".", 1)[0]
        frames.append(
            FrameFiles(
                round(number * 1e9 / description.frame_rate),
                names[name],
                names.get(f"{stem}.depth.png"),
                folder / f"{stem}.pose.txt",
                folder / f"{stem}.{kind}.png" if kind else None,
            )
        )
    return FolderIndex(frames, label_files=kind)


def _label_files(names: dict[str, Path]) -> str:
    """Which of the usual label files there are, "" for none."""
    kinds = {name.split(".")[1] for name in names if name.count(".") == 2 and name.endswith(".png")}
    return next((kind for kind in LABEL_FILES if kind in kinds), "")


def _index_tum(folder: Path, description: Description, options: SourceOptions) -> FolderIndex:
    color = _tum_images(folder, "rgb")
    depth = _tum_images(folder, "depth")
    color_ns = np.array([stamp for stamp, _ in color], np.int64)
    depth_ns = np.array([stamp for stamp, _ in depth], np.int64)
    partner = dict(associate(color_ns, depth_ns, round(options.tolerance_s * 1e9)))
    labels: dict[int, Path] = {}
    if description.labels:
        labels = dict(_tum_images(folder, description.labels.files))
    frames = [
        FrameFiles(stamp, path, depth[partner[i]][1] if i in partner else None, None, labels.get(stamp))
        for i, (stamp, path) in enumerate(color)
    ]
    truth = folder / "groundtruth.txt"
    trajectory = None if options.poses else read_tum(truth, options.pose_gap_s)
    return FolderIndex(frames, trajectory, description.labels.files if description.labels else "")


def _tum_images(folder: Path, kind: str) -> list[tuple[int, Path]]:
    """Stamps and files of ``kind.txt``, or of the folder ``kind/`` whose files are named by their stamp."""
    listing = folder / f"{kind}.txt"
    if listing.is_file():
        rows = rows_of(listing)
        if any(len(row) != 2 for row in rows):
            raise InputError(f"{listing}: expected a stamp and a file name per line")
        pairs = [(stamp_from_text(stamp), _inside(folder, name, listing)) for stamp, name in rows]
    else:
        files = _images(folder / kind)
        pairs = [(stamp_from_text(path.stem), path) for path in files]
    return sorted(dict(pairs).items())


def _inside(folder: Path, name: str, listing: Path) -> Path:
    """A file named in a list, which may not lead out of the folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{listing}: expected names of files below {folder}, got {name!r}")
    return folder / name


def _index_redwood(folder: Path, description: Description, options: SourceOptions) -> FolderIndex:
    del options
    poses = read_redwood_log(folder / "trajectory.log")
    color, depth = _paired(folder)
    missing = np.full((4, 4), np.nan)
    return _numbered(color, depth, [poses.get(i, missing) for i in range(len(color))], description)


def _index_slambook(folder: Path, description: Description, options: SourceOptions) -> FolderIndex:
    del options
    poses = read_pose_rows(folder / "pose.txt")
    color, depth = _paired(folder)
    if len(poses) != len(color):
        raise InputError(f"{folder / 'pose.txt'}: expected a line for each of {len(color)} images, got {len(poses)}")
    return _numbered(color, depth, list(poses), description)


def _paired(folder: Path) -> tuple[list[Path], list[Path]]:
    """Color and depth files in the order of their numbers."""
    color, depth = _images(folder / "color"), _images(folder / "depth")
    if len(color) != len(depth):
        raise InputError(f"{folder}: expected as many depth as color images, got {len(depth)} and {len(color)}")
    return color, depth


def _images(folder: Path) -> list[Path]:
    """Image files of a folder, 2 before 10."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(files, key=lambda path: [int(part) if part.isdigit() else part for part in _parts(path.stem)])


def _parts(stem: str) -> list[str]:
    # Text and numbers alternate, text first, so that keys of different files compare part by part.
    return re.split(r"(\d+)", stem)


def _numbered(color: list[Path], depth: list[Path], poses: list[Any], description: Description) -> FolderIndex:
    step = 1e9 / description.frame_rate
    parts = zip(color, depth, poses, strict=True)
    return FolderIndex([FrameFiles(round(i * step), c, d, pose) for i, (c, d, pose) in enumerate(parts)])


INDEXERS: dict[str, Callable[[Path, Description, SourceOptions], FolderIndex]] = {
    "7scenes": _index_7scenes,
    "tum": _index_tum,
    "redwood": _index_redwood,
    "slambook": _index_slambook,
}
