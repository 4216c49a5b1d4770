# SPDX-License-Identifier: Apache-2.0
"""``perception merge``: add map files together."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from perception.errors import InputError


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "merge",
        help="add maps of several robots or recordings together",
        description="Add map files together: log-odds and label scores add within their bounds, as if all scans had "
        "been mapped in one run. A .bt knows free and occupied alone: its voxels count with the lowest and the highest "
        "log-odds, and have no labels.",
    )
    parser.add_argument(
        "map", nargs="+", type=Path, help="map files (.ot, .bt) of one resolution and of the same classes"
    )
    parser.add_argument("--output", required=True, type=Path, help="the merged map: .ot, or .bt for occupancy alone")
    parser.add_argument(
        "--transform",
        action="append",
        default=[],
        metavar="N=X,Y,Z,QX,QY,QZ,QW",
        help="pose of the n-th map (from 1) in the merged one, meters and quaternion; N=X,Y,Z,YAW in degrees will do",
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Read, add, write."""
    from perception.mapping import merge_maps
    from perception.mapping.merging import read_maps
    from perception.mapping.octomap_io import is_binary_file

    if arguments.output.suffix not in (".ot", ".bt"):
        raise InputError(f"--output: expected a file that ends in .ot or .bt, got {arguments.output}")
    transforms = parse_transforms(arguments.transform, len(arguments.map))
    maps = read_maps(arguments.map)
    label_set = _label_set(arguments.map, maps)
    frames = {str(tree.metadata["frame_id"]) for tree in maps if tree.metadata.get("frame_id")}
    if len(frames) > 1 and not arguments.transform:
        raise InputError(f"merge: expected maps of one frame or --transform, got frames {sorted(frames)}")
    merged = merge_maps(maps, transforms)
    bounded = [str(path) for path in arguments.map if is_binary_file(path)]
    if arguments.output.suffix == ".bt":
        merged.write_binary(arguments.output)
    else:
        about = {name: value for name, value in merged.metadata.items() if name != "label_set"}
        merged.write(arguments.output, label_set, about)
    for path in bounded:
        print(f"{path} knows free and occupied only: its voxels count with the lowest and the highest log-odds")
    print(f"{len(maps)} maps, {merged.known_voxels():,} known voxels: {arguments.output}")
    return 0


def _label_set(paths: list[Path], maps: list[Any]) -> Any:
    """The classes of all maps that have any; None where none says what they are."""
    from perception.labels import LabelSet

    sets = []
    for path, tree in zip(paths, maps, strict=True):
        if tree.num_classes:
            data = tree.metadata.get("label_set")
            label_set = None if data is None else LabelSet.from_dict(data, f"label set in {path}")
            sets.append((path, label_set))
            if _names(label_set) != _names(sets[0][1]):
                raise InputError(f"{path}: expected the classes of {sets[0][0]}, got others")
    return sets[0][1] if sets else None


def _names(label_set: Any) -> Any:
    return None if label_set is None else [(entry.id, entry.name) for entry in label_set.classes]


def parse_transforms(texts: list[str], count: int) -> list[Any]:
    """``merged_T_map`` of each of ``count`` maps, None where none was given.

    Raises:
        InputError: not a number of a map, a map named twice, or not 4 or 7 numbers.
    """
    from math import cos, isfinite, radians, sin

    from perception.geometry import Transform

    transforms: list[Any] = [None] * count
    for text in texts:
        number, _, values = text.partition("=")
        if not re.fullmatch("[0-9]{1,9}", number) or not 1 <= int(number) <= count:
            raise InputError(f"--transform: expected the number of a map, 1 to {count}, before '=', got {text!r}")
        try:
            numbers = [float(value) for value in values.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 4 and isfinite(numbers[3]):
            half = radians(numbers[3]) / 2
            numbers = [*numbers[:3], 0.0, 0.0, sin(half), cos(half)]
        if len(numbers) != 7:
            raise InputError(f"--transform: expected N=X,Y,Z,YAW or N=X,Y,Z,QX,QY,QZ,QW, got {text!r}")
        if transforms[int(number) - 1] is not None:
            raise InputError(f"--transform: expected one pose for each map, got two for map {number}")
        transforms[int(number) - 1] = Transform.from_translation_quaternion(numbers[:3], numbers[3:])
    return transforms
