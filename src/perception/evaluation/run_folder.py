# SPDX-License-Identifier: Apache-2.0
"""The folder that an evaluation leaves behind: names of its files, and how they are written and read.

A run is complete where ``summary.json`` is, which is written last. A folder of several runs has ``evaluation.json`` (or
``sweep.json``) that names them. Until these are written, ``begun.json`` tells that the folder is an evaluation's.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np

from perception.errors import InputError
from perception.evaluation.run_key import fingerprint

FORMAT = 1
SUMMARY, FRAMES, PATH, CONFUSION = "summary.json", "frames.csv", "path.csv", "confusion.csv"
EVALUATION, SWEEP, CELLS, WORST = "evaluation.json", "sweep.json", "cells", "worst"
BEGUN = "begun.json"
MAP, BINARY_MAP, TRUE_VOXELS = "map.ot", "map.bt", "map_truth.npz"
COSTMAP, TRUE_COSTMAP, CONFIG = "costmap.yaml", "costmap_truth.yaml", "config.yaml"
PICTURES = ("octree_top.png", "octree_angle.png", "costmap_path.png")
REPORTS = (
    "report.html", "report.json", "report.md", "report_scalars.csv", "report_classes.csv", "report_frames.csv",
    "report_means.csv", "report_differences.csv",
)  # fmt: skip
OF_A_RUN = (
    FRAMES, PATH, CONFUSION, MAP, BINARY_MAP, TRUE_VOXELS, CONFIG, COSTMAP, "costmap.pgm", TRUE_COSTMAP,
    "costmap_truth.pgm", *PICTURES, *REPORTS,
)  # fmt: skip
"""What an earlier run may have left beside its summary. Exact names: Nav2's files are called costmap_something, too."""
WORST_FRAMES = f"{WORST}/[0-9][0-9][0-9]_*.png"
HOLDERS = {
    SUMMARY: "an evaluation of one recording",
    EVALUATION: "an evaluation of several recordings",
    SWEEP: "a sweep",
}
"""What a folder holds that has one of these files."""
MAX_JSON_BYTES = 1 << 26
FRAME_COLUMNS = (
    "index", "stamp_ns", "dropped", "pixel_accuracy", "mean_iou", "confidence", "single_accuracy", "fused_accuracy",
    "fused_mean_iou", "points", "read_ms", "prepare_ms", "segment_ms", "cloud_ms", "insert_ms", "costmap_ms",
    "frame_ms", "rss_mb", "map_mb", "x", "y", "z",
)  # fmt: skip
_Kind = TypeVar("_Kind")
PATH_COLUMNS = ("stamp_ns", "x", "y", "z", "qx", "qy", "qz", "qw")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        summary: ``summary.json``.
        frames: rows of ``frames.csv``: numbers as numbers, empty cells as None.
    """

    path: Path
    summary: dict[str, Any]
    frames: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Short name of the source."""
        return str(self.summary.get("name", self.path.name))

    def scalar(self, name: str) -> float | None:
        """A headline number; None where it was not scored."""
        return self.summary.get("scalars", {}).get(name, {}).get("value")


def load_run(path: str | Path, frames: bool = True) -> Run:
    """Read a run folder.

    Raises:
        InputError: not one, not complete, or of another format.
    """
    path = Path(path)
    if not (path / SUMMARY).is_file():
        raise InputError(f"{path}: expected the folder of a finished evaluation ({SUMMARY}), found none")
    summary = read_json(path / SUMMARY)
    if summary.get("format") != FORMAT:
        raise InputError(f"{path / SUMMARY}: expected format {FORMAT}, got {summary.get('format')!r}")
    _check_scalars(summary.get("scalars", {}), path / SUMMARY)
    return Run(path, summary, read_rows(path / FRAMES) if frames and (path / FRAMES).is_file() else [])


def _check_scalars(scalars: Any, path: Path) -> None:
    for name, entry in _strictly(scalars, dict, path, "scalars").items():
        value = _strictly(entry, dict, path, f"scalar {name}").get("value")
        if value is None:
            continue
        # Not math.isfinite: of an integer beyond all floats it raises.
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and abs(value) <= sys.float_info.max):
            raise InputError(f"{path}: expected a number as value of scalar {name}, got {value!r:.100}")


def find_runs(path: str | Path) -> list[Path]:
    """The run folders in a folder: itself, those of an evaluation of several sources, or a sweep's finished cells.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if (path / SUMMARY).is_file():
        return [path]
    names: list[str] = []
    if (path / EVALUATION).is_file():
        names = _listed(path / EVALUATION, "runs", str)
    elif (path / SWEEP).is_file():
        cells = _listed(path / SWEEP, "cells", dict)
        names = [str(cell.get("folder")) for cell in cells if cell.get("status") == "done"]
    found = [path / name for name in names if (path / name / SUMMARY).is_file()]
    if not found or any(path.resolve() not in run.resolve().parents for run in found):
        raise InputError(f"{path}: expected the folder of an evaluation or of a sweep, found no finished run in it")
    return found


def find_failures(path: str | Path) -> list[tuple[str, str]]:
    """What an evaluation of several recordings, or a sweep, could not evaluate: what, and why.

    Raises:
        InputError: the file that says so is damaged.
    """
    path = Path(path)
    if (path / SUMMARY).is_file():
        return []
    if (path / EVALUATION).is_file():
        failed = _of_kind(read_json(path / EVALUATION).get("failed"), dict, path / EVALUATION, "failed")
        return [(str(source), str(error)) for source, error in failed.items()]
    cells = _listed(path / SWEEP, "cells", dict) if (path / SWEEP).is_file() else []
    found = []
    for cell in cells:
        if cell.get("status") == "failed":
            parameters = _of_kind(cell.get("parameters"), dict, path / SWEEP, "a cell's parameters")
            values = [f"{name}={value}" for name, value in parameters.items()]
            what = ", ".join([str(cell.get("source")), str(cell.get("network")), *values])
            found.append((what, str(cell.get("error"))))
    return found


def claim_folder(folder: Path, marker: str, recording: Path | None = None) -> None:
    """Make a folder for results, and see that nothing in it would be mixed up with them or lost to them.

    Args:
        folder: where they go.
        marker: which file will say what the folder holds: ``SUMMARY``, ``EVALUATION`` or ``SWEEP``.
        recording: of a run.

    Raises:
        InputError: it cannot be made or written to, holds results of another kind or recording, or something else.
    """
    for other, what in HOLDERS.items():
        if other != marker and (folder / other).is_file():
            raise InputError(
                f"{folder}: expected a new folder, or one with {HOLDERS[marker]}; it holds {what} ({other})"
            )
    if folder.is_dir() and not _is_own(folder, marker):
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if others:
            raise InputError(
                f"{folder}: expected a new or empty folder, or one with {HOLDERS[marker]}; it holds {others[0]} and no "
                f"such results"
            )
    if recording is not None and (folder / SUMMARY).is_file():
        _check_recording(folder, recording)
    make_writable(folder)


def expect_outside(folder: Path, recordings: Iterable[Path]) -> None:
    """See that results do not go into a recording, which would be another one then: every file in it counts.

    Raises:
        InputError: the folder is one of the recordings, or in one.
    """
    places = {folder.resolve(), *folder.resolve().parents}
    for recording in recordings:
        if recording.is_dir() and recording.resolve() in places:
            raise InputError(f"{folder}: expected a folder for the results outside of the recording {recording}")


def make_writable(folder: Path) -> None:
    """Make a folder for results where there is none.

    Raises:
        InputError: it cannot be made or written to, or a file has its name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"{folder}: expected a folder for the results, got a file") from error
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: expected a folder that can be written to")


def begin_run(folder: Path) -> None:
    """Remove an earlier run's files, its summary first: it would vouch for the others. ``finish`` ends what begins."""
    begin(folder, SUMMARY)
    for path in (folder / SUMMARY, *(folder / name for name in OF_A_RUN), *folder.glob(WORST_FRAMES)):
        path.unlink(missing_ok=True)


def begin_evaluation(folder: Path) -> None:
    """Remove what an earlier evaluation of several recordings says of them together; their run folders stay."""
    begin(folder, EVALUATION)
    for name in (EVALUATION, *REPORTS):
        (folder / name).unlink(missing_ok=True)


def begin(folder: Path, marker: str) -> None:
    """Mark a claimed folder as one whose results are not finished, so that the next attempt may have it."""
    write_json(folder / BEGUN, {"format": FORMAT, "begun": marker})


def finish(folder: Path, marker: str, data: Any) -> None:
    """Write the file that says what the folder holds, and that it is finished."""
    write_json(folder / marker, data)
    (folder / BEGUN).unlink(missing_ok=True)


def _is_own(folder: Path, marker: str) -> bool:
    """Whether a folder holds results of that kind, finished or begun; files of others may have the same name."""
    try:
        if (folder / marker).is_file():
            return "format" in read_json(folder / marker)
        return (folder / BEGUN).is_file() and read_json(folder / BEGUN).get("begun") == marker
    except InputError:
        return False


def _check_recording(folder: Path, recording: Path) -> None:
    """See that the run in a folder is of this recording: of its place, or of its contents wherever they are now.

    Raises:
        InputError: it is of another one.
    """
    summary = read_json(folder / SUMMARY)
    source = summary.get("source")
    source = source if isinstance(source, dict) else {}
    known = Path(str(source.get("path", "")))
    # A path that is not absolute could mean anything by now.
    if known.is_absolute() and known.resolve() == recording.resolve():
        return
    if source.get("fingerprint") != fingerprint(recording):
        raise InputError(
            f"{folder}: expected a new folder, or an evaluation of {recording}; it holds one of "
            f"{summary.get('name')!r} ({known})"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: missing, too large, or something else.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{path}: expected at most {MAX_JSON_BYTES} bytes, got {path.stat().st_size}")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object, got {type(data).__name__}")
    return data


def _listed(path: Path, name: str, kind: type[_Kind]) -> list[_Kind]:
    """The entries of a list in a JSON file, which must be of that kind; none where it is missing."""
    entries = _of_kind(read_json(path).get(name), list, path, name)
    return [_of_kind(entry, kind, path, f"an entry of {name}") for entry in entries]


def _of_kind(value: Any, kind: type[_Kind], path: Path, name: str) -> _Kind:
    return kind() if value is None else _strictly(value, kind, path, name)


def _strictly(value: Any, kind: type[_Kind], path: Path, name: str) -> _Kind:
    if not isinstance(value, kind):
        raise InputError(f"{path}: expected {name} to be a {kind.__name__}, got {type(value).__name__}")
    return value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file with numbers as numbers and empty cells as None."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def write_json(path: Path, data: Any) -> None:
    """Write plain values, whole or not at all; numbers that are not finite become null."""
    # Reading runs and comparing them needs no map: its kernels stay away.
    from perception.atomic_file import atomic_write

    atomic_write(path, [f"{json.dumps(plain(data), indent=2)}\n".encode()])


def plain(value: Any) -> Any:
    """Values as JSON knows them: NumPy's numbers and arrays unpacked, null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


class RowWriter:
    """A CSV file that grows row by row and appears under its name when it is closed; a context manager.

    Args:
        path: the file.
        columns: names of the columns.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._file: TextIO = self._part.open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, columns, restval="", lineterminator="\n")
        self._writer.writeheader()

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row; what is None or not finite is left empty."""
        self._writer.writerow({name: _text(value) for name, value in row.items()})

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._file.close()
        if error is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)


def fill_frames(path: Path, values: Mapping[int, Mapping[str, Any]]) -> None:
    """Write what became known later into ``frames.csv``, row by row: values of columns by number of the frame."""
    with path.open(encoding="utf-8", newline="") as file, RowWriter(path, FRAME_COLUMNS) as writer:
        for row in csv.DictReader(file):
            writer.write({**row, **values.get(int(row["index"]), {})})


def _text(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.7g}" if isinstance(value, float | np.floating) else value


def _value(text: str | None) -> Any:
    if text is None or text == "":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
