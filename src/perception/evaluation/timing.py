# SPDX-License-Identifier: Apache-2.0
"""Time and memory of a run, in constant space."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

RESERVOIR = 4096
"""Samples kept per stage; percentiles of longer runs are estimated from a uniform sample of this size."""


class StageTimer:
    """Durations of named stages; percentiles over a run of any length."""

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = {}
        self._counts: dict[str, int] = {}
        self._rng = np.random.default_rng(0)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the wall time of a block to a stage."""
        start = time.perf_counter()
        yield
        self.add(stage, 1e3 * (time.perf_counter() - start))

    def add(self, stage: str, milliseconds: float) -> None:
        """Add one duration."""
        samples = self._samples.setdefault(stage, [])
        count = self._counts[stage] = self._counts.get(stage, 0) + 1
        if len(samples) < RESERVOIR:
            samples.append(milliseconds)
            return
        # Vitter's algorithm R, 1985: every duration stays with the same probability.
        slot = int(self._rng.integers(count))
        if slot < RESERVOIR:
            samples[slot] = milliseconds

    def summary(self) -> dict[str, dict[str, float]]:
        """For each stage: count, p50, p95 and max in milliseconds."""
        return {
            stage: {
                "count": self._counts[stage],
                "p50_ms": round(float(np.percentile(samples, 50)), 3),
                "p95_ms": round(float(np.percentile(samples, 95)), 3),
                "max_ms": round(float(np.max(samples)), 3),
            }
            for stage, samples in self._samples.items()
        }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
