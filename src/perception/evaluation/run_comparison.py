# SPDX-License-Identifier: Apache-2.0
"""Two evaluations of the same recordings side by side: paired differences, bootstrap intervals, what got worse.

Intervals are of differences between the same frames (or recordings), so that what is hard for both runs cancels out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import InputError
from perception.evaluation.bootstrap import block_bootstrap_interval
from perception.evaluation.frame_pairs import series_by_frame
from perception.evaluation.run_folder import FORMAT, Run, find_runs, load_run
from perception.evaluation.run_identity import differing, recordings, settings
from perception.evaluation.scalars import BY_NAME, HIGHER, LOWER, Scalar


@dataclass(frozen=True, slots=True)
class Comparison:
    """A headline number of two evaluations, the mean over their recordings.

    Attributes:
        name: of the scalar.
        title: for people.
        unit: of a, b, difference, low and high.
        better: "higher", "lower" or "none".
        a: of the first evaluation.
        b: of the second one.
        difference: b − a.
        low: lower end of the 95 % interval of the difference, None where too few pairs are there.
        high: upper end.
        frames: pairs of the interval: frames for numbers that each frame has, else recordings.
        worse: it got worse by more than the margin that was asked for.
        mean_difference: mean of the pairs, which the interval is around; for numbers of frames it can differ from
            ``difference``, in which every pixel counts the same.
    """

    name: str
    title: str
    unit: str
    better: str
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    frames: int
    worse: bool
    mean_difference: float | None = None


def compare_folders(a: str | Path, b: str | Path, margins: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Compare the evaluations in two folders recording by recording.

    Args:
        a: run folder, or folder of several.
        b: the same, of the run to judge.
        margins: by name of a scalar, by how much it may get worse.

    Returns:
        ``format``, ``a``, ``b``, ``pairs`` (name, name_b, a, b), ``unpaired`` (names of recordings that only one has,
        with the folder where other runs of that name were compared) and ``metrics``, as of :class:`Comparison`.

    Raises:
        InputError: no finished run, no common recording, a margin for a number that is unknown, or one for a number or
            a recording that the first evaluation has and the second lacks.
    """
    runs_a, runs_b = ([load_run(path) for path in find_runs(folder)] for folder in (a, b))
    pairs = pair_runs(runs_a, runs_b)
    if not pairs:
        names = [sorted({run.name for run in runs}) for runs in (runs_a, runs_b)]
        raise InputError(
            f"compare: expected evaluations of the same recordings, and of several runs of one with the same network "
            f"and parameters, got {names[0]} and {names[1]}"
        )
    lost, more = (_unpaired(runs, [pair[place] for pair in pairs]) for place, runs in enumerate((runs_a, runs_b)))
    if lost and margins:
        raise InputError(f"compare: expected the recordings of {a} in {b}, too; missing {', '.join(lost)}")
    return {
        "format": FORMAT,
        "a": str(a),
        "b": str(b),
        "pairs": [
            {"name": one.name, "name_b": other.name, "a": str(one.path), "b": str(other.path)} for one, other in pairs
        ],
        "unpaired": sorted(lost + more),
        "metrics": [asdict(entry) for entry in compare_runs(pairs, margins or {})],
    }


def _unpaired(runs: Sequence[Run], paired: Sequence[Run]) -> list[str]:
    """Names of the runs that are not among the paired ones, with the folder where one of these has the same name."""
    places, names = {id(run) for run in paired}, {run.name for run in paired}
    left = [run for run in runs if id(run) not in places]
    return sorted(f"{run.name} ({run.path})" if run.name in names else run.name for run in left)


def pair_runs(a: Sequence[Run], b: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Runs of the same recording by name; of several of one name those with the same network and parameters.

    Of recording, network and parameters counts what differs among the runs of one evaluation, so that two sweeps meet
    cell by cell although something else was changed between them. Where nothing differs, the first meets the first.
    """
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    named: dict[str, tuple[list[Run], list[Run]]] = {}
    for place, runs in enumerate((a, b)):
        for run in runs:
            named.setdefault(run.name, ([], []))[place].append(run)
    return [pair for of_a, of_b in named.values() for pair in _pair_named(of_a, of_b)]


def _pair_named(a: Sequence[Run], b: Sequence[Run]) -> list[tuple[Run, Run]]:
    runs = [*a, *b]
    kinds = [{**settings(run), "recording": which} for run, which in zip(runs, recordings(runs), strict=True)]
    telling = [*differing(kinds[: len(a)]), *differing(kinds[len(a) :])]
    places = [json.dumps([kind.get(name) for name in telling]) for kind in kinds]
    waiting: dict[str, list[Run]] = {}
    for run, place in zip(b, places[len(a) :], strict=True):
        waiting.setdefault(place, []).append(run)
    return [(run, waiting[place].pop(0)) for run, place in zip(a, places, strict=False) if waiting.get(place)]


def compare_runs(pairs: Sequence[tuple[Run, Run]], margins: Mapping[str, float]) -> list[Comparison]:
    """Compare every headline number that both runs of a pair have.

    Raises:
        InputError: as :func:`compare_folders`.
    """
    for name, margin in margins.items():
        scalar = BY_NAME.get(name)
        if scalar is None or scalar.better not in (HIGHER, LOWER):
            known = sorted(known.name for known in BY_NAME.values() if known.better in (HIGHER, LOWER))
            raise InputError(f"metric {name!r}: expected one of {', '.join(known)}")
        if not 0 <= margin < float("inf"):
            raise InputError(f"metric {name}: expected a margin of 0 or more, got {margin}")
    found = [_compare(scalar, pairs, margins.get(scalar.name)) for scalar in BY_NAME.values()]
    result = [entry for entry in found if entry is not None]
    for name in margins:
        lacking = [one.name for one, other in pairs if one.scalar(name) is not None and other.scalar(name) is None]
        if lacking:
            raise InputError(f"metric {name}: expected in both evaluations; was not scored in the second: {lacking}")
    missing = sorted(set(margins) - {entry.name for entry in result})
    if missing:
        raise InputError(f"metric {', '.join(missing)}: expected in both evaluations; was not scored in the first")
    return result


def _compare(scalar: Scalar, pairs: Sequence[tuple[Run, Run]], margin: float | None) -> Comparison | None:
    scored = [(one, other) for one, other in pairs if None not in (one.scalar(scalar.name), other.scalar(scalar.name))]
    if not scored:
        return None
    both = np.array([[run.scalar(scalar.name) for run in pair] for pair in scored], np.float64)
    a, b = both.mean(axis=0).tolist()
    series = [values[:, 1] - values[:, 0] for values in series_by_frame(scalar, scored) or [both]]
    differences = np.concatenate(series)
    low, high = block_bootstrap_interval(series) or (None, None)
    loss = (a - b) if scalar.better == HIGHER else (b - a)
    return Comparison(
        scalar.name,
        scalar.title,
        scalar.unit,
        scalar.better,
        a,
        b,
        b - a,
        low,
        high,
        len(differences),
        # Rounding of a difference must not fail a run that is exactly at the margin.
        margin is not None and loss > margin + 1e-12,
        float(np.mean(differences)),
    )
