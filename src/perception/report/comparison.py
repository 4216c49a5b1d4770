# SPDX-License-Identifier: Apache-2.0
"""Runs of the same recordings against each other: differences frame by frame, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.bootstrap import block_bootstrap_interval
from perception.evaluation.scalars import SCALARS, Scalar
from perception.report.runs import ReportRun

FRAME_TITLES = {
    "pixel_accuracy": "Pixel accuracy per frame",
    "mean_iou": "Mean IoU per frame",
    "frame_ms": "Time per frame",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of one variant less that of another over the frames that both have.

    Attributes:
        metric: name of the scalar whose values per frame these are.
        title: of the values.
        unit: of the difference.
        better: "higher", "lower" or "none".
        a: the variant that is compared with.
        b: the variant that is compared.
        sources: recordings that both were run on.
        frames: how many frames both have a value for.
        mean_a: mean over these frames.
        mean_b: the same of b.
        difference: mean of b − a.
        low: lower end of its 95 % interval; None with too few frames.
        high: upper end.
    """

    metric: str
    title: str
    unit: str
    better: str
    a: str
    b: str
    sources: tuple[str, ...]
    frames: int
    mean_a: float
    mean_b: float
    difference: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Which is better, this one or the first: "better", "worse", or "same" where the interval cannot tell."""
        if self.low is None or self.high is None or self.better == "none" or self.low <= 0 <= self.high:
            return "same"
        return "better" if (self.low > 0) == (self.better == "higher") else "worse"

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**asdict(self), "sources": list(self.sources), "verdict": self.verdict}


def paired_differences(runs: Sequence[ReportRun]) -> list[Difference]:
    """Every variant against the first one, for each metric that frames have."""
    variants = list(dict.fromkeys(run.variant for run in runs))
    by_place = {(run.variant, run.source): run for run in runs}
    sources = list(dict.fromkeys(run.source for run in runs))
    found = []
    for variant in variants[1:]:
        common = [source for source in sources if (variants[0], source) in by_place and (variant, source) in by_place]
        pairs = [(by_place[variants[0], source], by_place[variant, source]) for source in common]
        for scalar in SCALARS:
            if scalar.frame_column and pairs:
                found.append(_difference(scalar, pairs, tuple(common)))
    return [one for one in found if one is not None]


def _difference(
    scalar: Scalar, pairs: Sequence[tuple[ReportRun, ReportRun]], sources: tuple[str, ...]
) -> Difference | None:
    values = [paired_values(a.run.frames, b.run.frames, scalar.frame_column) for a, b in pairs]
    both = np.concatenate(values)
    if not len(both):
        return None
    first, second = pairs[0]
    interval = block_bootstrap_interval([pair[:, 1] - pair[:, 0] for pair in values])
    mean_a, mean_b = both.mean(axis=0)
    return Difference(
        scalar.name,
        FRAME_TITLES.get(scalar.frame_column, scalar.title),
        scalar.unit,
        scalar.better,
        first.variant or first.name,
        second.variant or second.name,
        sources,
        len(both),
        float(mean_a),
        float(mean_b),
        float(mean_b - mean_a),
        *(interval or (None, None)),
    )


def paired_values(
    frames_a: Sequence[dict[str, Any]], frames_b: Sequence[dict[str, Any]], column: str
) -> NDArray[np.float64]:
    """(N, 2) values of a column for the frames, by stamp, that both runs have one for, in the order of the first."""
    other = {row.get("stamp_ns"): row.get(column) for row in frames_b}
    pairs = [(row.get(column), other.get(row.get("stamp_ns"))) for row in frames_a]
    known = [pair for pair in pairs if all(isinstance(value, int | float) for value in pair)]
    return np.asarray(known, np.float64).reshape(-1, 2)
