# SPDX-License-Identifier: Apache-2.0
"""Files of poses: one matrix, TUM and Redwood trajectories, fixed transforms; and poses between two stamps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from perception.errors import InputError, TransformError
from perception.geometry import Transform
from perception.yaml_text import load_yaml

MAX_TEXT_BYTES = 256 * 1024 * 1024
"""Larger text files are refused: no trajectory is that long."""


@dataclass(frozen=True)
class Trajectory:
    """Poses over time, N of them.

    Attributes:
        stamps_ns: (N,) int64, ascending.
        translations: (N, 3) float64, meters.
        quaternions_xyzw: (N, 4) float64.
        max_gap_ns: poses farther apart than this are not interpolated.
    """

    stamps_ns: NDArray[np.int64]
    translations: NDArray[np.float64]
    quaternions_xyzw: NDArray[np.float64]
    max_gap_ns: int

    def at(self, stamp_ns: int) -> Transform:
        """The pose at a stamp, interpolated between its neighbors; never extrapolated.

        Raises:
            TransformError: before the first pose, after the last one, or in a gap ("pose_gap").
            InputError: a pose next to the stamp is not a rigid transform.
        """
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        if after < len(self.stamps_ns) and self.stamps_ns[after] == stamp_ns:
            return self._pose(after)
        if after == 0:
            early = (int(self.stamps_ns[0]) - stamp_ns) / 1e9
            raise TransformError(f"no pose: {early:.3f} s before the first one", "extrapolation_past")
        if after == len(self.stamps_ns):
            late = (stamp_ns - int(self.stamps_ns[-1])) / 1e9
            raise TransformError(f"no pose: {late:.3f} s after the last one", "extrapolation_future")
        before_ns, after_ns = int(self.stamps_ns[after - 1]), int(self.stamps_ns[after])
        if after_ns - before_ns > self.max_gap_ns:
            gap, limit = (after_ns - before_ns) / 1e9, self.max_gap_ns / 1e9
            raise TransformError(f"no pose: in a gap of {gap:.3f} s, longer than {limit:.3f} s", "pose_gap")
        ratio = (stamp_ns - before_ns) / (after_ns - before_ns)
        return self._pose(after - 1).interpolate(self._pose(after), ratio)

    def _pose(self, index: int) -> Transform:
        return Transform.from_translation_quaternion(self.translations[index], self.quaternions_xyzw[index])


def read_text(path: Path) -> str:
    """Text of a file; InputError when it is missing, not text or absurdly large."""
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise InputError(f"{path}: expected a text file of at most {MAX_TEXT_BYTES >> 20} MB")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error


def stamp_from_text(text: str) -> int:
    """Seconds written in decimal to nanoseconds, exactly (a float has no room for both)."""
    try:
        seconds = Decimal(text)
        # Beyond this a stamp does not fit in 64 bits of nanoseconds.
        if not abs(seconds) < Decimal(2**63) / 10**9:
            raise InputError(f"stamp: expected seconds, got {text!r}")
        return int((seconds * 1_000_000_000).to_integral_value())
    except InvalidOperation as error:
        raise InputError(f"stamp: expected seconds, got {text!r}") from error


def rows_of(path: Path) -> list[list[str]]:
    """Words of each line; empty lines and ``#`` comments left out; commas separate as blanks do."""
    lines = (line.replace(",", " ").split() for line in read_text(path).splitlines())
    return [words for words in lines if words and not words[0].startswith("#")]


def read_matrix(path: Path) -> Transform:
    """A pose written as 4×4 numbers.

    Raises:
        InputError: missing file, not 16 numbers, or not a rigid transform.
    """
    numbers = _floats([word for row in rows_of(path) for word in row], path)
    if len(numbers) != 16:
        raise InputError(f"{path}: expected 4x4 numbers, got {len(numbers)}")
    try:
        return Transform(numbers.reshape(4, 4))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_tum(path: Path, max_gap_s: float = 1.0) -> Trajectory:
    """A trajectory of ``stamp tx ty tz qx qy qz qw`` lines (seconds, meters).

    Lines out of order are sorted; of two with the same stamp the later one counts.

    Raises:
        InputError: missing file, no line, or a line with other than eight numbers.
    """
    rows = rows_of(path)
    for index, row in enumerate(rows):
        if len(row) != 8:
            raise InputError(
                f"{path}: expected 8 numbers (stamp tx ty tz qx qy qz qw), got {len(row)} in row {index + 1}"
            )
    if not rows:
        raise InputError(f"{path}: expected at least one pose, got none")
    stamps = np.array([stamp_from_text(row[0]) for row in rows], np.int64)
    values = _floats([word for row in rows for word in row[1:]], path).reshape(-1, 7)
    return trajectory_of(stamps, values, max_gap_s)


def trajectory_of(stamps_ns: NDArray[np.int64], values: NDArray[np.float64], max_gap_s: float) -> Trajectory:
    """A trajectory from (N,) stamps in any order and (N, 7) values tx ty tz qx qy qz qw."""
    # Reversed first, so that unique keeps the later of two equal stamps.
    unique, index = np.unique(stamps_ns[::-1], return_index=True)
    values = values[::-1][index]
    return Trajectory(unique, values[:, :3], values[:, 3:], round(max_gap_s * 1e9))


def read_redwood_log(path: Path) -> dict[int, NDArray[np.float64]]:
    """A Redwood trajectory: frame number to (4, 4) camera-to-world matrix (not yet checked to be rigid).

    Each pose is a line of three integers, the first of which is the frame, and four lines of four numbers.

    Raises:
        InputError: missing or truncated file.
    """
    rows = rows_of(path)
    if not rows or len(rows) % 5:
        raise InputError(f"{path}: expected 5 lines per pose, got {len(rows)} lines")
    poses = {}
    for start in range(0, len(rows), 5):
        header, matrix = rows[start], rows[start + 1 : start + 5]
        if len(header) != 3 or any(len(row) != 4 for row in matrix) or not header[0].lstrip("-").isdigit():
            raise InputError(f"{path}: expected 3 integers and 4x4 numbers, got another shape at pose {start // 5}")
        poses[int(header[0])] = _floats([word for row in matrix for word in row], path).reshape(4, 4)
    return poses


def read_pose_rows(path: Path) -> NDArray[np.float64]:
    """(N, 7) float64 of ``tx ty tz qx qy qz qw`` lines; InputError for another shape."""
    rows = rows_of(path)
    if not rows or any(len(row) != 7 for row in rows):
        raise InputError(f"{path}: expected lines of 7 numbers (tx ty tz qx qy qz qw)")
    return _floats([word for row in rows for word in row], path).reshape(-1, 7)


def read_extrinsics(path: Path) -> list[tuple[str, str, Transform]]:
    """Fixed transforms from a YAML list of ``{parent, child, translation: [x, y, z], rotation: [x, y, z, w]}``.

    Returns:
        Parent, child and ``parent_T_child`` of each.

    Raises:
        InputError: unreadable file, missing or unknown key, not a rigid transform.
    """
    try:
        data = load_yaml(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({str(error).splitlines()[0]})") from error
    entries = data.get("transforms") if isinstance(data, dict) else data
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a list of transforms, got {type(entries).__name__}")
    return [_extrinsic(entry, path) for entry in entries]


def _extrinsic(entry: Any, path: Path) -> tuple[str, str, Transform]:
    keys = {"parent", "child", "translation", "rotation"}
    if not isinstance(entry, dict) or set(entry) != keys:
        raise InputError(f"{path}: expected transforms with {sorted(keys)}, got {entry!r}")
    try:
        translation = np.asarray(entry["translation"], np.float64).reshape(3)
        transform = Transform.from_translation_quaternion(translation, entry["rotation"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {entry['parent']} to {entry['child']}: {error}") from error
    return str(entry["parent"]), str(entry["child"]), transform


def _floats(words: Sequence[str], path: Path) -> NDArray[np.float64]:
    try:
        return np.array(words, np.float64)
    except ValueError as error:
        raise InputError(f"{path}: expected numbers ({error})") from error
