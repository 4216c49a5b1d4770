# SPDX-License-Identifier: Apache-2.0
"""What a node says about itself: drops by reason, rates, latency, and what is worth an alarm."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from diagnostic_msgs.msg import DiagnosticStatus

from perception.ros import statistics
from perception.ros.diagnostics import assess, report
from perception.ros.statistics import REASONS, WINDOW_S, Statistics


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(statistics, "monotonic", lambda: now[0])
    return now


def test_rates_are_of_the_last_seconds_and_counts_of_all_time(clock):
    counts = Statistics()
    for _ in range(10):
        counts.received("image")
        counts.processed(5_000_000)
    clock[0] += WINDOW_S + 1
    counts.received("image")
    snapshot = counts.snapshot()
    assert snapshot.received == {"image": 11}
    assert snapshot.rates == {"image": 1 / WINDOW_S}
    assert (snapshot.processed, snapshot.processed_rate) == (10, 0.0)


def test_latency_percentiles_are_of_the_samples(clock):
    counts = Statistics()
    for milliseconds in range(1, 102):
        counts.processed(milliseconds * 1_000_000)
    assert counts.snapshot().latency_ms == pytest.approx((51.0, 96.0))


def test_status_names_the_reasons_of_drops_with_their_numbers(clock):
    counts = Statistics()
    counts.received("depth")
    counts.processed(1_000_000)
    counts.dropped("no_tf", "no transform connects 'camera' to 'map'")
    counts.dropped("no_tf", "no transform connects 'camera' to 'map'")
    counts.dropped("sync")
    counts.dropped("superseded")
    level, message = assess(counts.snapshot(), True)
    assert level == DiagnosticStatus.WARN
    assert "2 no_tf, 1 sync" in message
    assert "'camera' to 'map'" in message
    assert "superseded" not in message
    values = report(counts.snapshot())
    assert values["dropped: no_tf"] == "2"
    assert values["dropped: superseded"] == "1"
    assert values["latency p95 (ms)"] == "1.0"


def test_superseded_frames_are_no_fault(clock):
    counts = Statistics()
    counts.received("depth")
    counts.processed(1_000_000)
    counts.dropped("superseded")
    assert assess(counts.snapshot(), True)[0] == DiagnosticStatus.OK


def test_only_drops_is_an_error(clock):
    counts = Statistics()
    counts.received("depth")
    counts.dropped("encoding")
    assert assess(counts.snapshot(), True)[0] == DiagnosticStatus.ERROR


def test_active_node_without_input_is_an_error_after_a_while_and_an_inactive_one_is_not(clock):
    counts = Statistics()
    assert assess(counts.snapshot(), True)[0] == DiagnosticStatus.WARN
    counts.received("depth")
    clock[0] += 4.0
    level, message = assess(counts.snapshot(), True)
    assert (level, message) == (DiagnosticStatus.ERROR, "no input for 4 s")
    assert assess(counts.snapshot(), False) == (DiagnosticStatus.OK, "not active")


def test_stamps_of_another_clock_are_told(clock):
    counts = Statistics()
    counts.received("depth")
    counts.processed(3_600_000_000_000)
    level, message = assess(counts.snapshot(), True)
    assert level == DiagnosticStatus.WARN
    assert "3600 s behind the clock" in message
    assert "use_sim_time" in message


def test_every_reason_has_an_explanation():
    assert all(text for text in REASONS.values())
