# SPDX-License-Identifier: Apache-2.0
import pytest

from perception.evaluation.timing import RESERVOIR, Curve, StageTimer, peak_memory_mb


def test_percentiles_of_known_durations():
    timer = StageTimer()
    for milliseconds in range(1, 102):
        timer.add("insert", milliseconds)
    assert timer.summary() == {
        "insert": {"count": 101, "mean_ms": 51.0, "p50_ms": 51.0, "p95_ms": 96.0, "p99_ms": 100.0, "max_ms": 101.0}
    }
    assert timer.last == {"insert": 101}


def test_long_runs_stay_in_constant_space_and_keep_the_median():
    timer = StageTimer()
    for i in range(10 * RESERVOIR):
        timer.add("stage", i % 100)
    assert len(timer._samples["stage"]) == RESERVOIR
    assert timer.summary()["stage"]["p50_ms"] == pytest.approx(49.5, abs=3)


def test_peak_memory_grows_with_an_allocation():
    before = peak_memory_mb()
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    assert peak_memory_mb() > before + 50 or before > 200


def test_slope_is_that_of_the_second_half_in_constant_space():
    curve = Curve(length=64)
    for frame in range(10_000):
        curve.add(100.0 if frame < 4000 else 100 + 0.5 * (frame - 4000))
    assert len(curve._samples) <= 64
    assert curve.slope(per=1000) == pytest.approx(500)
    assert Curve().slope() is None
