# SPDX-License-Identifier: Apache-2.0
"""The runs of a report: what distinguishes them, and which belong together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.evaluation.run_folder import PATH, Run, find_runs, load_run, read_rows
from perception.evaluation.run_identity import differing, recordings, settings
from perception.labels import LabelSet

RUN_COLORS = 8
"""Runs beyond so many take the first colors again; the style sheet has --run-0 to --run-7."""
MAX_RUNS = 5000
MAX_NAMED_PARAMETERS = 4
"""More differing parameters than these are counted in a run's name, not listed."""


@dataclass(frozen=True)
class ReportRun:
    """A run as the report shows it.

    Attributes:
        run: its folder, summary and frames.
        index: place in the report.
        source: short name of the recording, distinct for distinct recordings.
        variant: network and parameters, as far as they differ in this report; equal for runs to be compared over
            several recordings.
        label_set: classes of its map, or None.
    """

    run: Run
    index: int
    source: str
    variant: str
    label_set: LabelSet | None = field(repr=False)
    several_sources: bool = False

    @property
    def summary(self) -> dict[str, Any]:
        """``summary.json``."""
        return self.run.summary

    @property
    def name(self) -> str:
        """What it is called in tables and legends."""
        if not self.variant:
            return self.source
        return f"{self.variant} · {self.source}" if self.several_sources else self.variant

    @property
    def color(self) -> str:
        """The style sheet's name of its color."""
        return f"--run-{self.index % RUN_COLORS}"

    def why_not(self, name: str) -> str:
        """Why the run has no number of that name, as far as it says so."""
        part = {"fusion": "segmentation", "held_out": "held-out scans"}.get(name.split(".")[0], name.split(".")[0])
        parts = (f"{part}:", "classes of voxels:") if name.startswith("map.semantic") else (f"{part}:",)
        reasons = [line for line in self.summary.get("not_scored") or [] if line.startswith(parts)]
        return "; ".join(reasons) or "not scored in this run"

    def path(self) -> NDArray[np.float64]:
        """(N, 3) positions of the camera, meters, map frame."""
        file = self.run.path / PATH
        rows = read_rows(file) if file.is_file() else self.run.frames
        points = [[row.get(axis) for axis in "xyz"] for row in rows]
        known = [point for point in points if all(isinstance(value, int | float) for value in point)]
        return np.asarray(known, np.float64).reshape(-1, 3)

    def file(self, name: str) -> Path | None:
        """A file of the run's folder; None where it is missing, or would lie elsewhere."""
        path = self.run.path / name
        inside = self.run.path.resolve() in path.resolve().parents
        return path if inside and path.is_file() else None


def load_runs(folders: Sequence[Path]) -> list[ReportRun]:
    """The runs in folders of runs, of evaluations or of sweeps.

    Raises:
        InputError: there are none, too many, or one is damaged.
    """
    paths = list(dict.fromkeys(path for folder in folders for path in find_runs(folder)))
    if not 0 < len(paths) <= MAX_RUNS:
        raise InputError(f"report: expected 1 to {MAX_RUNS} runs, got {len(paths)}")
    runs = [load_run(path) for path in paths]
    sources = _distinct(recordings(runs), [run.name for run in runs])
    variants = _variants(runs)
    several = len(set(sources)) > 1
    chosen = zip(runs, sources, variants, strict=True)
    return [
        ReportRun(run, index, source, variant, _label_set(run), several)
        for index, (run, source, variant) in enumerate(_made_distinct(list(chosen)))
    ]


def _distinct(identities: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names, with a number where one is used for different things."""
    order: dict[str, list[str]] = {}
    for identity, name in zip(identities, names, strict=True):
        known = order.setdefault(name, [])
        if identity not in known:
            known.append(identity)
    return [
        name if len(order[name]) == 1 else f"{name} ({order[name].index(identity) + 1})"
        for identity, name in zip(identities, names, strict=True)
    ]


def _made_distinct(runs: list[tuple[Run, str, str]]) -> list[tuple[Run, str, str]]:
    """The same with "run 2" added to the variant of a run that nothing distinguishes from an earlier one."""
    seen: dict[tuple[str, str], int] = {}
    result = []
    for run, source, variant in runs:
        count = seen[source, variant] = seen.get((source, variant), 0) + 1
        result.append((run, source, variant if count == 1 else f"{variant} run {count}".strip()))
    return result


def _variants(runs: Sequence[Run]) -> list[str]:
    choices = [settings(run) for run in runs]
    names = differing(choices)
    return [_variant(choice, names) for choice in choices]


def _variant(setting: Mapping[str, Any], names: Sequence[str]) -> str:
    if not names:
        return ""
    parts = [str(setting["network"])] if "network" in names else []
    parameters = [key for key in names if key != "network"]
    if len(parameters) > MAX_NAMED_PARAMETERS:
        values = json.dumps([setting.get(key) for key in parameters], sort_keys=True)
        return " ".join([*parts, f"parameters {_short_hash(values)}"])
    return " ".join([*parts, *(f"{key.rpartition('.')[2]}={_short(setting.get(key))}" for key in parameters)])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short_hash(value: str) -> str:
    import hashlib

    return hashlib.sha256(value.encode()).hexdigest()[:6]


def _label_set(run: Run) -> LabelSet | None:
    content = run.summary.get("label_set")
    return LabelSet.from_dict(content, f"{run.path}: label set") if content else None


def several_variants(runs: Sequence[ReportRun]) -> bool:
    """Whether some recording was run in more than one way."""
    return len({run.variant for run in runs}) > 1
