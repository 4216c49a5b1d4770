# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from perception.cli import bench_memory
from perception.cli.main import main
from perception.simulation.boxes import synthetic_room_frames
from perception.sources.bag_writer import write_bag


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "room"
    write_bag(path, synthetic_room_frames(3, 160, 120))
    return path


def measure(bag, *more):
    # Without labels: pixels to compare with the truth are remembered up to a bound that so short a run does not reach.
    run = ["--labels", "none", "--seconds", "10", "--rate", "20"]
    return main(["bench", "memory", "--frames", str(bag), *run, *more])


def test_bench_memory_prints_the_memory_on_the_way_and_writes_its_curve(bag, tmp_path, capsys):
    assert measure(bag, "--output", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "3 frames repeated, labels: none, 200 frames of 20 Hz" in printed
    assert "| 100 % | 200 |" in printed
    result = json.loads((tmp_path / "bench_memory.json").read_text())
    assert [sample["frame"] for sample in result["curve"]] == list(range(1, 201))
    assert result["replay"]["frames"] == 200
    assert result["replay"]["recording_seconds"] == pytest.approx(9.95)


def test_memory_that_grows_is_a_failure(bag, monkeypatch, capsys):
    hoard = []
    copy = bench_memory._again

    def leaking(*arguments):
        for frame in copy(*arguments):
            hoard.append(np.ones(2_000_000, np.uint8))
            yield frame

    monkeypatch.setattr(bench_memory, "_again", leaking)
    assert measure(bag) == 1
    assert "MISSED" in capsys.readouterr().out


def test_a_run_too_short_to_tell_is_refused(capsys):
    assert main(["bench", "memory", "--seconds", "1"]) == 1
    assert "at least 100 frames" in capsys.readouterr().err
