# SPDX-License-Identifier: Apache-2.0
"""Runs of the same recordings against each other: differences frame by frame, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from perception.evaluation.bootstrap import block_bootstrap_interval
from perception.evaluation.frame_pairs import series_by_frame
from perception.evaluation.scalars import SCALARS, Scalar
from perception.report.runs import ReportRun

HEADLINES = {
    "segmentation.mean_iou": "mIoU, images",
    "segmentation.pixel_accuracy": "pixel accuracy",
    "fusion.single.mean_iou": "mIoU before fusion",
    "fusion.fused.mean_iou": "mIoU fused",
    "map.semantic.mean_iou": "mIoU, voxels",
    "map.occupancy.f1": "F1, occupied",
    "held_out.accuracy": "held-out right",
    "costmap.false_free_rate": "false free rate",
    "detection.coco.AP": "AP, boxes",
    "timing.stages.frame.p50_ms": "frame, median",
    "timing.real_time_factor": "real-time factor",
    "memory.peak_process_mb": "peak memory",
    "memory.map_mb": "map",
}
"""The numbers that stand first, by name of the scalar, and what they are called at the head of a narrow column."""
FRAME_TITLES = {
    "pixel_accuracy": "Pixel accuracy per frame",
    "mean_iou": "Mean IoU per frame",
    "fused_accuracy": "Pixel accuracy of the fused map per frame",
    "fused_mean_iou": "Mean IoU of the fused map per frame",
    "frame_ms": "Time per frame",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of one variant less that of another over the frames, or recordings, that both have.

    Attributes:
        metric: name of the scalar, for frames of the one whose values per frame these are.
        title: of the values.
        unit: of the difference.
        better: "higher", "lower" or "none".
        a: the variant that is compared with.
        b: the variant that is compared.
        sources: recordings that count: both were run on them and have the number.
        pairs: "frames" or "recordings".
        frames: how many of these both have a value for.
        mean_a: mean over these frames.
        mean_b: the same of b.
        difference: mean of b − a.
        low: lower end of its 95 % interval; None with too few pairs.
        high: upper end.
    """

    metric: str
    title: str
    unit: str
    better: str
    a: str
    b: str
    sources: tuple[str, ...]
    pairs: str
    frames: int
    mean_a: float
    mean_b: float
    difference: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Which is better, this one or the first: "better", "worse", "same" or, without an interval, "open"."""
        if self.low is None or self.high is None:
            return "open"
        if self.better == "none" or self.low <= 0 <= self.high:
            return "same"
        return "better" if (self.low > 0) == (self.better == "higher") else "worse"

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**asdict(self), "sources": list(self.sources), "verdict": self.verdict}


def paired_differences(runs: Sequence[ReportRun]) -> list[Difference]:
    """Every variant against the first one: frame by frame where all have the metric, else by recording.

    Of a single recording only what its frames have is compared.
    """
    variants = list(dict.fromkeys(run.variant for run in runs))
    by_place = {(run.variant, run.source): run for run in runs}
    sources = list(dict.fromkeys(run.source for run in runs))
    found = []
    for variant in variants[1:]:
        common = [source for source in sources if (variants[0], source) in by_place and (variant, source) in by_place]
        pairs = [(by_place[variants[0], source], by_place[variant, source]) for source in common]
        for scalar in SCALARS:
            if pairs and (scalar.frame_column or (len(pairs) > 1 and scalar.name in HEADLINES)):
                found.append(_difference(scalar, pairs))
    return [one for one in found if one is not None]


def _difference(scalar: Scalar, pairs: Sequence[tuple[ReportRun, ReportRun]]) -> Difference | None:
    values = series_by_frame(scalar, [(a.run, b.run) for a, b in pairs])
    by_frame = bool(values)
    if by_frame:
        sources = [a.source for (a, _), found in zip(pairs, values, strict=True) if len(found)]
    else:
        known = [(a.source, a.run.scalar(scalar.name), b.run.scalar(scalar.name)) for a, b in pairs]
        counted = [entry for entry in known if None not in entry]
        sources = [source for source, _, _ in counted]
        values = [np.array([pair for _, *pair in counted], np.float64).reshape(-1, 2)]
    both = np.concatenate(values)
    if not len(both) or not (by_frame or len(pairs) > 1):
        return None
    first, second = pairs[0]
    interval = block_bootstrap_interval([pair[:, 1] - pair[:, 0] for pair in values])
    mean_a, mean_b = both.mean(axis=0)
    return Difference(
        scalar.name,
        FRAME_TITLES.get(scalar.frame_column, scalar.title) if by_frame else scalar.title,
        scalar.unit,
        scalar.better,
        first.variant or first.name,
        second.variant or second.name,
        tuple(sources),
        "frames" if by_frame else "recordings",
        len(both),
        float(mean_a),
        float(mean_b),
        float(mean_b - mean_a),
        *(interval or (None, None)),
    )


@dataclass(frozen=True, slots=True)
class Mean:
    """A headline number of a variant, the mean over recordings.

    Attributes:
        metric: name of the scalar.
        variant: network and parameters; empty where all runs have the same.
        value: the mean.
        recordings: over how many: those for which every variant has the number.
    """

    metric: str
    variant: str
    value: float
    recordings: int


def recording_means(runs: Sequence[ReportRun]) -> list[Mean]:
    """Means of the headline numbers over recordings, variant by variant; none for a single recording."""
    variants = list(dict.fromkeys(run.variant for run in runs))
    sources = list(dict.fromkeys(run.source for run in runs))
    if len(sources) < 2:
        return []
    found = []
    for name in HEADLINES:
        known = {(run.variant, run.source): run.run.scalar(name) for run in runs}
        values = {place: value for place, value in known.items() if value is not None}
        common = [one for one in sources if all((variant, one) in values for variant in variants)]
        for variant in variants if common else []:
            mean = sum(values[variant, one] for one in common) / len(common)
            found.append(Mean(name, variant, mean, len(common)))
    return found
