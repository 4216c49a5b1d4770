# SPDX-License-Identifier: Apache-2.0
"""What a node says about itself: drops by reason, rates, latency, and what is worth an alarm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from nav_msgs.msg import OccupancyGrid
from rclpy.parameter import Parameter

from perception.errors import InputError
from perception.ros import statistics
from perception.ros.diagnostics import PERIOD_S, Activity, assess, report
from perception.ros.node_list import DETECTION, nodes
from perception.ros.qos import latched_qos
from perception.ros.report import Reporter
from perception.ros.statistics import REASONS, WINDOW_S, Statistics

ACTIVE = Activity(input_timeout_s=3.0)


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
    level, message = assess(counts.snapshot(), ACTIVE)
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
    assert assess(counts.snapshot(), ACTIVE)[0] == DiagnosticStatus.OK


def test_only_drops_is_an_error(clock):
    counts = Statistics()
    counts.received("depth")
    counts.dropped("encoding")
    assert assess(counts.snapshot(), ACTIVE)[0] == DiagnosticStatus.ERROR


def test_active_node_without_input_is_an_error_after_a_while_and_an_inactive_one_is_not(clock):
    counts = Statistics()
    counts.expect("depth", "/camera/depth/image_raw")
    counts.expect("image", "/robot1/image")
    assert assess(counts.snapshot(), ACTIVE) == (DiagnosticStatus.WARN, "waiting for the first message")
    clock[0] += 2.0
    counts.received("image")
    clock[0] += 2.0
    level, message = assess(counts.snapshot(), ACTIVE)
    assert (level, message) == (DiagnosticStatus.ERROR, "no message on /camera/depth/image_raw (depth) for 4 s")
    clock[0] += 2.0
    assert "; no message on /robot1/image for 4 s" in assess(counts.snapshot(), ACTIVE)[1]
    assert assess(counts.snapshot(), Activity(10.0))[0] == DiagnosticStatus.OK
    assert assess(counts.snapshot(), None) == (DiagnosticStatus.OK, "not active")


def test_topic_that_is_not_expected_may_be_silent(clock):
    counts = Statistics()
    counts.received("label_info")
    clock[0] += 100.0
    assert assess(counts.snapshot(), ACTIVE)[0] == DiagnosticStatus.OK


def test_calibration_needs_to_come_once_only(clock):
    counts = Statistics()
    counts.expect("camera_info", once=True)
    clock[0] += 5.0
    assert assess(counts.snapshot(), ACTIVE) == (DiagnosticStatus.ERROR, "no message on camera_info for 5 s")
    counts.received("camera_info")
    clock[0] += 100.0
    assert assess(counts.snapshot(), ACTIVE)[0] == DiagnosticStatus.OK


def test_publisher_that_cannot_serve_a_topic_is_an_error_at_once_and_explains_the_silence(clock):
    counts = Statistics()
    counts.expect("depth")
    counts.mismatch("depth", "a publisher of depth offers less reliability than is asked for")
    assert assess(counts.snapshot(), ACTIVE) == (
        DiagnosticStatus.ERROR, "a publisher of depth offers less reliability than is asked for",
    )  # fmt: skip
    clock[0] += 5.0
    assert assess(counts.snapshot(), ACTIVE)[1].startswith("no message on depth for 5 s: a publisher of depth offers")
    counts.received("depth")
    assert assess(counts.snapshot(), ACTIVE)[0] == DiagnosticStatus.OK


def test_lasting_fault_is_an_error_until_it_is_over(clock):
    counts = Statistics()
    counts.received("depth")
    counts.fault("odometry", "map to odom jumped by 2.0 m")
    assert assess(counts.snapshot(), ACTIVE) == (DiagnosticStatus.ERROR, "map to odom jumped by 2.0 m")
    counts.fault("odometry")
    assert assess(counts.snapshot(), ACTIVE)[0] == DiagnosticStatus.OK


def test_worker_that_hangs_is_an_error(clock):
    counts = Statistics()
    counts.received("depth")
    assert assess(counts.snapshot(), Activity(3.0, busy_s=12.0)) == (DiagnosticStatus.ERROR, "at one frame for 12 s")


def test_stamps_of_another_clock_are_told(clock):
    counts = Statistics()
    counts.received("depth")
    counts.processed(3_600_000_000_000)
    level, message = assess(counts.snapshot(), ACTIVE)
    assert level == DiagnosticStatus.WARN
    assert "3600 s behind the clock" in message
    assert "use_sim_time" in message


def test_every_reason_has_an_explanation():
    assert all(text for text in REASONS.values())


def test_every_node_is_in_one_group_of_the_aggregator():
    text = (Path(__file__).resolve().parents[2] / "config" / "diagnostics_aggregator.yaml").read_text(encoding="utf-8")
    group = yaml.safe_load(text)["analyzers"]["ros__parameters"]["perception"]
    named = [name for analyzer in group["analyzers"].values() for name in analyzer["contains"]]
    assert sorted(named) == sorted({entry.name for entry in (*nodes(True), *nodes(False), DETECTION)})
    # Stale only after some missing publications.
    assert all(analyzer["timeout"] >= 2 * PERIOD_S for analyzer in group["analyzers"].values())


def test_report_keeps_each_nodes_worst_state_and_last_numbers(nodes, tmp_path):
    node = Reporter(context=nodes.context, parameter_overrides=[Parameter("output", value=str(tmp_path / "new"))])
    nodes.executor.add_node(node)
    try:
        statuses = nodes.offering.create_publisher(DiagnosticArray, "/diagnostics", 10)
        grids = nodes.offering.create_publisher(OccupancyGrid, "semantic_costmap", latched_qos())
        grid = OccupancyGrid(data=[-1, 0, 0, 100])
        grid.info.width, grid.info.height, grid.info.resolution = 2, 2, 0.05
        grids.publish(grid)
        assert nodes.spin_until(statuses.get_subscription_count)
        for level, number in ((DiagnosticStatus.ERROR, "1"), (DiagnosticStatus.OK, "2")):
            values = [KeyValue(key="frames processed", value=number)]
            mine = DiagnosticStatus(level=level, name="a", hardware_id="perception", message=number, values=values)
            statuses.publish(DiagnosticArray(status=[mine, DiagnosticStatus(name="of another")]))
        done = {"worst_level": 2, "worst_message": "1", "values": {"frames processed": "2"}}
        assert nodes.spin_until(lambda: node.report()["nodes"] == {"a": done} and "costmap" in node.report())
    finally:
        nodes.executor.remove_node(node)
        node.destroy_node()
    written = json.loads((tmp_path / "new" / "live.json").read_text())
    assert written["costmap"] == {
        "width": 2, "height": 2, "resolution": 0.05, "unknown": 0.25, "free": 0.5, "lethal": 0.25,
    }  # fmt: skip
    assert written["messages"] == {"semantic_costmap": 1}


def test_report_without_a_folder_is_an_input_error(nodes):
    with pytest.raises(InputError, match="expected a folder"):
        Reporter(context=nodes.context)
