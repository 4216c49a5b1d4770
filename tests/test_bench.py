# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from perception.cli.bench import table
from perception.cli.main import main

pytest.importorskip("octomap")


def test_bench_map_compares_with_octomap_and_writes_table_json_and_plot(tmp_path, capsys):
    arguments = ["bench", "map", "--count", "2", "--passes", "1", "--resolution", "0.1", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert "| OctoMap discretized ms |" in capsys.readouterr().out
    (result,) = json.loads((tmp_path / "bench_map.json").read_text())
    assert result["equal"] is True
    assert result["speedup_discretized"] == pytest.approx(result["octomap_discretized"] / result["ours"])
    assert (tmp_path / "bench_map.png").stat().st_size > 10_000


def test_figures_that_were_not_measured_are_dashes():
    assert "–" in table([{"scans": 1, "points": 5, "resolution": 0.05, "octomap_default": None}]).splitlines()[-1]


def test_no_frames_is_an_error(capsys):
    assert main(["bench", "map", "--count", "0"]) == 1
    assert "--count" in capsys.readouterr().err
