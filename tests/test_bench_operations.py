# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from perception.cli import bench_operations
from perception.cli.main import main
from perception.evaluation.map_figures import Figure


@pytest.fixture
def figures(monkeypatch):
    result = [Figure("queries", 5.0, "ms", 10.0, how="1 point"), Figure("rays", 2.0, "M/s", 1.0, True)]
    monkeypatch.setattr(bench_operations, "_figures", lambda scans, resolution, classes: iter(result))
    return result


def test_bench_operations_prints_each_figure_with_its_bound_and_writes_json(figures, tmp_path, capsys):
    arguments = ["bench", "operations", "--count", "1", "--labels", "none", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert "5.00 ms (≤ 10, met): 1 point" in capsys.readouterr().out
    written = json.loads((tmp_path / "bench_operations.json").read_text())
    assert [figure["name"] for figure in written["figures"]] == ["queries", "rays"]


def test_bench_operations_fails_when_a_bound_is_missed(figures, capsys):
    figures.append(Figure("files", 3.0, "MB/s", 20.0, True))
    assert main(["bench", "operations", "--count", "1", "--labels", "none"]) == 1
    assert "(≥ 20, MISSED)" in capsys.readouterr().out


def test_bench_fuzz_map_reads_damaged_files_and_writes_the_result(tmp_path, capsys):
    assert main(["bench", "fuzz-map", "--mutations", "200", "--output", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "fuzz_map.json").read_text())["mutations"] == 200
    assert '"failures": []' in capsys.readouterr().out
