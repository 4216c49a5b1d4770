# SPDX-License-Identifier: Apache-2.0
"""Time and memory of a run, in constant space."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

RESERVOIR = 4096
"""Samples kept per stage; percentiles of longer runs are estimated from a uniform sample of this size."""


class StageTimer:
    """Durations of named stages; percentiles over a run of any length.

    Attributes:
        last: the latest duration of each stage, milliseconds.
    """

    def __init__(self) -> None:
        self.last: dict[str, float] = {}
        self._sums: dict[str, float] = {}
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
        self.last[stage] = milliseconds
        self._sums[stage] = self._sums.get(stage, 0.0) + milliseconds
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
        """For each stage: count, and mean, p50, p95, p99 and max in milliseconds."""
        return {
            stage: {
                "count": self._counts[stage],
                "mean_ms": round(self._sums[stage] / self._counts[stage], 3),
                "p50_ms": round(float(np.percentile(samples, 50)), 3),
                "p95_ms": round(float(np.percentile(samples, 95)), 3),
                "p99_ms": round(float(np.percentile(samples, 99)), 3),
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


def resident_memory_mb() -> float:
    """Resident memory of this process now, MB."""
    import psutil

    return psutil.Process().memory_info().rss / 1e6


class Curve:
    """A value over frames in bounded space: when it grows too long, every second sample is given up.

    Args:
        length: most samples kept.
    """

    def __init__(self, length: int = 4096) -> None:
        self._length, self._step, self._count = length, 1, 0
        self._samples: list[tuple[int, float]] = []

    def add(self, value: float) -> None:
        """Add the value of the next frame."""
        if self._count % self._step == 0:
            self._samples.append((self._count, value))
            if len(self._samples) > self._length:
                self._samples, self._step = self._samples[::2], 2 * self._step
        self._count += 1

    def slope(self, per: int = 1000, least: int = 20) -> float | None:
        """Growth per so many frames over the second half, by least squares; None with fewer than ``least`` samples.

        The first half is left out because arrays that are reused grow to their size in it.
        """
        late = np.array(self._samples[len(self._samples) // 2 :], np.float64).reshape(-1, 2)
        return float(np.polyfit(late[:, 0], late[:, 1], 1)[0] * per) if len(late) >= least else None


def reset_peak_memory() -> float:
    """Start a new count of the largest resident memory, where the system can (Linux); the present one, MB."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_memory_mb()
    return _status_mb("VmRSS")


def peak_memory_since_reset_mb() -> float:
    """Largest resident memory since :func:`reset_peak_memory`, MB; of the whole process where that cannot be told."""
    try:
        return _status_mb("VmHWM")
    except OSError:
        return peak_memory_mb()


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{name}:"))
