# SPDX-License-Identifier: Apache-2.0
"""``perception sweep`` over a small bag, with processes that are killed."""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from perception.cli.main import main
from perception.errors import InputError
from perception.evaluation.run_folder import find_runs, load_run, read_rows
from perception.labels import LabelSet
from perception.simulation.boxes import synthetic_room_frames
from perception.sources.bag_writer import write_bag
from perception.sweep import Plan
from perception.types import LabelImage

ONCE = "PERCEPTION_TEST_KILL"
"""Environment variable with the file that a process leaves before it kills itself."""


class Floor:
    """Says floor everywhere; its process is killed the first time that it looks."""

    name, device, label_set = "floor", "cpu", LabelSet.load("ade20k32")

    def __call__(self, rgb):
        mark = Path(os.environ[ONCE])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return LabelImage.certain(np.full(rgb.shape[:2], 4, np.int32), self.label_set)

    def warm_up(self):
        return None


def build(device="cpu"):
    return Floor()


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "room"
    write_bag(path, synthetic_room_frames(3, 64, 48))
    return path


@pytest.fixture
def importable(monkeypatch, tmp_path):
    """Lets processes of their own import this file."""
    paths = [str(Path(__file__).parent), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(os.path.abspath(path) for path in paths))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv(ONCE, str(tmp_path / "killed"))


def plan(tmp_path, bag, **more):
    path = tmp_path / "sweep.yaml"
    data = {"sources": [os.path.relpath(bag, tmp_path)], "labels": "truth", "scores": {"held_out_every": 0}, **more}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def test_grid_is_every_combination_and_keys_tell_them_apart(tmp_path, bag):
    path = plan(tmp_path, bag, parameters={"octomap.resolution": [0.05, 0.1], "cloud.stride": [1, 2]})
    cells = Plan.load(path).cells()
    found = [(cell.config.octomap.resolution, cell.config.cloud.stride) for cell in cells]
    assert found == [(0.05, 1), (0.05, 2), (0.1, 1), (0.1, 2)]
    assert len({cell.key for cell in cells}) == 4
    assert [cell.key for cell in Plan.load(path).cells()] == [cell.key for cell in cells]
    other = plan(tmp_path, bag, parameters={"octomap.resolution": [0.05]}, settings={"octomap.max_label_score": 20})
    assert Plan.load(other).cells()[0].key not in {cell.key for cell in cells}


def test_sweep_runs_cells_and_a_second_time_only_what_is_left(tmp_path, bag, capsys):
    output = tmp_path / "out"
    path = plan(tmp_path, bag, parameters={"octomap.resolution": [0.1]})
    assert main(["sweep", str(path), "--output", str(output)]) == 0
    (first,) = find_runs(output)
    before = (first / "summary.json").stat().st_mtime_ns
    path = plan(tmp_path, bag, parameters={"octomap.resolution": [0.1, 0.2]})
    assert main(["sweep", str(path), "--output", str(output), "--list"]) == 0
    assert "2 cells, 1 finished before" in capsys.readouterr().out
    assert main(["sweep", str(path), "--output", str(output), "--jobs", "2"]) == 0
    assert (first / "summary.json").stat().st_mtime_ns == before
    assert len(find_runs(output)) == 2
    rows = read_rows(output / "sweep.csv")
    assert [row["octomap.resolution"] for row in rows] == [0.1, 0.2]
    assert rows[0]["voxels.occupied"] > rows[1]["voxels.occupied"] > 0


def test_process_that_is_killed_is_started_again_and_loses_nothing(tmp_path, bag, importable):
    output = tmp_path / "out"
    path = plan(tmp_path, bag, labels="network", networks=["test_sweep:build"])
    assert main(["sweep", str(path), "--output", str(output)]) == 0
    assert (tmp_path / "killed").exists()
    (run,) = find_runs(output)
    assert load_run(run).summary["source"]["frames"] == 3


def test_cell_that_fails_says_why_and_the_others_are_done(tmp_path, bag, capsys):
    output = tmp_path / "out"
    path = plan(tmp_path, bag, labels="network", networks=["none", "no_such_network"])
    assert main(["sweep", str(path), "--output", str(output)]) == 1
    cells = json.loads((output / "sweep.json").read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["done", "failed"]
    assert "no_such_network" in cells[1]["error"]
    assert "failed: room, no_such_network" in capsys.readouterr().out


@pytest.mark.timeout(300)
def test_local_cluster_of_two_workers_loses_nothing_when_one_is_killed(tmp_path, bag, importable):
    pytest.importorskip("ray")
    output = tmp_path / "out"
    more = {"parameters": {"octomap.resolution": [0.1, 0.2, 0.3]}, "networks": ["test_sweep:build"]}
    path = plan(tmp_path, bag, labels="network", **more)
    assert main(["sweep", str(path), "--output", str(output), "--ray", "local", "--jobs", "2"]) == 0
    assert (tmp_path / "killed").exists()
    runs = [load_run(run) for run in find_runs(output)]
    assert sorted(run.summary["parameters"]["octomap.resolution"] for run in runs) == [0.1, 0.2, 0.3]
    assert all(run.summary["source"]["frames"] == 3 and (run.path / "map.ot").is_file() for run in runs)


def test_a_cluster_that_does_not_start_is_one_sentence(tmp_path, bag, monkeypatch, capsys):
    def init(**options):
        raise Exception("The current node timed out\nduring startup")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init, exceptions=SimpleNamespace(RayError=OSError))
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ray.exceptions)
    assert main(["sweep", str(plan(tmp_path, bag)), "--output", str(tmp_path / "out"), "--ray", "local"]) == 1
    assert "perception: Ray cluster local: cannot be reached (The current node timed out)" in capsys.readouterr().err


def test_a_folder_of_recordings_stands_for_those_in_it(tmp_path):
    for count, name in enumerate("ba", 1):
        write_bag(tmp_path / "day" / name, synthetic_room_frames(count, 64, 48))
    cells = Plan.load(plan(tmp_path, tmp_path / "day", parameters={"cloud.stride": [1, 2]})).cells()
    assert [cell.source.name for cell in cells] == ["a", "a", "b", "b"]


def test_a_sweep_keeps_out_of_the_folder_of_an_evaluation(tmp_path, bag, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "evaluation.json").write_text("{}")
    assert main(["sweep", str(plan(tmp_path, bag)), "--output", str(output)]) == 1
    assert "it holds an evaluation of several recordings" in capsys.readouterr().err
    assert not (output / "sweep.json").exists()


def test_results_of_a_sweep_do_not_go_into_a_recording(tmp_path, bag, capsys):
    assert main(["sweep", str(plan(tmp_path, bag)), "--output", str(bag / "out")]) == 1
    assert "expected a folder for the results outside of the recording" in capsys.readouterr().err
    assert not (bag / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sources": []}, "expected 'sources'"),
        ({"sources": ["absent"]}, "no such file"),
        ({"parameter": {}}, "expected 'sources' and some of"),
        ({"parameters": {"octomap.resolution": 0.1}}, "expected octomap.resolution to be a list"),
        ({"parameters": {"octomap.resolutoin": [0.1]}}, "resolutoin"),
        ({"networks": "default"}, "expected networks to be a list"),
        ({"scores": {"worts": 1}}, "worts"),
        ({"labels": "mine"}, "expected one of"),
    ],
)
def test_wrong_plans_are_refused_by_name(more, message, tmp_path, bag):
    with pytest.raises(InputError, match=message):
        Plan.load(plan(tmp_path, bag, **more)).cells()
