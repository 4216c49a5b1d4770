# SPDX-License-Identifier: Apache-2.0
"""Intervals of means over frames.

Frames of one recording resemble their neighbors, so whole stretches of frames are drawn, not single ones: the moving
block bootstrap (Künsch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 17,
1989). Stretches are as long as the cube root of the number of frames; intervals are percentiles of the resampled means
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
LEAST_FRAMES = 8
"""Fewer frames give no interval."""


def block_bootstrap_interval(
    differences: Sequence[NDArray[np.float64]], resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float] | None:
    """Interval of the mean of differences, by the moving block bootstrap.

    Args:
        differences: one series per recording, in order of time; each is resampled on its own.
        resamples: how many.
        level: share of the resampled means inside of the interval.

    Returns:
        its ends, or None with fewer than ``LEAST_FRAMES`` differences.
    """
    series = [one for one in differences if len(one)]
    total = sum(len(one) for one in series)
    if total < LEAST_FRAMES:
        return None
    rng = np.random.default_rng(0)
    sums = np.zeros(resamples)
    for one in series:
        sums += _block_sums(one, resamples, rng)
    low, high = np.quantile(sums / total, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _block_sums(series: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(resamples,) sums of as many values as the series has, drawn as blocks of neighbors; the last one is cut."""
    length = max(1, round(len(series) ** (1 / 3)))
    cumulative = np.concatenate([[0.0], np.cumsum(series)])
    whole, rest = divmod(len(series), length)
    starts = rng.integers(len(series) - length + 1, size=(resamples, whole))
    sums = (cumulative[starts + length] - cumulative[starts]).sum(axis=1)
    if rest:
        last = rng.integers(len(series) - rest + 1, size=resamples)
        sums += cumulative[last + rest] - cumulative[last]
    return sums
